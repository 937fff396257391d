"""Everything that can become of a control plane, while calls go on: none fails where a configuration was ever held.

Each outage is tried by HTTP over state of the world and by gRPC over delta. It ends with an update that comes into force.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme

import meshlib
import meshlib.grpc
from meshlib.testing import ControlPlane, GrpcUpstream, Upstream, build
from tests.support.late import within
from tests.support.relay import Relay
from tests.support.watch import until

pytestmark = pytest.mark.timeout(180)

PATIENCE = 60.0
KINDS = [("http", "sotw"), ("grpc", "delta")]
#: Calls that have to be answered while an outage is there.
CALLS = 60


class World:
    """A control plane that serves ``reviews`` at an upstream, a mesh that knows it, and who calls it all the time."""

    def __init__(self, face: str, protocol: str, stack: ExitStack) -> None:
        self.face = face
        self.protocol = protocol
        self._stack = stack
        self.seen: Counter[str] = Counter()
        self._counted = threading.Condition()
        self.one = self.upstream("one")
        self.plane = stack.enter_context(ControlPlane(*self.resources(self.one.address)))

    def upstream(self, name: str) -> Any:
        return self._stack.enter_context((Upstream if self.face == "http" else GrpcUpstream)(name))

    def resources(self, address: str, **cluster: Any) -> list[dict[str, Any]]:
        host = build.virtual_host("v", build.route(cluster="c"), domains=["*"])
        http2 = {"http2_protocol_options": {}} if self.face == "grpc" else {}
        return [
            build.api_listener("reviews", "r"),
            build.route_config("r", host),
            build.cluster("c", **http2, **cluster),
            build.endpoints("c", address),
        ]

    def mesh(self, address: str = "", **xds: Any) -> meshlib.Mesh:
        settings = {
            "server": address or self.plane.address,
            "view": "target",
            "protocol": self.protocol,
            **xds,
        }
        return self._stack.enter_context(meshlib.Mesh({"xds": settings, "sidecar": {"mode": "off"}}))

    @contextmanager
    def caller(self, mesh: meshlib.Mesh) -> Iterator[Callable[[], str]]:
        """A function that calls once: who answered, or the error."""
        if self.face == "http":
            with meshlib.Client(mesh=mesh) as client:
                yield lambda: _http(client)
        else:
            with meshlib.grpc.channel("reviews", mesh=mesh) as channel:
                method = channel.unary_unary("/x.Y/Z")
                yield lambda: _grpc(method)

    @contextmanager
    def calling(self, mesh: meshlib.Mesh) -> Iterator[None]:
        """Somebody calls from now on, once that has gone well; no call fails."""
        over = threading.Event()

        def go_on(call: Callable[[], str]) -> None:
            while not over.is_set():
                answer = call()
                with self._counted:
                    self.seen[answer] += 1
                    self._counted.notify_all()

        with self.caller(mesh) as call:
            assert call() == "one"
            thread = threading.Thread(target=go_on, args=(call,))
            thread.start()
            try:
                yield
            finally:
                over.set()
                thread.join()
        assert set(self.seen) <= {"one", "two"}, self.seen

    def called(self, who: str = "one", times: int = CALLS) -> None:
        """So many more calls were answered by that one."""
        with self._counted:
            goal = self.seen[who] + times
            assert self._counted.wait_for(lambda: self.seen[who] >= goal, PATIENCE), (who, self.seen)

    def moves_on(self) -> None:
        """An update comes into force."""
        self.plane.update(build.endpoints("c", self.upstream("two").address))
        self.called("two")


def _http(client: meshlib.Client) -> str:
    try:
        return str(client.get("http://reviews/").json()["name"])
    except httpx.HTTPError as error:
        return repr(error)


def _grpc(method: Any) -> str:
    try:
        return str(json.loads(method(b"", timeout=10.0))["name"])
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"


def source(mesh: meshlib.Mesh, kind: str) -> Any:
    return next(each for each in mesh.status().sources if each.kind == kind)


def xds(mesh: meshlib.Mesh) -> Any:
    return source(mesh, "xds")


@pytest.fixture(params=KINDS, ids="-".join)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(*request.param, stack)


def test_it_dies_and_returns(world: World) -> None:
    """CA-01, ER-07."""
    mesh = world.mesh()
    with world.calling(mesh):
        world.plane.kill()
        until(mesh, lambda: xds(mesh).state == "stale")
        world.called()
        world.plane.start()
        world.moves_on()
    assert xds(mesh).state == "ready"


def test_it_hangs_with_its_connections_open(world: World) -> None:
    """CA-01: nothing comes and nothing goes; what it says then is heard."""
    relay = Relay(world.plane.address)
    try:
        mesh = world.mesh(relay.address)
        with world.calling(mesh):
            relay.freeze()
            two = world.upstream("two")
            world.plane.update(build.endpoints("c", two.address))
            world.called()
            assert world.seen["two"] == 0
            relay.thaw()
            world.called("two")
    finally:
        relay.close()


def test_it_ends_each_stream(world: World) -> None:
    """ST-05, CP-06, CP-07: as servers do that close by age; it is no error, nobody is told."""
    mesh = world.mesh()
    with world.calling(mesh):
        for _ in range(2):
            opened = world.plane.opened
            world.plane.drop_streams()
            world.called()
            # Of a new stream: what the old one acknowledges may come late.
            world.plane.wait_for_request(
                "endpoint", lambda each, opened=opened: each.stream > opened, timeout=PATIENCE
            )
            until(mesh, lambda: xds(mesh).state == "ready")
            assert (xds(mesh).state, xds(mesh).last_error) == ("ready", "")
        world.moves_on()


def test_it_answers_with_older_versions(world: World) -> None:
    """SW-19, CP-06: another replica knows less, and says so under lower numbers; what it says holds."""
    mesh = world.mesh()
    with world.calling(mesh):
        world.plane.set(*world.resources(world.one.address), version="9")
        world.plane.wait_for_ack("endpoint", timeout=PATIENCE)
        world.plane.kill()
        world.plane.set(*world.resources(world.one.address), version="1")
        world.plane.start()
        world.called()
        world.plane.update(build.endpoints("c", world.upstream("two").address), version="0")
        world.called("two")


def test_it_sends_what_is_refused_again_and_again(world: World) -> None:
    """ER-02, CP-07."""
    mesh = world.mesh()
    with world.calling(mesh):
        for _ in range(4):
            seen = world.plane.seen
            world.plane.update(*world.resources(world.one.address, outlier_detection={"interval": "0s"}))
            world.plane.wait_for_nack("cluster", after=seen, timeout=PATIENCE)
            world.called(times=10)
        assert [each.resource for each in xds(mesh).rejected] == ["c"]
        world.plane.update(*world.resources(world.one.address))
        world.moves_on()
    assert not xds(mesh).rejected


def test_it_sends_a_hundred_megabytes(world: World) -> None:
    """ST-13: bytes that mean nothing, and then a cluster of that size."""
    mesh = world.mesh()
    with world.calling(mesh):
        world.plane.send_bytes(b"\xff" * 100_000_000)
        world.called()
        seen = world.plane.seen
        large = {"filter_metadata": {"x": {"y": "z" * 100_000_000}}}
        world.plane.update(*world.resources(world.one.address, metadata=large))
        world.plane.wait_for_ack("cluster", after=seen, timeout=PATIENCE)
        world.called()
        world.moves_on()


def test_its_certificate_expires(world: World, tmp_path: Path) -> None:
    """CA-01: a stream that stands goes on; a new one is refused, in words, until there is a new certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    def served(port: int = 0, **validity: Any) -> ControlPlane:
        own = authority.issue_cert("127.0.0.1", **validity)
        pair = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
        credentials = grpc.ssl_server_credentials([pair])
        return ControlPlane(*world.resources(world.one.address), port=port, credentials=credentials)

    with served() as plane:
        mesh = world.mesh(plane.address, tls={"ca": str(tmp_path / "ca.pem")})
        with world.calling(mesh):
            port = plane.port
            plane.stop()
            past = dt.datetime(2020, 1, 1)  # noqa: DTZ001 - trustme takes naive ones
            with served(port, not_before=past, not_after=past + dt.timedelta(days=1)):
                until(mesh, lambda: "CERTIFICATE" in xds(mesh).last_error.upper(), PATIENCE)
                world.called()
            with served(port) as renewed:
                world.plane = renewed
                world.moves_on()
    assert world.seen["one"] >= CALLS


