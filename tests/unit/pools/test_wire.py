"""Pools of the wire's own connections, against a real server."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from typing import Any

from meshlib.pools import AsyncEndpointPool, EndpointPool, PoolSettings
from meshlib.runtime.worker import Worker
from meshlib.testing import Upstream
from meshlib.wire.dial import Place, connect
from meshlib.wire.dial_async import connect_async
from meshlib.wire.message import Outgoing
from tests.support.pool_kit import CLOCK, FakeLimits, attempt

PATIENCE = 20.0


def place(upstream: Upstream) -> Place:
    host, _, port = upstream.address.rpartition(":")
    return Place(host, int(port))


def request(upstream: Upstream) -> Outgoing:
    return Outgoing(b"GET", b"/", [(b"Host", upstream.address.encode())])


def test_threads_call_over_two_connections(meshlib_upstream: Any) -> None:
    upstream, limits = meshlib_upstream("a"), FakeLimits(2)
    pool = EndpointPool(lambda bounds: connect(place(upstream), bounds), limits, PoolSettings(), CLOCK)
    statuses: Counter[int] = Counter()

    def call() -> None:
        for _ in range(20):
            bounds = attempt(PATIENCE)
            connection = pool.acquire(bounds)
            incoming = connection.send(request(upstream), bounds)
            incoming.read()
            statuses[incoming.status] += 1
            pool.release(connection)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert statuses == {200: 120}
    assert (pool.open, pool.idle, limits.count, limits.pending) == (2, 2, 2, 0)
    pool.close()
    assert limits.count == 0


def test_a_response_that_is_dropped_unread_gives_its_place_to_who_waits(meshlib_upstream: Any) -> None:
    upstream, worker = meshlib_upstream("a"), Worker(CLOCK)
    worker.start()
    pool = EndpointPool(
        lambda bounds: connect(place(upstream), bounds), FakeLimits(1), PoolSettings(), CLOCK, worker=worker
    )
    for _ in range(5):
        bounds = attempt(PATIENCE)
        connection = pool.acquire(bounds)
        incoming = connection.send(request(upstream), bounds)
        pool.abandon(connection)
        del connection, incoming
    gc.collect()
    pool.close()
    worker.call(lambda: None, PATIENCE)
    assert pool.open == 0
    assert worker.stop(PATIENCE)


def test_tasks_call_over_two_connections(meshlib_upstream: Any) -> None:
    upstream, limits = meshlib_upstream("a"), FakeLimits(2)

    async def main() -> None:
        pool = AsyncEndpointPool(
            lambda bounds: connect_async(place(upstream), bounds), limits, PoolSettings(), CLOCK
        )

        async def call() -> int:
            bounds = attempt(PATIENCE)
            connection = await pool.acquire(bounds)
            incoming = await connection.send(request(upstream), bounds)
            await incoming.aread()
            pool.release(connection)
            return incoming.status

        assert await asyncio.gather(*(call() for _ in range(50))) == [200] * 50
        assert (pool.open, pool.idle, limits.pending) == (2, 2, 0)
        pool.close()

    asyncio.run(main())
    assert limits.count == 0
