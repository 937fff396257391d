"""TL-07: TLS to an endpoint through the HTTP/1.1 proxy that its metadata names, of HTTP and of gRPC, beside a real Envoy."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import meshlib
from meshlib.testing import ControlPlane, Upstream, build
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.certificates import Authority
from tests.support.connect_proxy import ConnectProxy
from tests.support.faces import FaceFactory
from tests.support.grpc_channels import FACES, Channels
from tests.support.grpc_tls import SERVER, socket_of, world
from tests.support.ports import Ports
from tests.support.watch import arrived, until

NAME = "reviews.test"
CA = Authority("Mesh")
HELD = CA.issue(NAME)
INSIDE = socket_of(CA.pem, ("DNS", NAME), sni=NAME)
ADDRESS = "127.0.0.9:9080"
PROXIED = "envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport"
MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def through(inside: dict[str, Any], default: str = "") -> dict[str, Any]:
    """The transport socket around another one."""
    fields: dict[str, Any] = {"transport_socket": inside}
    if default:
        fields["default_proxy_address"] = build.socket_address(default)
    return {"name": "proxied", "typed_config": build.any_of(PROXIED, fields)}


def named(proxy: str) -> dict[str, Any]:
    """Metadata that names one."""
    address = build.any_of("envoy.config.core.v3.Address", build.socket_address(proxy))
    return {"typed_filter_metadata": {"envoy.http11_proxy_transport_socket.proxy_address": address}}


@pytest.fixture
def proxies() -> Iterator[Sequence[ConnectProxy]]:
    with ConnectProxy() as one, ConnectProxy() as two, ConnectProxy() as three:
        yield one, two, three


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Sequence[Upstream]]:
    HELD.write(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with (
        Upstream("one", tls=context) as one,
        Upstream("two", tls=context) as two,
        Upstream("three", tls=context) as three,
    ):
        yield one, two, three


def cluster(servers: Sequence[Upstream], proxies: Sequence[ConnectProxy]) -> Any:
    """An endpoint that names its proxy, one whose locality does, and one that has the transport's."""
    own, of_locality, default = (proxy.address for proxy in proxies)
    one, two, three = (server.address for server in servers)
    localities = (
        build.locality(
            build.endpoint(one, metadata=named(own)), build.endpoint(two), metadata=named(of_locality)
        ),
        build.locality(three, zone="z"),
    )
    return build.cluster("c", list(localities), transport_socket=through(INSIDE, default))


def sidecar_view(face: FaceFactory, plane: ControlPlane) -> Any:
    mesh = meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}})
    mesh.wait_ready(timeout=20)
    arrived(mesh, ADDRESS)
    return face(mesh)


def clusters(client: Any) -> Any:
    return client.mesh.snapshot().clusters


LISTENER = build.listener(
    "l",
    build.route_config("r", build.virtual_host("v", build.route("/", cluster="c"), domains=["*"])),
    address=ADDRESS,
)


def test_each_endpoint_by_its_proxy_as_a_real_envoy(
    face: FaceFactory, servers: Sequence[Upstream], proxies: Sequence[ConnectProxy], tmp_path: Path
) -> None:
    made = cluster(servers, proxies)
    with ControlPlane(LISTENER, made) as plane:
        client = sidecar_view(face, plane)
        names = [client.get(f"http://{ADDRESS}/").json()["name"] for _ in range(6)]
        client.mesh.close()
    assert sorted(names) == ["one", "one", "three", "three", "two", "two"]
    ours = [list(proxy.asked) for proxy in proxies]
    assert ours == [[server.address] for server in servers]
    for proxy in proxies:
        proxy.asked.clear()
    ports = Ports(1)
    listener = build.without_type(LISTENER) | {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": ports.numbers[0]}},
        "enable_reuse_port": True,
    }
    with EnvoyProcess(bootstrap(listener, build.without_type(made)), tmp_path) as envoy:
        envoy.wait_for_listeners(1)
        for _ in range(6):
            urllib.request.urlopen(f"http://127.0.0.1:{ports.numbers[0]}/", timeout=20).read()
    ports.close()
    assert [sorted(set(proxy.asked)) for proxy in proxies] == ours


