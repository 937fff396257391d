"""HTTP/2 over a stream of an event loop: many tasks on one connection, over a pair of real sockets. The peer is written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
from typing import TYPE_CHECKING

import pytest

from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.testing.clock import VirtualClock
from meshlib.wire.errors import (
    LocalProtocolError,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    StreamRefused,
    WriteError,
    WriteTimeout,
)
from meshlib.wire.http2 import STREAM_WINDOW
from meshlib.wire.message import Outgoing
from meshlib.wire.multiplexed_async import AsyncMultiplexed
from meshlib.wire.stream_async import AsyncioStream
from tests.support.http2_frames import Far, request
from tests.support.loops import on_both_loops

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLOCK = MonotonicClock()


def bounds(deadline: float | None = None, **timeouts: float | None) -> Bounds:
    return Bounds(
        CLOCK, None if deadline is None else CLOCK.now() + deadline, {"read": 20.0, "write": 20.0} | timeouts
    )


class AsyncFar:
    """The other end, whose waiting is a thread's."""

    def __init__(self, far: Far) -> None:
        self.far = far
        self.peer = far

    async def say(self, *frames: bytes) -> None:
        await asyncio.to_thread(self.far.say, *frames)

    async def hear(self, *kinds: str) -> tuple:
        return await asyncio.to_thread(self.far.hear, *kinds)

    async def answer(self, number: int, body: bytes = b"fine", status: bytes = b"200") -> None:
        await asyncio.to_thread(self.far.answer, number, body, status)

    async def serve(self) -> None:
        await self.answer((await self.hear("head"))[1])


class Silent(AsyncioStream):
    """As the streams of trio are: it tells of nothing that comes."""

    def listen(self, call: object) -> bool:
        return False


@contextlib.asynccontextmanager
async def connected(
    kind: type[AsyncioStream] = AsyncioStream,
) -> AsyncIterator[tuple[AsyncMultiplexed, AsyncFar]]:
    ours, theirs = socket.socketpair()
    stream = kind()
    await asyncio.get_running_loop().create_connection(lambda: stream, sock=ours)
    connection = AsyncMultiplexed(stream)
    with theirs:
        try:
            yield connection, AsyncFar(Far(theirs))
        finally:
            connection.close()
            await turns()


async def turns() -> None:
    """What the loop has to do now is done."""
    for _ in range(4):
        await asyncio.sleep(0)


async def call(connection: AsyncMultiplexed, *, within: Bounds | None = None, **options) -> tuple[int, bytes]:
    response = await connection.send(request(**options), within or bounds())
    return response.status, await response.aread()


async def works(connection: AsyncMultiplexed, far: AsyncFar) -> bool:
    """Whether another call passes."""
    far.far.said.clear()
    task = asyncio.create_task(call(connection))
    await far.serve()
    return await task == (200, b"fine") and connection.free() and connection.idle and not connection.closed


KINDS = pytest.mark.parametrize("kind", [AsyncioStream, Silent], ids=["telling", "silent"])


@KINDS
async def test_many_tasks_share_it_and_are_answered_in_any_order(kind):
    async with connected(kind) as (connection, far):
        tasks = [asyncio.create_task(call(connection, target=b"/%d" % number)) for number in range(20)]
        heads = [await far.hear("head") for _ in tasks]
        for _, number, fields, _ in reversed(heads):
            await far.answer(number, dict(fields)[b":path"])
        assert [(await task)[1] for task in tasks] == [b"/%d" % number for number in range(20)]
        assert connection.idle


@on_both_loops
async def test_a_call_with_a_body_interim_heads_and_trailers() -> None:
    async with connected() as (connection, far):
        told = []

        async def trace(name: str, info: dict) -> None:
            told.append(name)

        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            yield b""
            yield b"bc"

        wanted = Outgoing(b"POST", b"/", [(b"Host", b"a")], body(), trace=trace)
        task = asyncio.create_task(connection.send(wanted, bounds()))
        await far.hear("head")
        assert [await far.hear("data") for _ in range(3)] == [
            ("data", 1, b"a"),
            ("data", 1, b"bc"),
            ("data", 1, b"", "end"),
        ]
        await far.say(far.peer.head(1, status=b"103"), far.peer.head(1), far.peer.data(1, b"first"))
        response = await task
        ended = []
        response.on_end = lambda: ended.append(1)
        first = await anext(response)
        await far.say(far.peer.data(1, b"second"), far.peer.trailers(1, (b"grpc-status", b"0")))
        rest = await response.aread()
        assert first + rest == b"firstsecond"
        assert response.trailers == [(b"grpc-status", b"0")]
        assert ended == [1]
        assert await response.aread() == b""
        steps = (
            "send_request_headers",
            "send_request_body",
            "receive_response_headers",
            "receive_response_body",
        )
        assert told == [
            f"http2.{step}.{state}"
            for step in (*steps, "response_closed")
            for state in ("started", "complete")
        ]
        assert response.network_stream.get_extra_info("socket") is not None


