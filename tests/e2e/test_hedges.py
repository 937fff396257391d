"""Hedged calls by many threads, many tasks, in children of a process and over shared connections: what was overtaken leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

import meshlib
import meshlib_requests
from meshlib.testing import UpstreamProcess
from tests.support.asking import asked
from tests.support.http2_servers import go_server, nghttpd
from tests.support.late import again_if_late, soon
from tests.support.relay import Relay

pytestmark = pytest.mark.timeout(120)

#: Seconds that the slow one of three takes.
SLOW = 0.4


@pytest.fixture
def servers() -> Iterator[list[UpstreamProcess]]:
    """Three, of which the first is slow."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(UpstreamProcess()) for _ in range(3)]
        made[0].order(delay=SLOW)
        yield made


def service(servers: Any, **policies: Any) -> dict[str, Any]:
    addresses = [one if isinstance(one, str) else one.address for one in servers]
    return {"services": {"reviews": {"endpoints": addresses, **policies}}}


#: As many as there are calls.
UNBOUNDED = {"retry": {"attempts": 1, "budget": 1.0, "budget_min": 1000}}


def check_nothing_is_left(mesh: meshlib.Mesh, servers: list[UpstreamProcess]) -> None:
    """No pick, no permit, no thread; and the slow server holds no more connections than are kept."""
    live = mesh._runtime().clusters.upstream("static", "reviews")
    assert asked(lambda: not (live.active or live.retries)), (live.active, live.retries)
    assert [endpoint.active for endpoint in live.endpoints] == [0, 0, 0]
    assert asked(lambda: not [one for one in threading.enumerate() if one.name == "meshlib-hedge"])
    # The one that asks is counted, too.
    assert asked(lambda: sum(one.counts()["connections_open"] - 1 for one in servers) == live.connections)


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


def timed(mesh: meshlib.Mesh, count: int) -> list[float]:
    def call(_: int) -> float:
        began = time.monotonic()
        assert client.get("http://reviews/").status_code == 200
        return time.monotonic() - began

    with meshlib.Client(mesh=mesh, timeout=30.0) as client, ThreadPoolExecutor(4) as pool:
        return list(pool.map(call, range(count)))


