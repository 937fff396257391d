"""Random: each pick on its own, by weight."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext

__all__ = ["Random", "WeightedRandom"]


class Random:
    """Endpoints of one weight."""

    __slots__ = ("_endpoints", "_random")

    def __init__(self, endpoints: Sequence[LiveEndpoint], random: Callable[[], float]) -> None:
        self._endpoints = endpoints
        self._random = random

    def pick(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        endpoints = self._endpoints
        return endpoints[int(self._random() * len(endpoints))]

    peek = pick


class WeightedRandom:
    """A point on the line of all weights, found by bisection: O(log n) in C."""

    __slots__ = ("_endpoints", "_ends", "_random", "_total")

    def __init__(self, endpoints: Sequence[LiveEndpoint], random: Callable[[], float]) -> None:
        self._endpoints = endpoints
        self._random = random
        self._ends = list(accumulate(endpoint.weight for endpoint in endpoints))
        self._total = self._ends[-1]

    def pick(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        # int() keeps a point that rounding put on the very end within it.
        return self._endpoints[
            bisect_right(self._ends, min(int(self._random() * self._total), self._total - 1))
        ]

    peek = pick
