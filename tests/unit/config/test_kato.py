"""What Kato and Rainbond tell a container: who it is, and where the agent is (`api = "v2"`)."""

from __future__ import annotations

import pytest

import meshlib
from meshlib.config import kato, reload, resolve
from meshlib.xds.bootstrap import bootstrap_of

KATO = {"TENANT_ID": "t" * 32, "SERVICE_ID": "5" * 32, "SERVICE_NAME": "gr1a2b3c", "HOST_IP": "10.1.0.7"}
RAINBOND = {**KATO, "NAMESPACE": "default", "SERVICE_ALIAS": "gr1a2b3c", "SERVICE_NAME": "shop-gr1a2b3c"}
V2 = {"xds": {"api": "v2"}}


class TestIdentity:
    @pytest.mark.parametrize(
        ("environ", "name"),
        [
            (KATO, f"{'t' * 32}_def-mesh{'5' * 32}_gr1a2b3c"),
            ({**KATO, "PLUGIN_ID": "p9"}, f"{'t' * 32}_p9_gr1a2b3c"),
            (RAINBOND, f"default_def-mesh{'5' * 32}_gr1a2b3c"),
            ({**RAINBOND, "PLUGIN_ID": "p9"}, "default_p9_gr1a2b3c"),
            ({**RAINBOND, "NAMESPACE": ""}, f"{'t' * 32}_def-mesh{'5' * 32}_gr1a2b3c"),
            ({**KATO, "ENVOY_NODE_ID": "a_b_c"}, "a_b_c"),
            ({**KATO, "SERVICE_ID": ""}, ""),
            ({**KATO, "SERVICE_NAME": " "}, ""),
            ({}, ""),
        ],
    )
    def test_it_is_computed(self, environ, name):
        assert kato.identity(environ)[0] == name

    def test_both_id_and_cluster_are_it(self):
        """1.3: the server knows a node by its cluster, and Kato's own clients send the same id."""
        made = resolve(V2, KATO)
        assert made.node.id == made.node.cluster == kato.identity(KATO)[0]
        assert made.source_of("node.cluster") == "TENANT_ID, SERVICE_ID, SERVICE_NAME"

    def test_what_is_told_wins(self):
        made = resolve({**V2, "node": {"cluster": "ns_p_me"}}, KATO)
        assert (made.node.id, made.node.cluster) == ("ns_p_me", "ns_p_me")
        made = resolve({**V2, "node": {"id": "mine"}}, KATO)
        assert (made.node.id, made.node.cluster) == ("mine", kato.identity(KATO)[0])
        made = resolve(V2, {**KATO, "MESHLIB_CLUSTER": "ns_p_env"})
        assert made.node.cluster == "ns_p_env"

    def test_a_bootstrap_wins(self):
        text = '{"xds_servers": [{"server_uri": "a:1", "channel_creds": [{"type": "insecure"}]}], "node": {"id": "i", "cluster": "c"}}'
        made = resolve({"xds": {"api": "v2", "bootstrap_config": text}}, KATO)
        node = bootstrap_of(made, text, "b", "host").node
        assert (node.id, node.cluster) == ("i", "c")
        bare = text.replace('"id": "i", "cluster": "c"', "")
        assert bootstrap_of(made, bare, "b", "host").node.id == kato.identity(KATO)[0]

    def test_it_goes_before_the_service_name_of_telemetry(self):
        assert resolve(V2, {**KATO, "OTEL_SERVICE_NAME": "shop"}).node.cluster == kato.identity(KATO)[0]
        assert resolve(V2, {"OTEL_SERVICE_NAME": "shop"}).node.cluster == "shop"

    def test_v3_does_not_look(self):
        assert resolve({}, KATO).node.cluster is None


class TestServer:
    @pytest.mark.parametrize(
        ("environ", "server"),
        [
            (KATO, "10.1.0.7:6101"),
            ({**KATO, "XDS_HOST_IP": "10.2.0.8"}, "10.2.0.8:6101"),
            ({**KATO, "XDS_HOST_PORT": "7001"}, "10.1.0.7:7001"),
            ({**KATO, "HOST_IP": "fd00::7"}, "[fd00::7]:6101"),
        ],
    )
    def test_it_is_the_agent_of_the_host(self, environ, server):
        assert str(resolve(V2, environ).xds.server) == server

    def test_what_is_told_wins(self):
        assert str(resolve({"xds": {"api": "v2", "server": "127.0.0.1:1"}}, KATO).xds.server) == "127.0.0.1:1"
        told = resolve({"xds": {"api": "v2", "bootstrap": "b.json"}}, KATO)
        assert told.xds.server is None

    def test_it_may_be_polled(self):
        """The node's own control plane is found for that as well."""
        made = resolve({"xds": {"api": "v2", "protocol": "fetch"}}, KATO)
        assert (made.xds.protocol, made.xds.asked_view) == ("fetch", "sidecar")
        assert made.xds.server == resolve(V2, KATO).xds.server

    def test_without_any_there_is_no_control_plane(self):
        assert not resolve(V2, {}).xds.configured

    def test_a_port_that_is_none_is_told_with_its_variable(self):
        with pytest.raises(meshlib.ConfigError, match=r"HOST_IP, XDS_HOST_PORT: xds\.server"):
            resolve(V2, {**KATO, "XDS_HOST_PORT": "many"})

    def test_it_survives_a_reading_anew(self, tmp_path):
        file = tmp_path / "mesh.toml"
        file.write_text('[xds]\napi = "v2"\n')
        made = resolve(file, KATO)
        again = reload(made)
        assert (again.node, again.xds) == (made.node, made.xds)


class TestStreams:
    @pytest.mark.parametrize(
        ("xds", "key"),
        [
            ({"api": "v2", "protocol": "delta"}, "xds.protocol"),
            ({"api": "v2", "protocol": "rest", "server": "http://a:1"}, "xds.protocol"),
            ({"api": "v2", "streams": "aggregated"}, "xds.streams"),
            ({"protocol": "files", "path": "d", "streams": "separate"}, "xds.streams"),
            ({"protocol": "fetch", "streams": "separate"}, "xds.streams"),
        ],
    )
    def test_what_cannot_be(self, xds, key):
        with pytest.raises(meshlib.ConfigError, match=key):
            meshlib.Config.from_mapping({"xds": {"server": "a:1", **xds} if "path" not in xds else xds})

    def test_v2_is_asked_as_an_envoy(self):
        read = meshlib.Config.from_mapping
        assert [
            (made.xds.separate, made.xds.asked_view)
            for made in (
                read({}),
                read({"xds": {"streams": "separate"}}),
                read(V2),
                read({"xds": {"api": "v2", "view": "target"}}),
            )
        ] == [(False, "auto"), (True, "auto"), (True, "sidecar"), (True, "target")]