@on_both_loops
async def test_a_ping_and_a_goaway_are_heard_while_nobody_waits() -> None:
    async with connected() as (connection, far):
        await far.say(far.peer.settings(max_concurrent_streams=7), b"\0\0\x08\x06\0\0\0\0\0pingping")
        assert await far.hear("ping ack") == ("ping ack", b"pingping")
        assert connection.streams == 7
        await far.say(far.peer.goaway(0), b"\0\0\x08\x06\0\0\0\0\0pongpong")
        await far.hear("ping ack")
        assert connection.streams == 0
        assert not connection.free()
        within = bounds()
        with pytest.raises(StreamRefused):
            await connection.send(request(), within)
        assert not within.sent


@KINDS
async def test_after_a_goaway_what_the_peer_answers_goes_on_and_the_rest_is_refused(kind):
    async with connected(kind) as (connection, far):
        tasks = [asyncio.create_task(call(connection)) for _ in range(4)]
        numbers = [(await far.hear("head"))[1] for _ in tasks]
        await far.say(far.peer.goaway(2**31 - 1), far.peer.goaway(3))
        for number, task in zip(numbers, tasks, strict=True):
            if number > 3:
                with pytest.raises(StreamRefused):
                    await task
        assert not connection.closed
        await far.answer(3)
        await far.answer(1)
        assert [await task for number, task in zip(numbers, tasks, strict=True) if number <= 3] == [
            (200, b"fine")
        ] * 2
        assert connection.idle


@KINDS
@pytest.mark.parametrize("code", [7, 8, 1])
async def test_a_reset_by_its_kind(kind, code):
    async with connected(kind) as (connection, far):
        task = asyncio.create_task(call(connection))
        await far.say(far.peer.settings(), far.peer.reset((await far.hear("head"))[1], code))
        with pytest.raises({7: StreamRefused, 8: ReadError, 1: RemoteProtocolError}[code]):
            await task
        assert await works(connection, far)


@KINDS
async def test_a_cancelled_call_is_reset_and_the_others_go_on(kind):
    async with connected(kind) as (connection, far):
        cancelled = asyncio.create_task(call(connection))
        one = (await far.hear("head"))[1]
        other = asyncio.create_task(call(connection))
        two = (await far.hear("head"))[1]
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await far.hear("reset") == ("reset", one, "CANCEL")
        await far.say(far.peer.head(one), far.peer.data(one, b"too late"))
        await far.answer(two)
        assert await other == (200, b"fine")
        assert await works(connection, far)


@KINDS
async def test_a_body_that_is_cancelled_is_reset(kind):
    async with connected(kind) as (connection, far):
        task = asyncio.create_task(connection.send(request(), bounds()))
        number = (await far.hear("head"))[1]
        await far.say(far.peer.head(number), far.peer.data(number, b"half"))
        response = await task
        ended = []
        response.on_end = lambda: ended.append(1)
        reading = asyncio.create_task(response.aread())
        await turns()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert ended == [1]
        assert await far.hear("reset") == ("reset", number, "CANCEL")
        assert await works(connection, far)


@KINDS
async def test_times_are_bounds_of_one_call(kind):
    async with connected(kind) as (connection, far):
        late = bounds(0.05)
        tasks = [
            asyncio.create_task(call(connection, within=bounds(read=0.05))),
            asyncio.create_task(call(connection, within=late)),
            asyncio.create_task(call(connection)),
        ]
        numbers = [(await far.hear("head"))[1] for _ in tasks]
        for task in tasks[:2]:
            with pytest.raises(ReadTimeout):
                await task
        assert late.expired
        assert late.sent
        await far.answer(numbers[2])
        assert await tasks[2] == (200, b"fine")
        assert await works(connection, far)


@KINDS
async def test_a_deadline_on_a_virtual_clock_ends_its_call_alone(kind):
    async with connected(kind) as (connection, far):
        clock = VirtualClock()
        within = Bounds(clock, clock.now() + 5, {})
        other = Bounds(clock, clock.now() + 9, {})
        tasks = [asyncio.create_task(call(connection, within=one)) for one in (within, other)]
        numbers = [(await far.hear("head"))[1] for _ in tasks]
        await turns()
        clock.advance(5)
        with pytest.raises(ReadTimeout):
            await tasks[0]
        assert within.expired
        await far.answer(numbers[1])
        assert await tasks[1] == (200, b"fine")
        assert await works(connection, far)


