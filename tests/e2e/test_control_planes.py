"""Several real control planes and one process: fallback and federation, with calls going on."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
import trustme

import meshlib
import meshlib.grpc
from meshlib.testing import ControlPlane, Upstream, build
from tests.support.asking import asked
from tests.support.watch import arrived, until

PROTOCOLS = pytest.mark.parametrize("protocol", ["sotw", "delta"])


@pytest.fixture
def planes() -> Iterator[Callable[[int], list[ControlPlane]]]:
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(ControlPlane()) for _ in range(count)]


@pytest.fixture
def made() -> Iterator[Callable[..., Any]]:
    """A mesh and a client of it."""
    with ExitStack() as stack:

        def make(xds: dict[str, Any], **more: Any) -> tuple[meshlib.Mesh, meshlib.Client]:
            config = {
                "xds": {"view": "target", "cold_start": "fail", **xds},
                "sidecar": {"mode": "off"},
                **more,
            }
            mesh = stack.enter_context(meshlib.Mesh(config))
            return mesh, stack.enter_context(meshlib.Client(mesh=mesh, timeout=20.0))

        yield make


@pytest.fixture
def upstream() -> Iterator[Callable[..., Upstream]]:
    with ExitStack() as stack:
        yield lambda name, **options: stack.enter_context(Upstream(name, **options))


def service(name: str, address: str) -> list[dict[str, Any]]:
    """A target whose cluster has the same name on every server."""
    host = build.virtual_host(name, build.route("/", cluster=f"c-{name}"), domains=["*"])
    return [
        build.api_listener(name, f"r-{name}"),
        build.route_config(f"r-{name}", host),
        build.cluster(f"c-{name}"),
        build.endpoints(f"c-{name}", address),
    ]


def who(client: meshlib.Client, host: str) -> str:
    name: str = client.get(f"http://{host}/").json()["name"]
    return name


def names(client: meshlib.Client, host: str, count: int = 20) -> set[str]:
    return {who(client, host) for _ in range(count)}


def states(mesh: meshlib.Mesh) -> dict[str, str]:
    """By server; of the source as a whole by its name."""
    found = [source for source in mesh.status().sources if source.kind == "xds"]
    return {source.name.removeprefix("xds "): source.state for source in found}


@PROTOCOLS
def test_who_has_everything_stays_and_a_new_name_falls_back(
    planes: Any, made: Any, upstream: Any, protocol: str
) -> None:
    """FB-01, FB-02, FB-04, FB-05: with the first server away, then with a new name, then back."""
    first, second = planes(2)
    a, b = upstream("of-the-first"), upstream("of-the-second")
    first.set(*service("reviews", a.address), *service("ratings", a.address))
    second.set(*service("reviews", b.address), *service("ratings", b.address))
    mesh, client = made({"server": [first.address, second.address], "protocol": protocol})
    assert names(client, "reviews") == {a.name}
    assert second.opened == 0  # ST-01
    first.kill()
    until(mesh, lambda: states(mesh)["xds"] == "stale")
    assert names(client, "reviews") == {a.name}
    assert second.opened == 0
    assert names(client, "ratings") == {b.name}
    assert second.wait_for_request("listener", timeout=20).names == ("ratings", "reviews")
    assert names(client, "reviews") == {a.name}
    until(mesh, lambda: states(mesh)["xds"] == "ready")
    assert states(mesh) == {"xds": "ready", first.address: "stale", second.address: "ready"}
    first.start()
    until(mesh, lambda: mesh.explain("GET", "http://ratings/").endpoint == a.address)
    second.wait_for_streams(0, timeout=20)
    assert (names(client, "reviews"), names(client, "ratings")) == ({a.name}, {a.name})
    assert states(mesh) == {"xds": "ready", first.address: "ready", second.address: "idle"}


@PROTOCOLS
def test_three_servers_one_by_one(planes: Any, made: Any, upstream: Any, protocol: str) -> None:
    """FB-03, FB-04"""
    first, second, third = planes(3)
    ends = [upstream(f"of-{number}") for number in range(3)]
    for plane, end in zip((first, second, third), ends, strict=True):
        plane.set(*service("reviews", end.address))
    for plane in (first, second, third):
        plane.kill()
    servers = [first.address, second.address, third.address]
    mesh, client = made({"server": servers, "protocol": protocol})
    with pytest.raises(meshlib.NotReady) as problem:
        who(client, "reviews")
    until(mesh, lambda: states(mesh) == {"xds": "failed", **dict.fromkeys(servers, "failed")})
    assert third.address in mesh._runtime().feed.pending("reviews"), problem.value
    third.start()
    until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == ends[2].address)
    assert names(client, "reviews") == {ends[2].name}
    second.start()
    until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == ends[1].address)
    third.wait_for_streams(0, timeout=20)
    assert names(client, "reviews") == {ends[1].name}
    first.start()
    until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == ends[0].address)
    second.wait_for_streams(0, timeout=20)
    assert names(client, "reviews") == {ends[0].name}


def test_listeners_made_for_an_envoy_fall_back_as_a_whole(planes: Any, made: Any, upstream: Any) -> None:
    first, second = planes(2)
    a, b = upstream("of-the-first"), upstream("of-the-second")
    for plane, end in ((first, a), (second, b)):
        routes = build.route_config(
            "r", build.virtual_host("v", build.route("/", cluster="c"), domains=["reviews"])
        )
        listener = build.listener("outbound", routes, address="0.0.0.0:80")
        plane.set(listener, build.cluster("c"), build.endpoints("c", end.address))
    first.kill()
    mesh, client = made({"server": [first.address, second.address], "view": "auto"})
    assert names(client, "reviews") == {b.name}
    first.start()
    until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == a.address)
    assert names(client, "reviews") == {a.name}
    second.kill()
    assert names(client, "reviews") == {a.name}


def test_calls_go_on_while_servers_come_and_go(planes: Any, made: Any, upstream: Any) -> None:
    """CA-01: where a configuration was ever held, no call fails."""
    first, second = planes(2)
    a, b = upstream("of-the-first"), upstream("of-the-second")
    first.set(*service("reviews", a.address))
    second.set(*service("reviews", b.address))
    first.kill()
    mesh, client = made({"server": [first.address, second.address]})
    assert names(client, "reviews", 50) == {b.name}
    for _ in range(2):
        first.start()
        seen: list[str] = []
        while not seen or seen[-1] != a.name:
            seen.append(who(client, "reviews"))
        assert set(seen) <= {a.name, b.name}
        first.kill()
        assert names(client, "reviews", 50) == {a.name}
        until(mesh, lambda: states(mesh)["xds"] == "stale")
        assert names(client, "reviews", 50) == {a.name}


# --- federation ------------------------------------------------------------------------------------------------------


def server(plane: ControlPlane) -> dict[str, Any]:
    return {"server_uri": plane.address, "channel_creds": [{"type": "insecure"}]}


def federated(*planes: ControlPlane, **authorities: Any) -> str:
    return json.dumps(
        {"xds_servers": [server(plane) for plane in planes], "node": {"id": "me"}, "authorities": authorities}
    )


def test_an_outage_of_one_authority_moves_no_other(planes: Any, made: Any, upstream: Any) -> None:
    """FB-05, BS-09, BS-12: names of the old kind, and of an authority with two servers of its own."""
    top, own, spare = planes(3)
    a, b = upstream("top"), upstream("spare")
    name = "xdstp://shop/envoy.config.listener.v3.Listener/ratings"
    host = build.virtual_host("v", build.route("/", cluster="c"), domains=["*"])
    listener = build.api_listener(name, build.route_config("r", host))
    top.set(*service("reviews", a.address), build.cluster("c"), build.endpoints("c", b.address))
    spare.set(listener)
    own.kill()
    bootstrap = federated(top, shop={"xds_servers": [server(own), server(spare)]})
    mesh, client = made({"bootstrap_config": bootstrap})
    assert names(client, "reviews") == {a.name}
    assert (own.opened, spare.opened) == (0, 0)
    mesh._runtime().want(name, "ratings")
    spare.wait_for_request("listener", lambda request: request.names == (name,), timeout=20)
    until(mesh, lambda: name in mesh.snapshot().parts[-1].targets)
    assert names(client, "reviews") == {a.name}
    assert states(mesh) == {
        "xds": "ready",
        top.address: "ready",
        own.address: "failed",
        spare.address: "ready",
    }
    assert top.opened == 1


@PROTOCOLS
def test_hosts_by_the_template_of_an_authority(planes: Any, made: Any, upstream: Any, protocol: str) -> None:
    """BS-10, FE-01: every host of the mesh is the authority's; its route spells a cluster with its parameters in another order."""
    top, own = planes(2)
    a = upstream("a")

    def name(kind: str, identity: str, query: str = "?env=x&tenant=shop") -> str:
        return f"xdstp://shop/envoy.config.{kind}/{identity}{query}"

    cluster, ends = name("cluster.v3.Cluster", "c"), name("endpoint.v3.ClusterLoadAssignment", "c")
    route = name("route.v3.RouteConfiguration", "r")
    host = build.virtual_host(
        "v",
        build.route("/", cluster=cluster.replace("env=x&tenant=shop", "tenant=shop&env=x")),
        domains=["*"],
    )
    own.set(
        build.api_listener(name("listener.v3.Listener", "reviews:9080"), route),
        build.route_config(route, host),
        build.cluster(cluster, service_name=ends),
        build.endpoints(ends, a.address),
    )
    template = name("listener.v3.Listener", "%s", "?tenant=shop&env=x")
    bootstrap = json.loads(federated(top, shop={"xds_servers": [server(own)]}))
    bootstrap["client_default_listener_resource_name_template"] = template
    _, client = made({"bootstrap_config": json.dumps(bootstrap), "protocol": protocol})
    assert who(client, "reviews:9080") == a.name
    assert own.wait_for_request("cluster", timeout=20).names == (cluster,)
    assert top.seen == 0


