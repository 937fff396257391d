import json

import pytest

from meshlib.config import (
    Config,
    ServiceConfig,
    bootstrap_text,
    from_settings,
    layers,
    load,
    read_retry,
    reload,
    resolve,
    strangers,
)
from meshlib.errors import ConfigError
from meshlib.model.address import Address


@pytest.fixture
def write(tmp_path):
    def write(mapping, name="mesh.json"):
        path = tmp_path / name
        path.write_text(json.dumps(mapping))
        return str(path)

    return write


def origins(error):
    """Where each problem came from, and its key."""
    return sorted(": ".join(line.split(": ")[:2]) for line in error.problems)


class TestPrecedence:
    def test_argument_over_environment_over_default(self):
        config = resolve({"node": {"id": "argument"}}, {"MESHLIB_NODE_ID": "env", "MESHLIB_ZONE": "env"})
        assert (config.node.id, config.node.zone, config.node.region) == ("argument", "env", None)
        assert config.source_of("node.id") == "argument"
        assert config.source_of("node.zone") == "MESHLIB_ZONE"
        assert config.source_of("node.cluster") == "default"

    def test_environment_over_settings_over_file_over_default(self, write):
        said = {"id": "file", "zone": "file", "region": "file"}
        path = write({"node": said})
        environ = {"MESHLIB_CONFIG": path, "MESHLIB_ZONE": "env"}
        config = resolve(from_settings({"node": {"id": "settings", "zone": "settings"}}, "settings"), environ)
        assert (config.node.id, config.node.zone, config.node.region) == ("settings", "env", "file")
        assert config.source_of("node.id") == "settings"
        assert config.source_of("node.zone") == "MESHLIB_ZONE"
        assert config.source_of("node.region") == path
        assert config.source_of("node.cluster") == "default"

    def test_from_env_reads_the_file_that_it_names(self, write):
        config = Config.from_env(
            {"MESHLIB_CONFIG": write({"node": {"id": "f", "zone": "f"}}), "MESHLIB_ZONE": "e"}
        )
        assert (config.node.id, config.node.zone) == ("f", "e")

    def test_from_env_takes_the_processs_environment(self, monkeypatch):
        monkeypatch.setenv("MESHLIB_NODE_ID", "here")
        assert Config.from_env().node.id == "here"

    def test_a_path_takes_the_place_of_the_named_file_and_yields_to_the_environment(self, write):
        environ = {"MESHLIB_CONFIG": write({"seed": 1}, "other.json"), "MESHLIB_NODE_ID": "env"}
        config = resolve(write({"node": {"id": "file"}}), environ)
        assert (config.node.id, config.seed) == ("env", None)

    def test_a_mapping_takes_the_place_of_the_named_file_and_wins_over_the_environment(self, write):
        path = write({"seed": 1, "node": {"zone": "file"}}, "other.json")
        environ = {"MESHLIB_CONFIG": path, "MESHLIB_NODE_ID": "env", "MESHLIB_CLUSTER": "env"}
        config = resolve({"node": {"id": "mine"}}, environ)
        assert (config.node.id, config.node.cluster, config.node.zone, config.seed) == (
            "mine",
            "env",
            None,
            None,
        )
        assert config.file is None
        assert resolve({}, {"MESHLIB_CONFIG": "/nowhere/mesh.toml"}) == Config()

    def test_a_config_is_taken_as_it_is(self, write):
        other = write({"seed": 1, "services": {"other": {}}}, "other.json")
        environ = {"MESHLIB_CONFIG": other, "MESHLIB_NODE_ID": "env", "OTEL_SERVICE_NAME": "env"}
        environ |= {"MESHLIB_DISABLED": "1", "GRPC_XDS_BOOTSTRAP": "/nowhere.json"}
        for made in (
            Config(),
            Config.from_mapping({"node": {"zone": "mine"}}),
            Config.from_file(write({"node": {"zone": "mine"}})),
            load(write({"node": {"zone": "mine"}})),
        ):
            again = resolve(made, environ)
            assert again == made
            assert again.file == made.file

    def test_from_file_alone_does_not_look_at_the_environment(self, write, monkeypatch):
        monkeypatch.setenv("MESHLIB_NODE_ID", "env")
        assert Config.from_file(write({"node": {"zone": "z"}})).node.id is None

    def test_one_that_from_env_made_is_taken_as_it_is(self):
        made = Config.from_env({"MESHLIB_NODE_ID": "a", "OTEL_SERVICE_NAME": "svc"})
        again = resolve(made, {"MESHLIB_NODE_ID": "b", "MESHLIB_ZONE": "b", "OTEL_SERVICE_NAME": "other"})
        assert again == made
        assert (again.node.id, again.node.cluster) == ("a", "svc")
        assert again.source_of("node.id") == "MESHLIB_NODE_ID"

    def test_resolving_twice_changes_nothing(self, write):
        environ = {"MESHLIB_CONFIG": write({"services": {"a": {"endpoints": ["h:1"]}}}), "MESHLIB_SEED": "3"}
        once = resolve(from_settings({"bypass": ["x"]}, "settings"), environ)
        twice = resolve(once, environ)
        assert twice == once
        for key in ("services.a.endpoints", "seed", "bypass"):
            assert twice.source_of(key) == once.source_of(key)

    def test_tables_are_merged_value_by_value_and_lists_are_replaced(self, write):
        path = write(
            {"services": {"a": {"endpoints": ["h:1", "h:2"], "timeout": 1, "retry": {"attempts": 5}}}}
        )
        argument = {"services": {"a": {"endpoints": ["i:1"], "retry": {"budget": 0.5}}, "b": {"dns": "n:1"}}}
        config = resolve(from_settings(argument, "settings"), {"MESHLIB_CONFIG": path})
        service = config.services["a"]
        assert [str(endpoint.address) for endpoint in service.endpoints] == ["i:1"]
        assert (service.timeout, service.retry.attempts, service.retry.budget) == (1.0, 5, 0.5)
        assert set(config.services) == {"a", "b"}
        assert config.source_of("services.a.endpoints[0]") == "settings"
        assert config.source_of("services.a.retry.attempts") == path

    def test_null_takes_back_what_a_weaker_layer_said(self):
        config = resolve({"node": {"id": None}}, {"MESHLIB_NODE_ID": "env", "MESHLIB_ZONE": "env"})
        assert (config.node.id, config.node.zone) == (None, "env")


