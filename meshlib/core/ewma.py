"""How long an endpoint takes lately, as peak EWMA counts it (`meshlib.core.balance.peak`).

The mean decays with time, by e in ``DECAY`` seconds; a latency that is longer takes its place at once. A failure counts as a long one.
"""

from __future__ import annotations

from math import exp

__all__ = ["DECAY", "LEAST_PENALTY", "PENALTY", "Ewma"]

#: Seconds: linkerd's and Finagle's.
DECAY = 10.0
#: What a failure costs: as much as so many calls, and at least so many seconds.
PENALTY = 10.0
LEAST_PENALTY = 1.0


class Ewma:
    """How long an endpoint takes lately, in seconds. Guarded by the lock of its cluster."""

    __slots__ = ("at", "seconds")

    def __init__(self, now: float) -> None:
        self.seconds = 0.0
        self.at = now

    def add(self, seconds: float, now: float, *, good: bool) -> None:
        """An attempt that took so long, up to its response's head."""
        before = self.decayed(now)
        if not good:
            seconds = max(seconds, before * PENALTY, LEAST_PENALTY)
        if seconds <= before:
            weight = exp(-max(0.0, now - self.at) / DECAY)
            seconds = self.seconds * weight + seconds * (1.0 - weight)
        self.seconds, self.at = seconds, now

    def decayed(self, now: float) -> float:
        """What is left of it without another call."""
        return self.seconds * exp(-max(0.0, now - self.at) / DECAY)