@pytest.mark.parametrize("allowed", [True, False])
def test_a_resource_that_says_where_what_it_names_comes_from(
    planes: Any, made: Any, upstream: Any, allowed: bool
) -> None:
    """A102: endpoints of another control plane, if the bootstrap allows it."""
    top, other = planes(2)
    a = upstream("a")
    service = {"google_grpc": {"target_uri": other.address}}
    source = {"api_config_source": {"api_type": "GRPC", "grpc_services": [service]}}
    host = build.virtual_host("v", build.route("/", cluster="c"), domains=["*"])
    cluster = build.cluster("c", eds_cluster_config={"eds_config": source})
    top.set(build.api_listener("reviews", build.route_config("r", host)), cluster)
    other.set(build.endpoints("c", a.address))
    services = {other.address: {"channel_creds": [{"type": "insecure"}]}} if allowed else {}
    bootstrap = {**json.loads(federated(top)), "allowed_grpc_services": services}
    mesh, client = made({"bootstrap_config": json.dumps(bootstrap)})
    if allowed:
        assert names(client, "reviews") == {a.name}
        assert other.wait_for_request("endpoint", timeout=20).names == ("c",)
        assert states(mesh) == {"xds": "ready", top.address: "ready", other.address: "ready"}
        other.kill()
        until(mesh, lambda: states(mesh)[other.address] == "stale")
        assert names(client, "reviews") == {a.name}
        assert states(mesh)["xds"] == "ready"
    else:
        mesh._runtime().want("reviews", "reviews")
        assert "is not among the allowed_grpc_services" in str(top.wait_for_nack("cluster", timeout=20).error)
        assert other.opened == 0


