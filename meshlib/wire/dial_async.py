"""Connections made for tasks: the twin of ``dial.py``. What differs under trio is in ``dial_trio.py``."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any

from meshlib.runtime.signal import under_trio
from meshlib.wire.connection_async import AsyncConnection
from meshlib.wire.dial import (
    ATTEMPT_DELAY,
    failed,
    interleave,
    numeric,
    opened,
    prepared,
    secured,
    speaks_http2,
    unsupported_without_h2,
)
from meshlib.wire.errors import ConnectError, ConnectTimeout
from meshlib.wire.proxied import ask_async
from meshlib.wire.stream_async import AsyncioStream, limited
from meshlib.wire.trace import traced_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshlib.pools.bounds import Bounds
    from meshlib.wire.dial import Address, Place
    from meshlib.wire.multiplexed_async import AsyncMultiplexed
    from meshlib.wire.stream_async import AsyncStream

__all__ = ["connect_async"]


async def connect_async(
    place: Place, bounds: Bounds, trace: Callable[[str, dict[str, Any]], Awaitable[object]] | None = None
) -> AsyncConnection | AsyncMultiplexed:
    """A connection to ``place``, ready for a request, of the running loop: asyncio's (uvloop's) or trio's. Raises ConnectError, ConnectTimeout, UnsupportedProtocol."""
    try:
        seconds = bounds.left("connect")
    except TimeoutError as error:
        raise ConnectTimeout(f"{place}: {error}") from error
    until = None if seconds is None else monotonic() + seconds
    hop = place.hop
    step, info = opened(hop, seconds)
    opening = import_module("meshlib.wire.dial_trio").open_trio if under_trio() else open_asyncio
    stream: AsyncStream = await traced_async(trace, step, info, opening, hop, bounds, seconds)
    try:
        if hop is not place:
            await ask_async(stream, str(hop), place.target, bounds, until)
        if place.handshakes is not None:
            step, info = secured(place, seconds)
            name = info["server_hostname"]
            left = None if until is None else max(0.0, until - monotonic())
            shake_hands = stream.start_tls
            stream = await traced_async(trace, step, info, shake_hands, place.handshakes, name, bounds, left)
        if not speaks_http2(place, stream.protocol):
            return AsyncConnection(stream, place.sizes, place.spelling)
        with unsupported_without_h2():
            from meshlib.wire.multiplexed_async import AsyncMultiplexed
        return AsyncMultiplexed(stream, place.sizes, place.settings, place.pings)
    except BaseException:
        stream.close()
        raise


async def open_asyncio(place: Place, bounds: Bounds, seconds: float | None) -> AsyncioStream:
    loop = asyncio.get_running_loop()
    try:
        async with limited(bounds, seconds):
            sock = await _connect(loop, place)
            stream = AsyncioStream()
            try:
                await loop.create_connection(lambda: stream, sock=sock)
            except BaseException:
                # Cancelled: the transport has been made, and closes the socket in its own time.
                stream.close()
                raise
            return stream
    except TimeoutError as error:
        bounds.timed_out()
        raise ConnectTimeout(f"{place}: not connected in time") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that is none
        raise ConnectError(f"{place}: {error}") from error


async def _connect(loop: asyncio.AbstractEventLoop, place: Place) -> socket.socket:
    if place.uds is not None:
        return await _attempt(loop, place, (socket.AF_UNIX, place.uds))
    addresses = await resolve(place)
    if len(addresses) == 1:
        return await _attempt(loop, place, addresses[0])
    return await _race(loop, place, addresses)


async def resolve(place: Place) -> list[Address]:
    """The addresses of a place's name, as they are tried."""
    if known := numeric(place):
        return known
    found = await asyncio.get_running_loop().getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    return interleave((family, address) for family, _, _, _, address in found)


async def _race(loop: asyncio.AbstractEventLoop, place: Place, addresses: list[Address]) -> socket.socket:
    waiting = deque(addresses)
    pending: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    try:
        while waiting or pending:
            if waiting:
                pending.add(loop.create_task(_attempt(loop, place, waiting.popleft())))
            delay = ATTEMPT_DELAY if waiting else None
            done, _ = await asyncio.wait(pending, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                pending.discard(task)
                error = task.exception()
                if error is None:
                    pending.update(done - {task})
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                errors.append(error)
        raise failed(place, errors) from (errors[-1] if errors else None)
    finally:
        for task in pending:
            task.cancel()
            task.add_done_callback(_discard)


def _discard(task: asyncio.Task[socket.socket]) -> None:
    """It was not the first. One that had connected already has nobody who closes it."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _attempt(loop: asyncio.AbstractEventLoop, place: Place, address: Address) -> socket.socket:
    sock = prepared(place, address[0])
    try:
        await loop.sock_connect(sock, address[1])
    except BaseException:
        sock.close()
        raise
    return sock
