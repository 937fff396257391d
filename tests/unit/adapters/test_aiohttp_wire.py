"""How requests of aiohttp are written, and how the limit of a connector is shared."""

from __future__ import annotations

import asyncio
import io
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import payload
from yarl import URL

from meshlib.errors import Overloaded
from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.testing.clock import VirtualClock
from meshlib_aiohttp.connections import PooledConnection, Slots
from meshlib_aiohttp.messages import is_head_alone, is_replayable, written
from meshlib_aiohttp.wire import AiohttpWire


def bounds_of(*, pool: float | None = None, deadline: float | None = None) -> Bounds:
    clock = MonotonicClock()
    return Bounds(clock, None if deadline is None else clock.now() + deadline, {"pool": pool})


def test_a_head_is_written_as_it_is() -> None:
    head = Head(
        "GET", "http", "reviews", "/a%20b?q=1", Headers([(b"X-One", b"caf\xc3\xa9"), (b"x-two", b"")])
    )
    assert (
        written(head) == b"GET /a%20b?q=1 HTTP/1.1\r\nHost: reviews\r\nX-One: caf\xc3\xa9\r\nx-two: \r\n\r\n"
    )


@pytest.mark.parametrize("bad", [b"a\r\nx-forged: 1", b"a\nb", b"a\rb", b"a\0b", b"a\n\r"])
@pytest.mark.parametrize("where", ["name", "value", "path", "authority"])
def test_what_would_be_more_than_one_line_is_not_sent(bad: bytes, where: str) -> None:
    words = {"name": b"n", "value": b"v", "path": b"/", "authority": b"h", where: bad}
    line = (words["name"], words["value"])
    head = Head("GET", "http", words["authority"].decode(), words["path"].decode(), Headers([line]))
    with pytest.raises(ValueError, match="head of a request"):
        written(head)


async def test_what_is_a_head_alone() -> None:
    loop = asyncio.get_running_loop()

    class Signed(aiohttp.ClientRequest):
        async def send(self, conn: Any) -> Any:
            return await super().send(conn)

    def request(method: str = "GET", kind: Any = aiohttp.ClientRequest, **options: Any) -> Any:
        return kind(method, URL("http://h/"), loop=loop, **options)

    assert is_head_alone(request())
    assert is_head_alone(request("DELETE"))
    assert not is_head_alone(request("POST"))  # aiohttp says of what kind the body is that it has not
    assert not is_head_alone(request("GET", data=b"x"))
    assert not is_head_alone(request("GET", expect100=True))
    assert not is_head_alone(request("CONNECT"))
    assert not is_head_alone(request("GET", version=aiohttp.HttpVersion10))
    assert not is_head_alone(request("GET", traces=[object()]))
    assert not is_head_alone(request("GET", Signed))


async def test_a_file_that_cannot_tell_is_sent_once() -> None:
    class Odd(io.BytesIO):
        def seekable(self) -> bool:
            raise AttributeError("as a member of a tar that is read as a stream")

    assert is_replayable(payload.BufferedReaderPayload(io.BytesIO(b"x")))
    assert not is_replayable(payload.BufferedReaderPayload(Odd(b"x")))


async def test_whoever_waits_longest_has_the_next_turn() -> None:
    slots, order = Slots(1), []
    await slots.acquire(bounds_of())

    async def wait(number: int) -> None:
        await slots.acquire(bounds_of())
        order.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    for _ in range(4):
        slots.release()
        newcomer = asyncio.create_task(slots.acquire(bounds_of(pool=0.0)))
        await asyncio.wait([newcomer])
        if newcomer.exception() is None:
            break
        assert isinstance(newcomer.exception(), Overloaded)
        await asyncio.sleep(0)
    assert order == [0, 2, 3]


async def test_a_turn_that_comes_with_the_cancellation_goes_on() -> None:
    slots = Slots(1)
    await slots.acquire(bounds_of())
    first, second = (asyncio.create_task(slots.acquire(bounds_of())) for _ in range(2))
    await asyncio.sleep(0)
    slots.release()
    first.cancel()
    await second
    assert first.cancelled()


async def test_time_is_over_by_the_pool_or_by_the_deadline() -> None:
    slots = Slots(1)
    await slots.acquire(bounds_of())
    with pytest.raises(Overloaded, match="limit: no connection was free in time"):
        await slots.acquire(bounds_of(pool=0.01, deadline=60))
    late = bounds_of(pool=60, deadline=0.01)
    with pytest.raises(TimeoutError):
        await slots.acquire(late)
    assert late.expired
    slots.release()
    await slots.acquire(bounds_of())


def test_a_discard_that_is_cancelled_closes_the_response() -> None:
    closed: list[str] = []
    response = SimpleNamespace(connection=object(), close=lambda: closed.append("closed"))
    discard = object.__new__(AiohttpWire).discard(response)
    discard.send(None)
    with pytest.raises(asyncio.CancelledError):
        discard.throw(asyncio.CancelledError())
    assert closed == ["closed"]


async def test_each_request_of_a_connection_has_its_own_deadline() -> None:
    aborted: list[str] = []
    protocol = SimpleNamespace(
        _payload=None,
        transport=SimpleNamespace(abort=lambda: aborted.append("aborted")),
        set_exception=lambda error: aborted.append(type(error).__name__),
        close=lambda: None,
    )
    clock = VirtualClock(0.0)
    connection = PooledConnection(protocol, None, clock)

    async def later(seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    connection.bind(first := Bounds(clock, 1.0))
    connection.unbind()
    await later(0.5)
    connection.bind(second := Bounds(clock, 3.0))
    await later(1.0)  # the first one's is over
    assert not aborted
    await later(1.5)
    assert aborted == ["SocketTimeoutError", "aborted"]
    assert (first.expired, second.expired) == (False, True)

    connection.bind(Bounds(clock, 4.0))
    connection.unbind()
    await later(1.0)  # at rest it has none
    assert len(aborted) == 2

    connection.bind(Bounds(clock))  # without one
    connection.bind(Bounds(clock, 5.0))
    connection.close()
    await later(10.0)
    assert len(aborted) == 2
