"""Streams of bytes for asyncio (and uvloop).

A stream is the event loop's protocol. What comes before somebody reads is kept, up to a bound beyond which the transport is
paused; a writer waits while the transport has more than its own bound. Waiting costs one future, and no timer as a rule: a
stream sets a timer only where none rings early enough, and one that rings too early is set anew.

Not thread-safe: all of it belongs to the loop that it was opened in. A child that was forked has the descriptor, too, and the
loop's selector in common with its parent: there nothing is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from meshlib.wire.errors import ConnectError, ConnectTimeout, ReadError, ReadTimeout, WriteError, WriteTimeout
from meshlib.wire.readable import readable
from meshlib.wire.stream_tls import Handshakes, alpn_of
from meshlib.wire.stream_wait import Wait

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from meshlib.pools.bounds import Bounds

__all__ = ["AsyncStream", "AsyncioStream", "limited"]

#: Bytes kept for a reader that does not come; asyncio reads 256 KiB at once.
_MOST_HELD = 262_144
#: Bytes given to the transport at once: it copies what the system does not take.
_PART = 262_144
#: Seconds by which a timer may ring too late on a loop that turns.
_STOOD_STILL = 0.02


class AsyncStream(Protocol):
    """What connections ask of a stream: :class:`~meshlib.wire.stream.Stream`, awaited. ``close`` and ``readable`` are not."""

    closed: bool
    protocol: bytes | None

    async def read(self, most: int, bounds: Bounds) -> bytes: ...
    def read_now(self, most: int) -> bytes | None: ...
    async def await_input(self, seconds: float, bounds: Bounds) -> bool: ...
    async def write(
        self,
        data: bytes | list[bytes],
        bounds: Bounds,
        listening: bool = False,
        patience: float | None = None,
    ) -> bool: ...
    def readable(self) -> bool: ...
    def close(self) -> None: ...
    @property
    def unsent(self) -> int: ...
    @property
    def full(self) -> bool: ...
    def write_now(self, data: bytes) -> None: ...
    async def drained(self, bounds: Bounds) -> None: ...
    def listen(self, call: Callable[[], object]) -> bool: ...
    def new_wait(self) -> Any: ...
    async def within(self, waiter: Any, seconds: float | None, bounds: Bounds) -> None: ...
    async def start_tls(
        self,
        context: ssl.SSLContext,
        server_hostname: str | None,
        bounds: Bounds,
        seconds: float | None = None,
    ) -> AsyncStream: ...
    def get_extra_info(self, name: str) -> Any: ...


class AsyncioStream(asyncio.Protocol):
    """The protocol of one transport, which it owns once it is connected. ``handshakes``: what its TLS was made with.

    Attributes:
        closed: It is of no use any more.
        protocol: What ALPN chose.
    """

    __slots__ = (
        "_chunks",
        "_descriptor",
        "_ended",
        "_error",
        "_full",
        "_handshakes",
        "_held",
        "_listening",
        "_loop",
        "_owner",
        "_paused",
        "_reader",
        "_ssl_object",
        "_told",
        "_transport",
        "_unsent",
        "_writer",
        "closed",
        "protocol",
    )

    def __init__(self, handshakes: ssl.SSLContext | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = os.getpid()
        self._handshakes = handshakes if isinstance(handshakes, Handshakes) else None
        self._transport: Any = None
        self._ssl_object: Any = None
        self._descriptor = -1
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._ended = False  # nothing more comes
        self._error: OSError | None = None  # why
        self._paused = False  # reading is
        self._full = False  # the transport has more to write than its bound
        self._listening = False  # who writes wants to hear of what comes
        self._unsent = memoryview(b"")
        self._told: Callable[[], object] | None = None  # of what comes, in the place of a reader
        self._reader = Wait(self._loop)
        self._writer = Wait(self._loop)
        self.closed = False
        self.protocol: bytes | None = None

    # ---------------------------------------------------------------------------------------------- told by the loop

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ssl_object = transport.get_extra_info("ssl_object")
        self._descriptor = transport.get_extra_info("socket").fileno()
        if self._ssl_object is not None:
            self.protocol = alpn_of(self._ssl_object)

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._held += len(data)
        self._reader.wake()
        if self._listening:
            self._writer.wake()
        if self._told is not None:
            self._told()
        if self._held > _MOST_HELD and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        self._reader.wake()
        if self._listening:
            self._writer.wake()
        if self._told is not None:
            self._told()
        return self._ssl_object is None  # what we have to say may still be read; in TLS both halves end

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._writer.wake()
        if self._told is not None:
            self._told()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        if isinstance(error, OSError):
            self._error = error
        self._reader.wake()
        self._writer.wake()
        self._reader.end()
        self._writer.end()
        if self._told is not None:
            self._told()

    # ------------------------------------------------------------------------------------------------------ reading

    async def read(self, most: int, bounds: Bounds) -> bytes:
        """At least one byte and at most ``most``; b"" at the end. Raises ReadTimeout, ReadError."""
        data = self.read_now(most)
        while data is None:
            await self._await_input(bounds, None)
            data = self.read_now(most)
        return data

    def read_now(self, most: int) -> bytes | None:
        """What is there already; None where nothing is. Raises ReadError."""
        if not self._chunks:
            if self.closed:
                raise ReadError("the connection is closed")
            if self._error is not None:
                raise ReadError(_words(self._error)) from self._error
            return b"" if self._ended else None
        if self._handshakes is not None:
            self._handshakes.remember(self._ssl_object)
            self._handshakes = None
        data = self._chunks.popleft()
        if len(data) > most:
            self._chunks.appendleft(data[most:])
            data = data[:most]
        self._held -= len(data)
        if self._paused and self._held <= _MOST_HELD // 2:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def await_input(self, seconds: float, bounds: Bounds) -> bool:
        """Wait until there is something to read, at most that long; whether there is. Raises ReadTimeout, ReadError."""
        if self._chunks or self._ended:
            return True
        return await self._await_input(bounds, seconds)

    async def _await_input(self, bounds: Bounds, most: float | None) -> bool:
        """False: ``most`` seconds are over, which are less than the bounds allow."""
        shorter = False
        try:
            seconds = bounds.left("read")
            if most is not None and (seconds is None or most < seconds):
                shorter, seconds = True, most
            await self._within(self._reader, seconds, bounds)
        except TimeoutError as error:
            if shorter and not bounds.expired:
                return False
            bounds.timed_out()
            raise ReadTimeout(_words(error)) from error
        return True

    async def _within(self, waiter: Wait, seconds: float | None, bounds: Bounds) -> None:
        if not bounds.alarmed:
            await waiter.wait(seconds)
            return
        with bounds.ringing(lambda: _soon(self._loop, waiter.time_over)):
            await waiter.wait(seconds)

    # ------------------------------------------------------------------------------------------------------ writing

    async def write(
        self,
        data: bytes | list[bytes],
        bounds: Bounds,
        listening: bool = False,
        patience: float | None = None,
    ) -> bool:
        """Give all of ``data`` to the transport, after what is left of earlier writes, and wait until it holds no more than its
        bound. Raises WriteTimeout, WriteError.

        With ``listening`` it ends early, with False, when the peer's bytes come while the system takes no more of ours: the
        rest stays, and goes with the next write. ``patience``: seconds in which the transport must have room, if the bounds are
        wider.

        ``bounds.sent`` is set unless it is sure that no byte of it can be read by the peer: the system refused the first.
        """
        if isinstance(data, list):
            data = b"".join(data)
        rest = memoryview(data)
        if self._unsent:
            rest = memoryview(b"".join((self._unsent, data)))
            self._unsent = memoryview(b"")
        until = None
        if len(rest) > _PART:
            until = self._end_of_write(bounds)
        while True:
            if self._full and not await self._drained(bounds, listening, patience):
                self._unsent = rest
                return False
            if not rest:
                return True
            if until is not None and monotonic() > until:
                bounds.timed_out()
                raise WriteTimeout("not all of it in time")
            self._give(rest[:_PART] if len(rest) > _PART else rest, bounds)
            rest = rest[_PART:]

    def _end_of_write(self, bounds: Bounds) -> float | None:
        """When a write that begins now is to be over: the time bounds all of it, also where the peer takes parts of it so fast
        that nobody ever waits. On the system's clock, since uvloop's stands still between two turns. Raises WriteTimeout.
        """
        try:
            seconds = bounds.left("write")
        except TimeoutError as error:
            raise WriteTimeout(_words(error)) from error
        return None if seconds is None else monotonic() + seconds

    def _give(self, data: memoryview, bounds: Bounds) -> None:
        transport = self._transport
        self._check_open()
        first, bounds.sent = not bounds.sent, True
        transport.write(data)
        # asyncio sends at once what it can: if that failed, nothing left. Of uvloop, which sends later, this is not known.
        if first and transport.is_closing():
            bounds.sent = False
            self._check_open()

    def _check_open(self) -> None:
        if self.closed or self._owner != os.getpid() or self._transport.is_closing():
            cause = self._error
            raise WriteError("the connection is closed" if cause is None else _words(cause)) from cause

    async def _drained(self, bounds: Bounds, listening: bool, patience: float | None) -> bool:
        self._listening = listening
        try:
            if listening and (self._chunks or self._ended):
                return False
            seconds = bounds.left("write")
            if patience is not None and (seconds is None or patience < seconds):
                seconds = patience
            await self._within(self._writer, seconds, bounds)
        except TimeoutError as error:
            bounds.timed_out()
            raise WriteTimeout(_words(error)) from error
        finally:
            self._listening = False
        self._check_open()
        return not self._full

    # ------------------------------------------------------------------------------------------- for who shares it

    def listen(self, call: Callable[[], object]) -> bool:
        """Have ``call`` called when bytes came or no more will, and when there is room again; whether this stream does so. It takes
        the place of who reads, and of who waits for room.
        """
        self._told = call
        return True

    @property
    def unsent(self) -> int:
        """Bytes that the system has not taken yet."""
        count: int = self._transport.get_write_buffer_size()
        return count

    @property
    def full(self) -> bool:
        """They are more than the transport's bound."""
        return self._full

    def write_now(self, data: bytes) -> None:
        """Give it to the transport, without waiting. Raises WriteError, and nothing of it has left then."""
        self._check_open()
        self._transport.write(data)
        self._check_open()

    async def drained(self, bounds: Bounds) -> None:
        """Wait until it is not full. Raises WriteTimeout, WriteError."""
        while self._full:
            await self._drained(bounds, listening=False, patience=None)

    def new_wait(self) -> Wait:
        """For a task that waits for one thing of many, within ``within``."""
        return Wait(self._loop)

    async def within(self, waiter: Wait, seconds: float | None, bounds: Bounds) -> None:
        """Until ``waiter`` is woken. Raises TimeoutError, also at the deadline of ``bounds`` where its clock is virtual."""
        await self._within(waiter, seconds, bounds)

    # ----------------------------------------------------------------------------------------- what it is, its end

    def readable(self) -> bool:
        """Of an idle connection: the peer closed it, or sent what nobody asked for, or it is not ours to use."""
        return (
            self.closed
            or self._ended
            or bool(self._chunks)
            or self._owner != os.getpid()
            or self._transport.get_write_buffer_size() > 0  # the peer has not taken all of the last request
            or readable(self._descriptor)  # the loop may not have looked yet
        )

    def close(self) -> None:
        """End it at once: what is not sent yet is not. Twice is no error."""
        if self.closed:
            return
        self.closed = self._ended = True
        if self._owner != os.getpid():
            return
        self._reader.wake()
        self._writer.wake()
        self._reader.end()
        self._writer.end()
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    async def start_tls(
        self,
        context: ssl.SSLContext,
        server_hostname: str | None,
        bounds: Bounds,
        seconds: float | None = None,
    ) -> AsyncioStream:
        """TLS from here on; this stream is of no use any more. Raises ConnectTimeout, ConnectError, and closes it then.

        ``seconds``: what is left of a connect timeout that runs already.
        """
        inner = AsyncioStream(context)
        try:
            self._check_open()
            allowed = bounds.left("connect")
            seconds = allowed if seconds is None else seconds
            async with limited(bounds, seconds):
                transport = await self._loop.start_tls(
                    self._transport, inner, context, server_hostname=server_hostname
                )
        except TimeoutError as error:
            self.close()
            bounds.timed_out()
            raise ConnectTimeout("the TLS handshake was not over in time") from error
        except (OSError, ValueError, WriteError) as error:  # ValueError: a name that is none
            self.close()
            raise ConnectError(_words(error)) from error
        except BaseException:
            self.close()
            raise
        self.closed = True  # the transport is the new stream's
        inner.connection_made(transport)
        return inner

    def get_extra_info(self, name: str) -> Any:
        """As httpcore's ``AsyncNetworkStream``: ssl_object, client_addr, server_addr, socket, is_readable."""
        if name == "is_readable":
            return self.readable()
        asked = {"client_addr": "sockname", "server_addr": "peername"}.get(name, name)
        return self._transport.get_extra_info(asked)