def bootstrap(listener: Any, *clusters: Any) -> dict[str, Any]:
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    return {"admin": admin, "static_resources": {"listeners": [listener], "clusters": list(clusters)}}


def test_a_real_envoy_is_the_proxy(face: FaceFactory, servers: Sequence[Upstream], tmp_path: Path) -> None:
    ports = Ports(1)
    route = {
        "match": {"connect_matcher": {}},
        "route": {
            "cluster": "beyond",
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        },
    }
    manager = {
        "stat_prefix": "s",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http_filters": [dict(build.ROUTER)],
    }
    listener = {
        "name": "proxy",
        "enable_reuse_port": True,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": ports.numbers[0]}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": build.any_of(MANAGER, manager)}]}],
    }
    beyond = build.without_type(build.cluster("beyond", [servers[0].address]))
    with EnvoyProcess(bootstrap(listener, beyond), tmp_path) as envoy:
        envoy.wait_for_listeners(1)
        made = build.cluster(
            "c", [servers[0].address], transport_socket=through(INSIDE, f"127.0.0.1:{ports.numbers[0]}")
        )
        with ControlPlane(LISTENER, made) as plane:
            client = sidecar_view(face, plane)
            assert client.get(f"http://{ADDRESS}/").json()["name"] == "one"
            client.mesh.close()
        assert envoy.stats("http.s.downstream_cx_upgrades_total") == {
            "http.s.downstream_cx_upgrades_total": 1
        }
    ports.close()


def test_a_proxy_that_refuses_and_one_that_comes(
    face: FaceFactory, servers: Sequence[Upstream], proxies: Sequence[ConnectProxy]
) -> None:
    one, two, _ = proxies
    one.answer = b"HTTP/1.1 403 Forbidden\r\n\r\n"

    def by(proxy: ConnectProxy) -> Any:
        members = [build.endpoint(servers[0].address, metadata=named(proxy.address))]
        return build.cluster("c", members, transport_socket=through(INSIDE))

    with ControlPlane(LISTENER, by(one)) as plane:
        client = sidecar_view(face, plane)
        with pytest.raises(meshlib.ConnectFailed, match="answers CONNECT with 403"):
            client.get(f"http://{ADDRESS}/")
        assert servers[0].connections_total == 0
        plane.set(LISTENER, by(two))
        until(client.mesh, lambda: str(clusters(client)["c"].assignment.endpoints[0].proxy) == two.address)
        assert client.get(f"http://{ADDRESS}/").json()["name"] == "one"
        client.mesh.close()


@pytest.mark.parametrize("kind", FACES)
def test_grpc_goes_through_it(kind: str, proxies: Sequence[ConnectProxy], meshlib_grpc_upstream: Any) -> None:
    proxy, *_ = proxies
    with world() as mesh, Channels(kind) as channels:
        one = meshlib_grpc_upstream("v1", credentials=mesh.server())
        inside = socket_of(mesh.authority.pem, ("URI", SERVER), shown=mesh.shown)
        mesh.say(build.endpoint(one.address, metadata=named(proxy.address)), socket=through(inside))
        channel = channels.make(mesh.config)
        assert channel.said()["name"] == "v1"
        assert len(channel.both_streams([b"a", b"b"])) == 2
        assert proxy.asked == [one.address]


@pytest.mark.parametrize("kind", FACES)
def test_grpc_says_what_it_refuses(
    kind: str, proxies: Sequence[ConnectProxy], meshlib_grpc_upstream: Any
) -> None:
    proxy, *_ = proxies
    proxy.answer = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
    with world() as mesh, Channels(kind) as channels:
        one = meshlib_grpc_upstream("v1", credentials=mesh.server())
        inside = socket_of(mesh.authority.pem, ("URI", SERVER), shown=mesh.shown)
        mesh.say(build.endpoint(one.address, metadata=named(proxy.address)), socket=through(inside))
        channel = channels.make(mesh.config)
        with pytest.raises(meshlib.ConnectFailed, match="answers CONNECT with 502"):
            channel.said()
        assert one.connections_total == 0
