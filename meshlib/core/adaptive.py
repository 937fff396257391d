"""A limit of calls in flight that follows latency: as many as the service takes without queueing.

Theory. As long as a service is not busy, its latency does not depend on how many calls are in flight; past that point each further call
only waits. So the limit grows while latency is what it is at its best, and shrinks as it rises (the *gradient* of Netflix's
concurrency-limits, and of Envoy's filter). Calls are looked at in windows of at least ``WINDOW`` seconds and ``SAMPLES`` good answers:

    best      = the lowest mean of a window; it rises by ``DRIFT`` a second towards what is measured, so that a service which
                became slower for good is not held to what it was
    gradient  = TOLERANCE × best / mean, from 1/2 to 1
    next      = limit × gradient + √limit                 the root lets it grow, and lets bursts through
    failed    = a window in which calls failed or were not answered never raises the limit, and lowers it by ``BACKOFF``

A limit that is not used does not grow: where less than half of it was in flight nothing is known of more. And a window without a single
good answer ends by its time: a service that answers nothing gets fewer calls each window, down to ``least``. That is where a limit
that goes by the latency of all calls runs away: when every call times out, all take equally long, and that looks like the best there is.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.model.policy import Adaptive

__all__ = ["AdaptiveLimit"]

#: Seconds, and good answers, of a window at least.
WINDOW = 0.1
SAMPLES = 10
#: Seconds after which a window ends with however few answers.
_LONGEST = 1.0
#: Latency may be so many times the best before the limit shrinks (Netflix's gradient2: 1.5).
TOLERANCE = 1.5
#: By what share the best rises a second.
DRIFT = 0.02
#: What failures leave of a limit, each window.
BACKOFF = 0.9
#: How much of the way to a higher limit is gone each window.
_RISE = 0.3
#: Calls in flight at first, within the bounds.
_FIRST = 20.0


class AdaptiveLimit:
    """Not thread-safe: its cluster's lock guards it. ``limit``: so many calls may be in flight now."""

    __slots__ = ("_began", "_best", "_count", "_failed", "_most", "_seconds", "_settings", "_value", "limit")

    def __init__(self, settings: Adaptive, now: float) -> None:
        self._settings = settings
        self._best = 0.0
        self._most = 0
        self._value = min(max(_FIRST, settings.least), settings.most)
        self.limit = int(self._value)
        self._begin(now)

    def configure(self, settings: Adaptive) -> None:
        """Other bounds; what is known stays."""
        self._settings = settings
        self._put(self._value)

    def hear(self, seconds: float, active: int, now: float, *, good: bool) -> None:
        """A call was answered after so many ``seconds``, or failed; ``active`` were in flight with it."""
        if good:
            self._count += 1
            self._seconds += seconds
        else:
            self._failed += 1
        self._most = max(self._most, active)
        age = now - self._began
        if (age >= WINDOW and self._count >= SAMPLES) or age >= _LONGEST:
            self._judge(age)
            self._begin(now)

    def _judge(self, age: float) -> None:
        value = self._value
        if self._count:
            mean = self._seconds / self._count
            risen = self._best * (1.0 + DRIFT * min(age, 1.0)) if self._best else mean
            self._best = max(min(risen, mean), 1e-6)
            gradient = min(1.0, max(0.5, TOLERANCE * self._best / mean if mean else 1.0))
            value = value * gradient + sqrt(value)
        if self._failed:
            value = min(value, self._value * BACKOFF)
        if value > self._value:
            if 2 * self._most < self._value:
                return
            value = self._value + _RISE * (value - self._value)
        self._put(value)

    def _put(self, value: float) -> None:
        self._value = min(max(value, float(self._settings.least)), float(self._settings.most))
        self.limit = int(self._value)

    def _begin(self, now: float) -> None:
        self._began: float = now
        self._count: int = 0
        self._failed: int = 0
        self._most = 0
        self._seconds: float = 0.0