class TestWhatExcludesSomethingElse:
    def test_a_server_of_the_environment_displaces_the_files_bootstrap(self, write):
        config = resolve(write({"xds": {"bootstrap": "b.json"}}), {"MESHLIB_XDS_SERVER": "h:1"})
        assert (config.xds.server, config.xds.bootstrap) == (Address("h", 1), None)
        with pytest.raises(KeyError):
            config.source_of("xds.invented")
        assert config.source_of("xds.bootstrap") == "default"

    def test_a_bootstrap_of_the_environment_displaces_server_and_tls(self, write):
        path = write({"xds": {"server": "h:1", "tls": {"ca": "c"}, "view": "target"}})
        config = resolve(path, {"GRPC_XDS_BOOTSTRAP": "b.json"})
        assert (config.xds.server, config.xds.tls, config.xds.bootstrap) == (None, None, "b.json")
        assert config.xds.view == "target"

    def test_bs01_the_bootstraps_path_wins_over_its_text(self):
        config = resolve(None, {"GRPC_XDS_BOOTSTRAP": "b.json", "GRPC_XDS_BOOTSTRAP_CONFIG": "{}"})
        assert (config.xds.bootstrap, config.xds.bootstrap_config) == ("b.json", None)

    def test_our_own_variable_wins_over_grpcs(self):
        config = resolve(None, {"GRPC_XDS_BOOTSTRAP": "b.json", "MESHLIB_XDS_SERVER": "h:1"})
        assert (config.xds.bootstrap, config.xds.server) == (None, Address("h", 1))

    def test_the_argument_wins_over_all(self):
        environ = {"GRPC_XDS_BOOTSTRAP": "b.json", "MESHLIB_XDS_SERVER": "h:1"}
        config = resolve({"xds": {"bootstrap_config": "{}"}}, environ)
        assert (config.xds.bootstrap, config.xds.server, config.xds.bootstrap_config) == (None, None, "{}")

    def test_endpoints_dns_and_srv_displace_one_another(self, write):
        path = write({"services": {"a": {"dns": "n:1", "timeout": 1}}})
        settings = from_settings({"services": {"a": {"endpoints": ["h:1"]}}}, "settings")
        service = resolve(settings, {"MESHLIB_CONFIG": path}).services["a"]
        assert (service.dns, len(service.endpoints), service.timeout) == (None, 1, 1.0)


