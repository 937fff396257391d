"""Consistent hashing with bounded loads: an endpoint that has too much in flight passes on to others.

Theory (Mirrokni and others, "Consistent hashing with bounded loads", 2016; the jump is of Chen and others, 2019). No endpoint has
more than ``factor`` percent of what would be its part of the calls in flight, rounded up. A request whose endpoint is full goes to one
after the other in an order that chance gives, the same for the same hash: so the load of a full one is spread over all, and does not
fall on the next.

O(1) while nobody is full, O(n) when all but one are.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meshlib.core.balance.consistent import Table
    from meshlib.core.endpoint import LiveEndpoint

__all__ = ["Bounded"]

_MASK = (1 << 64) - 1


class Bounded:
    """``inner`` over ``weighted``, bounded by ``factor`` (Envoy ``hash_balance_factor``, percent, at least 100)."""

    __slots__ = ("_endpoints", "_factor", "_inner", "_parts")

    def __init__(
        self,
        inner: Table,
        weighted: Sequence[tuple[LiveEndpoint, float]],
        factor: int,
    ) -> None:
        self._inner = inner
        self._factor = factor
        self._endpoints = [endpoint for endpoint, _ in weighted]
        self._parts = dict(weighted)

    def at(self, value: int, attempt: int, active: int) -> LiveEndpoint:
        first = self._inner.at(value, attempt, active)
        best, least = first, self._fill(first, active)
        if least <= 1.0:
            return first
        order = list(self._endpoints)
        draws = _draws(value)
        for at in range(len(order)):
            other = at + next(draws) % (len(order) - at)
            order[at], order[other] = order[other], order[at]
            fill = self._fill(order[at], active)
            if fill <= 1.0:
                return order[at]
            if fill < least:
                best, least = order[at], fill
        return best

    def _fill(self, endpoint: LiveEndpoint, active: int) -> float:
        """How full it is: 1 is as much as it may have."""
        slots = ((active + 1) * self._factor + 99) // 100
        return endpoint.active / max(1, ceil(slots * self._parts[endpoint]))


def _draws(seed: int) -> Iterator[int]:
    """Numbers of 64 bits by chance, the same for the same seed (SplitMix64: Steele and others, 2014)."""
    while True:
        seed = seed + 0x9E3779B97F4A7C15 & _MASK
        mixed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
        yield mixed ^ mixed >> 31