class SecretsAlone(grpc.GenericRpcHandler):
    """An agent that has secrets, by state of the world; what they are a control plane of the kit says."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if not handler_call_details.method.endswith("SecretDiscoveryService/StreamSecrets"):
            return None
        return grpc.stream_stream_rpc_method_handler(
            lambda incoming, context: self._plane._serve("sotw", incoming, context)
        )


def said(client: meshlib.Client) -> str:
    """What a call says that fails to connect."""
    try:
        client.get("http://127.0.0.9:9080/")
    except meshlib.ConnectFailed as error:
        return str(error)
    return ""


@pytest.mark.parametrize("protocol", ["auto", "sotw"])
def test_secrets_of_a_server_that_has_nothing_else(
    planes: Any, made: Any, upstream: Any, protocol: str
) -> None:
    """SD-01, SD-03: it has the service of secrets alone, and no delta."""
    top, other = planes(2)
    authority, later = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("a.example").configure_cert(context)
    a = upstream("a", tls=context)
    agent = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    agent.add_generic_rpc_handlers((SecretsAlone(other),))
    address = f"127.0.0.1:{agent.add_insecure_port('127.0.0.1:0')}"
    service = {"google_grpc": {"target_uri": address, "stat_prefix": "sds"}}
    source = {"api_config_source": {"api_type": "GRPC", "grpc_services": [service]}}
    roots = {"validation_context_sds_secret_config": {"name": "roots", "sds_config": source}}
    kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    socket = {"name": "tls", "typed_config": build.any_of(kind, {"common_tls_context": roots})}
    host = build.virtual_host("v", build.route("/", cluster="c"), domains=["*"])
    top.set(
        build.listener("l", build.route_config("r", host), address="127.0.0.9:9080"),
        build.cluster("c", [a.address], transport_socket=socket),
    )
    other.set(build.secret("roots", ca=authority.cert_pem.bytes().decode()))
    services = {address: {"channel_creds": [{"type": "insecure"}]}}
    bootstrap = {**json.loads(federated(top)), "allowed_grpc_services": services}
    agent.start()
    mesh, client = made({"bootstrap_config": json.dumps(bootstrap), "protocol": protocol, "view": "sidecar"})
    mesh.wait_ready(timeout=20)
    arrived(mesh, "127.0.0.9:9080")
    assert names(client, "127.0.0.9:9080") == {a.name}
    assert other.wait_for_request("secret", timeout=20).names == ("roots",)
    seen = other.seen
    other.set(build.secret("roots", ca=later.cert_pem.bytes().decode()))
    other.wait_for_ack("secret", after=seen, timeout=20)
    until(mesh, lambda: "unable to get local issuer certificate" in said(client))
    agent.stop(None).wait()


# --- credentials -------------------------------------------------------------------------------------------------------


class Secured:
    """A control plane that speaks TLS, and the files of its client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.theirs = trustme.CA()  # of clients
        self.authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.issue()

    def issue(self, by: trustme.CA | None = None) -> None:
        """The client's certificate, in place of the one before."""
        cert = (by or self.theirs).issue_cert("me.example")
        cert.private_key_pem.write_to_path(str(self.folder / "key.pem"))
        (self.folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in cert.cert_chain_pems))

    def credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        cert = self.authority.issue_cert("localhost", "127.0.0.1")
        chain = b"".join(pem.bytes() for pem in cert.cert_chain_pems)
        roots = self.theirs.cert_pem.bytes() if mutual else None
        return grpc.ssl_server_credentials([(cert.private_key_pem.bytes(), chain)], roots, mutual)

    def bootstrap(self, plane: ControlPlane, *, mutual: bool = False, **more: Any) -> str:
        files = {"ca_certificate_file": "ca.pem"}
        if mutual:
            files |= {"certificate_file": "cert.pem", "private_key_file": "key.pem"}
        config = {key: str(self.folder / name) for key, name in files.items()}
        made = {"server_uri": plane.address, "channel_creds": [{"type": "tls", "config": config}], **more}
        return json.dumps({"xds_servers": [made], "node": {"id": "me"}})


