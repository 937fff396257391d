"""Round robin: each in turn, from a random start (LB-01)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.balance.edf import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext

__all__ = ["RoundRobin", "WeightedRoundRobin"]


class RoundRobin:
    """Endpoints of one weight."""

    __slots__ = ("_endpoints", "_index")

    def __init__(self, endpoints: Sequence[LiveEndpoint], random: Callable[[], float]) -> None:
        self._endpoints = endpoints
        self._index = int(random() * len(endpoints))

    def pick(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        endpoints, index = self._endpoints, self._index
        endpoint = endpoints[index]
        index += 1
        self._index = index if index < len(endpoints) else 0
        return endpoint

    def peek(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        return self._endpoints[self._index]


class WeightedRoundRobin:
    """Turns in proportion to the weights."""

    __slots__ = ("_schedule",)

    def __init__(self, endpoints: Sequence[LiveEndpoint], random: Callable[[], float]) -> None:
        self._schedule = Schedule(endpoints, random, _weight)

    def pick(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        return self._schedule.next()

    def peek(self, context: PickContext) -> LiveEndpoint:  # noqa: ARG002 - the protocol's
        return self._schedule.peek()


def _weight(endpoint: LiveEndpoint) -> float:
    return endpoint.weight
