"""The control plane of the kit before clients that are not ours: grpcio's own ``xds:///``, and a real Envoy by each protocol.

One table: what is done to the control plane, and what calls meet then. So our server and our client do not merely agree with each
other: what is sent is taken by clients that others wrote, and what they answer is understood.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from meshlib.testing import ControlPlane, GrpcUpstream, Upstream, build
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.asking import asked
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

CLIENTS = ("grpcio", "Envoy by state of the world", "Envoy by delta")
PATIENCE = 20.0
#: What a call comes to where nobody answers.
FAILS = {"503", "404", "UNAVAILABLE", "refused"}

_numbers = itertools.count(1)


class Peer:
    """A client that others wrote, on a control plane of ours. Each row has a site of its own on it."""

    def __init__(self, kind: str, folder: Path, stack: ExitStack) -> None:
        self.kind = kind
        self.stack = stack
        self.plane = stack.enter_context(ControlPlane())
        self._ports: Iterator[int] = iter(())
        if kind != "grpcio":
            ports = Ports(len(ROWS))
            stack.callback(ports.close)
            self._ports = iter(ports.numbers)
            protocol = "delta" if kind.endswith("delta") else "sotw"
            stack.enter_context(EnvoyProcess(self.plane.address, folder, protocol))

    def site(self) -> Site:
        return (GrpcSite if self.kind == "grpcio" else EnvoySite)(
            self, f"site-{os.getpid()}-{next(_numbers)}"
        )

    def port(self) -> int:
        return next(self._ports)


class Site:
    """A listener with its routes, and calls to it."""

    upstream: Callable[[str], Any]
    wrong: str  # an interval for which the client refuses the cluster by name

    def __init__(self, peer: Peer, name: str) -> None:
        self.peer = peer
        self.plane = peer.plane
        self.name = name

    def serve(self, who: str) -> str:
        """Starts a server; its address."""
        return str(self.peer.stack.enter_context(type(self).upstream(who)).address)

    def listener(self, routes: Any = None) -> dict[str, Any]:
        raise NotImplementedError

    def call(self, seconds: float = 5.0) -> str:
        """Who answered, or how it failed."""
        raise NotImplementedError

    def routes(self, *routes: dict[str, Any], name: str = "") -> dict[str, Any]:
        return build.route_config(name or self.name, build.virtual_host("all", *routes, domains=["*"]))

    def cluster(self, name: str = "main", **fields: Any) -> dict[str, Any]:
        return build.cluster(f"{self.name}-{name}", **fields)

    def endpoints(self, *addresses: str, name: str = "main") -> dict[str, Any]:
        return build.endpoints(f"{self.name}-{name}", *addresses)

    def to(self, name: str = "main", **match: Any) -> dict[str, Any]:
        return build.route(cluster=f"{self.name}-{name}", **match)

    def simple(self, who: str) -> None:
        """Serves ``who``, and calls reach it."""
        address = self.serve(who)
        self.plane.update(self.cluster(), self.endpoints(address), self.routes(self.to()), self.listener())
        self.becomes(who)

    def becomes(self, *who: str) -> None:
        """Nobody tells when a client of others has taken up what it was told."""
        met: list[str] = []
        assert asked(lambda: met.append(self.call()) or met[-1] in who, PATIENCE), (who, met[-5:])

    def answers(self, kind: str, act: Callable[[], object]) -> Any:
        """The client's answer to what this sends, in the response's own version: it is an ACK."""
        seen = self.plane.seen
        act()
        return self.plane.wait_for_ack(kind, after=seen, timeout=PATIENCE)


class EnvoySite(Site):
    upstream = Upstream
    wrong = "0s"

    def __init__(self, peer: Peer, name: str) -> None:
        super().__init__(peer, name)
        self._port = peer.port()

    def listener(self, routes: Any = None) -> dict[str, Any]:
        return build.listener(self.name, routes or self.name, address=f"127.0.0.1:{self._port}")

    def call(self, seconds: float = 5.0) -> str:
        try:
            answer = httpx.get(f"http://127.0.0.1:{self._port}/", timeout=seconds)
        except httpx.TransportError:
            return "refused"
        return str(answer.json()["name"]) if answer.status_code == 200 else str(answer.status_code)


class GrpcSite(Site):
    upstream = GrpcUpstream
    wrong = "-1s"

    def __init__(self, peer: Peer, name: str) -> None:
        super().__init__(peer, name)
        self._channel: grpc.Channel | None = None

    def listener(self, routes: Any = None) -> dict[str, Any]:
        return build.api_listener(self.name, routes or self.name)

    def call(self, seconds: float = 5.0) -> str:
        if self._channel is None:
            options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
            self._channel = self.peer.stack.enter_context(
                grpc.insecure_channel(f"xds:///{self.name}", options=options)
            )
        try:
            return str(json.loads(self._channel.unary_unary("/x.Y/Z")(b"", timeout=seconds))["name"])
        except grpc.RpcError as error:
            return str(error.code().name)


# --- the table -----------------------------------------------------------------------------------------------------


def by_name_from_listener_to_endpoints(site: Site) -> None:
    site.simple("a")


def routes_inline(site: Site) -> None:
    site.plane.update(site.cluster(), site.endpoints(site.serve("a")), site.listener(site.routes(site.to())))
    site.becomes("a")


def other_endpoints(site: Site) -> None:
    site.simple("a")
    address = site.serve("b")
    site.answers("endpoint", lambda: site.plane.update(site.endpoints(address)))
    site.becomes("b")


def other_routes_to_a_new_cluster(site: Site) -> None:
    """In one update; the old one goes."""
    site.simple("a")
    address = site.serve("b")
    new = (site.cluster("new"), site.endpoints(address, name="new"), site.routes(site.to("new")))
    site.plane.update(*new)
    site.becomes("b")
    site.plane.remove("cluster", f"{site.name}-main")
    site.plane.remove("endpoint", f"{site.name}-main")
    assert site.call() == "b"


def endpoints_of_another_name(site: Site) -> None:
    address = site.serve("a")
    named = site.cluster(service_name=f"{site.name}-other")
    site.plane.update(named, site.endpoints(address, name="other"), site.routes(site.to()), site.listener())
    site.becomes("a")


def a_cluster_that_goes_and_returns(site: Site) -> None:
    site.simple("a")
    site.plane.remove("cluster", f"{site.name}-main")
    site.becomes(*FAILS)
    site.plane.update(site.cluster())
    site.becomes("a")


def a_listener_that_goes_and_returns(site: Site) -> None:
    site.simple("a")
    site.plane.remove("listener", site.name)
    site.becomes(*FAILS)
    site.plane.update(site.listener())
    site.becomes("a")


def a_refused_cluster_that_is_mended(site: Site) -> None:
    """The refusal names it; what was there serves on."""
    site.simple("a")
    seen = site.plane.seen
    site.plane.update(site.cluster(outlier_detection={"interval": type(site).wrong}))
    refusal = site.plane.wait_for_nack("cluster", after=seen, timeout=PATIENCE)
    assert f"{site.name}-main" in refusal.error
    assert site.call() == "a"

    def mend() -> None:
        site.plane.update(site.cluster(connect_timeout=2.0))
        site.plane.push("endpoint")  # an Envoy waits for them anew (CA-05), with its answer

    site.answers("cluster", mend)
    assert site.call() == "a"


def nobody(site: Site) -> None:
    """An assignment without endpoints, and then with one."""
    site.plane.update(site.cluster(), site.endpoints(), site.routes(site.to()), site.listener())
    site.becomes(*FAILS)
    site.plane.update(site.endpoints(site.serve("a")))
    site.becomes("a")


def what_comes_late(site: Site) -> None:
    """Endpoints are held back; nobody is served before they come."""
    site.plane.hold("endpoint")
    address = site.serve("a")
    site.plane.update(site.cluster(), site.endpoints(address), site.routes(site.to()), site.listener())
    wanted = f"{site.name}-main"
    if site.peer.kind == "grpcio":
        site.call(0.5)  # it asks when somebody calls
    site.plane.wait_for_request("endpoint", lambda each: wanted in each.names, timeout=PATIENCE)
    site.plane.release("endpoint")
    site.becomes("a")


def streams_that_end(site: Site) -> None:
    site.simple("a")
    opened = site.plane.opened
    site.plane.drop_streams()
    assert site.call() == "a"
    site.plane.wait_for(lambda: site.plane.opened > opened, timeout=PATIENCE)
    site.plane.update(site.endpoints(site.serve("b")))
    site.becomes("b")


def a_restart(site: Site) -> None:
    site.simple("a")
    site.plane.kill()
    assert site.call() == "a"
    site.plane.update(site.endpoints(site.serve("b")))
    site.plane.start()
    site.becomes("b")


def the_same_again(site: Site) -> None:
    site.simple("a")
    site.answers("endpoint", lambda: site.plane.push("endpoint"))
    assert site.call() == "a"


def hundreds_of_clusters(site: Site) -> None:
    address = site.serve("a")
    names = [str(number) for number in range(300)]
    made = [each for name in names for each in (site.cluster(name), site.endpoints(address, name=name))]
    weights = {f"{site.name}-{name}": 1 for name in names}
    site.plane.update(*made, site.routes(build.route(weights=weights)), site.listener())
    site.becomes("a")
    site.plane.remove("cluster", *(f"{site.name}-{name}" for name in names[1:]))
    site.plane.update(site.routes(site.to("0")))
    site.becomes("a")


ROWS = (
    by_name_from_listener_to_endpoints,
    routes_inline,
    other_endpoints,
    other_routes_to_a_new_cluster,
    endpoints_of_another_name,
    a_cluster_that_goes_and_returns,
    a_listener_that_goes_and_returns,
    a_refused_cluster_that_is_mended,
    nobody,
    what_comes_late,
    streams_that_end,
    a_restart,
    the_same_again,
    hundreds_of_clusters,
)


@pytest.fixture(scope="module", params=CLIENTS)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with ExitStack() as stack:
        yield Peer(request.param, tmp_path_factory.mktemp("peer"), stack)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_clients_of_others_take_what_the_kit_sends(
    peer: Peer, row: Callable[[Site], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRPC_XDS_BOOTSTRAP_CONFIG", json.dumps(peer.plane.bootstrap()))
    before = peer.plane.seen
    row(peer.site())
    refused = [each for each in peer.plane.requests[before:] if each.is_nack]
    assert bool(refused) == (row is a_refused_cluster_that_is_mended), refused
