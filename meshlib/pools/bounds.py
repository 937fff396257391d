"""The bounds of one attempt: how long each of its operations may take, and whether a byte of the request may have left.

Two kinds of time bound an operation: the attempt's deadline, which the mesh and the application set for the whole, and the
host library's own timeouts, of which each bounds one operation of its kind (``connect``, ``read``, ``write``, ``pool``). The
nearer one holds, and is looked up at the moment of the operation.

An attempt that finds no connection ready is pending until one is connected for it, whether it waits for another's or opens
its own: so Envoy counts ``max_pending_requests`` (measured with 1.40).
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meshlib.errors import Overloaded
from meshlib.model.call import TimeLimit
from meshlib.runtime.clock import ring_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from meshlib.core.attempt import Send
    from meshlib.core.upstream import Connections
    from meshlib.runtime.clock import Clock

__all__ = ["Bounds", "HedgedBounds", "StreamBounds"]

_NO_TIMEOUTS: Mapping[str, float | None] = {}
#: What is done to a connection that stands.
_OF_BYTES = frozenset({"read", "write"})
#: What a deadline may still lack, in seconds, when a wait that was bounded by it is over: timers are that exact.
_ROUNDING = 0.001


class Bounds:
    """One attempt's. Not thread-safe.

    Args:
        clock: Time, of the mesh.
        deadline: Absolute, on ``clock``; None: there is none.
        timeouts: The host library's, by ``connect``, ``read``, ``write``, ``pool``, in seconds. They are in the system's time,
            also where ``clock`` is virtual.
        connect: The cluster's connect timeout in seconds: holds beside the host library's.

    Attributes:
        sent: A byte of the request may have left.
        expired: After a timeout: it was the deadline's.
        alarmed: On a virtual clock and with a deadline, for which no seconds stand; and while another attempt may be answered
            first: whoever blocks does so within :meth:`ringing`.
    """

    __slots__ = (
        "_connect",
        "_now",
        "_pending",
        "_timeouts",
        "alarmed",
        "clock",
        "deadline",
        "expired",
        "sent",
    )

    def __init__(
        self,
        clock: Clock,
        deadline: float | None = None,
        timeouts: Mapping[str, float | None] = _NO_TIMEOUTS,
        connect: float | None = None,
    ) -> None:
        self.clock = clock
        self._now = clock.now
        self.deadline = deadline
        self.alarmed = deadline is not None and clock.virtual
        self._timeouts = timeouts
        self._connect = connect
        self._pending: Connections | None = None
        self.sent = False
        self.expired = False

    def left(self, name: str) -> float | None:
        """Seconds that an operation of that kind may take now, or None for no bound. Raises TimeoutError where the deadline
        is over.
        """
        seconds = self._timeouts.get(name)
        if name == "connect" and self._connect is not None and (seconds is None or self._connect < seconds):
            seconds = self._connect
        deadline = self.deadline
        if deadline is None:
            return seconds
        left = deadline - self._now()
        if left <= 0:
            self.expired = True
            raise TimeoutError("the deadline is over")
        if not self.alarmed and (seconds is None or left < seconds):
            return left
        return seconds

    @property
    def limit(self) -> TimeLimit | None:
        """After a timeout that is not the deadline's: the limit of the route's that it is of; None: the host library's."""
        return None

    def timed_out(self) -> None:
        """An operation's time was over: note whether that was the deadline's doing."""
        if self.deadline is not None and self._now() >= self.deadline - _ROUNDING:
            self.expired = True

    @contextmanager
    def ringing(self, stop: Callable[[], object]) -> Iterator[None]:
        """Where :attr:`alarmed`: ``stop`` ends what blocks inside, from another thread, once the deadline is over. Raises
        TimeoutError then; where it is over already, after ``stop`` and without what is inside. Elsewhere it does nothing.
        """
        if not self.alarmed:
            yield
            return
        assert self.deadline is not None
        rung: list[bool] = []

        def ring() -> None:
            rung.append(True)
            stop()

        prevent = ring_at(self.clock, self.deadline, ring)
        try:
            if not rung:
                yield
        finally:
            prevent()
            if rung:
                self.expired = True
                raise TimeoutError("the deadline is over")

    @property
    def wakes(self) -> bool:
        """Whether a wait on a connection that others share may have to end, and not the connection."""
        return False

    def begin_pending(self, limits: Connections) -> None:
        """No connection is ready for it: it is counted until ``end_pending``, once. Raises Overloaded at the limit."""
        if self._pending is not None:
            return
        if not limits.begin_pending():
            raise Overloaded("max_pending: too many calls wait for a connection already")
        self._pending = limits

    def end_pending(self) -> None:
        """It is connected, or given up."""
        limits, self._pending = self._pending, None
        if limits is not None:
            limits.end_pending()