@again_if_late
def test_one_slow_endpoint_of_three_is_felt_in_the_tail_and_with_hedges_is_not(servers) -> None:
    with meshlib.Mesh(service(servers)) as mesh:
        without = timed(mesh, 60)
    with meshlib.Mesh(service(servers, hedge={"after": SLOW / 4}, **UNBOUNDED)) as mesh:
        hedged = timed(mesh, 60)
        check_nothing_is_left(mesh, servers)
        assert mesh.status().clusters["reviews"].failures == 0
    slow = [sum(each >= SLOW for each in seconds) for seconds in (without, hedged)]
    print(f"of 60 calls {slow[0]} were slow without hedges, {slow[1]} with them")
    assert slow[0] >= 15  # round robin: every third
    assert p99(without) >= SLOW
    soon(slow[1], slow[0] // 3 + 1, "slow ones with hedges")
    soon(p99(hedged), p99(without), "the 99th percentile with hedges")


@pytest.mark.parametrize("kind", ["httpx", "requests"])
def test_50_threads_some_of_which_run_out_of_time(servers, kind: str) -> None:
    config = service(servers, hedge={"after": 0.01, "max": 3}, **UNBOUNDED)
    with meshlib.Mesh(config) as mesh, contextlib.ExitStack() as stack:
        if kind == "httpx":
            client: Any = stack.enter_context(meshlib.Client(mesh=mesh, timeout=30.0))
        else:
            client = stack.enter_context(meshlib_requests.Session(mesh=mesh))
        ends: list[str] = []

        def calls(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(6):
                bound = chance.choice([None, 0.005, 0.02, 0.05])
                try:
                    with contextlib.nullcontext() if bound is None else meshlib.deadline(bound):
                        assert client.get("http://reviews/").status_code == 200
                    ends.append("answered")
                except meshlib.DeadlineExceeded:
                    ends.append("late")

        threads = [threading.Thread(target=calls, args=(seed,)) for seed in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ends) == 300
        assert set(ends) == {"answered", "late"}
        check_nothing_is_left(mesh, servers)


@pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning")
async def test_500_tasks_some_of_which_are_cancelled(servers) -> None:
    config = service(servers, hedge={"after": 0.01, "max": 3}, **UNBOUNDED)
    with meshlib.Mesh(config) as mesh:
        limits = httpx.Limits(max_connections=64)
        async with meshlib.AsyncClient(mesh=mesh, timeout=60.0, limits=limits) as client:
            chance = random.Random(1)

            async def call() -> str:
                assert (await client.get("http://reviews/")).status_code == 200
                return "answered"

            tasks = [asyncio.ensure_future(call()) for _ in range(500)]
            loop = asyncio.get_running_loop()
            for task in tasks:
                if chance.random() < 0.5:
                    loop.call_later(chance.random() * 2.0, task.cancel)
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(end == "answered" or isinstance(end, asyncio.CancelledError) for end in ends), ends
            assert sum(end == "answered" for end in ends) >= 150
            assert sum(isinstance(end, asyncio.CancelledError) for end in ends) >= 10
            await asyncio.to_thread(check_nothing_is_left, mesh, servers)
            assert len([task for task in asyncio.all_tasks() if task is not asyncio.current_task()]) == 0


def test_a_child_hedges_as_its_parent_does(servers) -> None:
    config = service(servers, hedge={"after": 0.02}, **UNBOUNDED)
    with meshlib.Mesh(config) as mesh, meshlib.Client(mesh=mesh, timeout=30.0) as client:

        def attempts() -> int:
            infos = [meshlib.call_info(client.get("http://reviews/")) for _ in range(6)]
            return max(len(info.attempts) for info in infos if info is not None)

        assert attempts() == 2
        threads = [threading.Thread(target=attempts) for _ in range(4)]  # a fork in the middle of theirs
        for thread in threads:
            thread.start()
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                code = 0 if attempts() == 2 else 2
            os._exit(code)
        for thread in threads:
            thread.join()
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert attempts() == 2
        check_nothing_is_left(mesh, servers)


@pytest.mark.skipif(sys.platform != "linux", reason="nghttpd is asked for where it is easily had")
def test_who_is_overtaken_on_a_shared_connection_leaves_it_to_the_others(tmp_path) -> None:
    """HTTP/2: the slow server is told to stop (RST_STREAM), and its one connection goes on."""
    (tmp_path / "wait").write_text("done")
    (tmp_path / "waiting").write_text("0")
    with go_server() as slow, nghttpd(tmp_path) as fast:
        relay = Relay(f"127.0.0.1:{slow}")
        config = service([relay.address, f"127.0.0.1:{fast}"], hedge={"after": 0.05}, **UNBOUNDED)
        with (
            meshlib.Mesh(config) as mesh,
            meshlib.Client(mesh=mesh, http1=False, http2=True, timeout=30.0) as client,
            ThreadPoolExecutor(16) as pool,
        ):
            answers = list(pool.map(lambda _: client.get("http://reviews/wait"), range(64)))
            assert {answer.text for answer in answers} == {"done"}
            infos = [meshlib.call_info(answer) for answer in answers]
            hedged = sum(len(info.attempts) == 2 for info in infos if info is not None)
            assert hedged >= 16
            live = mesh._runtime().clusters.upstream("static", "reviews")
            assert asked(lambda: not (live.active or live.retries))
            with httpx.Client(http1=False, http2=True) as plain:
                url = f"http://127.0.0.1:{slow}/waiting"
                assert asked(lambda: plain.get(url).text == f"0 {hedged}"), plain.get(url).text
            assert len(relay._sockets) == 2, "one connection, of which the relay has two ends"
        relay.close()


def test_trio(servers) -> None:
    trio = pytest.importorskip("trio")
    config = service(servers, hedge={"after": 0.02}, **UNBOUNDED)

    async def calls() -> list[int]:
        found: list[int] = []

        async def call() -> None:
            info = meshlib.call_info(await client.get("http://reviews/"))
            assert info is not None
            found.append(len(info.attempts))

        async with meshlib.AsyncClient(mesh=mesh, timeout=30.0) as client:
            async with trio.open_nursery() as nursery:
                for _ in range(12):
                    nursery.start_soon(call)
            with trio.move_on_after(0.03):  # in the middle of a race
                async with trio.open_nursery() as nursery:
                    for _ in range(12):
                        nursery.start_soon(call)
        return found

    with meshlib.Mesh(config) as mesh:
        assert 2 in trio.run(calls)
        check_nothing_is_left(mesh, servers)