class TestEnvironment:
    def test_every_variable(self):
        config = Config.from_env(
            {
                "MESHLIB_XDS_SERVER": "[::1]:18000",
                "MESHLIB_NODE_ID": "n",
                "MESHLIB_CLUSTER": "c",
                "MESHLIB_ZONE": "z",
                "MESHLIB_SIDECAR": "off",
                "MESHLIB_DISABLED": "1",
                "MESHLIB_SEED": "42",
            }
        )
        assert config.xds.server == Address("::1", 18000)
        assert (config.node.id, config.node.cluster, config.node.zone) == ("n", "c", "z")
        assert (config.sidecar.mode, config.disabled, config.seed) == ("off", True, 42)

    def test_a_variable_may_name_several_servers(self):
        config = Config.from_env({"MESHLIB_XDS_SERVER": "a:1, [::1]:2,unix:/x"})
        assert config.xds.server == (Address("a", 1), Address("::1", 2), Address("/x", 0, unix=True))
        assert config.to_dict()["xds"]["server"] == ["a:1", "[::1]:2", "unix:/x"]

    def test_a_list_of_one_server_is_that_server(self):
        assert Config.from_mapping({"xds": {"server": ["a:1"]}}).xds.server == Address("a", 1)

    def test_an_empty_variable_is_as_if_it_were_not_there(self):
        environ = dict.fromkeys(
            ("MESHLIB_CONFIG", "MESHLIB_SEED", "MESHLIB_DISABLED", "GRPC_XDS_BOOTSTRAP"), ""
        )
        assert Config.from_env(environ) == Config()

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            (
                "MESHLIB_XDS_SERVR",
                'MESHLIB_XDS_SERVR: meshlib has no such variable; did you mean "MESHLIB_XDS_SERVER"?',
            ),
            ("MESHLIB_CONFG", 'MESHLIB_CONFG: meshlib has no such variable; did you mean "MESHLIB_CONFIG"?'),
            (
                "MESHLIB_DISABLE",
                'MESHLIB_DISABLE: meshlib has no such variable; did you mean "MESHLIB_DISABLED"?',
            ),
            (
                "MESHLIB_NODEID",
                'MESHLIB_NODEID: meshlib has no such variable; did you mean "MESHLIB_NODE_ID"?',
            ),
        ],
    )
    def test_a_variable_that_is_none_is_warned_of_once(self, monkeypatch, caplog, name, said):
        monkeypatch.setattr(layers, "_warned", set())
        assert strangers({name: "x"}) == (said,)
        monkeypatch.setenv(name, "x")
        for config in (None, {"seed": 1}):
            assert resolve(config) is not None
        assert [record.getMessage() for record in caplog.records] == [f"meshlib: {said}"]

    def test_no_other_variable_is(self, monkeypatch, caplog):
        monkeypatch.setattr(layers, "_warned", set())
        environ = {
            "MESHLIB": "x",
            "MESHLIBS": "x",
            "XMESHLIB_SEEDS": "x",
            "MESHLIB_SEEDS": "",
            "MESHLIB_SEED": "1",
        }
        assert strangers(environ) == ()
        Config.from_mapping({"seed": 1})
        monkeypatch.setenv("MESHLIB_SEEDS", "1")
        resolve(Config.from_mapping({"seed": 1}))
        assert caplog.records == []

    @pytest.mark.parametrize(
        ("text", "value"),
        [("1", True), ("true", True), ("YES", True), ("0", False), ("off", False), (" no ", False)],
    )
    def test_disabled(self, text, value):
        assert Config.from_env({"MESHLIB_DISABLED": text}).disabled is value

    def test_disabled_reaches_a_mapping_that_says_nothing_of_it_and_no_config(self):
        assert resolve({"seed": 1}, {"MESHLIB_DISABLED": "1"}).disabled
        assert not resolve(Config.from_mapping({"seed": 1}), {"MESHLIB_DISABLED": "1"}).disabled

    @pytest.mark.parametrize(
        ("variable", "value", "words"),
        [
            ("MESHLIB_DISABLED", "perhaps", ["disabled", "true or false"]),
            ("MESHLIB_SEED", "-1", ["seed", "whole number"]),
            ("MESHLIB_SEED", "1.5", ["seed", "whole number"]),
            ("MESHLIB_SEED", "9" * 5000, ["seed", "whole number"]),
            ("MESHLIB_SEED", "٣", ["seed", "whole number"]),
            ("MESHLIB_XDS_SERVER", "nowhere", ["xds.server", "port"]),
            ("MESHLIB_XDS_SERVER", "h:0", ["xds.server", "65535"]),
            ("MESHLIB_SIDECAR", "itsio", ["sidecar.mode", '"istio"']),
            ("MESHLIB_NODE_ID", "a\x00b", ["node.id"]),
            ("MESHLIB_CONFIG", "/nowhere/mesh.toml", ["/nowhere/mesh.toml", "cannot be read"]),
        ],
    )
    def test_a_wrong_value_names_the_variable(self, variable, value, words):
        with pytest.raises(ConfigError) as caught:
            Config.from_env({variable: value})
        for word in (variable, *words):
            assert word in str(caught.value)
        assert len(caught.value.problems) == 1
        assert len(str(caught.value)) < 400

    def test_otel_service_name_is_below_the_file(self, write):
        path = write({"node": {"cluster": "file"}})
        assert resolve(path, {"OTEL_SERVICE_NAME": "svc"}).node.cluster == "file"
        config = resolve(None, {"OTEL_SERVICE_NAME": "svc"})
        assert config.node.cluster == "svc"
        assert config.source_of("node.cluster") == "OTEL_SERVICE_NAME"
        assert not config.given("node.cluster")


