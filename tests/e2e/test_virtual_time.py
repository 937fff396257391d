"""A whole mesh on a clock that the test moves: nothing happens before its time, and then it happens at once.

The servers are real and so are the sockets; what is virtual is every wait that the mesh decides on. A test that had to wait
in earnest would take minutes.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

import pytest

import meshlib
from meshlib.testing import ControlPlane, VirtualClock, build
from tests.support.dns_server import DnsServer
from tests.support.libraries import LIBRARIES, Caller, call
from tests.support.on_clock import begun, ended_by_time

MeshFactory = Any

pytestmark = pytest.mark.usefixtures("at_once")


def service(*addresses: str, **more: Any) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": list(addresses), **more}}}


#: Of a connector's attempts the next begins when the one before could not connect: nothing that it sent is sent again.
@pytest.mark.parametrize("library", [each for each in LIBRARIES if each != "aiohttp-connector"])
def test_a_backoff_takes_its_time_and_no_more(
    library: str,
    upstream: Any,
    meshlib_mesh: MeshFactory,
    meshlib_clock: VirtualClock,
) -> None:
    server = upstream("v1")
    server.fail(503, times=1)
    retry = {"attempts": 2, "on": ["5xx"], "wait": lambda state: 60.0}
    mesh = meshlib_mesh(service(server.address, retry=retry), clock=meshlib_clock)
    future = begun(call, library, mesh, "GET", "http://reviews/")
    meshlib_clock.wait_for_sleepers(1)
    meshlib_clock.advance(59.9)
    assert (meshlib_clock.sleepers, server.requests_total, future.done()) == (1, 1, False)
    meshlib_clock.advance(0.1)
    status, body, info = future.result(10.0)
    assert (status, json.loads(body)["name"]) == (200, "v1")
    assert len(info.attempts) == 2
    assert info.seconds == pytest.approx(60.0)


@pytest.mark.parametrize("library", LIBRARIES)
class TestCalls:
    @pytest.mark.parametrize("bound", ["timeout", "per_try_timeout", "deadline"])
    def test_time_that_is_over_ends_a_call(
        self,
        library: str,
        bound: str,
        upstream: Any,
        meshlib_mesh: MeshFactory,
        meshlib_clock: VirtualClock,
    ) -> None:
        if (bound, library) == ("per_try_timeout", "aiohttp-connector"):
            return  # there are no tries in it to bound
        server = upstream("v1")
        server.hang()
        more: dict[str, Any] = {"timeout": 120.0} if bound == "timeout" else {}
        if bound == "per_try_timeout":
            more = {"retry": {"attempts": 1, "per_try_timeout": 120.0}}
        mesh = meshlib_mesh(service(server.address, **more), clock=meshlib_clock)

        def one() -> Any:
            if bound == "deadline":
                with meshlib.deadline(120.0):
                    return call(library, mesh, "GET", "http://reviews/", **patient(library))
            return call(library, mesh, "GET", "http://reviews/", **patient(library))

        future = begun(one)
        server.wait_for(lambda: server.held == 1)
        error = ended_by_time(meshlib_clock, future, 119.0)
        assert 120.0 <= error.info.seconds <= 120.1
        server.release()

    def test_a_body_that_does_not_come_ends_too(
        self,
        library: str,
        upstream: Any,
        meshlib_mesh: MeshFactory,
        meshlib_clock: VirtualClock,
    ) -> None:
        server = upstream("v1")
        server.order(hold="body")
        mesh = meshlib_mesh(service(server.address, timeout=60.0), clock=meshlib_clock)
        future = begun(call, library, mesh, "GET", "http://reviews/", **patient(library))
        server.wait_for(lambda: server.held == 1)
        meshlib_clock.advance(61.0)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - eight kinds
            future.result(10.0)
        assert meshlib.call_info(caught.value) is not None
        server.release()

    def test_a_wait_for_the_control_plane_is_as_long_as_a_connect_timeout(
        self,
        library: str,
        control_plane: ControlPlane,
        meshlib_mesh: MeshFactory,
        meshlib_clock: VirtualClock,
    ) -> None:
        control_plane.hold()
        mesh = meshlib_mesh({"xds": {"server": control_plane.address}}, clock=meshlib_clock)
        future = begun(call, library, mesh, "GET", "http://reviews/")
        control_plane.wait_for_request("listener")
        meshlib_clock.advance(4.0)
        host = build.virtual_host("all", build.route(cluster="c"))
        control_plane.update(
            build.api_listener("reviews", build.route_config("r", host)), build.cluster("c", ["127.0.0.1:1"])
        )
        assert not future.done()
        meshlib_clock.advance(600.0)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - eight kinds
            future.result(10.0)
        assert caught.value is not None
        control_plane.release()


def patient(library: str) -> dict[str, Any]:
    """Without the host library's own timeout, which is in real time."""
    if library.startswith(("requests", "urllib3")):
        return {"timeout": None}
    if library.startswith("aiohttp"):
        import aiohttp

        return {"timeout": aiohttp.ClientTimeout(total=None)}
    return {"timeout": None}


