import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.config import Config, resolve
from meshlib.errors import ConfigError
from meshlib.model.endpoint import Locality
from meshlib.xds.bootstrap import (
    Bootstrap,
    Channel,
    ChannelKind,
    Feature,
    Server,
    bootstrap_of,
    listener_name,
    parse_bootstrap,
)

SERVER = {"server_uri": "istiod:15010", "channel_creds": [{"type": "insecure"}]}

# The shape that Istio's agent writes, stray keys included.
ISTIO = {
    "xds_servers": [
        {
            "server_uri": "unix:///etc/istio/proxy/XDS",
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }
    ],
    "node": {
        "id": "sidecar~10.0.0.7~app-1.default~default.svc.cluster.local",
        "metadata": {
            "GENERATOR": "grpc",
            "INSTANCE_IPS": "10.0.0.7",
            "PROXY_CONFIG": {"concurrency": 2, "drainDuration": 45.0, "x": None},
            "LABELS": {"b": "1", "a": "2"},
        },
        "localisty": {},
        "UserAgentVersionType": None,
        "user_agent_name": "not ours",
    },
    "certificate_providers": {
        "default": {
            "plugin_name": "file_watcher",
            "config": {"certificate_file": "cert-chain.pem", "refresh_interval": "900s"},
        }
    },
    "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
}


def parse(value):
    return parse_bootstrap(value if isinstance(value, str) else json.dumps(value), "boot.json")


def problems(value):
    with pytest.raises(ConfigError) as caught:
        parse(value)
    assert all(line.startswith("boot.json: ") for line in caught.value.problems)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [line.removeprefix("boot.json: ") for line in caught.value.problems]


def with_server(**keys):
    return {"xds_servers": [{**SERVER, **keys}]}


def one_server(**keys):
    return parse(with_server(**keys)).servers[0]


class TestIstio:
    def test_is_read(self):
        made = parse(ISTIO)
        assert made.servers == (Server("unix:///etc/istio/proxy/XDS"),)
        assert made.node.id.startswith("sidecar~10.0.0.7~")
        assert made.template == "%s"
        assert made.providers["default"].plugin == "file_watcher"
        assert made.providers["default"].config["refresh_interval"] == "900s"
        assert made.skipped == ()

    def test_bs07_metadata_passes_through_exactly(self):
        metadata = parse(ISTIO).node.metadata
        assert json.dumps(metadata) == json.dumps(ISTIO["node"]["metadata"])


class TestLeniency:
    def test_bs02_unknown_fields_of_every_level_and_type_are_ignored(self):
        value = copy.deepcopy(ISTIO)
        value["authorities"] = {"x": {"new": 1}}
        for table in (
            value,
            value["node"],
            value["xds_servers"][0],
            value["xds_servers"][0]["channel_creds"][0],
            value["certificate_providers"]["default"],
        ):
            table["from_the_future"] = [{"a": None}]
        assert parse(value).servers == parse(ISTIO).servers

    def test_bs07_the_node_is_optional(self):
        made = parse(with_server())
        assert (made.node.id, made.node.cluster, made.node.locality, made.node.metadata) == (
            "",
            "",
            Locality(),
            {},
        )

    def test_null_is_as_if_it_were_not_there(self):
        value = with_server(server_features=None, call_creds=None)
        value |= {"node": None, "authorities": None, "certificate_providers": None}
        value["client_default_listener_resource_name_template"] = None
        assert parse(value) == parse(with_server())

    def test_node_in_full(self):
        node = {"id": "i", "cluster": "c", "locality": {"region": "r", "zone": "z", "sub_zone": "s"}}
        made = parse({**with_server(), "node": node}).node
        assert (made.id, made.cluster, made.locality) == ("i", "c", Locality("r", "z", "s"))