def test_it_is_dead_at_the_start_and_nothing_was_ever_held(world: World) -> None:
    """CA-09: calls fail in words, soon; and go once it is there, without a restart of ours."""
    world.plane.kill()
    mesh = world.mesh(cold_start="fail")
    with world.caller(mesh) as call:
        answer = call()
        assert world.plane.address in answer, answer
        world.plane.start()
        mesh.wait_ready("reviews", timeout=PATIENCE)
        assert call() == "one"


def test_it_is_dead_at_the_start_and_an_earlier_process_left_its_state(world: World, tmp_path: Path) -> None:
    """CA-10: that serves from the first call on, until it is there and says otherwise."""
    kept = {"last_good": str(tmp_path / "state")}
    with world.mesh(**kept) as before, world.caller(before) as call:
        assert call() == "one"
        until(before, lambda: source(before, "last_good").state == "ready", PATIENCE)
    world.plane.kill()
    mesh = world.mesh(**kept)
    with world.calling(mesh):
        until(mesh, lambda: xds(mesh).state == "stale", PATIENCE)
        world.called()
        world.plane.start()
        world.moves_on()


PROGRAM = """
import json, sys, time
import meshlib

server, protocol = sys.argv[1:]
with meshlib.Mesh({"xds": {"server": server, "view": "target", "protocol": protocol}, "sidecar": {"mode": "off"}}) as mesh:
    mesh.wait_ready("reviews", timeout=20)
    for _ in sys.stdin:
        print(json.dumps([time.process_time(), time.monotonic()]), flush=True)
"""


