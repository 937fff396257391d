from __future__ import annotations

import asyncio
import gc
from typing import Any

from meshlib.model.address import Address
from meshlib.model.endpoint import Endpoint
from meshlib.pools import AsyncEndpointPool, EndpointPool, Pools, PoolSettings
from meshlib.runtime.worker import Worker
from tests.support.live_kit import Watched, cluster, locality
from tests.support.pool_kit import CLOCK, FakeConnection, attempt

SETTINGS = PoolSettings(keepalive=None)


def made(worker: Any = None) -> EndpointPool:
    return EndpointPool(lambda bounds: FakeConnection(), None, SETTINGS, CLOCK, worker=worker)


def used(pools: Pools, key: Any) -> FakeConnection:
    """One call through the pool of ``key``."""
    pool = pools.get(key) or pools.put(key, made)
    connection = pool.acquire(attempt())
    pool.release(connection)
    return connection


def test_a_key_has_one_pool() -> None:
    pools: Pools[Any, EndpointPool] = Pools()
    assert pools.get(("a", "x")) is None
    pool = pools.put(("a", "x"), made)
    assert pools.get(("a", "x")) is pool
    assert pools.put(("a", "x"), lambda: 1 / 0) is pool
    assert pools.all() == [pool]


def test_150_hosts_do_not_make_150_pools_to_one_endpoint() -> None:
    pools: Pools[Any, EndpointPool] = Pools()
    connections = [used(pools, ("endpoint", f"host-{number}")) for number in range(150)]
    used(pools, ("other endpoint", "host"))
    assert len(pools) == 33
    assert [connection.closed for connection in connections] == [True] * 118 + [False] * 32


def test_the_least_recently_used_is_pushed_out_and_one_that_carries_calls_last() -> None:
    pools: Pools[Any, EndpointPool] = Pools(3)
    busy = pools.put(("endpoint", "busy"), made)
    held = busy.acquire(attempt())
    for name in ("one", "two", "one"):
        used(pools, ("endpoint", name))
    used(pools, ("endpoint", "three"))
    assert pools.get(("endpoint", "two")) is None
    assert None not in (pools.get(("endpoint", "one")), pools.get(("endpoint", "busy")))
    for name in ("four", "five"):
        pools.put(("endpoint", name), made).acquire(attempt())
    pools.put(("endpoint", "six"), made)
    assert pools.get(("endpoint", "busy")) is None
    busy.release(held)
    assert held.closed, "what was in use ends when it comes back"


def test_an_endpoint_that_is_renamed_is_called_at_its_new_address() -> None:
    """It stays the same object, with what is counted of it; its old connections end."""

    def members(address: str, *others: str) -> Any:
        found = Endpoint(Address.parse(address), additional_addresses=tuple(map(Address.parse, others)))
        return cluster(locality(found))

    live = Watched(members("10.0.0.1:80", "10.0.0.2:80")).live
    (endpoint,) = live.endpoints
    pools: Pools[Any, EndpointPool] = Pools()
    before = used(pools, (endpoint, endpoint.address, endpoint.tls))
    live.update(members("10.0.0.2:80", "10.0.0.1:80"), 0.0)
    assert live.endpoints == (endpoint,)
    assert str(endpoint.address) == "10.0.0.2:80"
    pools.sweep(lambda key: key[0].gone or key[1] is not endpoint.address)
    assert before.closed
    assert pools.get((endpoint, endpoint.address, endpoint.tls)) is None, "the next call dials"


def test_sweeping_closes_what_is_of_no_use_and_what_is_in_use_when_it_comes_back() -> None:
    pools: Pools[Any, EndpointPool] = Pools()
    stays, idle = used(pools, ("a", 1)), used(pools, ("b", 1))
    pool = pools.put(("b", 2), made)
    busy = pool.acquire(attempt())
    pools.sweep(lambda key: key[0] == "b")
    assert (len(pools), stays.closed, idle.closed, busy.closed) == (1, False, True, False)
    pool.release(busy)
    assert busy.closed


def test_closed_it_may_be_used_again() -> None:
    pools: Pools[Any, EndpointPool] = Pools()
    before = used(pools, ("a", 1))
    pools.close()
    assert (before.closed, len(pools)) == (True, 0)
    assert not used(pools, ("a", 1)).closed


def test_one_that_nobody_has_any_more_leaves_nothing_open() -> None:
    worker = Worker(CLOCK)
    worker.start()
    pools: Pools[Any, EndpointPool] = Pools()
    pools.put(("a", 1), lambda: made(worker))
    pools.put(("b", 1), made)
    connections = [used(pools, ("a", 1)), used(pools, ("b", 1))]
    with worker._turn:  # a lock that the collector's thread may hold
        del pools
        gc.collect()
    assert worker.call(lambda: None, 10.0)
    assert [connection.closed for connection in connections] == [True, True]
    assert worker.stop(10.0)


def test_of_an_event_loop_too() -> None:
    async def main() -> None:
        pools: Pools[Any, AsyncEndpointPool] = Pools()
        pool = pools.put(("a", 1), lambda: AsyncEndpointPool(dial, None, SETTINGS, CLOCK))
        idle, busy = await pool.acquire(attempt()), await pool.acquire(attempt())
        pool.release(idle)
        del pools
        gc.collect()
        await asyncio.sleep(0)
        assert (idle.closed, busy.closed) == (True, False)
        pool.release(busy)
        assert busy.closed

    async def dial(bounds: Any) -> FakeConnection:
        return FakeConnection()

    asyncio.run(main())
