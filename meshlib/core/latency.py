"""How long an endpoint took lately: quantiles of the last minute, at the cost of one step in a table a call.

Theory. A histogram with fixed bounds, each a tenth above the one below, from 10 µs to 1,000 s: a quantile is known to within
a twentieth. Time is cut into slices of ``SLICE`` seconds; a slice that is over is kept, and forgotten a
minute later. So what is read covers the last 45 to 60 seconds. A slice holds the buckets in which something was counted: its end
costs nothing, which of thousands of endpoints most calls bring about.

Not thread-safe: the lock of the endpoint's cluster guards it.
"""

from __future__ import annotations

from bisect import bisect

__all__ = ["SLICE", "Latency"]

#: Seconds of a slice, and how many that are over are kept.
SLICE = 15.0
_KEPT = 3

_STEP = 1.1
_BOUNDS = [1e-5 * _STEP**step for step in range(194)]
#: What is said of a bucket: the middle of its bounds.
_MIDDLES = [_BOUNDS[0] / _STEP**0.5, *(bound * _STEP**0.5 for bound in _BOUNDS)]


class Latency:
    """Seconds from now and a minute ago. ``now`` is monotonic seconds and does not go back."""

    __slots__ = ("_counts", "_ends", "_past")

    def __init__(self, now: float) -> None:
        self._counts: dict[int, int] = {}  # by bucket
        self._ends = now + SLICE
        self._past: tuple[dict[int, int], ...] = ()  # the slices that are over

    def add(self, seconds: float, now: float) -> None:
        if now >= self._ends:
            self._turn(now)
        counts, bucket = self._counts, bisect(_BOUNDS, seconds)
        counts[bucket] = counts.get(bucket, 0) + 1

    @property
    def count(self) -> int:
        """How many values a ``quantiles`` just now went by."""
        return sum(sum(slice_.values()) for slice_ in (self._counts, *self._past))

    def quantiles(self, shares: tuple[float, ...], now: float) -> tuple[float, ...] | None:
        """The seconds within which these shares of what was added stayed; None where nothing was. ``shares`` ascend."""
        if now >= self._ends:
            self._turn(now)
        merged = [0] * len(_MIDDLES)
        for slice_ in (self._counts, *self._past):
            for bucket, count in slice_.items():
                merged[bucket] += count
        total = sum(merged)
        if not total:
            return None
        found, seen, bucket = [], 0, -1
        for share in shares:
            while not seen or seen < share * total:
                bucket += 1
                seen += merged[bucket]
            found.append(_MIDDLES[bucket])
        return tuple(found)

    def _turn(self, now: float) -> None:
        """The present slice is over, and perhaps others in which nothing happened."""
        over = int((now - self._ends) // SLICE) + 1
        self._past = (*self._past, self._counts, *({} for _ in range(min(over - 1, _KEPT))))[-_KEPT:]
        self._counts = {}
        self._ends += over * SLICE
