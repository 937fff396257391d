import copy
import dataclasses
import json
import pickle
import subprocess
import sys

import pytest

from meshlib.config import DEFAULT_DOMAINS, Config, EndpointConfig, NodeConfig, ServiceConfig, resolve
from meshlib.errors import ConfigError
from meshlib.model.address import Address

CONTRACT = """
[node]
id = "checkout-7f9"
cluster = "checkout"
region = "eu-1"
zone = "eu-1a"
metadata = { team = "pay" }

[xds]
server = "127.0.0.1:18000"
tls = { ca = "ca.pem", cert = "me.pem", key = "me.key" }
protocol = "auto"
api = "v3"
view = "auto"
last_good = "mesh-last-good.bin"

[services.reviews]
endpoints = ["10.0.0.1:8080", { address = "10.0.0.2:8080", weight = 3, zone = "eu-1b" }]
balancer = "least_request"
timeout = 2.0
retry = { attempts = 3, on = ["5xx", "connect-failure"], per_try_timeout = 0.5, budget = 0.2 }
breaker = { consecutive_failures = 5, open_for = 10.0 }
outlier = { consecutive_5xx = 5, base_ejection = 30.0, max_ejection_percent = 10 }

[[services.reviews.routes]]
match = { prefix = "/api", headers = { x-tier = "gold" } }
split = { reviews-v1 = 90, reviews-v2 = 10 }

[sidecar]
mode = "auto"
address = "127.0.0.1:15001"
start_window = 10.0
fallback = "when_allowed"
[adoption]
default = "on"
reviews = "observe"
key = "x-user-id"
kill_switch = "/run/meshlib.off"
"""


@pytest.fixture
def contract(tmp_path):
    path = tmp_path / "mesh.toml"
    path.write_text(CONTRACT)
    return Config.from_file(path)


class TestTheContractsExample:
    def test_every_value_is_read(self, contract, tmp_path):
        reviews = contract.services["reviews"]
        assert reviews.endpoints == (
            EndpointConfig(Address("10.0.0.1", 8080)),
            EndpointConfig(Address("10.0.0.2", 8080), weight=3, zone="eu-1b"),
        )
        assert (reviews.balancer, reviews.timeout) == ("least_request", 2.0)
        assert (reviews.retry.attempts, reviews.retry.on) == (3, ("5xx", "connect-failure"))
        assert (reviews.retry.per_try_timeout, reviews.retry.budget) == (0.5, 0.2)
        assert (reviews.breaker.consecutive_failures, reviews.breaker.open_for) == (5, 10.0)
        assert (reviews.outlier.base_ejection, reviews.outlier.max_ejection_percent) == (30.0, 10.0)
        assert reviews.routes[0].match.prefix == "/api"
        assert reviews.routes[0].match.headers["x-tier"].exact == "gold"
        assert reviews.routes[0].split == {"reviews-v1": 90, "reviews-v2": 10}
        assert contract.xds.server == Address("127.0.0.1", 18000)
        assert contract.xds.tls.ca == str(tmp_path / "ca.pem")
        assert contract.node.metadata == {"team": "pay"}
        assert contract.sidecar.address == "127.0.0.1:15001"
        assert contract.adoption.services == {"reviews": "observe"}
        assert contract.adoption.kill_switch == "/run/meshlib.off"

    def test_it_survives_to_dict_json_and_back(self, contract):
        again = Config.from_mapping(json.loads(json.dumps(contract.to_dict())))
        assert again == contract

    def test_it_survives_pickle_copy_and_can_be_hashed(self, contract):
        assert pickle.loads(pickle.dumps(contract)) == contract
        assert copy.deepcopy(contract) == contract
        assert hash(contract) == hash(copy.deepcopy(contract))

    def test_it_is_frozen_through_and_through(self, contract):
        with pytest.raises(dataclasses.FrozenInstanceError):
            contract.seed = 3
        with pytest.raises(TypeError):
            contract.services["x"] = ServiceConfig()
        with pytest.raises(TypeError):
            contract.node.metadata["team"] = "x"
        with pytest.raises((AttributeError, TypeError)):
            contract.invented = 1


class TestDefaults:
    def test_a_service_has_nothing_that_is_not_written(self):
        service = Config.from_mapping({"services": {"a": {"endpoints": []}}}).services["a"]
        assert (service.timeout, service.retry, service.breaker, service.outlier, service.limits) == (
            None,
        ) * 5
        assert service.routes == ()

    def test_of_the_contract(self):
        config = Config.from_mapping({})
        assert config == Config()
        assert config.xds.domains == DEFAULT_DOMAINS
        assert (config.xds.view, config.xds.protocol, config.xds.api) == ("auto", "auto", "v3")
        assert (config.unknown_hosts, config.failures, config.disabled) == ("direct", "raise", False)
        assert (config.bypass, config.services_file, config.seed) == ((), None, None)
        assert not config.admin.enabled
        assert not config.xds.configured

    @pytest.mark.parametrize(
        "xds",
        [
            {"server": "a:1"},
            {"bootstrap": "b"},
            {"bootstrap_config": "{}"},
            {"protocol": "files", "path": "d"},
        ],
    )
    def test_a_control_plane_is_one_of_these(self, xds):
        assert Config.from_mapping({"xds": xds}).xds.configured


