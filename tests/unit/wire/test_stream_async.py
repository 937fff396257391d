"""Streams for asyncio and uvloop, over pairs of real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.testing.clock import VirtualClock
from meshlib.wire.errors import ReadError, ReadTimeout, WriteError, WriteTimeout
from meshlib.wire.stream_async import AsyncioStream
from tests.support.loops import on_both_loops

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLOCK = MonotonicClock()
MUCH = b"0123456789abcdef" * 262_144  # 4 MiB: more than the system holds for a peer that does not read
Pair = tuple[AsyncioStream, socket.socket]


def bounds(**timeouts: float | None) -> Bounds:
    return Bounds(CLOCK, None, timeouts)


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Pair]:
    ours, theirs = socket.socketpair()
    stream = AsyncioStream()
    await asyncio.get_running_loop().create_connection(lambda: stream, sock=ours)
    with theirs:
        try:
            yield stream, theirs
        finally:
            stream.close()
            await turns()


async def turns() -> None:
    """What the loop has to do now is done."""
    for _ in range(4):
        await asyncio.sleep(0)


def all_of(theirs: socket.socket) -> bytes:
    theirs.settimeout(20)
    got = b""
    while part := theirs.recv(1_000_000):
        got += part
    return got


@on_both_loops
async def test_it_reads_what_comes_and_the_end() -> None:
    async with connected() as (stream, theirs):
        theirs.send(b"hello")
        assert await stream.read(3, bounds()) == b"hel"
        assert await stream.read(100, bounds(read=5.0)) == b"lo"
        theirs.shutdown(socket.SHUT_WR)
        assert await stream.read(100, bounds()) == b""
        await stream.write(b"you may still hear me", bounds())
        assert theirs.recv(100) == b"you may still hear me"


@on_both_loops
async def test_a_read_waits_no_longer_than_its_bounds() -> None:
    async with connected() as (stream, theirs):
        own = bounds(read=30.0)
        theirs.send(b"x")
        await stream.read(1, own)
        with pytest.raises(ReadTimeout):
            await stream.read(1, bounds(read=0.01))
        theirs.send(b"y")
        assert await stream.read(1, own) == b"y"
        with pytest.raises(ReadTimeout):  # and the timer that rings too early is set anew
            await stream.read(1, bounds(read=0.02))
        assert not own.expired


@on_both_loops
async def test_a_timer_that_was_set_for_an_earlier_read_ends_no_later_one() -> None:
    async with connected() as (stream, theirs):
        theirs.send(b"x")
        reading = asyncio.ensure_future(stream.read(1, bounds(read=0.05)))
        await reading
        ended = asyncio.ensure_future(stream.read(1, bounds(read=30.0)))
        waited = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, waited.set)
        await waited.wait()
        assert not ended.done()
        theirs.send(b"y")
        assert await ended == b"y"


@on_both_loops
async def test_a_deadline_bounds_a_read_and_is_told_apart() -> None:
    async with connected() as (stream, _):
        own = Bounds(CLOCK, CLOCK.now() + 0.02, {"read": 5.0})
        with pytest.raises(ReadTimeout):
            await stream.read(1, own)
        assert own.expired


@on_both_loops
async def test_a_virtual_clock_wakes_who_reads() -> None:
    async with connected() as (stream, _):
        clock = VirtualClock()
        own = Bounds(clock, clock.now() + 3.0)
        reading = asyncio.ensure_future(stream.read(1, own))
        await turns()
        clock.advance(2.9)
        await turns()
        assert not reading.done()
        clock.advance(0.2)
        with pytest.raises(ReadTimeout):
            await reading
        assert own.expired


@on_both_loops
async def test_a_list_goes_together() -> None:
    async with connected() as (stream, theirs):
        assert await stream.write([b"head", b"", b"body"], bounds())
        await turns()
        assert theirs.recv(100) == b"headbody"


@on_both_loops
async def test_much_is_written_as_the_peer_takes_it() -> None:
    async with connected() as (stream, theirs):
        got = asyncio.ensure_future(asyncio.to_thread(all_of, theirs))
        assert await stream.write([b"x" * 7, MUCH], bounds(write=20.0))
        assert await stream.write(b"y" * 9, bounds(write=20.0))
        theirs_end = asyncio.get_running_loop().create_task(end_of_writing(stream))
        assert await got == b"x" * 7 + MUCH + b"y" * 9
        await theirs_end


async def end_of_writing(stream: AsyncioStream) -> None:
    stream._transport.write_eof()


@on_both_loops
async def test_a_writer_holds_back_what_the_peer_does_not_take() -> None:
    async with connected() as (stream, _):
        own = bounds(write=0.01)
        with pytest.raises(WriteTimeout):
            await stream.write(MUCH, own)
        assert own.sent
        assert stream._transport.get_write_buffer_size() <= 400_000


@on_both_loops
async def test_a_reader_that_does_not_come_holds_the_peer_back() -> None:
    async with connected() as (stream, theirs):
        theirs.settimeout(20)
        sending = asyncio.ensure_future(asyncio.to_thread(theirs.sendall, MUCH))
        paused = asyncio.Event()
        stream._transport = Noting(stream._transport, paused)
        await paused.wait()
        await turns()
        assert stream._held <= 2 * 262_144 + 1
        got = b""
        while len(got) < len(MUCH):
            got += await stream.read(100_000, bounds(read=20.0))
        assert got == MUCH
        await sending


class Noting:
    """A transport that tells when reading is paused."""

    def __init__(self, transport: object, paused: asyncio.Event) -> None:
        self._transport = transport
        self._paused = paused

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def pause_reading(self) -> None:
        self._paused.set()
        self._transport.pause_reading()  # type: ignore[attr-defined]


@on_both_loops
async def test_the_time_bounds_all_of_a_write_also_where_nobody_ever_waits() -> None:
    async with connected() as (stream, _):
        stream._transport.set_write_buffer_limits(high=len(MUCH) + 1)  # never full
        with pytest.raises(WriteTimeout):
            await stream.write(MUCH, bounds(write=1e-9))
        assert stream.unsent < len(MUCH), "the rest is not given to the system any more"


@on_both_loops
async def test_who_listens_is_told_of_an_answer_while_nothing_more_is_taken() -> None:
    async with connected() as (stream, theirs):
        own = bounds(write=20.0)
        writing = asyncio.ensure_future(stream.write(MUCH, own, listening=True))
        await turns()
        theirs.send(b"enough")
        assert not await writing
        assert stream.read_now(100) == b"enough"
        assert stream.read_now(100) is None
        got = asyncio.ensure_future(asyncio.to_thread(all_of, theirs))
        assert await stream.write(b"the end", own, listening=True)  # what was left goes first
        await end_of_writing(stream)
        assert await got == MUCH + b"the end"


@on_both_loops
async def test_a_write_after_the_end_was_not_sent() -> None:
    async with connected() as (stream, _):
        stream.close()
        own = bounds()
        with pytest.raises(WriteError):
            await stream.write(b"GET / HTTP/1.1\r\n\r\n", own)
        assert not own.sent


async def test_a_write_that_the_system_refuses_was_not_sent() -> None:
    # Of uvloop, which sends later, this cannot be known.
    async with connected() as (stream, theirs):
        theirs.close()
        own = bounds()
        with pytest.raises(WriteError):
            await stream.write(b"GET / HTTP/1.1\r\n\r\n", own)
        assert not own.sent


@on_both_loops
async def test_a_broken_connection_is_a_read_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        stream = AsyncioStream()
        await asyncio.get_running_loop().create_connection(lambda: stream, sock=ours)
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()  # with a reset
        with pytest.raises(ReadError, match="reset"):
            await stream.read(1, bounds())
        stream.close()


@on_both_loops
async def test_input_is_awaited_for_some_time() -> None:
    async with connected() as (stream, theirs):
        assert not await stream.await_input(0.01, bounds(read=5.0))
        with pytest.raises(ReadTimeout):
            await stream.await_input(5.0, bounds(read=0.01))
        theirs.send(b"x")
        assert await stream.await_input(5.0, bounds())
        assert await stream.read(1, bounds()) == b"x"


@on_both_loops
async def test_an_idle_connection_is_readable_once_the_peer_says_something() -> None:
    async with connected() as (stream, theirs):
        assert not stream.readable()
        theirs.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        assert stream.readable()  # also before the loop has looked
        await turns()
        assert stream.readable()
        await stream.read(100, bounds())
        assert not stream.readable()
        theirs.close()
        assert stream.readable()
        stream.close()
        assert stream.readable()


@pytest.mark.parametrize("writes", [False, True])
@on_both_loops
async def test_closing_ends_who_waits(writes: bool) -> None:
    async with connected() as (stream, _):
        work = stream.write(MUCH, bounds()) if writes else stream.read(1, bounds())
        waiting = asyncio.ensure_future(work)
        await turns()
        stream.close()
        with pytest.raises(WriteError if writes else ReadError, match="closed"):
            await waiting


@on_both_loops
async def test_a_cancelled_reader_leaves_the_stream_in_order() -> None:
    async with connected() as (stream, theirs):
        waiting = asyncio.ensure_future(stream.read(1, bounds(read=30.0)))
        await turns()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        theirs.send(b"x")
        assert await stream.read(1, bounds()) == b"x"


@on_both_loops
async def test_two_readers_are_refused() -> None:
    async with connected() as (stream, theirs):
        first = asyncio.ensure_future(stream.read(1, bounds()))
        await turns()
        with pytest.raises(RuntimeError, match="two tasks"):
            await stream.read(1, bounds())
        theirs.send(b"x")
        assert await first == b"x"


@on_both_loops
async def test_a_child_touches_nothing() -> None:
    async with connected() as (stream, theirs):
        child = os.fork()
        if child == 0:
            try:
                assert stream.readable()
                stream.close()
            except BaseException:  # noqa: BLE001 - the child must not run on as a second pytest
                os._exit(1)
            os._exit(0)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert status == 0
        theirs.send(b"still here")
        assert await stream.read(100, bounds(read=5.0)) == b"still here"


def test_closing_after_the_loop_has_ended_is_no_error() -> None:
    ours, theirs = socket.socketpair()
    made: list[AsyncioStream] = []

    async def connect() -> None:
        made.append(AsyncioStream())
        await asyncio.get_running_loop().create_connection(lambda: made[0], sock=ours)

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(connect())
    finally:
        loop.close()
    made[0].close()
    assert made[0].readable()
    theirs.close()
    ours.close()
    made[0]._transport._sock = None  # else asyncio warns of a transport that its loop has left open


@on_both_loops
async def test_it_tells_what_it_is() -> None:
    async with connected() as (stream, theirs):
        assert stream.get_extra_info("socket").fileno() != theirs.fileno()
        assert stream.get_extra_info("ssl_object") is None
        assert stream.get_extra_info("is_readable") is False
        assert stream.protocol is None