class TestProblems:
    @pytest.mark.parametrize(
        ("value", "place"),
        [
            ({}, "xds_servers: is missing"),
            ({"xds_servers": []}, "xds_servers: must have one server or more"),
            ({"xds_servers": {}}, "xds_servers: must be a list, not an object"),
            ({"xds_servers": ["h:1"]}, "xds_servers[0]: must be an object, not text"),
            (with_server(server_uri=None), "xds_servers[0].server_uri: is missing"),
            (with_server(server_uri=""), "xds_servers[0].server_uri: is missing"),
            (with_server(server_uri=5), "xds_servers[0].server_uri: must be text, not a number"),
            (with_server(server_uri="https://h:1"), "xds_servers[0].server_uri: must be a gRPC target"),
            (with_server(channel_creds=None), "xds_servers[0].channel_creds: is missing"),
            (with_server(channel_creds=[]), "xds_servers[0].channel_creds: is missing"),
            (with_server(channel_creds={}), "xds_servers[0].channel_creds: must be a list"),
            (with_server(channel_creds=["tls"]), "xds_servers[0].channel_creds[0]: must be an object"),
            (with_server(channel_creds=[{}]), "xds_servers[0].channel_creds[0].type: is missing"),
            (
                with_server(channel_creds=[{"type": True}]),
                "xds_servers[0].channel_creds[0].type: must be text",
            ),
            (
                with_server(channel_creds=[{"type": "insecure"}, {"type": "x", "config": 1}]),
                "xds_servers[0].channel_creds[1].config: must be an object",
            ),
            (with_server(server_features="xds_v3"), "xds_servers[0].server_features: must be a list"),
            (with_server(call_creds={}), "xds_servers[0].call_creds: must be a list"),
            ({**with_server(), "node": []}, "node: must be an object, not a list"),
            ({**with_server(), "node": {"id": 1}}, "node.id: must be text"),
            ({**with_server(), "node": {"locality": {"zone": 1}}}, "node.locality.zone: must be text"),
            ({**with_server(), "node": {"metadata": "x"}}, "node.metadata: must be an object"),
            (
                {**with_server(), "certificate_providers": {"a": 1}},
                'certificate_providers["a"]: must be an object',
            ),
            (
                {**with_server(), "certificate_providers": {"a": {}}},
                'certificate_providers["a"].plugin_name: is missing',
            ),
            (
                {**with_server(), "certificate_providers": {"a": {"plugin_name": "f", "config": []}}},
                'certificate_providers["a"].config: must be an object',
            ),
            ({**with_server(), "authorities": []}, "authorities: must be an object"),
            ({**with_server(), "authorities": {"x": []}}, 'authorities["x"]: must be an object'),
            (
                {**with_server(), "authorities": {"x": {"xds_servers": [{**SERVER, "server_uri": 1}]}}},
                'authorities["x"].xds_servers[0].server_uri: must be text',
            ),
            (
                {**with_server(), "client_default_listener_resource_name_template": 1},
                "client_default_listener_resource_name_template: must be text",
            ),
        ],
    )
    def test_each_names_its_place(self, value, place):
        (found,) = problems(value)
        assert found.startswith(place)

    def test_bs02_all_at_once(self):
        value = {
            "xds_servers": [{"server_uri": 1}, {**SERVER, "channel_creds": [{"type": "google_default"}]}],
            "node": {"id": 1, "locality": 2, "metadata": 3},
            "authorities": {"x": {"client_listener_resource_name_template": "%s"}},
        }
        starts = [line.split(": ")[0] for line in problems(value)]
        assert starts == [
            "xds_servers[0].server_uri",
            "xds_servers[0].channel_creds",
            "xds_servers[1].channel_creds",
            "node.locality",
            "node.id",
            "node.metadata",
            'authorities["x"].client_listener_resource_name_template',
        ]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "is not JSON: Expecting value: line 1"),
            ("[]", "must be a JSON object, not a list"),
            ("null", "must be a JSON object, not null"),
            ('{"a": NaN}', "NaN is not a number of JSON"),
            ("[" * 100_000, "nested too deeply"),
            ('{"node": {"id": "\\ud800"}}', "half of a surrogate pair"),
            ('{"node": {"metadata": {"\\udfff": 1}}}', "half of a surrogate pair"),
            ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
            ('{"node": {"metadata": {"a": 1e999}}}', "larger than a double"),
            ('{"node": {"metadata": {"a": -' + "9" * 400 + "}}}", "larger than a double"),
        ],
    )
    def test_what_is_no_bootstrap(self, text, words):
        (found,) = problems(text)
        assert words in found


