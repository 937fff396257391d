"""Connections that are made ahead of requests (Envoy ``per_upstream_preconnect_ratio``): bounded, and nobody waits for them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from meshlib.pools import AsyncEndpointPool, EndpointPool, PoolSettings
from meshlib.pools.state import PoolState
from tests.support.asking import asked
from tests.support.pool_kit import CLOCK, FakeConnection, FakeLimits, attempt


def state(**settings: Any) -> tuple[PoolState[Any], FakeLimits]:
    limits = FakeLimits(settings.pop("most", None))
    return PoolState(limits, PoolSettings(**settings)), limits


def busy(found: PoolState[Any]) -> FakeConnection:
    """One that is dialed for a request."""
    waiter = _Waiter()
    found.wait(waiter, 0.0)
    assert waiter.served
    connection = waiter.connection
    if connection is None:
        connection = FakeConnection()
        found.dialed(connection, 0.0)
    return connection


class _Waiter:
    def __init__(self) -> None:
        self.served, self.connection = False, None

    def wake(self) -> None:
        pass


@pytest.mark.parametrize(
    ("settings", "calls", "may"),
    [
        ({}, 1, False),
        ({"ahead": 1.5}, 0, False),
        ({"ahead": 1.5}, 1, True),
        ({"ahead": 1.5, "max_idle": 1}, 1, False),
        ({"ahead": 1.5, "max_idle": 0}, 1, False),
        ({"ahead": 1.5, "most": 1}, 1, False),
        ({"ahead": 1.5, "most": 2}, 1, True),
        ({"ahead": 3.0, "max_connections": 1, "chosen": True}, 1, False),
        ({"ahead": 1.5}, 4, True),
    ],
)
def test_as_many_as_are_to_be_and_as_may_be(settings: dict[str, Any], calls: int, may: bool) -> None:
    found, limits = state(**settings)
    held = [busy(found) for _ in range(calls)]
    assert found.begin_ahead() is may
    assert not found.begin_ahead(), "one at a time"
    assert limits.count == found.open == len(held) + may


def test_what_is_there_already_will_do() -> None:
    found, _ = state(ahead=2.0)
    first, second = busy(found), busy(found)
    assert found.put_back(second, 0.0, usable=True)
    assert not found.begin_ahead()
    assert found.put_back(first, 0.0, usable=True)
    assert not found.begin_ahead()
    found.clear(0.0)
    assert not found.begin_ahead()


def test_by_a_thread_that_no_caller_waits_for() -> None:
    release, dials = threading.Event(), []

    def dial(bounds: Any) -> FakeConnection:
        dials.append(threading.current_thread())
        if len(dials) > 1:
            assert release.wait(20)
        return FakeConnection()

    pool = EndpointPool(dial, FakeLimits(), PoolSettings(ahead=2.0), CLOCK)
    first = pool.acquire(attempt())
    assert asked(lambda: len(dials) == 2, 20)
    assert (pool.open, pool.idle) == (2, 0)
    pool.release(first)
    assert pool.acquire(attempt()) is first, "the one that is there"
    assert len(dials) == 2
    release.set()
    assert asked(lambda: pool.idle == 1, 20)
    pool.release(first)
    pool.close()
    assert pool.open == 0


def test_one_that_fails_is_nobodys_error() -> None:
    dials = []

    def dial(bounds: Any) -> FakeConnection:
        dials.append(1)
        if len(dials) > 1:
            raise OSError("refused")
        return FakeConnection()

    limits = FakeLimits()
    pool = EndpointPool(dial, limits, PoolSettings(ahead=2.0), CLOCK)
    first = pool.acquire(attempt())
    assert asked(lambda: len(dials) == 2 and pool.open == 1, 20)
    pool.release(first)
    assert (pool.open, limits.count) == (1, 1)


def test_by_a_task() -> None:
    async def main() -> None:
        dials = []

        async def dial(bounds: Any) -> FakeConnection:
            dials.append(1)
            await asyncio.sleep(0)
            if len(dials) == 3:
                raise OSError("refused")
            return FakeConnection()

        limits = FakeLimits()
        pool = AsyncEndpointPool(dial, limits, PoolSettings(ahead=2.0), CLOCK)
        first = await pool.acquire(attempt())
        await asyncio.gather(*pool._dials)
        assert (len(dials), pool.open) == (2, 2)
        second = await pool.acquire(attempt())
        await asyncio.gather(*pool._dials)
        assert (len(dials), pool.open) == (3, 2), "the third failed"
        pool.release(first)
        pool.release(second)
        pool.close()
        assert (pool.open, limits.count) == (0, 0)

    asyncio.run(main())
