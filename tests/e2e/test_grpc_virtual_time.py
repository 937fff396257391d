"""gRPC calls of a mesh on a clock that the test moves: a deadline ends them when that clock passes it, and no earlier.

As tests/e2e/test_virtual_time.py has it for HTTP. The servers and connections are real.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import meshlib
import meshlib.grpc
from meshlib.testing import VirtualClock
from tests.support.grpc_channels import FACES, Channel, Channels, service
from tests.support.on_clock import begun, ended_by_time
from tests.support.rpc_server import METHODS, RpcServer

pytestmark = pytest.mark.usefixtures("at_once")

Code = grpc.StatusCode
LIST = METHODS["unary_stream"]
WAYS: dict[str, Callable[..., Any]] = {
    "unary": lambda here, **options: here.unary(**options),
    "with_call": lambda here, **options: here.call(**options),
    "future": lambda here, **options: (
        here.begun(**options).result() if here.kind == "sync" else here.unary(**options)
    ),
    "server stream": lambda here, **options: here.server_stream(**options),
    "client stream": lambda here, **options: here.client_stream([b"m"], **options),
    "both streams": lambda here, **options: here.both_streams([b"m"], **options),
}
#: What bounds a call by 120 s: the service's policies, what is around the call, what the call is given.
BOUNDS: dict[str, tuple[dict[str, Any], bool, dict[str, Any]]] = {
    "the call's timeout": ({}, False, {"timeout": 120.0}),
    "a deadline": ({}, True, {}),
    "the service's timeout": ({"timeout": 120.0}, False, {}),
    "a try's": ({"retry": {"attempts": 1, "per_try_timeout": 120.0}}, False, {}),
}


@pytest.fixture(params=FACES)
def make(request: pytest.FixtureRequest, meshlib_mesh: Any, meshlib_clock: VirtualClock) -> Iterator[Any]:
    """A function that makes a channel of each kind, to ``stock``, whose mesh is on the clock."""

    def channel(*upstreams: Any, **policies: Any) -> Channel:
        return channels.make(meshlib_mesh(service(*upstreams, **policies), clock=meshlib_clock))

    with Channels(request.param) as channels:
        yield channel


def in_backoff(clock: VirtualClock) -> None:
    """Until something is due in 7 s, give or take a fifth (gRFC A6): a thread waits for it, the worker, a loop."""
    with clock._changed:
        now = clock.now()
        assert clock._changed.wait_for(lambda: any(5.5 < one[0] - now < 8.5 for one in clock._heap), 10)


def at_rest(mesh: meshlib.Mesh) -> bool:
    return not any(cluster.active for cluster in mesh.status().clusters.values())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bound", BOUNDS)
def test_time_that_is_over_ends_a_call(
    make: Any, meshlib_grpc_upstream: Any, meshlib_clock: VirtualClock, way: str, bound: str
) -> None:
    server = meshlib_grpc_upstream("v1")
    server.hang()
    policies, around, options = BOUNDS[bound]
    here = make(server, **policies)

    def one() -> Any:
        with meshlib.deadline(120.0) if around else contextlib.nullcontext():
            return WAYS[way](here, **options)

    future = begun(one)
    server.wait_for(lambda: server.held == 1)
    error = ended_by_time(meshlib_clock, future, 119.0)
    assert error.code() is Code.DEADLINE_EXCEEDED
    assert 120.0 <= error.info.seconds <= 120.1
    server.wait_for(lambda: server.calls_open == 0)
    assert at_rest(here.mesh)


@pytest.fixture
def halting() -> Iterator[RpcServer]:
    """Its streams wait after their first message."""
    with RpcServer() as server:
        server.held.clear()
        yield server


@pytest.mark.parametrize("style", ["iterator", "read"])
@pytest.mark.parametrize("kind", FACES)
def test_a_stream_that_is_being_read_ends_too(
    meshlib_mesh: Any, meshlib_clock: VirtualClock, halting: RpcServer, kind: str, style: str
) -> None:
    """The call is committed to its attempt by then."""
    config = service(halting)
    first = threading.Event()

    def blocking() -> None:
        for message in here.channel.unary_stream(f"/{LIST}")(b"m", timeout=60.0):
            assert message == b"m"
            first.set()

    async def awaiting() -> None:
        call = here.channel.unary_stream(f"/{LIST}")(b"m", timeout=60.0)
        if style == "iterator":
            async for _ in call:
                first.set()
            return
        while await call.read():
            first.set()

    with Channel(kind, "stock", meshlib_mesh(config, clock=meshlib_clock)) as here:
        future = begun(blocking if kind == "sync" else lambda: here.do(awaiting))
        assert first.wait(10)
        meshlib_clock.advance(59.0)
        assert not future.done()
        meshlib_clock.advance(1.1)
        with pytest.raises(grpc.RpcError) as caught:
            future.result(10.0)
        error: Any = caught.value
        assert (error.code(), error.details()) == (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        assert meshlib.call_info(error) is not None
        assert at_rest(here.mesh)


def test_each_way_of_asking_a_stream_says_that_its_time_is_over(
    meshlib_mesh: Any, meshlib_clock: VirtualClock, halting: RpcServer
) -> None:
    mesh = meshlib_mesh(service(halting), clock=meshlib_clock)
    with meshlib.grpc.channel("stock", mesh=mesh) as channel:
        made: Any = channel.unary_stream(f"/{LIST}")
        call = made(b"m", timeout=60.0)
        assert next(call) == b"m"
        assert call.time_remaining() == 60.0
        meshlib_clock.advance(45.0)
        assert (call.time_remaining(), call.is_active()) == (15.0, True)
        told = threading.Event()
        call.add_done_callback(lambda _: told.set())
        meshlib_clock.advance(15.0)
        assert told.wait(10)
        said = call.code(), call.details(), call.is_active()
        assert said == (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", False)
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            next(call)
        assert not call.cancel()


@pytest.mark.parametrize("way", ["unary", "future", "server stream"])
def test_the_next_try_has_its_own_time(
    make: Any, meshlib_grpc_upstream: Any, meshlib_clock: VirtualClock, way: str
) -> None:
    server = meshlib_grpc_upstream("v1")
    server.hang()
    server.fail(times=1)
    retry = {
        "attempts": 2,
        "per_try_timeout": 60.0,
        "on": ["unavailable"],
        "backoff_base": 7.0,
        "backoff_max": 7.0,
    }
    here = make(server, retry=retry)
    future = begun(lambda: WAYS[way](here))
    in_backoff(meshlib_clock)
    meshlib_clock.advance(9.0)
    server.wait_for(lambda: server.held == 1)
    error = ended_by_time(meshlib_clock, future, 50.0, 10.1)
    assert (len(error.info.attempts), server.requests_total) == (2, 2)


@pytest.mark.parametrize("kind", FACES)
def test_a_call_that_is_answered_in_time_leaves_no_alarm(
    meshlib_mesh: Any, meshlib_grpc_upstream: Any, meshlib_clock: VirtualClock, kind: str
) -> None:
    config = service(meshlib_grpc_upstream("v1"))
    mesh = meshlib_mesh(config, clock=meshlib_clock)
    with Channel(kind, "stock", mesh) as here:
        for way in WAYS.values():
            way(here, timeout=1e5)
    worker = mesh._runtime().worker
    late = [timer.command for timer in [*worker._timers, *worker._set] if timer.when > 5e4]
    assert not any(late)
    # The worker's own alarms stay, and find nothing to do.
    assert not [
        timer for timer in meshlib_clock.timers if timer.when > 5e4 and timer._call != worker._catch_up
    ]


@pytest.mark.parametrize("way", WAYS)
def test_a_hedge_is_begun_when_its_time_is_there_and_ends_with_the_call(
    make: Any, meshlib_grpc_upstream: Any, meshlib_clock: VirtualClock, way: str
) -> None:
    one, other = meshlib_grpc_upstream("v1"), meshlib_grpc_upstream("v2")
    here = make(one, other, hedge={"after": 60.0})
    for server in (one, other):
        server.hang()
    future = begun(lambda: WAYS[way](here, timeout=120.0))
    one.wait_for(lambda: one.held + other.held == 1)
    meshlib_clock.advance(59.0)
    assert one.held + other.held == 1
    meshlib_clock.advance(2.0)
    one.wait_for(lambda: one.held == 1)
    other.wait_for(lambda: other.held == 1)
    error = ended_by_time(meshlib_clock, future, 58.0)
    assert error.code() is Code.DEADLINE_EXCEEDED
    one.wait_for(lambda: one.calls_open == 0)
    other.wait_for(lambda: other.calls_open == 0)
    assert at_rest(here.mesh)