class TestCredentials:
    def test_bs03_the_first_supported_type_is_used(self):
        creds = [
            {"type": "google_default"},
            {"type": "from_the_future", "config": {}},
            {"type": "tls"},
            {"type": "insecure"},
        ]
        assert one_server(channel_creds=creds).channel == Channel(ChannelKind.TLS)

    def test_bs03_no_supported_type(self):
        (found,) = problems(with_server(channel_creds=[{"type": "google_default"}]))
        assert found == (
            'xds_servers[0].channel_creds: must have one of insecure, tls; ["google_default"] are not supported'
        )

    def test_bs04_every_call_credential_that_is_supported_is_applied(self):
        jwt = [{"type": "jwt_token_file", "config": {"jwt_token_file": name}} for name in ("one", "two")]
        made = parse(
            with_server(channel_creds=[{"type": "tls"}], call_creds=[jwt[0], {"type": "sts"}, jwt[1]])
        )
        (server,) = made.servers
        assert server.channel == Channel(ChannelKind.TLS, tokens=("one", "two"))
        assert made.skipped == ("xds_servers[0].call_creds[1]",)

    @pytest.mark.parametrize(
        ("entry", "problem"),
        [
            ({"type": "jwt_token_file"}, "call_creds[0].config.jwt_token_file: is missing"),
            (
                {"type": "jwt_token_file", "config": {"jwt_token_file": 1}},
                "config.jwt_token_file: must be text",
            ),
            (1, "call_creds[0]: must be an object, not a number"),
        ],
    )
    def test_bs04_one_that_is_wrong_is_a_problem(self, entry, problem):
        (line,) = problems(with_server(channel_creds=[{"type": "tls"}], call_creds=[entry]))
        assert problem in line

    def test_bs04_no_token_goes_in_plain_text(self):
        (line,) = problems(
            with_server(call_creds=[{"type": "jwt_token_file", "config": {"jwt_token_file": "t"}}])
        )
        assert "xds_servers[0].call_creds[0]: needs channel_creds of type tls" in line

    def test_bs05_tls_in_full(self):
        config = {
            "ca_certificate_file": "ca",
            "certificate_file": "c",
            "private_key_file": "k",
            "refresh_interval": "1.5s",
        }
        channel = one_server(channel_creds=[{"type": "tls", "config": config}]).channel
        assert channel == Channel(ChannelKind.TLS, "ca", "c", "k", 1.5)

    @pytest.mark.parametrize("config", [{}, None])
    def test_bs05_tls_with_nothing_is_the_systems_roots(self, config):
        channel = one_server(channel_creds=[{"type": "tls", "config": config}]).channel
        assert channel == Channel(ChannelKind.TLS, refresh=600.0)

    @pytest.mark.parametrize("config", [{"certificate_file": "c"}, {"private_key_file": "k"}])
    def test_bs05_certificate_and_key_go_together(self, config):
        (found,) = problems(with_server(channel_creds=[{"type": "tls", "config": config}]))
        assert found.startswith(
            "xds_servers[0].channel_creds[0].config: certificate_file and private_key_file"
        )

    @pytest.mark.parametrize(
        "text",
        ["", "s", "600", "-1s", "0s", "1.s", "1.1234567890s", "1e3s", "٣s", " 1s", "9" * 13 + "s", "1m"],
    )
    def test_bs05_a_duration_that_is_none(self, text):
        config = {"refresh_interval": text}
        (found,) = problems(with_server(channel_creds=[{"type": "tls", "config": config}]))
        assert found.startswith("xds_servers[0].channel_creds[0].config.refresh_interval: must be a duration")


