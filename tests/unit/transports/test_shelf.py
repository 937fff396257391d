"""Which connections there are and who may have them, with connections that only say what they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meshlib.errors import Overloaded
from meshlib.transports.wire.async_pool import AsyncPool
from meshlib.transports.wire.guard import Guard
from meshlib.transports.wire.shelf import Shelf


class FakeConnection:
    def __init__(self) -> None:
        self.idle = True
        self.expired = False
        self.room = True
        self.connecting = False
        self.ended = False

    def is_idle(self) -> bool:
        return self.idle

    def has_expired(self) -> bool:
        return self.expired

    def is_available(self) -> bool:
        return self.room

    def is_closed(self) -> bool:
        return self.ended

    def info(self) -> str:
        return "CONNECTING" if self.connecting else "HTTP/2, IDLE"

    async def aclose(self) -> None:
        self.ended = True
        await asyncio.sleep(0)


class FakeLimits:
    def __init__(self, most: int, most_pending: int = 99) -> None:
        self.most = most
        self.most_pending = most_pending
        self.count = 0
        self.pending = 0

    def open_connection(self, *, force: bool = False) -> bool:
        if not force and self.count >= self.most:
            return False
        self.count += 1
        return True

    def close_connection(self) -> None:
        self.count -= 1

    def begin_pending(self) -> bool:
        self.pending += 1
        return self.pending <= self.most_pending

    def end_pending(self) -> None:
        self.pending -= 1


def attempt() -> Guard:
    return Guard(lambda: 0.0, None)


def shelf(most: int = 2, **options: Any) -> tuple[Shelf, FakeLimits]:
    limits = FakeLimits(most)
    return Shelf(FakeConnection, limits, **options), limits


def test_the_youngest_idle_connection_is_taken_first() -> None:
    found, _ = shelf(9)
    first, second = found.take(attempt()), found.take(attempt())
    assert found.put_back(first)
    assert found.put_back(second)
    assert found.take(attempt()) is second
    assert found.take(attempt()) is first


def test_an_expired_connection_is_stale_and_counted_no_more() -> None:
    found, limits = shelf()
    old = found.take(attempt())
    found.put_back(old)
    old.expired = True
    assert found.take(attempt()) is not old
    assert found.drain_stale() == [old]
    assert found.stale == []
    assert (found.open, limits.count) == (1, 1)


def test_at_the_limit_there_is_none_but_for_an_endpoint_that_has_none() -> None:
    found, limits = shelf(1)
    assert found.take(attempt()) is not None
    assert found.take(attempt()) is None
    other = Shelf(FakeConnection, limits)
    assert other.take(attempt()) is not None, "as in Envoy"
    assert limits.count == 2


@pytest.mark.parametrize("why", ["closed", "gone", "full", "busy"])
def test_what_is_not_kept_is_counted_no_more(why: str) -> None:
    gone = False
    found, limits = shelf(9, max_idle=0 if why == "full" else None, gone=lambda: gone)
    connection = found.take(attempt())
    gone = why == "gone"
    if why == "closed":
        found.clear()
    connection.idle = why != "busy"
    assert not found.put_back(connection)
    assert (found.open, limits.count, found.idle) == (0, 0, [])


def test_http2_shares_a_connection_while_it_has_room() -> None:
    found, limits = shelf(9, multiplexed=True)
    first = found.take(attempt())
    assert found.take(attempt()) is first
    first.room = False
    second = found.take(attempt())
    assert second is not first
    first.ended = True
    assert not found.put_back(first), "the first to come back ends it"
    assert found.put_back(first), "the second finds it ended"
    assert (found.open, limits.count) == (1, 1)


def test_who_finds_no_connection_ready_is_pending_until_it_sends() -> None:  # CB-02
    found, limits = shelf(9)
    first, second = attempt(), attempt()
    connection = found.take(first)
    found.take(second)
    assert limits.pending == 2
    first.note_sent()
    first.note_sent()
    second.end_pending()  # it could not be connected
    assert limits.pending == 0
    found.put_back(connection)
    assert found.take(attempt()) is connection
    assert limits.pending == 0, "an idle one is ready"


def test_who_waits_is_pending_once_until_one_comes_back() -> None:
    found, limits = shelf(1)
    held = found.take(attempt())
    limits.pending = 0
    waiting = attempt()
    assert found.take(waiting) is None
    assert found.take(waiting) is None
    assert limits.pending == 1
    found.put_back(held)
    assert found.take(waiting) is held
    assert limits.pending == 0


def test_too_many_pending_calls_are_refused_and_count_nothing() -> None:
    limits = FakeLimits(9, 0)
    found = Shelf(FakeConnection, limits)
    with pytest.raises(Overloaded):
        found.take(attempt())
    assert (found.open, limits.count) == (0, 0)


def test_who_shares_a_connection_that_is_not_there_yet_is_pending() -> None:
    found, limits = shelf(9, multiplexed=True)
    connection = found.take(attempt())
    connection.connecting = True
    assert found.take(attempt()) is connection
    assert limits.pending == 2
    connection.connecting = False
    assert found.take(attempt()) is connection
    assert limits.pending == 2


def test_clearing_makes_what_is_idle_stale() -> None:
    found, limits = shelf(9)
    idle, busy = found.take(attempt()), found.take(attempt())
    found.put_back(idle)
    found.clear()
    assert found.drain_stale() == [idle]
    assert (found.open, limits.count) == (1, 1)
    assert not found.put_back(busy)


async def test_a_task_cancelled_while_stale_connections_close_gives_its_own_back() -> None:
    limits = FakeLimits(9)
    pool = AsyncPool(FakeConnection, limits)
    guard = Guard(lambda: 0.0, None)
    old = await pool.acquire(guard)
    assert pool.give_back(old)
    old.expired = True
    task = asyncio.create_task(pool.acquire(guard))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (pool.open, pool.idle, limits.count) == (1, 1, 1)