@on_both_loops
async def test_a_closed_connection_ends_all_calls() -> None:
    async with connected() as (connection, far):
        tasks = [asyncio.create_task(call(connection)) for _ in range(3)]
        for _ in tasks:
            await far.hear("head")
        connection.close()
        connection.close()
        for task in tasks:
            with pytest.raises(ReadError):
                await task
        assert (await asyncio.to_thread(far.far.all_heard))[-1] == ("goaway", "NO_ERROR")
        assert not connection.free()


@KINDS
async def test_a_peer_that_closes_ends_all_calls(kind):
    async with connected(kind) as (connection, far):
        tasks = [asyncio.create_task(call(connection)) for _ in range(3)]
        for _ in tasks:
            await far.hear("head")
        far.far.sock.close()
        for task in tasks:
            with pytest.raises(ReadError):
                await task
        assert not connection.free()
        assert connection.closed
        within = bounds()
        with pytest.raises(StreamRefused):
            await connection.send(request(), within)
        assert not within.sent


@KINDS
async def test_a_large_upload_goes_through_a_small_window(kind):
    async with connected(kind) as (connection, far):
        await far.say(far.peer.settings(initial_window_size=1_000))
        body = os.urandom(20_000)
        task = asyncio.create_task(call(connection, method=b"POST", body=body))
        got, number = b"", 0
        while len(got) < len(body):
            said = await far.hear("data")
            number = said[1]
            got += said[2]
            await far.say(far.peer.window(number, len(said[2])))
        assert got == body
        await far.answer(number)
        assert await task == (200, b"fine")
        assert await works(connection, far)


