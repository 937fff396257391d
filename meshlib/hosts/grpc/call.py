"""The calls of a blocking channel for which nobody waits: futures and streams, as grpc's own are."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.core.attempt import Send
from meshlib.core.exchange import GRPC
from meshlib.hosts.grpc.errors import CANCELLED_WORDS, CODES, ERRORS, Ended, local_end, number
from meshlib.hosts.grpc.request import metadata_of
from meshlib.hosts.grpc.wire import trailers
from meshlib.hosts.info import attach
from meshlib.hosts.run_later import LaterCall
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.runtime import threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from meshlib.core.effects import Direct
    from meshlib.core.exchange import Exchange
    from meshlib.hosts.grpc.replay import Messages
    from meshlib.hosts.grpc.request import Request
    from meshlib.hosts.grpc.wire import GrpcWire
    from meshlib.model.call import CallInfo
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["Call", "make_call"]


class _Later(LaterCall[Any]):
    """One of grpc's calls for each attempt. ``unary``: its answer is one message, and is there when it is over."""

    __slots__ = ("_messages", "_request", "_wire", "changed", "sub", "told", "unary")

    def __init__(
        self,
        exchange: Exchange,
        runtime: Runtime,
        wire: GrpcWire,
        request: Request,
        *,
        unary: bool,
    ) -> None:
        super().__init__(exchange, ERRORS, runtime)
        self._wire = wire
        self._request = request
        self._messages: Messages | None = request.messages
        self.unary = unary
        self.sub: Any = None
        self.changed = threading.Condition()  # told of each new attempt and of the end; guards ``told``
        self.told: list[Callable[[], object]] | None = []

    def _open(self, step: Send | Direct, bounds: Bounds) -> Any:
        request, wire = self._request, self._wire
        if isinstance(step, Send):
            self.sub = wire.subchannel(step)
            wait, metadata = (
                (False if request.wait_for_ready is False else None),
                metadata_of(request, step.head.headers.raw),
            )
        else:
            self.sub, wait, metadata = wire.own_for(self), request.wait_for_ready, request.metadata or None
            if step.head is not None:
                metadata = metadata_of(request, step.head.headers.raw)
        made = self.sub.callable(request.method)
        begin = made.future if self.unary else made
        seconds = (
            request.timeout if isinstance(step, Send) is False and step.head is None else bounds.left("read")
        )
        bounds.sent = True
        return begin(request.sending(), seconds, metadata, request.credentials, wait, request.compression)

    def _watch(self, attempt: Any) -> None:
        if not attempt.add_callback(partial(self._ended, attempt)):
            self.ended(attempt)

    def _ended(self, attempt: Any) -> None:
        """By grpc's thread, which may have the server's metadata still to bring: nobody may wait for those in it."""
        if attempt.code() is not grpc.StatusCode.OK and attempt._state.initial_metadata is None:
            threads.start(threading.Thread(target=self.ended, args=(attempt,), daemon=True))
        else:
            self.ended(attempt)

    def _give_up(self, attempt: Any) -> None:
        attempt.cancel()

    def _after(self, seconds: float, then: Callable[[], object]) -> Callable[[], object]:
        return self._runtime.worker.later(seconds, then).cancel

    def _soon(self, then: Callable[[], object]) -> None:
        self._runtime.worker.post(then)

    def _changed(self) -> None:
        told = None
        with self.changed:
            self.changed.notify_all()
            if self.over:
                told, self.told = self.told, None
                if self.sub is not None:
                    self.sub.users.pop(self, None)
        for callback in told or ():
            _guarded(callback)

    # --- what an attempt says ---------------------------------------------------------------------------------------------

    def commit(self, attempt: Any) -> None:
        """Its first message, or its metadata, is there."""
        call = self._request.call
        if call is not None:
            call.replayable = False
        if self._messages is not None:
            self._messages.commit()
        self.arrived(attempt, 0, None, GRPC)

    def ended(self, attempt: Any) -> None:
        """It is over. From any thread, any number of times."""
        if attempt is not self.attempt or self.over:
            return
        code, details = attempt.code(), attempt.details()
        kind = local_end(code, details, self._connected)
        if self.committed:
            self.finished(None if code is grpc.StatusCode.OK else _outcome(kind, code, details, attempt))
            return
        initial = code is not grpc.StatusCode.OK and attempt.initial_metadata()
        if code is grpc.StatusCode.OK or kind is None or initial:
            if initial and self._request.call is not None:
                self._request.call.replayable = False
            self.arrived(attempt, number(code), trailers(attempt.trailing_metadata()), GRPC)
        else:
            if kind is OutcomeKind.CONNECT and self.sub.endpoint is not None:
                self._wire.subchannels.unconnected(self.sub)
            self.failed(attempt, Ended(kind, attempt))
        if attempt is self.attempt and self.committed:
            self.finished()

    def _connected(self) -> bool:
        return self._wire.subchannels.connected(self.sub)

    # --- waiting ----------------------------------------------------------------------------------------------------------

    def wait_attempt(self, but: Any = None) -> Any:
        """Wait for an attempt other than ``but``, or the end; None: it ended without one."""
        with self.changed:
            while not self.over and (self.attempt is None or self.attempt is but):
                self.changed.wait()
        return self.attempt

    def wait_over(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most ``timeout`` seconds; whether it came."""
        with self.changed:
            return self.changed.wait_for(lambda: self.over, timeout)


def _outcome(kind: OutcomeKind | None, code: Any, details: str | None, error: BaseException) -> Outcome:
    if kind is None:
        return Outcome(
            OutcomeKind.STATUS, number(code), sent=True, error=error, detail=details or "", grpc=True
        )
    return Outcome(kind, sent=True, error=error, detail=details or "", grpc=True)


def _guarded(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        import logging

        logging.getLogger("meshlib").exception("meshlib: a callback of an RPC failed")


class Call(grpc.Call, grpc.Future):  # grpc's own are both
    """An RPC under way: its future, and the iterator of its messages. Thread-safe; the messages are one reader's."""

    def __init__(self, later: _Later, deadline: float | None) -> None:
        self._later = later
        self._deadline = deadline
        self._cancelled = False
        self._reading: Any = None  # the attempt whose messages these are, once one came

    def __del__(self) -> None:
        later = self.__dict__.get("_later")
        if later is not None and not later.over and later._runtime.worker.running:
            later._runtime.worker.post(
                partial(later.cancel, _cancelled("Cancelled upon garbage collection!"))
            )

    @property
    def _meshlib_info(self) -> CallInfo | None:
        return self._later.info

    # --- messages ---------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Call:
        return self

    def __next__(self) -> Any:
        attempt = self._reading
        if attempt is None:
            return self._first()
        try:
            return next(attempt)
        except grpc.RpcError as error:
            self._later.ended(attempt)
            self._raise(error)

    next = __next__

    def _first(self) -> Any:
        later = self._later
        attempt = None
        while True:
            attempt = later.wait_attempt(attempt)
            if attempt is None:
                assert later.error is not None
                raise later.error
            try:
                message = next(attempt)
            except StopIteration:
                later.ended(attempt)
                raise
            except grpc.RpcError as error:
                later.ended(attempt)
                if attempt is later.attempt:
                    self._raise(error)
                continue
            later.commit(attempt)
            self._reading = attempt
            return message

    def _raise(self, error: grpc.RpcError) -> None:
        """Raise what the attempt that the caller reads ended by."""
        info = self._later.info
        if info is not None:
            attach(error, info)
        raise error

    # --- facts that are waited for ----------------------------------------------------------------------------------------

    def initial_metadata(self) -> Any:
        later = self._later
        attempt = None
        while True:
            attempt = later.wait_attempt(attempt)
            if attempt is None:
                return getattr(later.error, "_initial", ())
            found = attempt.initial_metadata()
            if later.committed:
                return found
            if attempt.is_active():
                later.commit(attempt)
                return found
            later.ended(attempt)
            if attempt is later.attempt:
                return found

    def trailing_metadata(self) -> Any:
        return self._end("trailing_metadata")

    def code(self) -> Any:
        return self._end("code")

    def details(self) -> Any:
        return self._end("details")

    def debug_error_string(self) -> Any:
        return self._end("debug_error_string")

    def _end(self, what: str) -> Any:
        later = self._later
        later.wait_over()
        of = later.attempt if later.attempt is not None else later.error
        found = getattr(of, what, None)
        if found is None:
            return grpc.StatusCode.UNKNOWN if what == "code" else str(of)
        return found()

    # --- grpc.RpcContext --------------------------------------------------------------------------------------------------

    def is_active(self) -> bool:
        return not self._later.over

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.time())

    def cancel(self) -> bool:
        if not self._later.cancel(_cancelled(CANCELLED_WORDS)):
            return False
        self._cancelled = True
        return True

    def add_callback(self, callback: Callable[[], object]) -> bool:
        later = self._later
        with later.changed:
            if later.told is None:
                return False
            later.told.append(callback)
            return True

    # --- grpc.Future ------------------------------------------------------------------------------------------------------

    def cancelled(self) -> bool:
        return self._cancelled

    def running(self) -> bool:
        return not self._later.over

    def done(self) -> bool:
        return self._later.over

    def result(self, timeout: float | None = None) -> Any:
        error = self._outcome(timeout)
        if error is not None:
            raise error
        return self._later.attempt.result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return self._outcome(timeout)

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        error = self._outcome(timeout)
        return None if error is None else error.__traceback__

    def _outcome(self, timeout: float | None) -> BaseException | None:
        later = self._later
        if not later.wait_over(timeout):
            raise grpc.FutureTimeoutError
        if self._cancelled:
            raise grpc.FutureCancelledError
        if later.attempt is None:
            return later.error
        error: BaseException | None = later.attempt.exception()
        if error is not None and (info := later.info) is not None:
            attach(error, info)
        return error

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        if not self.add_callback(partial(fn, self)):
            fn(self)

    def __repr__(self) -> str:
        later = self._later
        if not later.over:
            return f"<{type(self).__name__} of an RPC under way>"
        code = self.code()
        return f"<{type(self).__name__} of an RPC that ended with {code.name}: {self.details()!r}>"


def _cancelled(words: str) -> BaseException:
    from meshlib.hosts.grpc.errors import MeshRpcError

    error = MeshRpcError(words)
    error._code = CODES[1]
    error._debug = f"CANCELLED:{words}"
    return error


def make_call(exchange: Exchange, runtime: Runtime, wire: GrpcWire, request: Request, *, unary: bool) -> Call:
    """Begin a call."""
    later = _Later(exchange, runtime, wire, request, unary=unary)
    deadline = None if request.timeout is None else time.time() + request.timeout
    call = Call(later, deadline)
    later.begin()
    return call
