"""Bodies that are held up, on the virtual clock. Beside a real Envoy: tests/e2e/oracle/test_held_bodies.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.effects import DELIVER, Deliver
from meshlib.hosts.paced import paced
from meshlib.pools.bounds import Bounds
from meshlib.wire.errors import ReadTimeout


class OwnClock:
    """Sleeping moves it."""

    virtual = True

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.time += seconds


class Incoming:
    """A wire's response."""

    def __init__(self, *parts: bytes, awaited: bool = False) -> None:
        self.awaited = awaited
        self.status = 200
        self.parts = list(parts)
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        while self.parts:
            yield self.parts.pop(0)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.parts:
            yield self.parts.pop(0)

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def made(incoming: Incoming, rate: int = 1600, deadline: float | None = None) -> tuple[object, OwnClock]:
    clock = OwnClock()
    return paced(incoming, Deliver(rate), clock, Bounds(clock, deadline)), clock


def test_a_library_s_own_response_is_left_alone() -> None:
    other = object()
    assert paced(other, Deliver(1), OwnClock(), Bounds(OwnClock())) is other
    incoming = Incoming()
    assert paced(incoming, DELIVER, OwnClock(), Bounds(OwnClock())) is incoming


@given(st.lists(st.binary(max_size=700), max_size=8), st.integers(1, 5000))
def test_no_byte_is_lost_and_none_comes_early(parts: list[bytes], rate: int) -> None:
    whole = b"".join(parts)
    for awaited in (False, True):
        answer, clock = made(Incoming(*parts, awaited=awaited), rate)
        if awaited:

            async def read(answer: object = answer) -> bytes:
                return await answer.aread()

            assert asyncio.run(read()) == whole
        else:
            assert answer.read() == whole
        most = rate / 16 + 1  # what comes at once
        assert clock.time - 100.0 >= (len(whole) - most) / rate - 1e-6
        assert clock.time - 100.0 <= len(whole) / rate + 1e-6


def test_slices_come_sixteen_a_second() -> None:
    answer, clock = made(Incoming(b"x" * 250))
    found = [(len(part), round(clock.time - 100.0, 6)) for part in answer]
    assert found == [(100, 0.0), (100, 0.0625), (50, 0.125)]


def test_a_slow_reader_saves_a_second_at_most() -> None:
    answer, clock = made(Incoming(b"x" * 8000))
    assert len(next(answer)) == 100
    clock.time += 60.0
    read = 0
    while clock.time == 160.0:
        read += len(next(answer))
    assert read == 1600 + 100 + 100


def test_a_buffer_is_filled_as_far_as_may_be() -> None:
    answer, _ = made(Incoming(b"abc", b"x" * 150))
    buffer = bytearray(2)
    assert [answer.readinto(buffer), bytes(buffer)] == [2, b"ab"]
    large = bytearray(500)
    assert [answer.readinto(large) for _ in range(4)] == [1, 100, 50, 0]
    assert bytes(large[:50]) == b"x" * 50


def test_it_has_what_the_response_has() -> None:
    incoming = Incoming(b"a")
    answer, _ = made(incoming)
    assert answer.status == 200
    answer.on_end = print
    assert incoming.on_end is print
    answer.close()
    assert incoming.closed


def test_the_deadline_holds() -> None:
    incoming = Incoming(b"x" * 1000)
    answer, clock = made(incoming, deadline=100.1)
    assert [len(next(answer)) for _ in range(2)] == [100, 100]
    with pytest.raises(ReadTimeout):
        next(answer)
    assert incoming.closed
    assert round(clock.time, 6) == 100.1


def test_who_is_cancelled_while_waiting_loses_nothing() -> None:
    class Stuck(OwnClock):
        async def sleep_async(self, seconds: float) -> None:
            if not self.virtual:
                raise asyncio.CancelledError
            self.time += seconds

    async def run() -> None:
        clock = Stuck()
        answer = paced(Incoming(b"a" * 100, b"b" * 100, awaited=True), Deliver(1600), clock, Bounds(clock))
        first = await answer.__anext__()
        clock.virtual = False
        with pytest.raises(asyncio.CancelledError):
            await answer.__anext__()
        clock.virtual = True
        assert first + await answer.aread() == b"a" * 100 + b"b" * 100

    asyncio.run(run())