class TestTheRest:
    def test_an_ejection_ends(
        self, upstream: Any, meshlib_mesh: MeshFactory, meshlib_clock: VirtualClock
    ) -> None:
        server = upstream("v1")
        server.fail(503, times=1)
        outlier = {
            "consecutive_5xx": 1,
            "max_ejection_percent": 100,
            "base_ejection": 3600.0,
            "interval": 10.0,
        }
        mesh = meshlib_mesh(service(server.address, outlier=outlier), clock=meshlib_clock)
        with meshlib.Client(mesh=mesh) as client:
            assert client.get("http://reviews/").status_code == 503
            endpoint = mesh.status().clusters["reviews"].endpoints[0]
            assert (endpoint.health, endpoint.ejected_for) == ("ejected", 3600.0)
            meshlib_clock.advance(3599.0)
            assert mesh.status().clusters["reviews"].endpoints[0].health == "ejected"
            meshlib_clock.advance(1.0)
            assert mesh.status().clusters["reviews"].endpoints[0].health == "healthy"

    def test_a_breaker_lets_a_call_through(
        self, upstream: Any, meshlib_mesh: MeshFactory, meshlib_clock: VirtualClock
    ) -> None:
        server = upstream("v1")
        server.fail(503, times=1)
        breaker = {"consecutive_failures": 1, "open_for": 600.0}
        mesh = meshlib_mesh(service(server.address, breaker=breaker), clock=meshlib_clock)
        with meshlib.Client(mesh=mesh) as client:
            client.get("http://reviews/")
            with pytest.raises(meshlib.CircuitOpen):
                client.get("http://reviews/")
            meshlib_clock.advance(600.0)
            assert client.get("http://reviews/").status_code == 200

    def test_names_are_asked_for_again(self, meshlib_mesh: MeshFactory, meshlib_clock: VirtualClock) -> None:
        with DnsServer({("a.test", "A"): ["127.0.0.1"]}, ttl=300) as server:
            config = {"services": {"reviews": {"dns": "a.test:81"}}, "dns": server.settings}
            mesh = meshlib_mesh(config, clock=meshlib_clock)
            mesh.wait_ready("reviews")
            asked = len(server.questions)
            server.records["a.test", "A"] = ["127.0.0.2"]
            meshlib_clock.advance(200.0)
            assert len(server.questions) == asked
            meshlib_clock.advance(101.0)
            found = lambda: mesh.explain("GET", "http://reviews/").endpoint == "127.0.0.2:81"  # noqa: E731
            assert mesh._runtime().store.wait(lambda view: found(), 60.0)

    def test_a_stream_that_broke_is_opened_again(
        self, control_plane: ControlPlane, meshlib_mesh: MeshFactory, meshlib_clock: VirtualClock
    ) -> None:
        mesh = meshlib_mesh(
            {"xds": {"server": control_plane.address, "view": "sidecar"}}, clock=meshlib_clock
        )
        mesh.snapshot()
        control_plane.wait_for_request("listener")
        control_plane.stop()
        control_plane.restart()
        before = len(control_plane.requests)
        for _ in range(20):
            meshlib_clock.advance(600.0)  # again where the end of the stream had not arrived yet
            with contextlib.suppress(TimeoutError):
                control_plane.wait_for_request("listener", after=before - 1, timeout=1.0)
                return
        pytest.fail("the stream was not opened again")

    def test_wait_ready_gives_up_when_its_time_is_over(
        self,
        meshlib_mesh: MeshFactory,
        meshlib_clock: VirtualClock,
        control_plane: ControlPlane,
    ) -> None:
        control_plane.hold()
        mesh = meshlib_mesh({"xds": {"server": control_plane.address}}, clock=meshlib_clock)
        future = begun(mesh.wait_ready, "reviews", timeout=300.0)
        for _ in range(3):
            meshlib_clock.wait_for_sleepers(1)
            meshlib_clock.advance(99.0)
        meshlib_clock.wait_for_sleepers(1)
        assert not future.done()
        meshlib_clock.advance(3.0)
        with pytest.raises(meshlib.NotReady):
            future.result(10.0)
        control_plane.release()

    def test_a_wait_for_a_connection_is_bounded_by_the_deadline(
        self, upstream: Any, meshlib_mesh: MeshFactory, meshlib_clock: VirtualClock
    ) -> None:
        server = upstream("v1")
        server.hang()
        config = service(server.address, timeout=60.0, limits={"max_connections": 1})
        mesh = meshlib_mesh(config, clock=meshlib_clock)
        with meshlib.Client(mesh=mesh, timeout=None) as client:
            futures = [begun(client.get, "http://reviews/") for _ in range(2)]
            server.wait_for(lambda: server.held == 1)
            while not all(future.done() for future in futures):
                meshlib_clock.advance(61.0)  # again where the second had not begun to wait
            for future in futures:
                with pytest.raises(meshlib.DeadlineExceeded):
                    future.result()
            assert server.requests_total == 1
            server.release()

    def test_a_deadline_goes_by_the_same_clock(
        self, face: Any, upstream: Any, meshlib_mesh: MeshFactory, meshlib_clock: VirtualClock
    ) -> None:
        client = face(meshlib_mesh(service(upstream().address), clock=meshlib_clock))
        with meshlib.deadline(10.0):
            assert client.get("http://reviews/").status_code == 200
            meshlib_clock.advance(9.0)
            with meshlib.deadline(5.0):  # begins later and ends later: the outer one is the nearer
                info = meshlib.call_info(client.get("http://reviews/"))
            assert info.attempts[0].outcome == "ok"
            meshlib_clock.advance(1.1)
            with pytest.raises(meshlib.DeadlineExceeded):
                client.get("http://reviews/")
        assert client.get("http://reviews/").status_code == 200

    def test_a_clock_that_moves_by_itself_needs_no_second_thread(self, face: Any, upstream: Any) -> None:
        server = upstream("v1")
        server.fail(503, times=3)
        clock = VirtualClock(auto=True)
        retry = {"attempts": 4, "on": ["5xx"], "wait": lambda state: 100.0}
        with meshlib.Mesh(
            meshlib.Config.from_mapping(service(server.address, retry=retry)), clock=clock
        ) as mesh:
            before = clock.now()
            assert face(mesh).get("http://reviews/").status_code == 200
            assert clock.now() == before + 300.0

    def test_two_meshes_on_two_clocks_do_not_meet(self, meshlib_mesh: MeshFactory) -> None:
        one, other = VirtualClock(), VirtualClock()
        first = meshlib_mesh(service("127.0.0.1:9"), clock=one)
        second = meshlib_mesh(service("127.0.0.1:9"), clock=other)
        first.snapshot(), second.snapshot()
        one.advance(100.0)
        since = lambda mesh: mesh.status().sources[0].since  # noqa: E731
        assert (since(first), since(second)) == (100.0, 0.0)

    def test_nothing_is_left_when_it_is_closed(self, meshlib_clock: VirtualClock) -> None:
        before = set(threading.enumerate())  # of which some may end meanwhile
        with meshlib.Mesh(meshlib.Config.from_mapping(service("127.0.0.1:9")), clock=meshlib_clock) as mesh:
            mesh.snapshot()
        meshlib_clock.advance(1e5)
        assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_connection_that_is_older_is_replaced_between_two_calls(
    library: str, upstream: Any, meshlib_mesh: MeshFactory, meshlib_clock: VirtualClock
) -> None:
    """However busy: no library keeps an idle one for as long as this."""
    server = upstream("v1")
    mesh = meshlib_mesh(service(server.address, max_connection_age=30.0), clock=meshlib_clock)
    with Caller(library, mesh) as ask:
        seen = []
        for _ in range(21):
            assert ask("GET", "http://reviews/")[0] == 200
            seen.append(server.connections_total)
            meshlib_clock.advance(3.0)
    assert seen == [1] * 10 + [2] * 10 + [3]


