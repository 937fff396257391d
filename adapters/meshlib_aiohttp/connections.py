"""Connections of aiohttp's, kept in pools of endpoints.

An aiohttp connection is a protocol (``ResponseHandler``) with its transport. A pool keeps it as :class:`PooledConnection`; who
acquires it talks to aiohttp by an :class:`AcquiredConnection`, which gives it back when the response is read, closed or lost, and
ends the call then.
"""

from __future__ import annotations

import asyncio
import select
import warnings
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.connector import Connection
from aiohttp.streams import StreamReader

from meshlib.errors import Overloaded
from meshlib.hosts.runtime import Alarm, bound

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.hosts.body import OpenCall
    from meshlib.pools import AsyncEndpointPool
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.clock import Clock
    from meshlib.wire.stream_tls import Handshakes

__all__ = ["AcquiredConnection", "PooledConnection", "Slots", "left_of"]

#: The attribute of a protocol by which its body says what broke it.
_BROKEN = "_meshlib_broken"


class PooledConnection:
    """A connection as a pool sees it (:class:`meshlib.pools.Pooled`). ``used``: it has carried a request; ``key``: aiohttp's word for
    where it goes; ``handshakes``: of the place, where its TLS is the mesh's.
    """

    __slots__ = (
        "_alarm",
        "_bounds",
        "_handshakes",
        "born",
        "carried",
        "idle",
        "key",
        "protocol",
        "rested",
        "used",
    )

    streams = 1

    def __init__(self, protocol: Any, key: Any, clock: Clock, handshakes: Handshakes | None = None) -> None:
        self._handshakes = handshakes
        self._alarm = Alarm(clock, self._expire)
        self._bounds: Bounds | None = None
        self.protocol = protocol
        self.key = key
        self.idle = True
        self.used = False
        self.born = self.rested = 0.0
        self.carried = 0

    @property
    def closed(self) -> bool:
        return not self.protocol.is_connected()

    def free(self) -> bool:
        """Whether it can take a request: open, its last response complete, and nothing came that nobody asked for."""
        protocol = self.protocol
        return protocol.is_connected() and not protocol.should_close

    def ended(self) -> bool:
        """Whether its peer has ended it, of which the loop need not have heard yet: the socket is asked."""
        transport = self.protocol.transport
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is None:
            return self.closed
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        self._alarm.end()
        self.protocol.close()

    def bind(self, bounds: Bounds) -> None:
        """From here on the deadline holds, until ``unbind``."""
        if bounds.deadline is not None:
            self._bounds = bounds
            self._alarm.set(bounds.deadline)

    def unbind(self) -> None:
        """Its request is over."""
        self._alarm.set(inf)

    def remember(self) -> None:
        """Once something was read, its session may be resumed by another."""
        handshakes, self._handshakes = self._handshakes, None
        transport = self.protocol.transport
        secured = None if transport is None else transport.get_extra_info("ssl_object")
        if handshakes is not None and secured is not None:
            handshakes.remember(secured)

    def _expire(self) -> None:
        bounds, protocol = self._bounds, self.protocol
        assert bounds is not None
        bounds.expired = True
        error = aiohttp.SocketTimeoutError("the deadline is over")
        body, transport = protocol._payload, protocol.transport
        protocol.set_exception(error)
        if body is not None and not body.is_eof():
            body.set_exception(error)
        if transport is not None:
            transport.abort()


class Slots:
    """How many requests at once a connector allows: its ``limit`` over all hosts. Who waits longest gets what becomes free."""

    __slots__ = ("_busy", "_limit", "_loop", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit or inf
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()

    async def acquire(self, bounds: Bounds) -> None:
        """Raises Overloaded where none became free within the pool's time, TimeoutError where the deadline is over."""
        if self._busy < self._limit and not self._waiting:
            self._busy += 1
            return
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        within = bound(bounds.clock, left_of(bounds) if bounds.alarmed else bounds.left("pool"))
        try:
            async with within:
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.release()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if not isinstance(error, TimeoutError):
                raise
            bounds.timed_out()
            if bounds.expired:
                raise
            raise Overloaded("limit: no connection was free in time") from None

    def release(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._busy -= 1

    def abandon(self) -> None:
        """For a finalizer, from any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.release)


def left_of(bounds: Bounds) -> float | None:
    """Seconds to the deadline."""
    return None if bounds.deadline is None else max(0.0, bounds.deadline - bounds.clock.now())


class AcquiredConnection(Connection):
    """A connection while one request has it. ``pooled``: as its pool has it."""

    _call: OpenCall | None = None
    _response: Callable[[], Any] | None = None

    def __init__(
        self,
        connector: Any,
        pool: AsyncEndpointPool[PooledConnection],
        pooled: PooledConnection,
        slots: Slots,
    ) -> None:
        super().__init__(connector, pooled.key, pooled.protocol, connector._loop)
        pooled.idle = False
        self._pool = pool
        self.pooled = pooled
        self._slots = slots

    def hold(self, call: OpenCall, response: Any) -> None:
        """The response is its caller's: the call ends with it, or where it breaks."""
        self._call = call
        self._response = weakref.ref(response)
        body = response.content
        if type(body) is StreamReader:
            body.__class__ = _Body  # the same slots
            setattr(body._protocol, _BROKEN, call.broken)
            # aiohttp's own would keep a response that nobody reads until its connection ends.
            own, ours = response._response_eof, partial(_ended, self._response)
            body._eof_callbacks[:] = [ours if one == own else one for one in body._eof_callbacks]
        if response.status == 101:
            self.pooled.unbind()  # what was agreed on has no end

    def release(self) -> None:
        """Give it back. aiohttp's response also calls this when it is collected."""
        response = self._response
        if response is not None and ((found := response()) is None or not found.closed):
            self._abandon()
        else:
            self._give_back()

    def close(self) -> None:
        """Close it."""
        if self._protocol is not None:
            self._protocol.close()
            self._give_back()

    def __del__(self, _warnings: Any = warnings) -> None:
        if self._protocol is not None:
            _warnings.warn(f"Unclosed connection {self!r}", ResourceWarning, source=self)
            self._abandon()

    def _give_back(self) -> None:
        if self._protocol is None:
            return
        self._notify_release()
        self._protocol.__dict__.pop(_BROKEN, None)
        self._protocol = None
        pooled = self.pooled
        pooled.unbind()
        if not pooled.used:
            pooled.remember()
        pooled.used = pooled.idle = True
        self._pool.release(pooled)
        self._slots.release()
        call, self._call = self._call, None
        if call is not None:
            call.end()

    def _abandon(self) -> None:
        """For a finalizer, which may run in any thread, and within anything."""
        if self._protocol is not None:
            self._notify_release()
            self._protocol = None
            self._pool.abandon(self.pooled)
            self._slots.abandon()
            if self._call is not None:
                self._call.abandon()


def _ended(response: Callable[[], Any]) -> None:
    found = response()
    if found is not None:
        found._response_eof()


class _Body(StreamReader):
    """A body that asks its call what to raise where it breaks."""

    __slots__ = ()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        if self._exception is not None:  # the connection breaks after its deadline, too
            return
        broken: Callable[[BaseException], BaseException] | None = getattr(self._protocol, _BROKEN, None)
        super().set_exception(exc if broken is None else broken(exc), *cause)
