"""The calls of an asyncio channel, as grpc's own are."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from grpc.aio import EOF, AioRpcError, Metadata, UsageError
from grpc.aio import _base_call as base

from meshlib.hosts.grpc.errors import CANCELLED_WORDS
from meshlib.hosts.info import attach

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from meshlib.hosts.grpc_aio.later import AioLater
    from meshlib.model.call import CallInfo

__all__ = ["AnyCall", "StreamStreamCall", "StreamUnaryCall", "UnaryStreamCall", "UnaryUnaryCall"]

_FINISHED = "RPC already finished."
_HALF_CLOSED = 'RPC is half closed after calling "done_writing".'
_STYLES = "The iterator and read/write APIs may not be mixed on a single RPC."


def _read(attempt: Any) -> Any:
    return attempt.read()


async def _iterated(attempt: Any) -> Any:
    return await anext(attempt.__aiter__(), EOF)


class AnyCall:
    """What all four kinds have. Belongs to its loop."""

    def __init__(self, later: AioLater, deadline: float | None) -> None:
        self._later = later
        self._deadline = deadline
        self._cancelled = False

    def __del__(self) -> None:
        later = self.__dict__.get("_later")
        if later is not None and not later.over:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                later.loop.call_soon_threadsafe(later.cancel, asyncio.CancelledError())

    @property
    def _meshlib_info(self) -> CallInfo | None:
        return self._later.info

    def cancelled(self) -> bool:
        return self._cancelled

    def done(self) -> bool:
        return self._later.over

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - self._later._now())

    def cancel(self) -> bool:
        if not self._later.cancel(asyncio.CancelledError()):
            return False
        self._cancelled = True
        return True

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        told = self._later.told
        if told is None:
            callback(self)
        else:
            told.append(partial(callback, self))

    async def initial_metadata(self) -> Any:
        later = self._later
        attempt = None
        while True:
            attempt = await later.wait_attempt(attempt)
            if attempt is None:
                return getattr(later.error, "_initial_metadata", None) or Metadata()
            found = await attempt.initial_metadata()
            if not later.committed and not attempt.done():
                later.commit(attempt)
            elif not later.committed:
                later.ended(attempt)
            if attempt is later.attempt:
                return self._edited(found)

    def _edited(self, found: Any) -> Any:
        told = self._later.metadata(found)
        return found if told is found else Metadata.from_tuple(tuple(told))

    async def trailing_metadata(self) -> Any:
        return await self._end("trailing_metadata", Metadata())

    async def code(self) -> Any:
        return await self._end("code", grpc.StatusCode.CANCELLED)

    async def details(self) -> Any:
        return await self._end("details", CANCELLED_WORDS)

    async def debug_error_string(self) -> Any:
        return await self._end("debug_error_string", "")

    async def _end(self, what: str, otherwise: Any) -> Any:
        later = self._later
        await later.wait_over()
        if later.attempt is not None:
            return await getattr(later.attempt, what)()
        found = getattr(later.error, what, None)
        return otherwise if found is None else found()

    async def wait_for_connection(self) -> None:
        """Until an attempt is under way. Raises what the call failed by."""
        await self._of_attempt(lambda attempt: attempt.wait_for_connection(), settles=False)

    async def _of_attempt(self, ask: Callable[[Any], Any], *, settles: bool = True) -> tuple[Any, Any]:
        """An attempt, and what ``ask`` gives of it, awaited: the next one's where it fails and is made again, or (``settles``: the call is then that attempt's) another was
        sooner. Raises what the call failed by.
        """
        later = self._later
        attempt = None
        while True:
            attempt = await later.wait_attempt(attempt)
            if attempt is None:
                raise self._raised()
            try:
                found = await ask(attempt)
            except asyncio.CancelledError:
                if not self._given_up(attempt):
                    raise
            except AioRpcError as error:
                later.ended(attempt)
                if attempt is later.attempt:
                    raise self._told(error) from None
            else:
                if not settles or attempt is later.attempt:
                    return attempt, found

    def _given_up(self, attempt: Any) -> bool:
        """Whether a cancellation came since the mesh gave ``attempt`` up, and not to the task or by the application."""
        task = asyncio.current_task()
        return not self._cancelled and attempt is not self._later.attempt and not (task and task.cancelling())

    def _told(self, error: BaseException) -> BaseException:
        info = self._later.info
        if info is not None and not isinstance(error, asyncio.CancelledError):
            attach(error, info)
        return error

    def _raised(self) -> BaseException:
        if self._cancelled:
            return asyncio.CancelledError()
        error = self._later.error
        assert error is not None
        return error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'that is over' if self._later.over else 'under way'}>"


class _OneAnswer(AnyCall):
    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            _, value = await self._of_attempt(self._value)
        except asyncio.CancelledError:
            self.cancel()
            raise
        return value

    async def _value(self, attempt: Any) -> Any:
        value = await attempt
        self._later.ended(attempt)
        return value


class _Answers(AnyCall):
    _iterator: AsyncIterator[Any] | None = None
    _reading: Any = None  # the attempt whose messages ``read`` gives, once one came
    _style = ""

    def __aiter__(self) -> AsyncIterator[Any]:
        self._use("iterator")
        if self._iterator is None:
            self._iterator = self._messages()
        return self._iterator

    async def _messages(self) -> AsyncIterator[Any]:
        later = self._later
        reading = None
        try:
            attempt, message = await self._of_attempt(lambda attempt: later.first(attempt, _iterated))
            if message is not EOF:
                reading = attempt
                yield message
                if later.reads(attempt):
                    while (message := await attempt.read()) is not EOF:
                        yield message
                else:
                    async for message in attempt.__aiter__():
                        yield message
            later.ended(attempt)
        except AioRpcError as error:
            if later.committed:
                later.ended(later.attempt)
                self._told(error)
            raise
        except asyncio.CancelledError:
            if reading is not None and self._given_up(reading):
                raise self._raised() from None
            self.cancel()
            raise

    async def read(self) -> Any:
        self._use("reader")
        later, reading = self._later, self._reading
        try:
            if reading is None:
                self._reading, message = await self._of_attempt(lambda attempt: later.first(attempt, _read))
                return message
            _, message = await self._of_attempt(_read)
        except asyncio.CancelledError:
            self.cancel()
            raise
        if message is EOF:
            later.ended(reading)
        return message

    def _use(self, style: str) -> None:
        if self._style not in ("", style):
            raise UsageError(_STYLES)
        self._style = style


class _Messages(AnyCall):
    _consumer: asyncio.Task[bool] | None = None

    def _consume(self, source: Any) -> None:
        """Send what the application's iterator gives; None: it writes itself."""
        outgoing = self._later.messages
        assert outgoing is not None
        if source is not None:
            self._consumer = self._later.loop.create_task(outgoing.consume(source))
            self._consumer.add_done_callback(self._consumed)
            if self._later.told is not None:
                self._later.told.append(self._consumer.cancel)

    def _consumed(self, task: asyncio.Task[bool]) -> None:
        if not task.cancelled() and task.exception() is None and not task.result():
            self.cancel()

    @property
    def _done_writing_flag(self) -> bool:
        """As grpc's own interceptors ask."""
        outgoing = self._later.messages
        return outgoing is not None and outgoing.half_closed

    async def write(self, request: Any) -> None:
        outgoing = self._writing()
        if self.done():
            raise asyncio.InvalidStateError(_FINISHED)
        if outgoing.half_closed:
            raise asyncio.InvalidStateError(_HALF_CLOSED)
        try:
            await outgoing.write(request)
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._later.over:
            await self._raise_for_status()

    async def done_writing(self) -> None:
        outgoing = self._writing()
        if not self.done():
            await outgoing.close()

    def _writing(self) -> Any:
        if self._consumer is not None:
            raise UsageError(_STYLES)
        return self._later.messages

    async def _raise_for_status(self) -> None:
        later = self._later
        if later.attempt is None:
            raise self._raised()
        if self._cancelled:
            raise asyncio.CancelledError
        code = await later.attempt.code()
        if code is not grpc.StatusCode.OK:
            from meshlib.hosts.grpc_aio.later import error_of

            raise self._told(error_of(later.attempt, code, await later.attempt.details()))


class UnaryUnaryCall(_OneAnswer, base.UnaryUnaryCall):
    """One message there, one back."""


class UnaryStreamCall(_Answers, base.UnaryStreamCall):
    """One message there, any number back."""


class StreamUnaryCall(_Messages, _OneAnswer, base.StreamUnaryCall):
    """Any number there, one back."""


class StreamStreamCall(_Messages, _Answers, base.StreamStreamCall):
    """Any number both ways."""