class TestEveryProblemOfEveryLayerAtOnce:
    @pytest.mark.parametrize("named", ["argument", "variable"])
    def test_each_with_its_own_origin(self, write, named):
        path = write({"seed": "x", "services": {"a": {"tiemout": 1}}})
        environ = {"MESHLIB_CONFIG": path, "MESHLIB_XDS_SERVER": "h"}
        with pytest.raises(ConfigError) as caught:
            resolve(path if named == "argument" else None, environ)
        assert str(caught.value) == "\n".join(caught.value.problems)
        assert origins(caught.value) == sorted(
            ["MESHLIB_XDS_SERVER: xds.server", f"{path}:1:2: seed", f"{path}:1:34: services.a.tiemout"]
        )

    def test_of_a_mapping_beside_the_environment(self):
        mapping = {"unknown_hosts": "Direct", "services": {"a": {"timeout": -1}}}
        with pytest.raises(ConfigError) as caught:
            resolve(mapping, {"MESHLIB_CONFIG": "/nowhere", "MESHLIB_XDS_SERVER": "h"})
        assert origins(caught.value) == [
            "MESHLIB_XDS_SERVER: xds.server",
            "argument: services.a.timeout",
            "argument: unknown_hosts",
        ]

    def test_a_missing_key_is_told_of_the_layer_that_has_the_table(self, write):
        path = write({"services": {"a": {"endpoints": [{"weight": 2}]}}})
        with pytest.raises(ConfigError, match=r"endpoints\[0\]\.address: is missing") as caught:
            resolve(from_settings({"seed": 1}, "settings"), {"MESHLIB_CONFIG": path})
        assert str(caught.value).startswith(path)


@pytest.mark.parametrize("config", [5, b"x", object(), ["a"]])
def test_what_is_no_configuration(config):
    with pytest.raises(ConfigError, match="must be a Config, a mapping or a path"):
        resolve(config, {})


def test_from_mapping_takes_mappings_only():
    with pytest.raises(ConfigError, match="must be a mapping"):
        Config.from_mapping([("seed", 1)])


def test_loading_again_reads_again(write):
    path = write({"seed": 1})
    assert load(path).seed == 1
    write({"seed": 2})
    assert load(path).seed == 2


def test_service_names_that_differ_in_case_are_one():
    with pytest.raises(ConfigError, match="there already"):
        Config.from_mapping({"services": {"Reviews": {"endpoints": []}, "reviews": {"endpoints": []}}})


def test_names_keep_their_origin_through_a_second_reading(write):
    config = resolve(load(write({"services": {"Reviews": {"timeout": 1}}})))
    assert config.source_of("services.reviews.timeout").endswith("mesh.json")


