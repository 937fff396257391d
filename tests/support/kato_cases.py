"""What a control plane of Kato's kind must do, and what meshlib must make of it: the same cases for the stand-in of the test kit
and for the program of go-control-plane 0.9.

A module that runs them has a fixture ``kato``: the server, running, with the methods of `meshlib.testing.KatoControlPlane` that make
something of it. The numbers are those of the reference (`kato-control-plane.md`).
"""

from __future__ import annotations

import json

import grpc
import pytest

import meshlib
import meshlib.grpc
from meshlib.sources.separate import AGE
from meshlib.testing import GrpcUpstream, VirtualClock
from meshlib.testing.kato import dependency, inbound
from meshlib.testing.kato_resources import CLUSTER, LISTENER, Service
from meshlib.xds import schema
from tests.interop.support.calling import calling, said
from tests.support.v2_client import SERVICES, V2Client, named, unknown
from tests.support.watch import Watch

__all__ = ["MeshCases", "ServerCases"]

NODE = "demo_plugin_gr000001"
ME = "demo_gr000001"
DEFAULT_MESH = "demo_def-mesh4f_gr000001"
V3_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
UNKNOWN, UNIMPLEMENTED = grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED


def address(message):
    return f"{message.socket_address.address}:{message.socket_address.port_value}"


@pytest.fixture
def client(kato):
    with V2Client(kato.address) as made:
        yield made


class Fetched:
    """What a node's snapshot is, by unary calls."""

    def __init__(self, client, node=NODE):
        self.clusters = named(client.fetch("Clusters", node))
        self.listeners = named(client.fetch("Listeners", node))
        self.endpoints = named(client.fetch("Endpoints", node))

    def hosts(self, listener):
        """The virtual hosts of a listener's connection manager."""
        return self.manager(listener).route_config.virtual_hosts

    def manager(self, listener):
        (found,) = self.listeners[listener].filter_chains[0].filters
        assert found.name == "envoy.http_connection_manager"
        assert found.typed_config.type_url.endswith("http_connection_manager.v2.HttpConnectionManager")
        kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        return schema.message(kind).FromString(found.typed_config.value)

    def proxy(self, listener):
        (found,) = self.listeners[listener].filter_chains[0].filters
        assert found.name == "envoy.tcp_proxy"
        assert found.typed_config.type_url.endswith("envoy.config.filter.network.tcp_proxy.v2.TcpProxy")
        return schema.message("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy").FromString(
            found.typed_config.value
        )


