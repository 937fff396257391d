"""Peak EWMA: of two endpoints drawn by chance, the one that would be done sooner.

Theory (Finagle's and linkerd's). What an endpoint costs is how long its answers take lately, times the calls that it would have in flight.
The mean of its latencies decays with time, by e in ``DECAY`` seconds; one that is longer than the mean takes its place at once: an
endpoint that turns slow is left within one call, and comes back as time goes by, since the mean decays without calls, too. Two drawn
by chance are enough, and do not make all callers run to the same one.

A *failure costs latency*: an endpoint that fails at once would else look like the fastest. It counts as taking ``PENALTY`` times what a
call takes on it, at least ``LEAST_PENALTY`` seconds. An endpoint that nobody called yet costs what is usual, ``DEFAULT`` seconds, and
with a call in flight as much as can be: no crowd tries it out.

Where weights differ, the cost is divided by the weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext

__all__ = ["DEFAULT", "PeakEwma"]

#: Seconds that an endpoint costs of which nothing is known (linkerd: 30 ms).
DEFAULT = 0.03
#: One that nobody knows and that is being tried: never better than one that is known.
_UNTRIED = 1e6


class PeakEwma:
    """The cheaper of two."""

    __slots__ = ("_endpoints", "_random", "_weighted")

    def __init__(
        self, endpoints: Sequence[LiveEndpoint], random: Callable[[], float], *, weighted: bool
    ) -> None:
        self._endpoints = endpoints
        self._random = random
        self._weighted = weighted

    def pick(self, context: PickContext) -> LiveEndpoint:
        endpoints, count = self._endpoints, len(self._endpoints)
        if count == 1:
            return endpoints[0]
        first = int(self._random() * count)
        second = int(self._random() * (count - 1))
        one, other = endpoints[first], endpoints[second + (second >= first)]
        return one if self._cost(one, context.now) <= self._cost(other, context.now) else other

    peek = pick

    def _cost(self, endpoint: LiveEndpoint, now: float) -> float:
        ewma = endpoint.ewma
        if ewma is None:
            cost = _UNTRIED if endpoint.active else DEFAULT
        else:
            cost = max(ewma.decayed(now), 1e-6) * (endpoint.active + 1)
        return cost / endpoint.weight if self._weighted else cost