class TestFeatures:
    def test_bs06_known_ones_are_kept_and_the_rest_of_any_type_ignored(self):
        features = [
            "xds_v3",
            "ignore_resource_deletion",
            "trusted_xds_server",
            "new",
            5,
            None,
            {"a": 1},
            ["b"],
        ]
        assert one_server(server_features=features).features == {
            Feature.IGNORE_RESOURCE_DELETION,
            Feature.TRUSTED_XDS_SERVER,
        }

    def test_bs06_the_names_are_those_of_the_code(self):
        assert {feature.value for feature in Feature} == {
            "ignore_resource_deletion",
            "fail_on_data_errors",
            "resource_timer_is_transient_error",
            "trusted_xds_server",
        }

    def test_bs12_equal_servers_are_one(self):
        left = one_server(server_features=["xds_v3", "new", "fail_on_data_errors"])
        right = one_server(server_features=["fail_on_data_errors"])
        assert len({left, right}) == 1
        assert one_server(server_features=["trusted_xds_server"]) != right


class TestAuthorities:
    def test_bs09_defaults(self):
        made = parse({**with_server(), "authorities": {"x.example": {}}})
        authority = made.authorities["x.example"]
        assert authority.servers == made.servers
        assert authority.template == "xdstp://x.example/envoy.config.listener.v3.Listener/%s"

    def test_bs09_own_servers_and_template(self):
        other = {**SERVER, "server_uri": "other:1"}
        template = "xdstp://x/envoy.config.listener.v3.Listener/client/%s?a=b"
        value = {"client_listener_resource_name_template": template, "xds_servers": [other]}
        authority = parse({**with_server(), "authorities": {"x": value}}).authorities["x"]
        assert authority.servers == (Server("other:1"),)
        assert authority.template == template

    @pytest.mark.parametrize("template", ["%s", "xdstp://y/%s", "xdstp://x", "xdstp://xy/%s", ""])
    def test_bs09_a_template_of_another_authority_makes_all_invalid(self, template):
        value = {"client_listener_resource_name_template": template}
        (found,) = problems({**with_server(), "authorities": {"x": value}})
        assert found == (
            'authorities["x"].client_listener_resource_name_template: must begin with "xdstp://x/"'
        )

    def test_bs10_names_of_listeners(self):
        assert parse(with_server()).listener("reviews:9080") == "reviews:9080"
        value = with_server()
        value["client_default_listener_resource_name_template"] = "grpc/client/%s?x=%s"
        assert parse(value).listener("a:1") == "grpc/client/a:1?x=a:1"

    @pytest.mark.parametrize(
        ("host", "name"),
        [
            ("reviews:9080", "xdstp://x/l/reviews:9080"),
            ("a/b", "xdstp://x/l/a/b"),
            ("a b%?#[é", "xdstp://x/l/a%20b%25%3F%23%5B%C3%A9"),
        ],
    )
    def test_bs10_in_an_xdstp_name_the_host_is_encoded_as_a_path(self, host, name):
        assert listener_name("xdstp://x/l/%s", host) == name

    def test_fe01_templates_are_spelled_as_names_are(self):
        template = "xdstp://a/envoy.config.listener.v3.Listener/x/%s?b=2&a=1"
        made = parse(
            {
                **with_server(),
                "client_default_listener_resource_name_template": template,
                "authorities": {"a": {"client_listener_resource_name_template": template}},
            }
        )
        for name in (made.listener("h"), made.listener("h", "a")):
            assert name == "xdstp://a/envoy.config.listener.v3.Listener/x/h?a=1&b=2"

    def test_bs11_an_authority_that_is_not_there(self):
        made = parse({**with_server(), "authorities": {"x": {}}})
        assert made.listener("h", "x") == "xdstp://x/envoy.config.listener.v3.Listener/h"
        with pytest.raises(ConfigError, match='no authority "y"'):
            made.listener("h", "y")


