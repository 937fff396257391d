"""Mirrored calls can neither slow nor fail the calls that they are of, and are bounded themselves (RW-04)."""

from __future__ import annotations

import asyncio
import logging
import os
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import meshlib
from meshlib.hosts import mirrors as module
from meshlib.hosts.mirrors import mirrors_of
from meshlib.testing import ControlPlane, Upstream, build
from tests.support.asking import asked
from tests.support.late import again_if_late, soon

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def one() -> Iterator[Upstream]:
    with Upstream("one") as upstream:
        yield upstream


@pytest.fixture
def shadow() -> Iterator[Upstream]:
    with Upstream("shadow") as upstream:
        yield upstream
        upstream.release()


def made(one: Upstream, *shadows: Upstream, percent: float = 100, **more: Any) -> meshlib.Mesh:
    mirror = {"mirror": {"service": "next", "percent": percent}}
    routes = [{"match": {"prefix": "/mirrored"}, **mirror}, {"match": {"prefix": "/"}, "service": "reviews"}]
    services = {
        "reviews": {"endpoints": [one.address], "routes": routes},
        "next": {"endpoints": [shadow.address for shadow in shadows] or ["127.0.0.1:1"]},
    }
    return meshlib.Mesh({"services": services, **more})


def busy(mesh: meshlib.Mesh) -> int:
    """The threads that it has for this."""
    return mirrors_of(mesh._runtime())._threads