class TestBootstrapText:
    def test_none(self):
        assert bootstrap_text(Config()) == (None, "")

    def test_of_a_file(self, tmp_path):
        (tmp_path / "b.json").write_text("{}")
        (tmp_path / "mesh.toml").write_text('[xds]\nbootstrap = "b.json"')
        assert bootstrap_text(load(tmp_path / "mesh.toml")) == ("{}", str(tmp_path / "b.json"))

    def test_of_a_variable(self):
        config = Config.from_env({"GRPC_XDS_BOOTSTRAP_CONFIG": "{ }"})
        assert bootstrap_text(config) == ("{ }", "GRPC_XDS_BOOTSTRAP_CONFIG")

    def test_a_file_that_cannot_be_read_names_variable_and_file(self, tmp_path):
        missing = str(tmp_path / "none.json")
        with pytest.raises(ConfigError) as caught:
            bootstrap_text(Config.from_env({"GRPC_XDS_BOOTSTRAP": missing}))
        assert "GRPC_XDS_BOOTSTRAP" in str(caught.value)
        assert missing in str(caught.value)


class TestReadRetry:
    def test_has_a_services_keys(self):
        retry = read_retry({"attempts": 4, "on": ["5xx"], "stop": lambda state: True})
        assert (retry.attempts, retry.on) == (4, ("5xx",))

    def test_names_what_is_wrong(self):
        with pytest.raises(ConfigError) as caught:
            read_retry({"attempts": 0, "one": ["5xx"]})
        assert caught.value.problems[0].startswith(
            "CallOptions.retry: retry.attempts: must be a whole number"
        )
        assert 'did you mean "on"' in caught.value.problems[1]


def test_a_services_section_in_a_mapping_is_read_like_its_keys():
    config = resolve({"services": {"a": ServiceConfig(timeout=2.0)}}, {})
    assert config.services["a"] == ServiceConfig(timeout=2.0)


class TestSpellingsOfAHost:
    """A layer above speaks of the service below, however each of them spells it."""

    @pytest.mark.parametrize(
        ("below", "above"),
        [
            ("Reviews", "reviews"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("[0:0::1]:80", "[::1]:80"),
            ("a.", "a"),
        ],
    )
    def test_they_are_one(self, tmp_path, below, above):
        path = tmp_path / "mesh.json"
        path.write_text(json.dumps({"services": {below: {"endpoints": ["127.0.0.1:1"], "timeout": 3.0}}}))
        settings = from_settings({"services": {above: {"endpoints": ["127.0.0.1:2"]}}}, "settings")
        config = resolve(settings, {"MESHLIB_CONFIG": str(path)})
        (key,) = config.services
        assert (config.services[key].timeout, str(config.services[key].endpoints[0].address)) == (
            3.0,
            "127.0.0.1:2",
        )
        assert config.source_of(f"services.{key}.timeout") == str(path)
        assert config.source_of(f"services.{key}.endpoints") == "settings"

    @pytest.mark.parametrize("said", ["Reviews", "reviews.", "REVIEWS"])
    def test_an_edit_of_the_file_is_taken(self, write, said):
        config = resolve(write({"services": {said: {"timeout": 1}}}), {})
        write({"services": {"reviews": {"timeout": 2}}})
        assert dict(reload(config).services) == {"reviews": ServiceConfig(timeout=2.0)}
        write({})
        assert not reload(config).services

    def test_a_share_of_calls_is_of_a_host_too(self, write):
        path = write({"adoption": {"Bücher.example": "off"}})
        settings = from_settings({"adoption": {"xn--bcher-kva.example": "observe"}}, "settings")
        config = resolve(settings, {"MESHLIB_CONFIG": path})
        assert list(config.adoption.services) == ["xn--bcher-kva.example"]
        assert config.source_of("adoption.xn--bcher-kva.example") == "settings"

    def test_two_in_one_layer_are_one_too_many(self, tmp_path):
        path = tmp_path / "mesh.json"
        path.write_text(json.dumps({"services": {"a": {"endpoints": ["127.0.0.1:1"]}}}))
        settings = {"services": {"A": {"timeout": 1.0}, "a.": {"timeout": 2.0}}}
        with pytest.raises(ConfigError, match="which is there already"):
            resolve(from_settings(settings, "settings"), {"MESHLIB_CONFIG": str(path)})