class ServerCases:
    """The server by itself, asked by hand."""

    @pytest.fixture(autouse=True)
    def served(self, kato):
        kato.serve("gr2", 5000, "10.0.0.1:5000", "10.0.0.2:5000")
        kato.configure(NODE, dependency("gr2", 5000))

    # --- 1.2

    @pytest.mark.parametrize("plural", ["Listeners", "Clusters", "Endpoints", "Routes"])
    def test_each_type_has_a_stream_and_a_call(self, client, plural):
        stream = client.stream(plural)
        stream.send(NODE)
        fetched, streamed = client.fetch(plural, NODE), stream.receive()
        assert fetched.version_info == streamed.version_info != ""
        assert fetched.type_url == streamed.type_url
        assert named(fetched) == named(streamed)

    def test_aggregated_discovery_is_there_too(self, client):
        stream = client.stream()
        stream.send(NODE, CLUSTER)
        stream.send(NODE, LISTENER)
        assert {stream.receive().type_url, stream.receive().type_url} == {CLUSTER, LISTENER}

    def test_it_wants_a_type(self, client):
        stream = client.stream()
        stream.send(NODE)
        code, words = stream.code()
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "type URL is required" in words

    def test_a_type_of_v3_is_met_with_silence(self, client):
        stream = client.stream()
        stream.send(NODE, schema.CLUSTER)
        stream.send(NODE, LISTENER)
        assert stream.receive().type_url == LISTENER
        assert stream.silent

    def test_v3_is_not_implemented(self, client):
        stream = client.stream(method=V3_ADS)
        stream.send(NODE, schema.CLUSTER)
        assert stream.code()[0] is UNIMPLEMENTED

    def test_delta_is_unknown(self, client):
        for method in (
            SERVICES["Clusters"] + "DeltaClusters",
            "/envoy.service.discovery.v2.AggregatedDiscoveryService/DeltaAggregatedResources",
        ):
            stream = client.stream(method=method)
            stream.send(NODE)
            assert stream.code() == (UNKNOWN, "not implemented")

    def test_routes_are_none_and_secrets_silent(self, client):
        """Routes are inline. Secrets have no version."""
        routes = client.fetch("Routes", NODE)
        assert list(routes.resources) == []
        assert routes.version_info == client.fetch("Clusters", NODE).version_info
        secrets, clusters = client.stream("Secrets"), client.stream("Clusters")
        secrets.send(NODE)
        clusters.send(NODE)
        clusters.receive()
        assert secrets.silent
        assert client.refusal("Secrets", NODE)[0] is UNKNOWN

    # --- 1.3

    def test_a_node_is_its_cluster(self, client):
        by_id, by_cluster = client.stream("Clusters"), client.stream("Clusters")
        by_id.send(node_id=NODE)
        by_cluster.send(NODE, node_id="anything")
        by_cluster.receive()
        assert by_id.silent

    def test_an_unknown_node_waits_on_a_stream_and_fails_a_call(self, kato, client):
        stream = client.stream("Clusters")
        stream.send("demo_plugin_gr9")
        code, words = client.refusal("Clusters", "demo_plugin_gr9")
        assert code is UNKNOWN
        assert "missing snapshot" in words
        assert stream.silent
        kato.configure("demo_plugin_gr9", dependency("gr2", 5000))
        assert list(named(stream.receive())) == ["demo_gr9_gr2_5000"]

    # --- 1.4

    def test_one_version_for_all_types_and_each_change_sends_all_again(self, kato, client):
        streams = {plural: client.stream(plural) for plural in ("Listeners", "Clusters", "Endpoints")}
        for stream in streams.values():
            stream.send(NODE)
            stream.ack(stream.receive())
            stream.settle()
        before = kato.version(NODE)
        kato.serve("gr2", 5000, "10.0.0.3:5000")
        after = {plural: stream.receive() for plural, stream in streams.items()}
        assert {each.version_info for each in after.values()} == {kato.version(NODE)}
        number = int(before.removeprefix("version_"))
        assert kato.version(NODE) == f"version_{number + 1}"
        assert sorted(named(after["Listeners"])) == [f"{ME}_5000", f"{ME}_http_80"]

    def test_nonces_count_from_one_and_the_node_is_said_once(self, kato, client):
        stream = client.stream("Clusters")
        stream.send(NODE)
        for nonce in ("1", "2", "3"):
            answer = stream.receive()
            assert answer.nonce == nonce
            stream.ack(answer)
            kato.serve(
                "gr2", 5000, f"10.0.0.{nonce}:5000"
            )  # before or after the acknowledgement: it is another version

    def test_names_filter_and_are_those_of_the_latest_request(self, kato, client):
        kato.serve("gr3", 6000, "10.0.0.9:6000")
        kato.configure(NODE, dependency("gr2", 5000), dependency("gr3", 6000))
        stream = client.stream("Endpoints")
        stream.send(NODE, names=[f"{ME}_gr3_6000"])
        answer = stream.receive()
        assert list(named(answer)) == [f"{ME}_gr3_6000"]
        stream.ack(answer)  # without names: everything
        kato.serve("gr3", 6000, "10.0.0.8:6000")
        assert len(named(stream.receive())) == 2

    def test_a_name_that_is_added_under_the_servers_version_has_no_answer(self, client):
        """What an Envoy does not meet: it has a stream for each assignment."""
        stream, other = client.stream("Endpoints"), client.stream("Clusters")
        stream.send(NODE, names=["none"])
        answer = stream.receive()
        assert list(answer.resources) == []
        stream.ack(answer, names=["none", f"{ME}_gr2_5000"])
        other.send(NODE)
        other.receive()
        assert stream.silent
        stream.send(names=["none", f"{ME}_gr2_5000"], nonce=answer.nonce)
        assert list(named(stream.receive())) == [f"{ME}_gr2_5000"]

    def test_a_stream_that_opens_with_the_servers_version_has_no_answer(self, kato, client):
        """The hazard of equal versions."""
        known, new = client.stream("Clusters"), client.stream("Clusters")
        known.send(NODE, version=kato.version(NODE))
        new.send(NODE)
        new.receive()
        assert known.silent

    def test_a_restart_counts_anew(self, kato, client):
        assert kato.version(NODE) == "version_1"
        kato.serve("gr2", 5000, "10.0.0.3:5000")
        assert kato.version(NODE) == "version_2"
        kato.restart()
        assert kato.version(NODE) == "version_1"

    def test_a_config_map_that_is_made_anew_loses_every_watch(self, kato, client):
        """The hazard of lost watches."""
        stream, other = client.stream("Clusters"), client.stream("Clusters")
        stream.send(NODE)
        stream.ack(stream.receive())
        kato.serve("gr3", 6000, "10.0.0.9:6000")
        stream.ack(stream.receive())
        stream.settle()
        assert kato.watches(NODE) == 1
        kato.recreate(NODE, dependency("gr3", 6000))
        assert kato.version(NODE) == "version_1"
        other.send(NODE)
        assert list(named(other.receive())) == [f"{ME}_gr3_6000"]
        assert stream.silent

    def test_a_refusal_that_repeats_an_older_version_is_answered_at_once(self, client):
        stream = client.stream("Clusters")
        stream.send(NODE)
        answer = stream.receive()
        for nonce in ("2", "3"):
            stream.send(version="", nonce=answer.nonce, error="no")
            answer = stream.receive()
            assert answer.nonce == nonce

    def test_an_older_nonce_is_passed_over(self, client):
        stream, other = client.stream("Clusters"), client.stream("Clusters")
        stream.send(NODE)
        stream.receive()
        stream.send(nonce="0")
        stream.send(nonce="1")
        assert stream.receive().nonce == "2"
        other.send(NODE)
        other.receive()
        assert stream.silent

    def test_a_call_with_the_servers_version_fails(self, kato, client):
        assert client.refusal("Clusters", NODE, version=kato.version(NODE)) == (
            UNKNOWN,
            "skip fetch: version up to date",
        )

    def test_the_last_dependency_stays_when_it_is_taken_away(self, kato, client):
        """A snapshot without a cluster or a listener is not published."""
        before = kato.version(NODE)
        kato.configure(NODE)
        assert kato.version(NODE) == before
        assert list(Fetched(client).clusters) == [f"{ME}_gr2_5000"]

    # --- 1.5, 1.6

    def test_clusters_are_as_the_agent_makes_them(self, client):
        (cluster,) = Fetched(client).clusters.values()
        assert cluster.name == f"{ME}_gr2_5000"
        assert schema.to_json(cluster) == {
            "name": f"{ME}_gr2_5000",
            "type": "EDS",
            "connect_timeout": "250s",
            "eds_cluster_config": {
                "eds_config": {
                    "api_config_source": {
                        "api_type": "GRPC",
                        "grpc_services": [{"envoy_grpc": {"cluster_name": "kato_xds_cluster"}}],
                    }
                },
                "service_name": f"{ME}_gr2_5000",
            },
            "common_lb_config": {"healthy_panic_threshold": {"value": 0.5}},
            "circuit_breakers": {
                "thresholds": [
                    {
                        "max_connections": 10240,
                        "max_pending_requests": 1024,
                        "max_requests": 10240,
                        "max_retries": 3,
                    }
                ]
            },
            "outlier_detection": {
                "consecutive_5xx": 5,
                "interval": "10s",
                "base_ejection_time": "30s",
                "max_ejection_percent": 10,
            },
        }

    def test_options_are_text_and_zero_is_the_default(self, kato, client):
        kato.configure(
            NODE,
            dependency(
                "gr2",
                5000,
                MaxConnections="7",
                MaxRequests="0",
                MaxActiveRetries="",
                IntervalMS="500",
                BaseEjectionTimeMS="12345",
                MaxEjectionPercent="900",
                ConnectionTimeout="3",
                HealthyPanicThreshold="100",
            ),
        )
        (cluster,) = Fetched(client).clusters.values()
        (limits,) = cluster.circuit_breakers.thresholds
        assert (limits.max_connections.value, limits.max_requests.value, limits.max_retries.value) == (
            7,
            10240,
            3,
        )
        outlier = cluster.outlier_detection
        assert (outlier.interval.seconds, outlier.base_ejection_time.seconds) == (10, 12)
        assert outlier.max_ejection_percent.value == 100
        assert cluster.connect_timeout.seconds == 3
        assert cluster.common_lb_config.healthy_panic_threshold.value == 1.0

    def test_http2_and_its_health_check(self, kato, client):
        kato.configure(NODE, dependency("gr2", 5000, "grpc", GrpcHealthServiceName="shop.Cart"))
        (cluster,) = Fetched(client).clusters.values()
        assert cluster.HasField("http2_protocol_options")
        (check,) = cluster.health_checks
        assert check.grpc_health_check.service_name == "shop.Cart"
        assert (check.unhealthy_threshold.value, check.healthy_threshold.value) == (2, 1)

    def test_a_component_of_somebody_elses(self, kato, client):
        kato.serve_service(Service("gr4", 8080, domain="https://api.example.com"))
        kato.configure(NODE, dependency("gr4", 8080))
        cluster = Fetched(client).clusters[f"{ME}_gr4_8080"]
        assert cluster.type == 2  # LOGICAL_DNS
        assert (
            address(cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address)
            == "api.example.com:443"
        )
        assert cluster.transport_socket.name == "envoy.transport_sockets.tls"
        assert cluster.transport_socket.typed_config.type_url.endswith("envoy.api.v2.auth.UpstreamTlsContext")
        kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        held = schema.message(kind).FromString(cluster.transport_socket.typed_config.value)
        assert schema.to_json(held) == {"sni": "api.example.com"}
        assert Fetched(client).endpoints == {}

    def test_a_port_of_our_own_has_the_hosts_that_v3_took_away(self, kato, client):
        kato.configure(NODE, dependency("gr2", 5000), inbound(8000, 65301))
        found = Fetched(client)
        cluster = found.clusters[f"{ME}_8000"]
        assert cluster.type == 0  # STATIC
        assert not cluster.HasField("load_assignment")
        host = schema.message("envoy.config.core.v3.Address").FromString(unknown(cluster)[7])
        assert address(host) == "127.0.0.1:8000"
        assert address(found.listeners[f"{ME}_8000"].address) == "0.0.0.0:65301"

    def test_endpoints_have_no_weight_no_place_and_a_port_for_health_checks(self, client):
        (assignment,) = Fetched(client).endpoints.values()
        assert schema.to_json(assignment) == {
            "cluster_name": f"{ME}_gr2_5000",
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": {
                                    "socket_address": {"address": f"10.0.0.{number}", "port_value": 5000}
                                },
                                "health_check_config": {"port_value": 5000},
                            }
                        }
                        for number in (1, 2)
                    ]
                }
            ],
        }

    def test_who_is_not_ready_is_one_address_without_that_port(self, kato, client):
        kato.serve("gr2", 5000, unready=["10.0.0.1:5000", "10.0.0.2:5000"])
        (assignment,) = Fetched(client).endpoints.values()
        ((one,),) = [group.lb_endpoints for group in assignment.endpoints]
        assert address(one.endpoint.address) == "10.0.0.1:5000"
        assert not one.endpoint.HasField("health_check_config")

    def test_beside_one_that_is_ready_it_is_not_there(self, kato, client):
        kato.serve("gr2", 5000, "10.0.0.1:5000", unready=["10.0.0.2:5000"])
        (assignment,) = Fetched(client).endpoints.values()
        assert [address(each.endpoint.address) for each in assignment.endpoints[0].lb_endpoints] == [
            "10.0.0.1:5000"
        ]

    def test_no_pods_are_an_empty_assignment(self, kato, client):
        kato.serve("gr2", 5000)
        (assignment,) = Fetched(client).endpoints.values()
        assert list(assignment.endpoints) == []

    def test_each_subset_is_a_locality_without_a_name(self, kato, client):
        kato.serve_service(Service("gr2", 5000, (("10.0.0.1:5000",), ("10.0.0.2:5001",))))
        (assignment,) = Fetched(client).endpoints.values()
        assert [group.HasField("locality") for group in assignment.endpoints] == [False, False]

    # --- 1.7

    def test_a_dependency_has_a_tcp_listener_at_its_port(self, client):
        found = Fetched(client)
        assert address(found.listeners[f"{ME}_5000"].address) == "127.0.0.1:5000"
        proxy = found.proxy(f"{ME}_5000")
        assert (proxy.cluster, proxy.idle_timeout.seconds) == (f"{ME}_gr2_5000", 7200)

    def test_of_those_on_one_port_the_first_has_the_listener(self, kato, client):
        kato.serve("gr3", 5000, "10.0.0.9:5000")
        kato.configure(NODE, dependency("gr2", 5000), dependency("gr3", 5000))
        found = Fetched(client)
        assert found.proxy(f"{ME}_5000").cluster == f"{ME}_gr2_5000"
        assert set(found.clusters) == {f"{ME}_gr2_5000", f"{ME}_gr3_5000"}

    def test_udp(self, kato, client):
        kato.configure(NODE, dependency("gr2", 5000, "udp"))
        listener = Fetched(client).listeners[f"{ME}_5000"]
        assert listener.address.socket_address.protocol == 1
        assert listener.listener_filters[0].typed_config.type_url.endswith("udp_proxy.v2alpha.UdpProxyConfig")

    def test_hosts_by_name_are_on_port_80_with_a_router_that_has_no_settings(self, client):
        found = Fetched(client)
        assert address(found.listeners[f"{ME}_http_80"].address) == "127.0.0.1:80"
        (router,) = found.manager(f"{ME}_http_80").http_filters
        assert (router.name, router.WhichOneof("config_type")) == ("envoy.router", None)
        (host,) = found.hosts(f"{ME}_http_80")
        assert list(host.domains) == ["*"]
        assert host.routes[0].match.prefix == "/"

    def test_the_default_mesh_has_none(self, kato, client):
        kato.configure(DEFAULT_MESH, dependency("gr2", 5000))
        assert list(Fetched(client, DEFAULT_MESH).listeners) == [f"{ME}_5000"]

    def test_a_virtual_host_for_each_prefix_though_they_share_a_domain(self, kato, client):
        kato.configure(
            NODE,
            dependency("gr2", 5000, Domains="shop,www.shop", Prefix="/"),
            dependency("gr2", 5000, Domains="shop,www.shop", Prefix="/api"),
        )
        hosts = Fetched(client).hosts(f"{ME}_http_80")
        assert [list(host.domains) for host in hosts] == [["shop", "www.shop"]] * 2
        assert [host.routes[0].match.prefix for host in hosts] == ["/", "/api"]

    def test_rows_that_are_equal_share_by_weight(self, kato, client):
        kato.serve("gr3", 6000, "10.0.0.9:6000")
        kato.configure(
            NODE,
            dependency("gr2", 5000, Domains="shop", Weight="80"),
            dependency("gr3", 6000, Domains="shop", Weight="20"),
        )
        (host,) = Fetched(client).hosts(f"{ME}_http_80")
        shares = {each.name: each.weight.value for each in host.routes[0].route.weighted_clusters.clusters}
        assert shares == {f"{ME}_gr2_5000": 80, f"{ME}_gr3_6000": 20}

    def test_of_the_headers_the_last_holds_as_a_prefix(self, kato, client):
        kato.configure(NODE, dependency("gr2", 5000, Domains="shop", Headers="x-a:1;x-tier:gold"))
        (host,) = Fetched(client).hosts(f"{ME}_http_80")
        (header,) = host.routes[0].match.headers
        assert (header.name, header.prefix_match) == ("x-tier", "gold")

    def test_a_host_is_rewritten_by_the_name_that_v2_has_for_it(self, kato, client):
        kato.serve_service(Service("gr4", 8080, domain="api.example.com", rewrite=True))
        kato.configure(NODE, dependency("gr4", 8080, Domains="api"))
        (host,) = Fetched(client).hosts(f"{ME}_http_80")
        assert schema.to_json(host.routes[0].route) == {
            "cluster": f"{ME}_gr4_8080",
            "host_rewrite_literal": "api.example.com",  # number 6: host_rewrite
        }

    def test_a_limit_of_rates_has_a_struct(self, kato, client):
        kato.configure(NODE, dependency("gr2", 5000), inbound(8000, 65301, OPEN_LIMIT="YES"))
        limiter, _ = Fetched(client).manager(f"{ME}_8000").http_filters
        assert limiter.name == "envoy.rate_limit"
        assert limiter.WhichOneof("config_type") is None
        settings = schema.message("google.protobuf.Struct").FromString(unknown(limiter)[2])
        assert settings.fields["domain"].string_value == "limit.common"