@pytest.mark.parametrize("library", LIBRARIES)
def test_how_old_a_connection_grows_may_be_changed(
    library: str,
    upstream: Any,
    control_plane: Any,
    meshlib_mesh: MeshFactory,
    meshlib_clock: VirtualClock,
) -> None:
    server = upstream("v1")
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

    def publish(**common: str) -> None:
        held = {"common_http_protocol_options": common, "explicit_http_config": {"http_protocol_options": {}}}
        extension = {"typed_extension_protocol_options": {name: build.any_of(name, held)}}
        routes = build.route_config("r", build.virtual_host("v", build.route("/", cluster="c")))
        control_plane.set(
            build.api_listener("reviews", routes), build.cluster("c", [server.address], **extension)
        )

    publish(idle_timeout="500s")
    mesh = meshlib_mesh({"xds": {"server": control_plane.address}}, clock=meshlib_clock)
    with Caller(library, mesh) as ask:
        for _ in range(3):
            assert ask("GET", "http://reviews/")[0] == 200
            meshlib_clock.advance(20.0)
        assert server.connections_total == 1
        publish(idle_timeout="500s", max_connection_duration="30s")
        until = time.monotonic() + 10.0
        while server.connections_total == 1:
            assert ask("GET", "http://reviews/")[0] == 200
            assert time.monotonic() < until
        for connections in (2, 3):
            meshlib_clock.advance(20.0)
            assert ask("GET", "http://reviews/")[0] == 200
            assert server.connections_total == connections