@contextlib.asynccontextmanager
async def limited(bounds: Bounds, seconds: float | None) -> AsyncIterator[None]:
    """Raises TimeoutError inside once the seconds are over, or the deadline of ``bounds`` where its clock is virtual."""
    if not bounds.alarmed:
        async with asyncio.timeout(None) as timeout:
            late = None if seconds is None else _Late(timeout, seconds)
            try:
                yield
            finally:
                if late is not None:
                    late.end()
        return
    async with asyncio.timeout(seconds) as timeout:
        loop = asyncio.get_running_loop()
        over = False

        def ring() -> None:
            if not over:
                timeout.reschedule(loop.time())

        with bounds.ringing(lambda: _soon(loop, ring)):
            try:
                yield
            finally:
                over = True


class _Late:
    """Ends a timeout after ``seconds`` of a loop that turns. What a loop did not look at while it stood still, be it that a connection
    was made, is no fault of the peer: so long as it was late, and once, it has the time to look.
    """

    __slots__ = ("_given", "_loop", "_timeout", "_timer", "_until")

    def __init__(self, timeout: asyncio.Timeout, seconds: float) -> None:
        self._timeout = timeout
        self._loop = loop = asyncio.get_running_loop()
        self._given = False
        self._until = loop.time() + seconds
        self._timer = loop.call_at(self._until, self._ring)

    def end(self) -> None:
        self._timer.cancel()

    def _ring(self) -> None:
        late = self._loop.time() - self._until
        if late > _STOOD_STILL and not self._given:
            self._given = True
            self._until = self._loop.time() + late
            self._timer = self._loop.call_at(self._until, self._ring)
        else:
            self._timeout.reschedule(self._loop.time())


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Have the loop call it, from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
        loop.call_soon_threadsafe(call)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