class TestTheBootstrapInForce:
    def test_of_a_server_in_plain_text(self):
        made = bootstrap_of(Config.from_mapping({"xds": {"server": "h:1"}}), None, "", "my-host")
        assert made.servers == (Server("h:1", Channel()),)
        assert made.node.id == "my-host"

    def test_of_a_server_with_mutual_tls(self):
        config = Config.from_mapping(
            {"xds": {"server": "unix:/x", "tls": {"ca": "ca", "cert": "c", "key": "k"}}, "node": {"id": "me"}}
        )
        made = bootstrap_of(config, None, "", "my-host")
        assert made.servers == (Server("unix:/x", Channel(ChannelKind.TLS, "ca", "c", "k")),)
        assert made.node.id == "me"

    def test_the_configuration_speaks_first_of_the_node(self):
        config = Config.from_mapping(
            {"node": {"id": "me", "zone": "z", "metadata": {"team": "pay", "GENERATOR": "x"}}}
        )
        value = copy.deepcopy(ISTIO)
        value["node"]["locality"] = {"region": "r", "zone": "other"}
        made = bootstrap_of(config, json.dumps(value), "boot.json", "my-host")
        assert (made.node.id, made.node.locality) == ("me", Locality("r", "z", ""))
        assert made.node.metadata["GENERATOR"] == "x"
        assert made.node.metadata["team"] == "pay"
        assert made.node.metadata["LABELS"] == {"b": "1", "a": "2"}

    def test_a_bootstraps_cluster_is_above_the_services_name_and_below_the_configurations(self):
        text = json.dumps({**with_server(), "node": {"cluster": "boot", "id": "boot"}})
        environ = {"OTEL_SERVICE_NAME": "svc"}
        assert bootstrap_of(resolve(None, environ), text, "b", "h").node.cluster == "boot"
        assert bootstrap_of(resolve(None, environ), text, "b", "h").node.id == "boot"
        assert (
            bootstrap_of(resolve({"node": {"cluster": "me"}}, environ), text, "b", "h").node.cluster == "me"
        )
        bare = json.dumps(with_server())
        assert bootstrap_of(resolve(None, environ), bare, "b", "h").node.cluster == "svc"

    def test_bs01_neither_is_a_clear_error(self):
        with pytest.raises(ConfigError, match="neither server nor bootstrap"):
            bootstrap_of(Config(), None, "", "h")

    def test_a_wrong_one_names_its_origin(self):
        with pytest.raises(ConfigError, match=r"^GRPC_XDS_BOOTSTRAP_CONFIG: xds_servers: is missing$"):
            bootstrap_of(Config(), "{}", "GRPC_XDS_BOOTSTRAP_CONFIG", "h")


junk = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
ROOT_KEYS = [
    "xds_servers",
    "node",
    "authorities",
    "certificate_providers",
    "client_default_listener_resource_name_template",
]