class TestWhereAValueCameFrom:
    def test_of_a_file_the_file_as_it_was_named(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mesh.toml").write_text(CONTRACT)
        config = Config.from_file("mesh.toml")
        assert config.source_of("services.reviews.timeout") == "mesh.toml"
        assert config.source_of("services.reviews.endpoints[1].weight") == "mesh.toml"
        assert config.source_of("services.reviews.retry") == "mesh.toml"
        assert config.source_of("services.reviews.retry.budget_min") == "default"
        assert config.source_of("node.metadata.team") == "mesh.toml"
        assert config.source_of("node.sub_zone") == "default"
        assert config.file == str(tmp_path / "mesh.toml")

    def test_a_table_has_the_sources_of_all_that_is_in_it(self, tmp_path):
        path = tmp_path / "m.json"
        path.write_text('{"node": {"zone": "a", "region": "r"}}')
        config = resolve(path, {"MESHLIB_ZONE": "b"})
        assert set(config.source_of("node").split(", ")) == {str(path), "MESHLIB_ZONE"}

    def test_names_with_dots_are_found_quoted_or_not(self):
        config = Config.from_mapping({"services": {"Reviews.default.svc:9080": {"timeout": 1}}})
        for key in (
            'services."reviews.default.svc:9080".timeout',
            "services.reviews.default.svc:9080.timeout",
        ):
            assert config.source_of(key) == "argument"

    def test_what_is_no_key_is_a_key_error(self):
        with pytest.raises(KeyError):
            Config().source_of("servces")

    def test_given(self):
        config = Config.from_mapping({"node": {"id": "a"}})
        assert config.given("node.id")
        assert not config.given("node.zone")

    def test_origin_names_the_argument(self):
        config = Config.from_mapping({"seed": 1}, origin="settings.MESHLIB")
        assert config.source_of("seed") == "settings.MESHLIB"


class TestAcrossKeys:
    @pytest.mark.parametrize(
        ("mapping", "key"),
        [
            ({"xds": {"server": "a:1", "bootstrap": "b"}}, "xds.bootstrap"),
            ({"xds": {"server": "a:1", "tls": {"cert": "c"}}}, "xds.tls.key"),
            ({"xds": {"server": "a:1", "tls": {"key": "c"}}}, "xds.tls.cert"),
            ({"xds": {"tls": {}}}, "xds.tls"),
            ({"xds": {"path": "d"}}, "xds.path"),
            ({"xds": {"protocol": "files"}}, "xds.path"),
            ({"xds": {"protocol": "files", "path": "d", "server": "a:1"}}, "xds.server"),
            ({"xds": {"protocol": "rest"}}, "xds.server"),
            ({"xds": {"protocol": "fetch"}}, "xds.server"),
            ({"xds": {"protocol": "fetch", "server": "http://a:1"}}, "xds.server"),
            ({"xds": {"protocol": "rest", "server": "https://a:1"}}, "xds.server"),
            ({"xds": {"server": "http://a:1"}}, "xds.server"),
            ({"dns": {"min_ttl": 10, "max_ttl": 5}}, "dns.min_ttl"),
            ({"admin": {"runtime_dir": "/run"}}, "admin.enabled"),
        ],
    )
    def test_contradictions_name_the_key(self, mapping, key):
        with pytest.raises(ConfigError) as caught:
            Config.from_mapping(mapping)
        assert [line.split(": ")[1] for line in caught.value.problems] == [key]


class TestOneMadeByHand:
    def test_is_checked_when_it_is_resolved(self):
        made = Config(services={"a": ServiceConfig(timeout=-1.0)}, seed=True)
        with pytest.raises(ConfigError) as caught:
            resolve(made, {})
        assert "services.a.timeout" in str(caught.value)
        assert "seed" in str(caught.value)

    def test_is_taken_where_it_is_right(self):
        made = Config(services={"a": ServiceConfig(endpoints=(EndpointConfig(Address("h", 1)),))}, seed=3)
        assert resolve(made, {}) == made

    @pytest.mark.parametrize(
        "made",
        [Config(node=5), Config(services=5), Config(services={"a": 5}), Config(bypass=5), Config(disabled=1)],
    )
    def test_of_garbage_is_a_config_error(self, made):
        with pytest.raises(ConfigError):
            resolve(made, {})

    def test_sections_may_stand_in_a_mapping(self):
        config = Config.from_mapping(
            {"node": NodeConfig(id="a"), "services": {"b": ServiceConfig(timeout=1.0)}}
        )
        assert (config.node.id, config.services["b"].timeout) == ("a", 1.0)
        assert config.source_of("node.id") == "argument"


def test_import_loads_nothing_heavy():
    script = (
        "import sys, meshlib.config\n"
        "heavy = {'yaml', 'grpc', 'google.protobuf', 'httpx', 're2', 'tenacity', 'pybreaker', 'dns', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