@again_if_late
def test_fifty_threads_and_a_mirror_that_hangs(
    one: Upstream, shadow: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls are as fast as those that are not mirrored; what hangs holds a few threads, and the rest is dropped and counted."""
    caplog.clear()
    shadow.hang()
    seconds: dict[str, list[float]] = {"/plain": [], "/mirrored": []}
    with made(one, shadow) as mesh, meshlib.Client(mesh=mesh, timeout=60) as client:

        def work(number: int) -> None:
            for _ in range(30):
                for path, found in seconds.items():
                    began = time.perf_counter()
                    assert client.get(f"http://reviews{path}").status_code == 200
                    found.append(time.perf_counter() - began)

        client.get("http://reviews/mirrored")
        threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert busy(mesh) <= module.MOST_THREADS
        status = mesh.status().clusters
        assert status["next"].active <= module.MOST_THREADS
        dropped = mirrors_of(mesh._runtime()).dropped
        assert dropped == status["next"].overflows > 0
        assert dropped + module.MOST_WAITING + module.MOST_THREADS >= 1501
        assert status["reviews"].failures == 0
        shadow.release()
    p50 = {path: statistics.median(found) for path, found in seconds.items()}
    p99 = {path: statistics.quantiles(found, n=100)[98] for path, found in seconds.items()}
    print(f"p50 {p50}, p99 {p99}")
    told = [record for record in caplog.records if "mirrored" in record.message]
    assert [record.levelno for record in told] == [logging.WARNING]
    # Neither would be so if a call ever waited for a mirror, which hangs for as long as the test goes on.
    soon(p99["/mirrored"], p99["/plain"] * 3 + 0.1, "the 99th percentile of the mirrored")


async def test_a_hundred_tasks_and_a_mirror_that_hangs(one: Upstream, shadow: Upstream) -> None:
    shadow.hang()
    with made(one, shadow) as mesh:
        async with meshlib.AsyncClient(mesh=mesh, timeout=60) as client:
            for _ in range(5):
                answers = await asyncio.gather(*(client.get("http://reviews/mirrored") for _ in range(100)))
                assert {answer.status_code for answer in answers} == {200}
        assert busy(mesh) <= module.MOST_THREADS
        shadow.release()


def test_the_share(one: Upstream, shadow: Upstream) -> None:
    with made(one, shadow, percent=25, seed=7) as mesh, meshlib.Client(mesh=mesh) as client:
        for _ in range(400):
            client.get("http://reviews/mirrored")
        mirrors = mirrors_of(mesh._runtime())
        assert asked(lambda: len(shadow.requests) == mirrors.sent and not mirrors._waiting, 20)
        assert 60 <= mirrors.sent <= 145  # five standard deviations
        assert mirrors.dropped == 0


def test_threads_end_where_there_is_nothing_to_do(one: Upstream, shadow: Upstream, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_IDLE", 0.05)
    with made(one, shadow) as mesh, meshlib.Client(mesh=mesh) as client:
        client.get("http://reviews/plain")
        assert busy(mesh) == 0, "none before there is something to mirror"
        for _ in range(3):
            client.get("http://reviews/mirrored")
            assert asked(lambda: busy(mesh) == 0, 20)
        assert len(shadow.requests) == 3


def test_what_is_answered_without_end_is_given_up(one: Upstream) -> None:
    """At the bound; and nothing is kept of it."""
    with Upstream("large") as large:
        large.order(body="x" * (4 * module._MOST_READ))
        with made(one, large) as mesh, meshlib.Client(mesh=mesh) as client:
            client.get("http://reviews/mirrored")
            assert asked(lambda: mesh.status().clusters["next"].requests == 1, 20)
            assert asked(lambda: mesh.status().clusters["next"].active == 0, 20)
            assert mesh.status().clusters["next"].failures == 0


def test_bodies_that_wait_are_bounded(one: Upstream, shadow: Upstream, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    monkeypatch.setattr(module, "MOST_THREADS", 1)
    shadow.hang()
    with made(one, shadow) as mesh, meshlib.Client(mesh=mesh) as client:
        for _ in range(10):
            assert client.post("http://reviews/mirrored", content=b"x" * 4000).status_code == 200
        mirrors = mirrors_of(mesh._runtime())
        assert mirrors._bytes <= 10_000
        assert mirrors.dropped >= 7
        shadow.release()


def test_a_mirror_that_nobody_can_reach(one: Upstream) -> None:
    with made(one) as mesh, meshlib.Client(mesh=mesh) as client:
        for _ in range(20):
            assert client.get("http://reviews/mirrored").status_code == 200
        assert asked(lambda: mesh.status().clusters["next"].failures == 20, 20)


def test_no_observer_hears_of_it(one: Upstream, shadow: Upstream) -> None:
    with made(one, shadow) as mesh, meshlib.Client(mesh=mesh) as client:
        events: list[Any] = []
        mesh._runtime().observe(events.append)
        client.get("http://reviews/mirrored")
        assert asked(lambda: len(shadow.requests) == 1, 20)
        assert asked(lambda: mesh.status().clusters["next"].active == 0, 20)
        assert {getattr(event, "cluster", "reviews") for event in events} == {"reviews"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_mirrors_by_itself(one: Upstream, shadow: Upstream) -> None:
    """Though its parent's threads are busy, and hold whatever they hold."""
    shadow.hang(times=8)
    with made(one, shadow) as mesh, meshlib.Client(mesh=mesh, timeout=30) as client:
        for _ in range(40):
            client.get("http://reviews/mirrored")
        shadow.wait_for(lambda: shadow.held == module.MOST_THREADS)
        before = len(shadow.requests)
        child = os.fork()
        if not child:
            code = 1
            try:
                answers = [client.get("http://reviews/mirrored/child").status_code for _ in range(5)]
                code = (
                    0
                    if answers == [200] * 5 and asked(lambda: mirrors_of(mesh._runtime()).sent == 5, 20)
                    else 2
                )
                asked(lambda: mesh.status().clusters["next"].active == 0, 20)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        shadow.release()
        assert asked(lambda: len(shadow.requests) >= before, 20)
        assert asked(lambda: sum(each.path.endswith("child") for each in shadow.requests) == 5, 20)


def test_a_target_asks_for_the_cluster_that_it_mirrors_to(one: Upstream, shadow: Upstream) -> None:
    """And does not wait for it: the host is served meanwhile."""
    action = {"request_mirror_policies": [{"cluster": "next"}]}
    routes = build.route_config("r", build.virtual_host("v", build.route(cluster="c", action=action)))
    with (
        ControlPlane(build.api_listener("reviews", "r"), routes, build.cluster("c", [one.address])) as plane,
        meshlib.Mesh({"xds": {"server": plane.address, "view": "target"}}) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        mesh.wait_ready("reviews", timeout=20)
        assert client.get("http://reviews/").json()["name"] == "one"
        plane.update(build.cluster("next", [shadow.address]))
        assert asked(lambda: "next" in mesh.status().clusters, 20)
        assert client.get("http://reviews/").json()["name"] == "one"
        assert asked(lambda: len(shadow.requests) == 1, 20)
