"""Nothing fails: thousands of calls while the control plane and each endpoint are killed and come back."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

import meshlib
from meshlib.testing.upstream import Upstream
from tests.support.asking import asked
from tests.support.storm import (
    NOTHING,
    Calls,
    Footprint,
    Storm,
    counters,
    pooled,
    pools_of,
    run_tasks,
    run_threads,
    worked_off,
)

RETRY = {
    "retry_on": "connect-failure,refused-stream,reset",
    "num_retries": 3,
    "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
}
EJECT = {
    "consecutive_5xx": 1,
    "interval": "0.1s",
    "base_ejection_time": "2s",
    "max_ejection_percent": 100,
    "enforcing_consecutive_gateway_failure": 0,
    "enforcing_success_rate": 0,
}
LIMITS = {"max_connections": 1024, "max_pending": 1024, "max_requests": 1024, "max_retries": 1024}


@pytest.fixture
def storm() -> Iterator[Storm]:
    with Storm() as made:
        yield made


@pytest.fixture
def footprint(storm: Storm) -> Iterator[None]:
    """Threads and descriptors are as before once all is closed, but for what a library keeps after its first use."""
    _warm_up(storm)
    before = Footprint.now()
    yield
    if storm.control_plane is not None:
        storm.control_plane.stop()
    # Threads that end and descriptors that are closed tell nobody.
    assert asked(lambda: _no_more(Footprint.now(), before)), f"{Footprint.now()} is left, {before} was there"


def _warm_up(storm: Storm) -> None:
    from meshlib.testing import ControlPlane

    with (
        ControlPlane() as plane,
        meshlib.Mesh({"xds": {"server": plane.address}}) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        client.get(storm.servers[0].url)

    async def one() -> None:
        async with meshlib.AsyncClient(mesh=meshlib.Mesh(storm.static())) as client:
            await client.get("http://reviews/")
            client._mesh.close()

    asyncio.run(one())


def _no_more(now: Footprint, before: Footprint) -> bool:
    return set(now.threads) <= set(before.threads) and len(now.descriptors) <= len(before.descriptors)


def check_client(client: Any, mesh: meshlib.Mesh) -> None:
    """With the calls over but the client open: nothing is held but idle connections, each counted once."""
    gc.collect()
    worked_off(mesh)
    open_now, idle = pooled(client._transport)
    assert open_now == idle
    assert counters(mesh) == {**NOTHING, "connections": open_now}


def storm_of_threads(storm: Storm, config: dict[str, Any], calls: Calls, threads: int, restarts: int) -> None:
    with meshlib.Mesh(config) as mesh:
        mesh.wait_ready("reviews")
        with meshlib.Client(mesh=mesh) as client:
            storm.begin(calls, restarts=restarts)
            run_threads(client, calls, threads)
            storm.verify(restarts)
            check_client(client, mesh)
        assert counters(mesh) == NOTHING


def storm_of_tasks(storm: Storm, config: dict[str, Any], calls: Calls, tasks: int, restarts: int) -> None:
    async def main() -> None:
        async with meshlib.AsyncClient(mesh=mesh) as client:
            storm.begin(calls, restarts=restarts)
            await run_tasks(client, calls, tasks)
            storm.verify(restarts)
            check_client(client, mesh)
        assert counters(mesh) == NOTHING

    with meshlib.Mesh(config) as mesh:
        mesh.wait_ready("reviews")
        asyncio.run(main())


FORMS = [
    pytest.param(storm_of_threads, 20, id="20-threads"),
    pytest.param(storm_of_tasks, 200, id="200-tasks"),
]


@pytest.mark.storm
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("run", "width"), FORMS)
def test_no_call_fails_with_retries(storm: Storm, footprint: None, run: Any, width: int) -> None:
    calls = Calls(20_000)
    run(storm, storm.xds(RETRY), calls, width, 10)
    assert not calls.failures, "\n".join(map(str, calls.failures[:5]))
    assert calls.done >= 20_000


@pytest.mark.storm
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("run", "width"), FORMS)
def test_without_retries_only_calls_to_a_killed_process_fail(
    storm: Storm, footprint: None, run: Any, width: int
) -> None:
    """A failure is at an endpoint that was killed, while it was away. Ejected at once, it fails those calls only that were
    on it or on their way to it: fewer than there are callers.
    """
    calls = Calls(20_000)
    run(storm, storm.xds(outlier_detection=EJECT), calls, width, 10)
    unexcused = [failure for failure in calls.failures if not storm.excused(failure)]
    assert not unexcused, "\n".join(map(str, unexcused[:5]))
    assert 0 < len(calls.failures) < len(storm.servers) * width
    assert calls.done >= 20_000


@pytest.mark.parametrize(
    ("run", "width"), [(storm_of_threads, 8), (storm_of_tasks, 30)], ids=["threads", "tasks"]
)
def test_a_small_storm_with_a_control_plane(storm: Storm, footprint: None, run: Any, width: int) -> None:
    calls = Calls(1_000)
    run(storm, storm.xds(RETRY), calls, width, 2)
    assert not calls.failures, "\n".join(map(str, calls.failures[:5]))


def test_a_small_storm_without_a_control_plane(storm: Storm, footprint: None) -> None:
    """The same from a configuration file, with every policy on."""
    retry = {"attempts": 4, "on": ["connect-failure", "reset"], "backoff_base": 0.005}
    outlier = {"consecutive_5xx": 3, "base_ejection": 0.2, "interval": 0.1, "max_ejection_percent": 40}
    config = storm.static(balancer="least_request", retry=retry, outlier=outlier, limits=LIMITS, timeout=20.0)
    calls = Calls(1_000)
    storm_of_threads(storm, config, calls, 8, 0)
    assert not calls.failures, "\n".join(map(str, calls.failures[:5]))


def test_a_response_that_is_collected_under_a_clusters_lock_is_given_back(upstream: Any) -> None:
    """The collector runs wherever something is allocated, also in a thread that holds the lock which it would need."""
    one: Upstream = upstream()
    one.order(body="x" * 1_000_000)
    with meshlib.Mesh({"services": {"reviews": {"endpoints": [one.address]}}}) as mesh:
        client = meshlib.Client(mesh=mesh)
        cluster = mesh._runtime().clusters.get("static", "reviews")
        response = client.send(client.build_request("GET", "http://reviews/"), stream=True)
        assert cluster.active == 1
        with cluster._lock, pools_of(client._transport)[0]._lock:
            del response
            gc.collect()
        worked_off(mesh)
        assert cluster.active == cluster.connections == 0
        client.close()