class StreamBounds(Bounds):
    """The bounds of an attempt whose route limits its stream, too: how long nothing is read or written, and when the request is
    sent. These are in the system's time as the host library's timeouts.
    """

    __slots__ = ("_idle", "_limit", "_try_idle", "_written_by")

    def __init__(
        self, clock: Clock, attempt: Send, timeouts: Mapping[str, float | None] = _NO_TIMEOUTS
    ) -> None:
        super().__init__(clock, attempt.deadline, timeouts, attempt.connect_timeout)
        limits = attempt.limits
        self._idle = limits.idle if limits is not None else None
        self._written_by = limits.written_by if limits is not None else None
        self._try_idle = attempt.try_idle
        self._limit: TimeLimit | None = None

    @property
    def limit(self) -> TimeLimit | None:
        return None if self.expired else self._limit

    def left(self, name: str) -> float | None:
        seconds = super().left(name)
        if name not in _OF_BYTES:
            return seconds
        self._limit = None
        for most, limit in ((self._try_idle, None), (self._idle, TimeLimit.IDLE)):
            if most is not None and (seconds is None or most < seconds):
                seconds, self._limit = most, limit
        if name == "write" and self._written_by is not None:
            most = self._written_by - self._now()
            if seconds is None or most < seconds:
                seconds, self._limit = most, TimeLimit.REQUEST
            if seconds <= 0:
                raise TimeoutError("the request was not sent in time")
        return seconds


class HedgedBounds(StreamBounds):
    """The bounds of an attempt that another may overtake. ``stop``, from any thread, ends whatever it waits for, and all that it would
    wait for then: as its deadline would.

    Lock: guards what is to be stopped. It is held while that is stopped, so that a connection that the attempt has let go of is left alone.
    """

    __slots__ = ("_guard", "_stops", "_virtual", "keep", "stopped")

    def __init__(
        self, clock: Clock, attempt: Send, timeouts: Mapping[str, float | None] = _NO_TIMEOUTS
    ) -> None:
        super().__init__(clock, attempt, timeouts)
        self._virtual = self.alarmed
        self.alarmed = True
        self._guard = threading.Lock()
        self._stops: list[Callable[[], object]] = []
        self.stopped = False
        #: Has the other attempts given up, since what was sent cannot be sent again; gives the bounds of the one that goes on.
        self.keep: Callable[[], HedgedBounds | None] = lambda: None

    @property
    def wakes(self) -> bool:
        return self.alarmed

    def left(self, name: str) -> float | None:
        if self.stopped:
            raise self._over()
        seconds = super().left(name)
        if self.deadline is None or self._virtual:
            return seconds
        left = max(0.0, self.deadline - self._now())
        return left if seconds is None or left < seconds else seconds

    @contextmanager
    def ringing(self, stop: Callable[[], object]) -> Iterator[None]:
        with self._guard:
            if self.stopped:
                raise self._over()
            self._stops.append(stop)
        try:
            if self._virtual:
                with super().ringing(stop):
                    yield
            else:
                yield
        finally:
            with self._guard:
                self._stops.remove(stop)
            if self.stopped:
                raise self._over()

    def stop(self) -> None:
        """Another attempt is the call's."""
        with self._guard:
            self.stopped = True
            for stop in self._stops:
                stop()

    def win(self) -> None:
        """This one is: nobody stops it any more."""
        self.alarmed = self._virtual

    def _over(self) -> TimeoutError:
        self.expired = True  # it says nothing of the endpoint
        return TimeoutError("another attempt was answered first")
