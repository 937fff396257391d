"""Where time comes from. Everything that measures is given a clock; tests give a virtual one."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "MonotonicClock"]


class Clock(Protocol):
    """Monotonic seconds as a float, from any origin. Thread-safe."""

    def now(self) -> float: ...


class MonotonicClock:
    """The system's: unmoved by changes of the date."""

    __slots__ = ()

    #: The function itself: a call asks a dozen times.
    now = staticmethod(time.monotonic)