@on_both_loops
async def test_a_slow_reader_holds_its_peer_and_nobody_else() -> None:
    async with connected() as (connection, far):
        task = asyncio.create_task(connection.send(request(), bounds()))
        number = (await far.hear("head"))[1]
        await far.say(far.peer.head(number))
        response = await task
        await far.say(*[far.peer.data(number, bytes(16_384))] * (STREAM_WINDOW // 16_384))
        for _ in range(3):
            other = asyncio.create_task(call(connection))
            await far.serve()
            assert await other == (200, b"fine")
        assert not [said for said in far.far.said if said[:2] == ("window", number)]
        count = len(await anext(response))
        assert (await far.hear("window"))[0] == "window"
        await far.say(far.peer.data(number, b"end", end=True))
        assert count + len(await response.aread()) == STREAM_WINDOW + 3


@KINDS
async def test_an_early_answer_ends_an_upload(kind):
    async with connected(kind) as (connection, far):
        task = asyncio.create_task(connection.send(request(method=b"POST", body=bytes(100_000)), bounds()))
        number = (await far.hear("head"))[1]
        await far.say(
            far.peer.head(number, status=b"413"),
            far.peer.data(number, b"no", end=True),
            far.peer.reset(number, 0),
        )
        response = await task
        assert (response.status, await response.aread()) == (413, b"no")
        assert await works(connection, far)


@KINDS
@pytest.mark.parametrize("said", ["100", "417", "nothing"])
async def test_a_body_waits_for_100_and_not_for_long(said, kind, monkeypatch):
    seconds = 0.01 if said == "nothing" else 60.0
    monkeypatch.setattr("meshlib.wire.multiplexed_async.CONTINUE_SECONDS", seconds)
    async with connected(kind) as (connection, far):
        wanted = request(b"POST", b"/", (b"Expect", b"100-continue"), body=b"body")
        task = asyncio.create_task(connection.send(wanted, bounds()))
        number = (await far.hear("head", "data"))[1]
        if said == "417":
            await far.answer(number, status=b"417")
            response = await task
            assert (response.status, await response.aread()) == (417, b"fine")
            assert await far.hear("reset", "data") == ("reset", number, "NO_ERROR")
            return
        if said == "100":
            await far.say(far.peer.head(number, status=b"100"))
        assert await far.hear("data") == ("data", number, b"body", "end")
        await far.answer(number)
        assert await (await task).aread() == b"fine"


@KINDS
async def test_what_an_iterator_raises_resets_the_stream(kind):
    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        raise LookupError("the application's")

    async with connected(kind) as (connection, far):
        task = asyncio.create_task(connection.send(request(method=b"POST", body=body()), bounds()))
        number = (await far.hear("head"))[1]
        with pytest.raises(LookupError):
            await task
        assert await far.hear("reset") == ("reset", number, "CANCEL")
        wanted = request(b"POST", b"/", (b"Content-Length", b"3"), body=b"abcd")
        with pytest.raises(LocalProtocolError):
            await connection.send(wanted, bounds())
        assert await works(connection, far)


@pytest.mark.parametrize("kind", [AsyncioStream, Silent], ids=["telling", "silent"])
@pytest.mark.parametrize("ends", ["time", "cancelled"])
async def test_a_peer_that_takes_nothing_is_bounded_and_what_was_begun_goes_out_later(kind, ends):
    async with connected(kind) as (connection, far):
        await far.say(far.peer.settings(initial_window_size=2**30), far.peer.window(0, 2**30))
        while connection.free() and connection.streams != 1024:
            await turns()
        within = bounds(write=0.05 if ends == "time" else 20.0)
        task = asyncio.create_task(
            connection.send(request(method=b"POST", body=os.urandom(8_000_000)), within)
        )
        while not connection.stream.full:
            await turns()
        if ends == "cancelled":
            task.cancel()
        with pytest.raises(WriteTimeout if ends == "time" else asyncio.CancelledError):
            await task
        assert not connection.closed
        other = asyncio.create_task(call(connection))
        assert await far.hear("reset") == ("reset", 1, "CANCEL")
        await far.serve()
        assert await other == (200, b"fine")
        assert await works(connection, far)


@KINDS
@pytest.mark.parametrize("ends", ["time", "cancelled"])
async def test_who_waits_for_room_hands_that_on(kind, ends):
    async with connected(kind) as (connection, far):
        await far.say(far.peer.settings(initial_window_size=2**30), far.peer.window(0, 2**30))
        while connection.free() and connection.streams != 1024:
            await turns()
        within = bounds(write=1.0 if ends == "time" else 20.0)  # the other one comes before that is over
        first = asyncio.create_task(connection.send(request(method=b"POST", body=bytes(8_000_000)), within))
        while not connection.stream.full:
            await turns()
        second = asyncio.create_task(call(connection, method=b"POST", body=b"small"))
        while len(connection._writers) + (connection._writer is not None) < 2:
            await turns()
        if ends == "cancelled":
            first.cancel()
        with pytest.raises(WriteTimeout if ends == "time" else asyncio.CancelledError):
            await first
        while (said := await far.hear("data"))[1] != 3:
            pass
        assert said == ("data", 3, b"small", "end")
        await far.answer(3)
        assert await second == (200, b"fine")


async def test_a_write_that_fails_says_whether_anything_left():
    async with connected() as (connection, far):
        assert await works(connection, far)
        connection.stream._transport.abort()  # as the loop does when the system refuses
        within = bounds()
        with pytest.raises((WriteError, StreamRefused)):
            await call(connection, within=within)
        assert not within.sent


@KINDS
async def test_a_response_that_is_closed_drained_or_lost(kind):
    async with connected(kind) as (connection, far):
        for end in ("close", "drain", "lose"):
            task = asyncio.create_task(connection.send(request(), bounds()))
            number = (await far.hear("head"))[1]
            await far.say(far.peer.head(number), far.peer.data(number, b"half"))
            response = await task
            ended = []
            response.on_end = response.on_lost = lambda ended=ended: ended.append(1)
            if end == "close":
                await response.aclose()
                await response.aclose()
            elif end == "drain":
                assert await response.adrain(2)
            else:
                del response, task
                await turns()  # the loop held the task, which woke this one
                gc.collect()
                assert connection.free()
            assert ended == [1]
            assert await far.hear("reset") == ("reset", number, "CANCEL")
        assert await works(connection, far)


@KINDS
async def test_calls_that_are_cancelled_at_any_moment_leave_nothing(kind):
    """A server that answers in pieces; of 300 calls every other one is cancelled after some turns of the loop."""
    dice = random.Random(7)
    async with connected(kind) as (connection, far):

        async def serve() -> None:
            while True:
                said = await far.hear("head", "goaway")
                if said[0] == "goaway":
                    return
                await far.say(far.peer.head(said[1]), far.peer.data(said[1], b"x" * 1000))
                await far.say(far.peer.data(said[1], b"y" * 1000), far.peer.trailers(said[1], (b"a", b"b")))

        server = asyncio.create_task(serve())  # which may be in the middle of an answer at the end

        async def one(number: int) -> str:
            task = asyncio.create_task(call(connection, method=b"POST", body=b"z" * 100))
            if number % 2:
                for _ in range(dice.randrange(40)):
                    await asyncio.sleep(0)
                task.cancel()
            try:
                assert await task == (200, b"x" * 1000 + b"y" * 1000)
            except asyncio.CancelledError:
                return "cancelled"
            return "done"

        gate = asyncio.Semaphore(20)

        async def bounded(number: int) -> str:
            async with gate:
                return await one(number)

        ends = await asyncio.gather(*[bounded(number) for number in range(300)])
        assert ends.count("done") >= 150
        assert ends.count("cancelled") > 20
        assert connection.idle
        assert connection._readers == {}
        assert connection._writers == {}
        assert connection._reader is None
        assert connection.free()
        connection.close()
        with contextlib.suppress(BrokenPipeError):
            await server
