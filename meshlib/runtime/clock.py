"""Where time comes from. Everything that measures or waits is given a clock; tests give a virtual one.

The system's clock moves by itself: who waits for an event, a socket or a task bounds the wait by seconds, and that is that.
A virtual clock (:class:`meshlib.testing.VirtualClock`) moves when a test says so, and no number of seconds bounds anything:
there whoever waits asks for an alarm, which ends the wait, in the thread that moves the time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

__all__ = ["Clock", "MonotonicClock", "ring_at"]


class Clock(Protocol):
    """Thread-safe."""

    @property
    def virtual(self) -> bool:
        """Whether somebody else moves it, so that whoever waits needs its alarm."""
        ...

    def now(self) -> float:
        """Monotonic seconds, from any origin."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...

    def instant(self, monotonic: float) -> float:
        """What ``now`` was when the system's monotonic clock said ``monotonic``, which is no time to come."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the thread for that long."""
        ...

    async def sleep_async(self, seconds: float) -> None:
        """The same for a task, of asyncio or trio."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Block until ``event`` is set; False: the time was over first, and ``event``, which nobody else waits for, may be
        set all the same.
        """
        ...

    def alarm(self, when: float, call: Callable[[], object]) -> Callable[[], bool]:
        """Of a virtual clock: have ``call`` called by whoever moves it to ``when``, or moves it next where it has come there; what is
        returned prevents it, and is False where it was called.
        """
        ...


class MonotonicClock:
    """The system's. ``now`` is unmoved by changes of the date."""

    __slots__ = ()

    virtual = False
    #: The function itself: a call asks a dozen times.
    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(time.sleep)

    def instant(self, monotonic: float) -> float:
        return monotonic

    async def sleep_async(self, seconds: float) -> None:
        import anyio

        await anyio.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)

    def alarm(self, when: float, call: Callable[[], object]) -> Callable[[], bool]:
        raise NotImplementedError("this clock moves by itself: bound the wait by seconds")


def ring_at(clock: Clock, when: float, call: Callable[[], object]) -> Callable[[], bool]:
    """The alarm of a virtual clock for who blocks until it rings: at once where the clock has come to ``when``, since nobody may move it
    any more.
    """
    prevent = clock.alarm(when, call)
    if clock.now() >= when and prevent():
        call()
    return prevent
