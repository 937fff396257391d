"""Weighted round robin by what endpoints say of their own load (`meshlib.core.reported`).

An endpoint that has no weight now has the mean of the others; with fewer than two weights all count alike. Weights are made anew each
``update`` seconds, at the pick that comes then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.balance.edf import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext
    from meshlib.model.policy import Reports

__all__ = ["OrcaRoundRobin"]

_LEAST_UPDATE = 0.1  # gRFC A58


class OrcaRoundRobin:
    """Turns in proportion to the weights that the endpoints' reports give."""

    __slots__ = ("_endpoints", "_next", "_random", "_reports", "_schedule", "_weights")

    def __init__(
        self, endpoints: Sequence[LiveEndpoint], random: Callable[[], float], reports: Reports
    ) -> None:
        self._endpoints = endpoints
        self._random = random
        self._reports = reports
        self._next = 0.0
        self._weights: dict[LiveEndpoint, float] = {}
        self._schedule = Schedule(endpoints, random, self._weight)

    def pick(self, context: PickContext) -> LiveEndpoint:
        if context.now >= self._next:
            self._update(context.now)
        return self._schedule.next()

    def peek(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        return self._schedule.peek()

    def _update(self, now: float) -> None:
        self._next = now + max(_LEAST_UPDATE, self._reports.update)
        found = {
            endpoint: weight
            for endpoint in self._endpoints
            if endpoint.reported is not None and (weight := endpoint.reported.usable(self._reports, now))
        }
        weights: dict[LiveEndpoint, float] = {}
        if len(found) > 1:
            mean = sum(found.values()) / len(found)
            weights = {endpoint: found.get(endpoint, mean) for endpoint in self._endpoints}
        before, self._weights = self._weights, weights
        if bool(weights) is not bool(before):
            # Deadlines of another scale would let those that had their turn wait for long.
            self._schedule = Schedule(self._endpoints, self._random, self._weight)

    def _weight(self, endpoint: LiveEndpoint) -> float:
        return self._weights.get(endpoint, 1.0)
