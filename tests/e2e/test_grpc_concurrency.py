"""Many threads on one channel, and event loops of one process with channels of their own, or with one: each call gets its own answer."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import meshlib
import meshlib.grpc
import meshlib.grpc.aio

THREADS, TASKS, ROUNDS = 50, 25, 20


@pytest.fixture
def upstreams(meshlib_grpc_upstream: Any) -> list[Any]:
    servers = [meshlib_grpc_upstream(name) for name in ("a", "b", "c")]
    for server in servers:
        server.order(echo=True, messages=None)
    return servers


def mesh_of(upstreams: list[Any]) -> meshlib.Mesh:
    endpoints = [one.address for one in upstreams]
    return meshlib.Mesh({"services": {"stock": {"endpoints": endpoints, "balancer": "round_robin"}}})


def at_rest(mesh: meshlib.Mesh) -> bool:
    """No call is counted any more."""
    return all(
        not cluster.active and not any(one.active for one in cluster.endpoints)
        for cluster in mesh.status().clusters.values()
    )


def test_fifty_threads_call_at_once_on_one_channel(upstreams: list[Any]) -> None:
    begin = threading.Barrier(THREADS)

    def caller(number: int) -> int:
        begin.wait(30)
        right = 0
        for turn in range(ROUNDS):
            said = f"{number}.{turn}".encode()
            several = [said, said + b"!"]
            right += unary(said, timeout=30) == said
            right += unary.future(said, timeout=30).result() == said
            right += list(both(iter(several), timeout=30)) == several
        return right

    with mesh_of(upstreams) as mesh, meshlib.grpc.channel("stock", mesh=mesh) as channel:
        unary, both = channel.unary_unary("/s/m"), channel.stream_stream("/s/StreamStream")
        with ThreadPoolExecutor(THREADS) as pool:
            assert Counter(pool.map(caller, range(THREADS))) == {3 * ROUNDS: THREADS}
        assert sum(one.requests_total for one in upstreams) == THREADS * ROUNDS * 3
        assert {one.requests_total for one in upstreams} == {THREADS * ROUNDS}
        assert {one.connections_total for one in upstreams} == {1}, "threads share connections"
        assert at_rest(mesh)
    left = [one.name for one in threading.enumerate() if one.name.startswith("meshlib")]
    assert left == []


def in_two_loops(work: Callable[[int], Awaitable[int]]) -> list[int]:
    """What ``work`` gives in each of two loops that run at the same time, in threads of their own."""
    begin = threading.Barrier(2)

    def loop(number: int) -> int:
        begin.wait(30)
        return asyncio.run(work(number))  # type: ignore[arg-type]

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(loop, range(2)))


async def tasks(channel: Any, name: int) -> int:
    """Calls of many tasks; how many got their own answer."""
    unary, both = channel.unary_unary("/s/m"), channel.stream_stream("/s/StreamStream")

    async def caller(number: int) -> int:
        right = 0
        for turn in range(ROUNDS):
            said = f"{name}.{number}.{turn}".encode()
            several = [said, said + b"!"]
            right += await unary(said, timeout=30) == said
            right += [one async for one in both(iter(several), timeout=30)] == several
        return right

    return sum(await asyncio.gather(*(caller(number) for number in range(TASKS))))


def test_two_loops_have_channels_of_their_own(upstreams: list[Any]) -> None:
    with mesh_of(upstreams) as mesh:

        async def work(name: int) -> int:
            async with meshlib.grpc.aio.channel("stock", mesh=mesh) as channel:
                return await tasks(channel, name)

        assert in_two_loops(work) == [2 * TASKS * ROUNDS] * 2
        assert {one.requests_total for one in upstreams} <= {
            4 * TASKS * ROUNDS // 3,
            4 * TASKS * ROUNDS // 3 + 1,
        }, "one mesh balances the calls of both"
        assert at_rest(mesh)


def test_two_loops_share_one_channel_and_each_has_its_connections(upstreams: list[Any]) -> None:
    with mesh_of(upstreams) as mesh:
        channel = meshlib.grpc.aio.channel("stock", mesh=mesh)
        over = threading.Barrier(2)

        async def work(name: int) -> int:
            right = await tasks(channel, name)
            await asyncio.to_thread(
                over.wait, 30
            )  # closing a loop's connections is no business of the other's
            await channel.close()
            return right

        assert in_two_loops(work) == [2 * TASKS * ROUNDS] * 2
        assert sum(one.requests_total for one in upstreams) == 4 * TASKS * ROUNDS
        assert at_rest(mesh)
