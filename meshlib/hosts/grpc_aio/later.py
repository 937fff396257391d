"""One RPC of an asyncio channel on the call engine: grpc's own call for each attempt, driven by what these say."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from grpc.aio import EOF, AioRpcError, Metadata

from meshlib.hosts.grpc.later import GrpcLater
from meshlib.hosts.grpc_aio.errors import ERRORS
from meshlib.hosts.grpc_aio.unary import UnaryAttempt, make_direct
from meshlib.hosts.runtime import later
from meshlib.hosts.tokens import given_async

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from meshlib.core.exchange import Exchange
    from meshlib.core.tokens import Demand
    from meshlib.hosts.grpc.request import Request
    from meshlib.hosts.grpc.subchannel import Subchannel
    from meshlib.hosts.grpc_aio.outgoing import Outgoing
    from meshlib.hosts.grpc_aio.wire import AioGrpcWire
    from meshlib.hosts.legs import Leg
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


class AioLater(GrpcLater):
    """Belongs to its loop. ``outgoing``: its messages, where they are a stream; ``under_way``: it is in there until it is over."""

    __slots__ = ("_answers", "_unary", "_under_way", "_waiters", "loop")

    def __init__(
        self,
        exchange: Exchange,
        runtime: Runtime,
        wire: AioGrpcWire,
        request: Request,
        outgoing: Outgoing | None,
        under_way: set[AioLater],
    ) -> None:
        super().__init__(exchange, ERRORS, runtime, wire.subchannels, request, outgoing)
        self.loop = wire.loop
        self._under_way = under_way
        under_way.add(self)
        self._unary = request.method.kind == "unary_unary"
        self._answers = request.method.kind.endswith("stream")
        self._waiters: list[asyncio.Future[None]] = []

    def _begin(
        self, leg: Leg[Any], sub: Subchannel[Any], seconds: float | None, metadata: Any, wait: bool | None
    ) -> Any:
        request, method = self._request, self._request.method
        credentials = sub.credentials(request.credentials)
        if self._unary and request.compression is None:
            direct = sub.direct.get(method, _UNKNOWN)
            if direct is _UNKNOWN:
                direct = sub.direct[method] = make_direct(sub.callable(method), method)
            if direct is not None:
                return direct(request.message, seconds, metadata, credentials, wait)
        made = partial(
            sub.callable(method),
            timeout=seconds,
            metadata=metadata,
            credentials=credentials,
            wait_for_ready=wait,
            compression=request.compression,
        )
        if self.messages is None:
            return made(request.message)
        attempt = made()
        self.messages.feed(leg, attempt)
        return attempt

    def _code(self, attempt: Any) -> grpc.StatusCode:
        code: grpc.StatusCode = (
            attempt.ended_with() if type(attempt) is UnaryAttempt else at_once(attempt.code())
        )
        return code

    def _fact(self, attempt: Any, name: str) -> Any:
        return at_once(getattr(attempt, name)())

    def _error(self, attempt: Any) -> BaseException:
        return error_of(attempt, self._code(attempt), self._fact(attempt, "details"))

    def _watch(self, attempt: Any) -> None:
        attempt.add_done_callback(self.ended)
        if self._beside and self._answers:
            for leg in self.legs:
                if leg.attempt is not None and leg.watched is None:
                    task = leg.watched = self.loop.create_task(self._read_first(leg))
                    task.add_done_callback(_looked_at)

    async def _read_first(self, leg: Leg[Any]) -> Any:
        """The first message of an answer that nobody reads yet, where attempts run beside each other; or EOF."""
        attempt = leg.attempt
        try:
            message = await attempt.read()
        except AioRpcError:
            self.ended(attempt)
            raise
        if message is EOF:
            self.ended(attempt)
        else:
            self.commit(attempt)
        return message

    async def first(self, attempt: Any, read: Callable[[Any], Any]) -> Any:
        """The same, by ``read``, or by whoever began to. Raises as that."""
        leg = self.leg_of(attempt)
        task = leg.watched if leg is not None else None
        if isinstance(task, asyncio.Task):
            return await asyncio.shield(task)
        if leg is not None:
            leg.watched = True
        message = await read(attempt)
        if message is EOF:
            self.ended(attempt)
        else:
            self.commit(attempt)
        return message

    def reads(self, attempt: Any) -> bool:
        """Whether its messages are to be had by ``read``, since that began so."""
        leg = self.leg_of(attempt)
        return leg is not None and isinstance(leg.watched, asyncio.Task)

    def _headed(self) -> Any:
        if not self._answers:
            return None
        return next(
            (leg.attempt for leg in self.legs if leg.attempt is not None and _is_headed(leg.attempt)), None
        )

    def _fetch(self, demand: Demand, then: Callable[[str | BaseException], object]) -> Callable[[], object]:
        async def ask() -> None:
            try:
                told: str | BaseException = await given_async(demand)
            except Exception as problem:  # noqa: BLE001 - the caller's, when it asks
                told = problem
            then(told)

        return self.loop.create_task(ask()).cancel

    def _after(self, seconds: float, then: Callable[[], object]) -> Callable[[], object]:
        return later(self._runtime.clock, seconds, then)

    def _soon(self, then: Callable[[], object]) -> None:
        self.loop.call_soon_threadsafe(then)

    def _changed(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self.over:
            self._under_way.discard(self)
            if self.messages is not None:
                self.messages.end()
            for callback in self._leave():
                callback()

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


def _looked_at(task: asyncio.Task[Any]) -> None:
    """What it raised is the attempt's end, which is told."""
    if not task.cancelled():
        task.exception()


def _is_headed(attempt: Any) -> bool:
    if attempt.done():
        return False
    try:
        at_once(attempt.initial_metadata())
    except RuntimeError:
        return False
    return True


def error_of(attempt: Any, code: grpc.StatusCode, details: str | None) -> AioRpcError:
    """The error of a call that is over, as awaiting it would raise it."""
    return AioRpcError(
        code,
        at_once(attempt.initial_metadata()) or Metadata(),
        at_once(attempt.trailing_metadata()) or Metadata(),
        details=details,
        debug_error_string=at_once(attempt.debug_error_string()),
    )
