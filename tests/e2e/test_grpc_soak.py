"""gRPC channels while the control plane and each endpoint are killed and come back: no unary call fails, no stream that did not
break loses a message or has one twice, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import grpc
import pytest

import meshlib
import meshlib.grpc.aio
from tests.support.asking import asked
from tests.support.grpc_storm import GrpcCalls, GrpcStorm, tasks_call, threads_call, threads_of_kernel
from tests.support.storm import NOTHING, SERVICE, Failure, Footprint, Storm, counters, worked_off

RETRY = {
    "retry_on": "unavailable",
    "num_retries": 3,
    "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
}

Run = Callable[[Storm, GrpcCalls, int, int], None]


def soak_of_threads(storm: Storm, calls: GrpcCalls, threads: int, restarts: int) -> None:
    with meshlib.Mesh(storm.xds(RETRY)) as mesh:
        mesh.wait_ready(SERVICE)
        with meshlib.grpc.channel(SERVICE, mesh=mesh) as channel:
            storm.begin(calls, restarts=restarts)
            threads_call(channel, calls, threads)
            storm.verify(restarts)
            check_mesh(mesh)
        check_mesh(mesh)


def soak_of_tasks(storm: Storm, calls: GrpcCalls, tasks: int, restarts: int) -> None:
    async def main() -> None:
        async with meshlib.grpc.aio.channel(SERVICE, mesh=mesh) as channel:
            storm.begin(calls, restarts=restarts)
            await tasks_call(channel, calls, tasks)
            storm.verify(restarts)
            check_mesh(mesh)

    with meshlib.Mesh(storm.xds(RETRY)) as mesh:
        mesh.wait_ready(SERVICE)
        asyncio.run(main())
        check_mesh(mesh)


def check_mesh(mesh: meshlib.Mesh) -> None:
    """No call is counted any more, of a cluster or of an endpoint."""
    gc.collect()
    worked_off(mesh)
    assert counters(mesh) == NOTHING


def check_calls(storm: Storm, calls: GrpcCalls) -> None:
    """What failed are streams that broke at an endpoint that was killed, after something of them had come."""
    wrong = [failure for failure in calls.failures if not broken(storm, calls, failure)]
    assert not wrong, "\n".join(f"{failure}, {calls.begun.get(failure.error)}" for failure in wrong[:5])
    assert sum(calls.by_kind.values()) == calls.done >= calls.least
    assert set(calls.by_kind) == {"unary_unary", "unary_stream", "stream_unary", "stream_stream"}


def broken(storm: Storm, calls: GrpcCalls, failure: Failure) -> bool:
    """Whether it is a stream that broke, or a call whose server died between its metadata and its message: neither is made
    again (gRFC A6).
    """
    error, info = failure.error, failure.info
    return (
        isinstance(error, grpc.RpcError)
        and error.code() is grpc.StatusCode.UNAVAILABLE
        and info is not None
        and (error in calls.begun or any(name == "x-upstream" for name, _ in error.initial_metadata() or ()))
        and storm.excused(failure)
    )


FORMS = [
    pytest.param(soak_of_threads, 50, id="50-threads"),
    pytest.param(soak_of_tasks, 500, id="500-tasks"),
]


def soak(run: Run, width: int, least: int, restarts: int) -> None:
    """A short one first: what libraries keep for good is there after it, and no more after one that is longer."""
    storm_of(run, GrpcCalls(300), width, 1)
    threads, before = threads_of_kernel(), Footprint.now()
    storm_of(run, GrpcCalls(least), width, restarts)
    # Threads that end and descriptors that are closed tell nobody.
    assert asked(lambda: _no_more(Footprint.now(), before)), f"{Footprint.now()} is left, {before} was there"
    assert asked(lambda: threads_of_kernel() <= threads, 30.0), (
        f"{threads_of_kernel()} threads, not {threads}"
    )


def storm_of(run: Run, calls: GrpcCalls, width: int, restarts: int) -> None:
    with GrpcStorm() as storm:
        run(storm, calls, width, restarts)
        check_calls(storm, calls)


def _no_more(now: Footprint, before: Footprint) -> bool:
    return set(now.threads) <= set(before.threads) and len(now.descriptors) <= len(before.descriptors)


@pytest.mark.storm
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("run", "width"), FORMS)
def test_nothing_is_lost_and_no_unary_call_fails(run: Run, width: int) -> None:
    soak(run, width, 20_000, 10)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("run", "width"), [(soak_of_threads, 10), (soak_of_tasks, 60)], ids=["threads", "tasks"]
)
def test_a_small_soak(run: Run, width: int) -> None:
    soak(run, width, 1_500, 2)
