"""Where time comes from. Everything that measures is given a clock; tests give a virtual one."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "MonotonicClock"]


class Clock(Protocol):
    """Thread-safe."""

    def now(self) -> float:
        """Monotonic seconds, from any origin."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...


class MonotonicClock:
    """The system's. ``now`` is unmoved by changes of the date."""

    __slots__ = ()

    #: The function itself: a call asks a dozen times.
    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
