"""One RPC of an asyncio channel on the call engine: grpc's own call for each attempt, driven by what these say."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from grpc.aio import AioRpcError, Metadata

from meshlib.core.attempt import Send
from meshlib.core.exchange import GRPC
from meshlib.hosts.grpc.errors import Ended, local_end, number
from meshlib.hosts.grpc.request import metadata_of
from meshlib.hosts.grpc.wire import trailers
from meshlib.hosts.grpc_aio.errors import ERRORS
from meshlib.hosts.grpc_aio.unary import UnaryAttempt, make_direct
from meshlib.hosts.run_later import LaterCall
from meshlib.hosts.runtime import later
from meshlib.model.call import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from meshlib.core.effects import Direct
    from meshlib.core.exchange import Exchange
    from meshlib.hosts.grpc.request import Request
    from meshlib.hosts.grpc_aio.outgoing import Outgoing
    from meshlib.hosts.grpc_aio.wire import AioGrpcWire
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["AioLater", "at_once"]

_UNKNOWN: Any = object()


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine gives that has nothing to wait for: grpc's facts of a call that is over."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("it waits")


class AioLater(LaterCall[Any]):
    """Belongs to its loop. ``outgoing``: its messages, where they are a stream; ``under_way``: it is in there until it is over."""

    __slots__ = ("_request", "_unary", "_under_way", "_waiters", "_wire", "loop", "outgoing", "sub", "told")

    def __init__(
        self,
        exchange: Exchange,
        runtime: Runtime,
        wire: AioGrpcWire,
        request: Request,
        outgoing: Outgoing | None,
        under_way: set[AioLater],
    ) -> None:
        super().__init__(exchange, ERRORS, runtime)
        self.loop = wire.loop
        self._under_way = under_way
        under_way.add(self)
        self._wire = wire
        self._request = request
        self.outgoing = outgoing
        self._unary = request.method.kind == "unary_unary"
        self.sub: Any = None
        self.told: list[Callable[[], object]] | None = []
        self._waiters: list[asyncio.Future[None]] = []

    def _open(self, step: Send | Direct, bounds: Bounds) -> Any:
        request, wire = self._request, self._wire
        seconds = request.timeout
        wait, metadata = request.wait_for_ready, request.metadata or None
        if isinstance(step, Send):
            self.sub = wire.subchannel(step)
            wait = False if wait is False else None
        else:
            self.sub = wire.own
            self.sub.users[self] = None
        if step.head is not None:
            seconds, metadata = bounds.left("read"), metadata_of(request, step.head.headers.raw)
        bounds.sent = True
        sub, method = self.sub, request.method
        if self._unary and request.compression is None:
            direct = sub.direct.get(method, _UNKNOWN)
            if direct is _UNKNOWN:
                direct = sub.direct[method] = make_direct(sub.callable(method), method)
            if direct is not None:
                return direct(request.message, seconds, metadata, request.credentials, wait)
        made = sub.callable(method)
        options = {
            "timeout": seconds,
            "metadata": metadata,
            "credentials": request.credentials,
            "wait_for_ready": wait,
            "compression": request.compression,
        }
        if self.outgoing is None:
            return made(request.message, **options)
        attempt = made(**options)
        self.outgoing.feed(attempt)
        return attempt

    def _watch(self, attempt: Any) -> None:
        attempt.add_done_callback(self.ended)

    def _give_up(self, attempt: Any) -> None:
        attempt.cancel()

    def _after(self, seconds: float, then: Callable[[], object]) -> Callable[[], object]:
        return later(self._runtime.clock, seconds, then)

    def _soon(self, then: Callable[[], object]) -> None:
        self.loop.call_soon_threadsafe(then)

    def _changed(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if not self.over:
            return
        self._under_way.discard(self)
        if self.sub is not None:
            self.sub.users.pop(self, None)
        if self.outgoing is not None:
            self.outgoing.end()
        told, self.told = self.told, None
        for callback in told or ():
            callback()

    # --- what an attempt says ---------------------------------------------------------------------------------------------

    def commit(self, attempt: Any) -> None:
        """Its first message, or its metadata, is there."""
        if self.committed:
            return
        if self._request.call is not None:
            self._request.call.replayable = False
        if self.outgoing is not None:
            self.outgoing.commit()
        self.arrived(attempt, 0, None, GRPC)

    def ended(self, attempt: Any) -> None:
        """It is over. Any number of times."""
        if attempt is not self.attempt or self.over:
            return
        code = attempt.ended_with() if type(attempt) is UnaryAttempt else at_once(attempt.code())
        if code is grpc.StatusCode.OK:
            if not self.committed:
                self.arrived(attempt, 0, None, GRPC)
            self.finished()
            return
        details = at_once(attempt.details())
        kind = local_end(code, details, partial(self._wire.subchannels.connected, self.sub))
        if self.committed:
            outcome = OutcomeKind.STATUS if kind is None else kind
            status = number(code) if kind is None else None
            self.finished(Outcome(outcome, status, sent=True, detail=details or "", grpc=True))
            return
        initial = at_once(attempt.initial_metadata())
        if kind is None or initial:
            if initial and self._request.call is not None:
                self._request.call.replayable = False
            self.arrived(attempt, number(code), trailers(at_once(attempt.trailing_metadata())), GRPC)
        else:
            if kind is OutcomeKind.CONNECT and self.sub.endpoint is not None:
                self._wire.subchannels.unconnected(self.sub)
            self.failed(attempt, Ended(kind, error_of(attempt, code, details)))
        if attempt is self.attempt and self.committed:
            self.finished()

    # --- waiting ----------------------------------------------------------------------------------------------------------

    async def wait_attempt(self, but: Any = None) -> Any:
        """Wait for an attempt other than ``but``, or the end; None: it ended without one."""
        while not self.over and (self.attempt is None or self.attempt is but):
            await self._change()
        return self.attempt

    async def wait_over(self) -> None:
        while not self.over:
            await self._change()

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiters.append(waiter)
        await waiter


def error_of(attempt: Any, code: grpc.StatusCode, details: str | None) -> AioRpcError:
    """The error of a call that is over, as awaiting it would raise it."""
    return AioRpcError(
        code,
        at_once(attempt.initial_metadata()) or Metadata(),
        at_once(attempt.trailing_metadata()) or Metadata(),
        details=details,
        debug_error_string=at_once(attempt.debug_error_string()),
    )