@pytest.fixture
def secured(tmp_path: Path) -> Secured:
    return Secured(tmp_path)


def test_mutual_tls_and_new_files_at_the_next_stream(secured: Secured, made: Any, upstream: Any) -> None:
    """BS-05, TL-06: the certificates of gRFC A65, and what takes their place."""
    a = upstream("a")
    with ControlPlane(*service("reviews", a.address), credentials=secured.credentials(mutual=True)) as plane:
        secured.issue(trustme.CA())  # of nobody that the server trusts
        mesh, client = made({"bootstrap_config": secured.bootstrap(plane, mutual=True)})
        mesh._runtime().want("reviews", "reviews")
        until(mesh, lambda: states(mesh)["xds"] == "failed")
        assert plane.opened == 0
        secured.issue()
        until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == a.address)
        assert names(client, "reviews") == {a.name}


def test_tokens_of_the_bootstrap_are_read_at_each_stream(secured: Secured, made: Any, upstream: Any) -> None:
    """BS-04"""
    a = upstream("a")
    token = secured.folder / "token"
    token.write_text("one\n")
    with ControlPlane(*service("reviews", a.address), credentials=secured.credentials(mutual=False)) as plane:
        creds = [{"type": "nobody"}, {"type": "jwt_token_file", "config": {"jwt_token_file": str(token)}}]
        mesh, client = made({"bootstrap_config": secured.bootstrap(plane, call_creds=creds)})
        assert names(client, "reviews") == {a.name}
        assert [stream.metadata["authorization"] for stream in plane.streams] == ["Bearer one"]
        token.write_text("two")
        plane.drop_streams()
        plane.wait_for(
            lambda: [each.metadata["authorization"] for each in plane.streams] == ["Bearer two"], timeout=20
        )
        assert "Bearer" not in json.dumps(mesh.status().to_dict())


