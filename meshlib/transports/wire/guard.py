"""The bounds of one attempt, and how they reach the sockets.

httpcore hands each operation a timeout from the request's ``extensions["timeout"]``. A :class:`Guard` stands in that
place: it answers with an :class:`Op`, which our streams turn into seconds at the moment of the operation, so that the
attempt's deadline holds for every read and write though httpcore knows nothing of it; and a write through it records
that a byte of the request may have left.

An attempt that finds no connection ready is pending until one is connected for it, whether it waits for another's or opens
its own: so Envoy counts ``max_pending_requests`` (measured with 1.40).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meshlib.errors import Overloaded

if TYPE_CHECKING:
    from meshlib.core.upstream import Connections

__all__ = ["Alarm", "Guard", "Op", "seconds_left"]

_NO_TIMEOUTS: Mapping[str, float | None] = {}


Alarm = Callable[[float, Callable[[], object]], Callable[[], object]]


class Op:
    """One kind of operation of one attempt."""

    __slots__ = ("guard", "seconds")

    def __init__(self, guard: Guard, seconds: float | None) -> None:
        self.guard = guard
        self.seconds = seconds


class Guard:
    """Deadline, the host library's own timeouts, whether the attempt is pending, and whether anything was sent. One
    attempt's; not thread-safe.

    ``deadline`` is absolute on ``clock``; ``expired`` tells after a timeout whether it was the deadline's. ``alarm`` is that
    of a virtual clock (:mod:`meshlib.runtime.clock`): then no seconds stand for the deadline, and whoever blocks does so
    within :meth:`ringing`. The host library's own timeouts are in the system's time in any case.
    """

    __slots__ = ("_connect", "_pending", "_timeouts", "alarm", "clock", "deadline", "expired", "sent")

    def __init__(
        self,
        clock: Callable[[], float],
        deadline: float | None,
        timeouts: Mapping[str, float | None] = _NO_TIMEOUTS,
        connect: float | None = None,
        alarm: Alarm | None = None,
    ) -> None:
        self.clock = clock
        self.alarm = alarm if deadline is not None else None
        self.deadline = deadline
        self._timeouts = timeouts
        self._connect = connect
        self._pending: Connections | None = None
        self.sent = False
        self.expired = False

    def get(self, name: str, _default: object = None) -> Op:
        """What httpcore asks by ``connect``, ``read``, ``write`` or ``pool``. A new one each time: one that was kept
        would hold its guard, which holds it, and wait for the garbage collector.
        """
        return Op(self, self.seconds(name))

    def seconds(self, name: str) -> float | None:
        """What an operation of that name may take by itself; None: no bound of its own."""
        own = self._timeouts.get(name)
        if name == "connect" and self._connect is not None and (own is None or self._connect < own):
            return self._connect
        return own

    def left(self, seconds: float | None) -> float | None:
        """Seconds that an operation may take now, or None for no bound. Raises TimeoutError where there are none."""
        deadline = self.deadline
        if deadline is None:
            return seconds
        left = deadline - self.clock()
        if left <= 0:
            self.expired = True
            raise TimeoutError("the deadline is over")
        if self.alarm is None and (seconds is None or left < seconds):
            return left
        return seconds

    @contextmanager
    def ringing(self, stop: Callable[[], object]) -> Iterator[None]:
        """On a virtual clock: ``stop`` ends what blocks inside, from another thread, once the deadline is over. Raises
        TimeoutError then.
        """
        assert self.alarm is not None
        assert self.deadline is not None
        rung: list[bool] = []

        def ring() -> None:
            rung.append(True)
            stop()

        cancel = self.alarm(self.deadline - self.clock(), ring)
        try:
            yield
        finally:
            cancel()
            if rung:
                self.expired = True
                raise TimeoutError("the deadline is over")

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

    def note_sent(self) -> None:
        """A byte of the request may leave now."""
        self.sent = True
        if self._pending is not None:
            self.end_pending()

    def note_timeout(self) -> None:
        """An operation timed out: remember whether it was for the deadline."""
        if self.deadline is not None and self.clock() >= self.deadline - 0.001:
            self.expired = True


def seconds_left(timeout: Op | float | None) -> float | None:
    """What a stream's ``timeout`` argument allows now. Raises TimeoutError where nothing is left."""
    if timeout is None or isinstance(timeout, float | int):
        return timeout
    return timeout.guard.left(timeout.seconds)