class Idler:
    """A process with a mesh that nobody calls."""

    def __init__(self, address: str, protocol: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, protocol],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def spent(self) -> tuple[float, float]:
        """Seconds that it has computed, and its clock."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        computed, now = json.loads(self._process.stdout.readline())
        return computed, now

    def end(self) -> None:
        self._process.communicate(timeout=PATIENCE)


@pytest.fixture
def idle() -> Iterator[tuple[ControlPlane, list[Idler]]]:
    """A control plane with 200 clusters, and a process of each protocol that knows them and does nothing."""
    names = [f"c{number}" for number in range(200)]
    host = build.virtual_host("v", *(build.route(f"/{name}", cluster=name) for name in names), domains=["*"])
    resources = [build.api_listener("reviews", "r"), build.route_config("r", host)]
    for name in names:
        resources += [build.cluster(name), build.endpoints(name, "127.0.0.1:1")]
    with ControlPlane(*resources) as plane:
        idlers = [Idler(plane.address, protocol) for protocol in ("sotw", "delta")]
        for each in idlers:
            each.spent()  # it is ready
        yield plane, idlers
        for each in idlers:
            each.end()


def spent(idlers: list[Idler], meanwhile: Callable[[], object]) -> list[tuple[float, float]]:
    """What each has computed, of how long: in seconds."""
    before = [each.spent() for each in idlers]
    meanwhile()
    after = [each.spent() for each in idlers]
    return [(then - first, now - began) for (first, began), (then, now) in zip(before, after, strict=True)]


def share(measured: list[tuple[float, float]]) -> float:
    """The largest share of a core."""
    return max(computed / seconds for computed, seconds in measured)


def nothing_opens(plane: ControlPlane, seconds: float) -> None:
    opened = plane.opened
    with pytest.raises(TimeoutError):
        plane.wait_for(lambda: plane.opened > opened, timeout=seconds)


def asking(plane: ControlPlane, newest: int) -> set[int]:
    """The streams after that one on which endpoints are asked for."""
    return {each.stream for each in plane.requests if each.kind == "endpoint" and each.stream > newest}


def test_an_idle_control_plane_costs_nothing(idle: tuple[ControlPlane, list[Idler]]) -> None:
    """Less than a hundredth of a core."""
    plane, idlers = idle
    within(0.0, 0.01, lambda: share(spent(idlers, lambda: nothing_opens(plane, 8.0))))


def test_one_that_cannot_be_reached_costs_little(idle: tuple[ControlPlane, list[Idler]]) -> None:
    """Less than a hundredth of a core, though the first tries come soon one after the other."""
    plane, idlers = idle

    def away() -> float:
        plane.kill()
        found = share(spent(idlers, lambda: nothing_opens(plane, 4.0)))
        plane.start()
        plane.wait_for_streams(len(idlers), timeout=PATIENCE)
        return found

    within(0.0, 0.01, away)


def test_one_that_ends_its_streams_costs_little(idle: tuple[ControlPlane, list[Idler]]) -> None:
    """A stream anew, with all that is wanted and all that comes: one a minute is far less than a hundredth of a core."""
    plane, idlers = idle

    def drop() -> None:
        for _ in range(2):
            newest = max(stream.number for stream in plane.streams)
            plane.drop_streams()
            # Whoever opened a stream first need not be the first to ask for endpoints on it.
            plane.wait_for(lambda newest=newest: len(asking(plane, newest)) >= len(idlers), timeout=PATIENCE)

    within(0.0, 0.1, lambda: max(computed / 2 for computed, _ in spent(idlers, drop)))
