"""Least request: the less busy of a few (LB-06).

Theory. Of ``choice_count`` endpoints drawn by chance the one with the fewest calls in flight is taken. Two choices
already keep the busiest queue near the mean (Mitzenmacher, "The power of two choices", 1996), and many clients that do
not know each other do not all run to the same idle endpoint, as they would if each took the least busy of all. The same
endpoint may be drawn twice, as in Envoy and gRPC. A *full scan* looks at all, and draws among those that have the fewest: the best
for one caller with few endpoints, O(n).

Where weights differ Envoy schedules by weight instead, each turn weighed by weight / (active + 1) ^ bias at that moment:
a bias of 0 ignores what is in flight, a greater one shuns the busy more.
"""

from __future__ import annotations

from math import pow as power
from typing import TYPE_CHECKING

from meshlib.core.balance.edf import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext

__all__ = ["FullScan", "LeastRequest", "WeightedLeastRequest"]

#: A weight never falls to nothing, whatever the bias: the turn must come some day.
_LEAST_WEIGHT = 1e-9
#: A count from the network must not make a pick long; more choices than these change nothing that can be measured.
_MOST_CHOICES = 32


class LeastRequest:
    """Endpoints of one weight. ``choices`` below 1 count as 1, above 32 as 32."""

    __slots__ = ("_choices", "_endpoints", "_random")

    def __init__(
        self, endpoints: Sequence[LiveEndpoint], random: Callable[[], float], choices: int = 2
    ) -> None:
        self._endpoints = endpoints
        self._random = random
        self._choices = min(choices, _MOST_CHOICES)

    def pick(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        endpoints, random = self._endpoints, self._random
        count = len(endpoints)
        best = endpoints[int(random() * count)]
        for _ in range(self._choices - 1):
            other = endpoints[int(random() * count)]
            if other.active < best.active:
                best = other
        return best

    peek = pick


class FullScan:
    """Of all endpoints, which have one weight, one of those with the fewest calls in flight."""

    __slots__ = ("_endpoints", "_random")

    def __init__(self, endpoints: Sequence[LiveEndpoint], random: Callable[[], float]) -> None:
        self._endpoints = endpoints
        self._random = random

    def pick(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        fewest = min(endpoint.active for endpoint in self._endpoints)
        idle = [endpoint for endpoint in self._endpoints if endpoint.active == fewest]
        return idle[int(self._random() * len(idle))]

    peek = pick


class WeightedLeastRequest:
    """Turns by weight and by what is in flight. ``bias`` is Envoy's ``active_request_bias``, not negative."""

    __slots__ = ("_schedule",)

    def __init__(
        self, endpoints: Sequence[LiveEndpoint], random: Callable[[], float], bias: float = 1.0
    ) -> None:
        self._schedule = Schedule(endpoints, random, _by_activity(bias))

    def pick(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        return self._schedule.next()

    def peek(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        return self._schedule.peek()


def _by_activity(bias: float) -> Callable[[LiveEndpoint], float]:
    if bias == 0.0:
        return lambda endpoint: endpoint.weight
    if bias == 1.0:
        return lambda endpoint: endpoint.weight / (endpoint.active + 1)

    def weigh(endpoint: LiveEndpoint) -> float:
        try:
            return max(_LEAST_WEIGHT, endpoint.weight / power(endpoint.active + 1, bias))
        except OverflowError:
            return _LEAST_WEIGHT

    return weigh