def test_a_token_of_the_configuration(secured: Secured, made: Any, upstream: Any) -> None:
    """A token that cannot be read is said, without what is in it, and is read as soon as it is there."""
    a = upstream("a")
    token = secured.folder / "token"
    token.write_text("not a token")
    with ControlPlane(*service("reviews", a.address), credentials=secured.credentials(mutual=False)) as plane:
        tls = {"ca": str(secured.folder / "ca.pem")}
        mesh, client = made({"server": plane.address, "tls": tls, "token": str(token)})
        mesh._runtime().want("reviews", "reviews")
        until(mesh, lambda: states(mesh)["xds"] == "failed")
        said = mesh.status().sources[-1].last_error
        assert f"{token} holds no token" in said
        assert "not a token" not in said
        token.write_text("mine")
        until(mesh, lambda: mesh.explain("GET", "http://reviews/").endpoint == a.address)
        assert names(client, "reviews") == {a.name}
        assert [stream.metadata["authorization"] for stream in plane.streams] == ["Bearer mine"]


def test_options_of_the_channel(made: Any, upstream: Any, secured: Secured) -> None:
    """A110: what the server's certificate is for is another name than the one that it is reached by."""
    a = upstream("a")
    cert = secured.authority.issue_cert("control-plane.example")
    chain = b"".join(pem.bytes() for pem in cert.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(cert.private_key_pem.bytes(), chain)])
    with ControlPlane(*service("reviews", a.address), credentials=credentials) as plane:
        options = {
            "grpc.ssl_target_name_override": "control-plane.example",
            "grpc.primary_user_agent": "shop/1",
        }
        xds = {"server": plane.address, "tls": {"ca": str(secured.folder / "ca.pem")}, "options": options}
        _, client = made(xds)
        assert names(client, "reviews") == {a.name}
        (stream,) = plane.streams
        assert stream.metadata["user-agent"].startswith("shop/1 ")


def test_a_server_behind_a_socket_file(made: Any, upstream: Any, tmp_path: Path) -> None:
    a = upstream("a")
    path = tmp_path / "xds.sock"

    class Local(ControlPlane):
        def _listen(self, server: grpc.Server) -> int:
            server.add_insecure_port(f"unix:{path}")
            return super()._listen(server)

    with Local(*service("reviews", a.address)) as plane:
        _, client = made({"server": f"unix:{path}"})
        assert names(client, "reviews") == {a.name}
        assert [stream.peer for stream in plane.streams] == ["unix:"]


# --- beside grpc's own client --------------------------------------------------------------------------------------------

