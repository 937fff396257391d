"""The calls of a blocking channel for which nobody waits: futures and streams, as grpc's own are."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.hosts.grpc.errors import CANCELLED_WORDS, CODES, ERRORS, MeshRpcError
from meshlib.hosts.grpc.later import GrpcLater
from meshlib.hosts.info import attach
from meshlib.hosts.race import hedge_slots
from meshlib.hosts.tokens import given_later
from meshlib.runtime import threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from meshlib.core.exchange import Exchange
    from meshlib.core.tokens import Demand
    from meshlib.hosts.grpc.request import Request
    from meshlib.hosts.grpc.subchannel import Subchannel
    from meshlib.hosts.grpc.wire import GrpcWire
    from meshlib.hosts.legs import Leg
    from meshlib.model.call import CallInfo
    from meshlib.runtime.runtime import Runtime

__all__ = ["Call", "make_call"]


class _Later(GrpcLater):
    """Of a blocking channel. ``unary``: its answer is one message, and is there when it is over."""

    __slots__ = ("_rooms", "changed", "unary")

    def __init__(
        self, exchange: Exchange, runtime: Runtime, wire: GrpcWire, request: Request, *, unary: bool
    ) -> None:
        super().__init__(exchange, ERRORS, runtime, wire.subchannels, request, request.messages)
        self.unary = unary
        self.changed = threading.Condition()  # told of each new attempt and of the end; guards ``told``
        self._rooms: list[threading.Semaphore] = []  # for threads that wait for the head of an answer

    def _begin(
        self, leg: Leg[Any], sub: Subchannel[Any], seconds: float | None, metadata: Any, wait: bool | None
    ) -> Any:
        request, made = self._request, sub.callable(self._request.method)
        begin, credentials = made.future if self.unary else made, sub.credentials(request.credentials)
        return begin(request.sending(leg), seconds, metadata, credentials, wait, request.compression)

    def _code(self, attempt: Any) -> grpc.StatusCode:
        code: grpc.StatusCode = attempt.code()
        return code

    def _fact(self, attempt: Any, name: str) -> Any:
        return getattr(attempt, name)()

    def _error(self, attempt: Any) -> BaseException:
        error: BaseException = attempt  # grpc's calls that failed are errors
        return error

    def _watch(self, attempt: Any) -> None:
        if not attempt.add_callback(partial(self._ended, attempt)):
            self.ended(attempt)
        if self._rooms:
            self._watch_all()

    # Of an answer that is a stream nobody is told that it begins. Who reads it finds out; where attempts run beside each other, a thread
    # reads the first message of each that nobody reads yet.

    def _headed(self) -> Any:
        if self.unary:
            return None
        attempts = (leg.attempt for leg in self.legs)
        return next((each for each in attempts if each is not None and _is_headed(each)), None)

    def _room(self) -> bool:
        legs = self.legs
        if self.unary or not legs:
            return True
        slots = hedge_slots()
        for _ in range(1 + sum(not leg.watched for leg in legs)):
            if not slots.acquire(blocking=False):
                self._leave_rooms()
                return False
            self._rooms.append(slots)
        return True

    def _watch_all(self) -> None:
        with self._lock:
            for leg in self.legs:
                if self._rooms and leg.attempt is not None and self._claim(leg):
                    read = partial(self._read_first, leg, self._rooms.pop())
                    threads.start(threading.Thread(target=read, name="meshlib-hedge", daemon=True))
            self._leave_rooms()

    def _claim(self, leg: Leg[Any]) -> bool:
        """Read its first message; False: somebody else does. Under the lock."""
        if leg.watched:
            return False
        leg.watched = True
        return True

    def _read_first(self, leg: Leg[Any], slots: threading.Semaphore) -> None:
        attempt = leg.attempt
        try:
            message = next(attempt)
        except (StopIteration, grpc.RpcError):
            self.ended(attempt)
        else:
            leg.first = (message,)
            self.commit(attempt)
        finally:
            slots.release()
            with self.changed:
                leg.read = True
                self.changed.notify_all()

    def first(self, attempt: Any) -> Any:
        """Its first message, read now or by a thread, and that the call is its; None: it is not. Raises as ``next``."""
        with self._lock:
            leg = self.leg_of(attempt)
            if leg is None and attempt is not self.attempt:
                return None
            mine = leg is None or self._claim(leg)
        if not mine:
            assert leg is not None
            # Also of a call that is over, whose attempts may not be cancelled yet: two may not read one attempt.
            with self.changed:
                while attempt is self.attempt and not leg.read:
                    self.changed.wait()
            if attempt is not self.attempt:
                return None
            if leg.first:
                return leg.first
        message = next(attempt)  # one that is over raises
        self.commit(attempt)
        return (message,) if attempt is self.attempt else None

    def _leave_rooms(self) -> None:
        while self._rooms:
            self._rooms.pop().release()

    def _ended(self, attempt: Any) -> None:
        """By grpc's thread, which may have the server's metadata still to bring: nobody may wait for those in it."""
        if attempt.code() is not grpc.StatusCode.OK and attempt._state.initial_metadata is None:
            threads.start(threading.Thread(target=self.ended, args=(attempt,), daemon=True))
        else:
            self.ended(attempt)

    def _fetch(self, demand: Demand, then: Callable[[str | BaseException], object]) -> Callable[[], object]:
        ask = given_later(demand, then)
        threads.start(threading.Thread(target=ask, name="meshlib-token", daemon=True))
        return bool  # nothing ends the application's own

    def _after(self, seconds: float, then: Callable[[], object]) -> Callable[[], object]:
        return self._runtime.worker.later(seconds, then).cancel

    def _soon(self, then: Callable[[], object]) -> None:
        self._runtime.worker.post(then)

    def _changed(self) -> None:
        with self.changed:
            self.changed.notify_all()
            told = self._leave() if self.closed else ()
        for callback in told:
            _guarded(callback)

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
            return self.changed.wait_for(lambda: self.closed, timeout)


def _is_headed(attempt: Any) -> bool:
    state = getattr(attempt, "_state", None)  # grpc's own words for it are those that wait
    return state is not None and state.initial_metadata is not None and state.code is None


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
        later = self._later
        try:
            return next(attempt)
        except StopIteration:
            later.ended(attempt)
            later.wait_over()  # where grpc's thread ends it just now
            raise
        except grpc.RpcError as error:
            later.ended(attempt)
            later.wait_over()
            if later.error is not None:  # the mesh has given the answer up
                raise later.error from None
            self._raise(error)

    next = __next__

    def _first(self) -> Any:
        later = self._later
        attempt = None
        while True:
            attempt = later.wait_attempt(attempt)
            if attempt is None:
                later.wait_over()
                assert later.error is not None
                raise later.error
            try:
                first = later.first(attempt)
            except StopIteration:
                later.ended(attempt)
                if attempt is later.attempt:
                    later.wait_over()
                    raise
            except grpc.RpcError as error:
                later.ended(attempt)
                if attempt is later.attempt:
                    later.wait_over()
                    self._raise(error)
            else:
                if first is not None:  # else another attempt was sooner
                    self._reading = attempt
                    return first[0]

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
            if not later.committed and attempt.is_active():
                later.commit(attempt)
            elif not later.committed:
                later.ended(attempt)
            if attempt is later.attempt:
                return later.metadata(found)

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
        return None if self._deadline is None else max(0.0, self._deadline - self._later._now())

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
        return not self._later.closed

    def done(self) -> bool:
        return self._later.closed

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
        if not later.closed:
            return f"<{type(self).__name__} of an RPC under way>"
        code = self.code()
        return f"<{type(self).__name__} of an RPC that ended with {code.name}: {self.details()!r}>"


def _cancelled(words: str) -> BaseException:
    error = MeshRpcError(words)
    error._code = CODES[1]
    error._debug = f"CANCELLED:{words}"
    return error


def make_call(exchange: Exchange, runtime: Runtime, wire: GrpcWire, request: Request, *, unary: bool) -> Call:
    """Begin a call."""
    later = _Later(exchange, runtime, wire, request, unary=unary)
    deadline = None if request.timeout is None else runtime.clock.now() + request.timeout
    call = Call(later, deadline)
    later.begin()
    return call