def spots(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from spots(value[key], (*path, key))


FULL = {
    **ISTIO,
    "authorities": {"x": {"xds_servers": [SERVER], "client_listener_resource_name_template": "xdstp://x/%s"}},
    "client_default_listener_resource_name_template": "%s",
}
FULL["xds_servers"] = [
    {**SERVER, "call_creds": [{}], "channel_creds": [{"type": "tls", "config": {"refresh_interval": "600s"}}]}
]
FULL["node"] = {**ISTIO["node"], "cluster": "c", "locality": {"region": "r", "zone": "z", "sub_zone": "s"}}


@given(st.sampled_from(list(spots(FULL))[1:]), junk)
def test_one_part_replaced_by_anything_is_a_bootstrap_or_problems_with_places(path, value):
    whole = copy.deepcopy(FULL)
    table = whole
    for step in path[:-1]:
        table = table[step]
    table[path[-1]] = value
    lines = ()
    try:
        made = parse(whole)
    except ConfigError as error:
        lines = error.problems
    else:
        assert isinstance(made, Bootstrap)
        assert all(server.uri for server in made.servers)
    for line in lines:
        assert line.startswith("boot.json: ")
        assert line.split(": ", 2)[1].startswith((*ROOT_KEYS, "is not JSON"))


@given(st.text(max_size=60))
def test_any_text_is_a_bootstrap_or_a_config_error(text):
    with pytest.raises(ConfigError, match=r"^boot\.json: "):
        parse(text)


@given(st.dictionaries(st.text(max_size=6), junk, max_size=4))
def test_bs07_any_metadata_passes_through(metadata):
    text = json.dumps({**with_server(), "node": {"metadata": metadata}})
    assert json.dumps(parse(text).node.metadata) == json.dumps(json.loads(text)["node"]["metadata"])


def of_config(**xds):
    return bootstrap_of(Config.from_mapping({"xds": xds}), None, "", "host")


class TestConfiguration:
    def test_a_list_of_servers_is_in_the_order_of_preference(self):
        tls = {"ca": "ca", "cert": "c", "key": "k"}
        made = of_config(server=["a:1", "unix:/b"], tls=tls, token="t")
        channel = Channel(ChannelKind.TLS, "ca", "c", "k", tokens=("t",))
        assert made.servers == (Server("a:1", channel), Server("unix:/b", channel))

    def test_options_hold_for_every_server(self):
        """A110"""
        config = Config.from_mapping({"xds": {"bootstrap": "b", "options": {"grpc.primary_user_agent": "x"}}})
        text = json.dumps(
            {**with_server(), "authorities": {"a": {"xds_servers": [{**SERVER, "server_uri": "b:1"}]}}}
        )
        made = bootstrap_of(config, text, "b", "host")
        servers = [*made.servers, *made.authorities["a"].servers]
        assert [server.options for server in servers] == [(("grpc.primary_user_agent", "x"),)] * 2

    def test_fb06_an_authority_may_say_that_to_be_unreachable_is_enough(self):
        made = parse(
            {**with_server(), "authorities": {"a": {"fallback_on_reachability_only": True}, "b": {}}}
        )
        assert {name: each.eager for name, each in made.authorities.items()} == {"a": True, "b": False}
        wrong = {**with_server(), "authorities": {"a": {"fallback_on_reachability_only": "yes"}}}
        assert 'authorities["a"].fallback_on_reachability_only: must be true or false' in problems(wrong)[0]


class TestServices:
    """A102: the services that a control plane may name beside its resources."""

    TARGET = "dns:///ratelimit.example:443"
    TLS = Channel(ChannelKind.TLS, ca_file="ca.pem", tokens=("t",))

    def made(self, *features: str) -> Bootstrap:
        service = {
            "channel_creds": [{"type": "x"}, {"type": "tls", "config": {"ca_certificate_file": "ca.pem"}}],
            "call_creds": [{"type": "jwt_token_file", "config": {"jwt_token_file": "t"}}],
        }
        server = {**SERVER, "server_features": list(features)}
        return parse({"xds_servers": [server], "allowed_grpc_services": {self.TARGET: service}})

    def test_they_are_read_as_servers_are(self):
        made = self.made()
        assert made.services == {self.TARGET: self.TLS}
        assert made.skipped == ()

    def test_one_that_is_not_trusted_names_those_alone_and_not_their_credentials(self):
        made = self.made()
        [server] = made.servers
        assert made.side_channel(server, self.TARGET) == self.TLS
        for target in ("dns:///elsewhere:443", "ratelimit.example:443", "", "x\n" * 300):
            with pytest.raises(ConfigError, match="not among the allowed_grpc_services"):
                made.side_channel(server, target)

    def test_one_that_is_trusted_says_itself(self):
        made = self.made("trusted_xds_server")
        assert made.side_channel(made.servers[0], "dns:///elsewhere:443") is None

    def test_without_any_nothing_may_be_named(self):
        made = parse({"xds_servers": [SERVER], "allowed_grpc_services": None})
        assert made.services == {}
        with pytest.raises(ConfigError):
            made.side_channel(made.servers[0], self.TARGET)

    @pytest.mark.parametrize(
        ("services", "problem"),
        [
            ([], "allowed_grpc_services: must be an object, not a list"),
            ({"a": None}, 'allowed_grpc_services["a"]: must be an object, not null'),
            (
                {"a": {}},
                'allowed_grpc_services["a"].channel_creds: is missing; must have one of insecure, tls',
            ),
            (
                {"a": {"channel_creds": [{"type": "x"}]}},
                'allowed_grpc_services["a"].channel_creds: must have one',
            ),
            (
                {"a": {"channel_creds": [{"type": "insecure"}], "call_creds": {}}},
                'allowed_grpc_services["a"].call_creds: must be a list',
            ),
            (
                {"": {"channel_creds": [{"type": "insecure"}]}},
                'allowed_grpc_services[""]: must be named by its target',
            ),
        ],
    )
    def test_what_is_wrong_is_told_with_its_place(self, services, problem):
        [told] = problems({"xds_servers": [SERVER], "allowed_grpc_services": services})
        assert told.startswith(problem)