#: A process with grpcio alone: a channel to its first argument; each line on its input is a call.
PROGRAM = """
import json, sys
import grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    unary = channel.unary_unary("/shop.Stock/Get")
    for line in sys.stdin:
        try:
            print(json.loads(unary(b"", timeout=15, wait_for_ready=json.loads(line)))["name"], flush=True)
        except grpc.RpcError as error:
            print(error.code().name, flush=True)
"""


class Peer:
    """grpc's own client of a bootstrap, in a process of its own."""

    def __init__(self, target: str, bootstrap: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
        environment |= {
            "GRPC_XDS_BOOTSTRAP_CONFIG": bootstrap,
            "GRPC_EXPERIMENTAL_XDS_FALLBACK": "true",
            "GRPC_EXPERIMENTAL_XDS_FEDERATION": "true",
        }
        self._child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def who(self, *, waits: bool = True) -> str:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{json.dumps(waits)}\n")
        self._child.stdin.flush()
        return self._child.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._child.kill()
        self._child.communicate()


@pytest.fixture
def stock(meshlib_grpc_upstream: Any) -> Callable[[str], Any]:
    return meshlib_grpc_upstream  # type: ignore[no-any-return]


def of_grpc(name: str, address: str, cluster: str = "c") -> list[dict[str, Any]]:
    host = build.virtual_host("v", build.route("/", cluster=cluster), domains=["stock"])
    return [
        build.api_listener(name, build.route_config("r", host)),
        build.cluster(cluster, http2_protocol_options={}),
        build.endpoints(cluster, address),
    ]


def ours(mesh: meshlib.Mesh, target: str) -> Any:
    return meshlib.grpc.channel(target, mesh=mesh).unary_unary("/shop.Stock/Get")


def test_targets_of_an_authority_beside_grpc(planes: Any, made: Any, stock: Any) -> None:
    """BS-09, BS-11, FE-01: the virtual host is that of the path, and a template's parameters are sorted."""
    top, own = planes(2)
    here = stock("of-the-authority")
    _, *rest = of_grpc("", here.address)
    top.set(*rest)
    own.set(*of_grpc("xdstp://shop/envoy.config.listener.v3.Listener/x/stock?a=1&b=2", here.address))
    template = "xdstp://shop/envoy.config.listener.v3.Listener/x/%s?b=2&a=1"
    shop = {"xds_servers": [server(own)], "client_listener_resource_name_template": template}
    bootstrap = federated(top, shop=shop)
    mesh, _ = made({"bootstrap_config": bootstrap})
    with Peer("xds://shop/stock", bootstrap) as peer:
        assert peer.who() == "of-the-authority"
    assert json.loads(ours(mesh, "xds://shop/stock")(b"", timeout=15))["name"] == "of-the-authority"
    with Peer("xds://nobody/stock", bootstrap) as peer:
        assert peer.who(waits=False) == "UNAVAILABLE"
    with pytest.raises(grpc.RpcError) as problem:
        ours(mesh, "xds://nobody/stock")(b"", timeout=15)
    assert problem.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "has no authority 'nobody'" in problem.value.details()


def test_servers_in_reserve_beside_grpc(planes: Any, made: Any, stock: Any) -> None:
    """FB-01, FB-02: a start without the first, and its return."""
    first, second = planes(2)
    a, b = stock("of-the-first"), stock("of-the-second")
    first.set(*of_grpc("stock", a.address))
    second.set(*of_grpc("stock", b.address))
    first.kill()
    bootstrap = federated(first, second)
    mesh, _ = made({"bootstrap_config": bootstrap})
    mine = ours(mesh, "xds:///stock")
    with Peer("xds:///stock", bootstrap) as peer:
        assert peer.who() == "of-the-second"
        assert json.loads(mine(b"", timeout=15, wait_for_ready=True))["name"] == "of-the-second"
        first.start()
        second.wait_for_streams(0, timeout=30)
        until(mesh, lambda: mesh.explain("GET", "http://stock/").endpoint == a.address)
        # grpc leaves the second with the first answer of the first; what it calls is another then, which it tells nobody.
        assert asked(lambda: peer.who() == "of-the-first")
        assert json.loads(mine(b"", timeout=15))["name"] == "of-the-first"