def config(kato, node=NODE, **xds):
    return {
        "xds": {"api": "v2", "server": kato.address, **xds},
        "node": {"cluster": node},
        "sidecar": {"mode": "off"},
        "unknown_hosts": "refuse",
    }


def told(mesh):
    """The status of the control plane."""
    return next(each for each in mesh.status().sources if each.kind == "xds")


class MeshCases:
    """meshlib against it. No route has a retry policy, so every call that fails shows."""

    URL = "http://shop/"

    @pytest.fixture
    def make_mesh(self):
        meshes = []

        def make(mapping, **options):
            meshes.append(meshlib.Mesh(mapping, **options))
            return meshes[-1]

        yield make
        for mesh in meshes:
            mesh.close()

    @pytest.fixture
    def shop(self, kato, upstream):
        """One dependency, called by name and at its port."""
        server = upstream("v1")
        kato.serve("gr2", 5000, server.address)
        kato.configure(NODE, dependency("gr2", 5000, Domains="shop"))
        return server

    @pytest.fixture
    def ready(self, kato, shop, make_mesh):
        mesh = make_mesh(config(kato))
        mesh.wait_ready("shop", timeout=10)
        return mesh

    def names(self, mesh, *urls, **options):
        with meshlib.Client(mesh=mesh) as client:
            return [client.get(url, **options).json()["name"] for url in urls]

    # --- where calls go

    def test_a_dependency_at_its_port_is_served_in_process(self, ready, shop):
        """Rule 4 of what a URL means: nothing listens there."""
        with meshlib.Client(mesh=ready) as client:
            response = client.get("http://127.0.0.1:5000/x")
        info = meshlib.call_info(response)
        assert response.json()["name"] == "v1"
        assert (info.via, info.listener, info.cluster) == ("mesh", f"{ME}_5000", f"{ME}_gr2_5000")
        assert info.endpoint == shop.address

    def test_it_may_be_polled(self, kato, shop, make_mesh, upstream):
        """By its unary methods; an agent that starts anew, and counts anew, is noticed with the next poll."""
        mesh = make_mesh(config(kato, protocol="fetch", refresh=0.1))
        mesh.wait_ready("shop", timeout=10)
        other = upstream("v2")
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(self.URL)) as calls:
            calls.only("v1")
            kato.restart()
            kato.serve("gr2", 5000, other.address)
            kato.configure(NODE, dependency("gr2", 5000, Domains="shop"))
            calls.only("v2")
        assert calls.failures == []
        assert self.names(mesh, "http://127.0.0.1:5000/") == ["v2"]

    def test_the_default_mesh_has_such_listeners_alone(self, kato, shop, make_mesh):
        kato.configure(DEFAULT_MESH, dependency("gr2", 5000))
        mesh = make_mesh(config(kato, DEFAULT_MESH))
        mesh.wait_ready("127.0.0.1:5000", timeout=10)
        assert self.names(mesh, "http://127.0.0.1:5000/", "http://localhost:5000/") == ["v1", "v1"]

    def test_a_grpc_dependency_at_its_port(self, kato, make_mesh):
        with GrpcUpstream("g1") as server:
            kato.serve("gr2", 5000, server.address)
            kato.configure(DEFAULT_MESH, dependency("gr2", 5000, "grpc"))
            mesh = make_mesh(config(kato, DEFAULT_MESH))
            mesh.wait_ready("127.0.0.1:5000", timeout=10)
            with meshlib.grpc.channel("127.0.0.1:5000", mesh=mesh) as channel:
                answer, call = channel.unary_unary("/shop.Cart/Get", None, None).with_call(b"", timeout=10)
        assert json.loads(answer)["name"] == "g1"
        assert meshlib.call_info(call).cluster == f"{ME}_gr2_5000"

    def test_prefixes_of_one_domain_are_one_virtual_host_the_longest_first(self, kato, ready, upstream):
        kato.serve("gr3", 6000, upstream("v2").address)
        watch = Watch(ready)
        kato.configure(
            NODE,
            dependency("gr2", 5000, Domains="shop", Prefix="/"),
            dependency("gr3", 6000, Domains="shop", Prefix="/api"),
        )
        watch.until(lambda: ready.explain("GET", "http://shop/api").cluster == f"{ME}_gr3_6000")
        assert self.names(ready, "http://shop/", "http://shop/api/1", "http://shop/other") == [
            "v1",
            "v2",
            "v1",
        ]
        assert told(ready).rejected == ()

    def test_weights_and_headers(self, kato, ready, upstream):
        kato.serve("gr3", 6000, upstream("v2").address)
        watch = Watch(ready)
        kato.configure(
            NODE,
            dependency("gr2", 5000, Domains="shop", Weight="0"),
            dependency("gr2", 5000, Domains="only", Headers="x-a:1;x-tier:gold"),
            dependency("gr3", 6000, Domains="split", Weight="100"),
        )
        watch.until(lambda: ready.explain("GET", "http://split/").cluster == f"{ME}_gr3_6000")
        assert self.names(ready, "http://only/", headers={"x-tier": "golden"}) == ["v1"]
        with meshlib.Client(mesh=ready) as client:
            assert client.get("http://only/", headers={"x-tier": "silver"}).status_code == 404

    def test_a_port_of_our_own_is_known(self, kato, ready, upstream):
        own = upstream("own")
        watch = Watch(ready)
        kato.configure(
            NODE, dependency("gr2", 5000, Domains="shop"), inbound(own.port, 65301, OPEN_LIMIT="YES")
        )
        watch.until(lambda: f"{ME}_{own.port}" in ready.status().clusters)
        (endpoint,) = ready.status().clusters[f"{ME}_{own.port}"].endpoints
        assert endpoint.address == own.address
        assert told(ready).rejected == ()

    # --- what is odd

    def test_what_is_odd_is_taken_and_told(self, ready):
        status = told(ready)
        assert (status.state, status.rejected) == ("ready", ())
        assert ("cluster", "connect_timeout") in {(each.type, each.field) for each in status.ignored}
        assert dict(status.versions) == dict.fromkeys(
            ("listener", "cluster", "endpoint"), status.versions["cluster"]
        )

    def test_subsets_without_a_place_are_one(self, kato, ready, upstream):
        a, b = upstream("a"), upstream("b")
        watch = Watch(ready)
        kato.serve_service(Service("gr2", 5000, ((a.address,), (b.address,))))
        watch.until(lambda: len(ready.status().clusters[f"{ME}_gr2_5000"].endpoints) == 2)
        assert sorted(self.names(ready, *["http://shop/"] * 10)) == ["a"] * 5 + ["b"] * 5

    def test_a_service_that_is_not_ready_is_not_called(self, kato, upstream, make_mesh):
        server = upstream("v1")
        kato.serve("gr2", 5000, unready=[server.address])
        kato.configure(NODE, dependency("gr2", 5000, Domains="shop"))
        mesh = make_mesh(config(kato))
        mesh.wait_ready(timeout=10)
        with pytest.raises(meshlib.NotReady, match="no healthy endpoint in cluster"):
            mesh.wait_ready("shop", timeout=0.5)
        with meshlib.Client(mesh=mesh) as client, pytest.raises(meshlib.NoHealthyEndpoint):
            client.get(self.URL)
        assert server.served == 0
        (sign,) = [each for each in told(mesh).ignored if each.type == "endpoint"]
        assert "is not ready" in sign.value
        kato.serve("gr2", 5000, server.address)
        mesh.wait_ready("shop", timeout=10)
        assert self.names(mesh, self.URL) == ["v1"]

    def test_a_dependency_that_is_added_has_its_endpoints_at_once(self, kato, ready, upstream):
        """Its name is asked for with an empty version: under the server's it would have no answer."""
        kato.serve("gr3", 6000, upstream("v2").address)
        kato.configure(
            NODE, dependency("gr2", 5000, Domains="shop"), dependency("gr3", 6000, Domains="other")
        )
        ready.wait_ready("other", timeout=5)
        assert self.names(ready, "http://other/") == ["v2"]

    # --- changes and failures: no call fails where a configuration was ever held

    def test_endpoints_change(self, kato, ready, upstream):
        a, b = upstream("a"), upstream("b")
        with meshlib.Client(mesh=ready) as client, calling(lambda: client.get(self.URL)) as calls:
            calls.only("v1")
            kato.serve("gr2", 5000, a.address, b.address)
            calls.only("a", "b")
            kato.serve("gr2", 5000, b.address)
            calls.only("b")
        assert calls.failures == []

    def test_the_last_dependency_is_taken_away_and_stays(self, kato, ready):
        with meshlib.Client(mesh=ready) as client, calling(lambda: client.get(self.URL)) as calls:
            calls.only("v1")
            kato.configure(NODE)
            calls.more(100)
        assert calls.failures == []

    def test_the_agent_is_gone(self, kato, ready):
        with meshlib.Client(mesh=ready) as client, calling(lambda: client.get(self.URL)) as calls:
            calls.only("v1")
            watch = Watch(ready)
            kato.kill()
            watch.until(lambda: told(ready).state == "stale")
            calls.more(100)
        assert calls.failures == []

    def test_a_restart_with_an_equal_version_and_another_state(self, kato, ready, upstream):
        """1.4: a stream that opened with the version in hand would be told nothing."""
        held = told(ready).versions["cluster"]
        with meshlib.Client(mesh=ready) as client, calling(lambda: client.get(self.URL)) as calls:
            calls.only("v1")
            kato.kill()
            kato.serve("gr2", 5000, upstream("v2").address)
            kato.start()
            for _ in range(int(held.removeprefix("version_")) - 1):
                kato.configure(NODE, dependency("gr2", 5000, Domains="shop"))
            calls.only("v2")
        assert calls.failures == []

    def test_streams_are_cut(self, kato, ready, upstream):
        with meshlib.Client(mesh=ready) as client, calling(lambda: client.get(self.URL)) as calls:
            calls.only("v1")
            kato.drop_streams()
            kato.serve("gr2", 5000, upstream("v2").address)
            calls.only("v2")
        assert calls.failures == []

    def test_a_config_map_is_made_anew(self, kato, shop, make_mesh, upstream):
        """1.4: the watches are lost, and the version may be the same. It is noticed within 90 s. Of time that is moved, none may go by
        while answers are on their way.
        """
        clock = VirtualClock()
        mesh = make_mesh(config(kato), clock=clock)
        mesh.wait_ready("shop", timeout=10)
        said(lambda: kato.watches(NODE) == 3, "all to be acknowledged")
        held = told(mesh).versions["cluster"]
        kato.serve("gr3", 6000, upstream("v2").address)
        said(lambda: kato.watches(NODE) == 3, "all to be acknowledged")
        kato.recreate(NODE, dependency("gr3", 6000, Domains="shop"))
        assert kato.watches(NODE) == 0
        while kato.version(NODE) != held:
            kato.configure(NODE, dependency("gr3", 6000, Domains="shop"))
        with meshlib.Client(mesh=mesh) as client:
            assert client.get(self.URL).json()["name"] == "v1"
            clock.advance(AGE)
            with calling(lambda: client.get(self.URL)) as calls:
                calls.only("v2")
        assert calls.failures == []

    def test_a_config_map_is_gone(self, kato, shop, make_mesh):
        """Its node is unknown from then on: the streams are silent, and that is told."""
        clock = VirtualClock()
        mesh = make_mesh(config(kato), clock=clock)
        mesh.wait_ready("shop", timeout=10)
        said(lambda: kato.watches(NODE) == 3, "all to be acknowledged")
        kato.lose_watches(NODE)
        with meshlib.Client(mesh=mesh) as client:
            self.advance_until(clock, lambda: client.get(self.URL).is_success and told(mesh).state == "stale")
            assert f'does not know node.cluster "{NODE}"' in told(mesh).last_error
            watch = Watch(mesh)
            kato.configure(NODE, dependency("gr2", 5000, Domains="shop"))
            watch.until(lambda: told(mesh).state == "ready" and not told(mesh).last_error)
            assert client.get(self.URL).json()["name"] == "v1"

    # --- who we are

    def test_an_unknown_node_is_told_within_90_seconds(self, kato, shop, make_mesh):
        clock = VirtualClock()
        mesh = make_mesh(config(kato, "demo_plugin_nobody"), clock=clock)
        watch = Watch(mesh)
        said(lambda: len(kato.streams) == 2, "streams for listeners and clusters")
        self.advance_until(clock, lambda: told(mesh).state == "failed")
        assert 'does not know node.cluster "demo_plugin_nobody"' in told(mesh).last_error
        with meshlib.Client(mesh=mesh) as client, pytest.raises(meshlib.MeshError, match="nobody"):
            client.get(self.URL)
        kato.configure("demo_plugin_nobody", dependency("gr2", 5000, Domains="shop"))
        watch.until(lambda: told(mesh).state == "ready")
        assert self.names(mesh, self.URL) == ["v1"]

    def advance_until(self, clock, reached, seconds=90):
        """Moves the clock by seconds. No call is under way meanwhile whose own time would be over, and no answer is waited for."""
        for _ in range(seconds):
            if reached():
                return
            clock.advance(1)
        assert reached()

    @pytest.mark.parametrize("platform", ["kato", "rainbond"])
    def test_all_is_found_in_what_the_platform_sets(self, kato, upstream, make_mesh, monkeypatch, platform):
        """1.3, section 3: a container is told nothing else."""
        monkeypatch.setenv("SERVICE_ID", "5f")
        if platform == "kato":
            monkeypatch.setenv("TENANT_ID", "t1")
            monkeypatch.setenv("SERVICE_NAME", "gr5")
        else:
            monkeypatch.setenv("NAMESPACE", "t1")
            monkeypatch.setenv("SERVICE_ALIAS", "gr5")
            monkeypatch.setenv("SERVICE_NAME", "shop-gr5")
        host, _, port = kato.address.partition(":")
        monkeypatch.setenv("HOST_IP", host)
        monkeypatch.setenv("XDS_HOST_PORT", port)
        kato.serve("gr2", 5000, upstream("v1").address)
        kato.configure("t1_def-mesh5f_gr5", dependency("gr2", 5000))
        mesh = make_mesh({"xds": {"api": "v2"}, "sidecar": {"mode": "off"}})
        mesh.wait_ready("127.0.0.1:5000", timeout=10)
        assert self.names(mesh, "http://127.0.0.1:5000/") == ["v1"]
        assert (mesh.status().node["cluster"], mesh.status().node["id"]) == ("t1_def-mesh5f_gr5",) * 2
