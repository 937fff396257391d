"""What every picker is, and which one a cluster asks for.

Theory. A picker is made for one set of endpoints, all of them usable, and is thrown away with it: when an endpoint comes,
leaves, or changes its weight or health, a new one is made. So a pick never has to look whether an endpoint may be
called, and costs the same for 5 and for 10,000. What must outlive it (calls in flight, ejections) is kept in
:class:`~meshlib.core.endpoint.LiveEndpoint`, which survives; hence a new picker inherits all counters.

A picker is not thread-safe: the cluster that owns it calls it under its own lock. The holder of the pick counts it as
active, not the picker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.core.balance.least import LeastRequest, WeightedLeastRequest
from meshlib.core.balance.rand import Random
from meshlib.core.balance.robin import RoundRobin, WeightedRoundRobin
from meshlib.model.policy import Balancer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext
    from meshlib.model.policy import Balancing

__all__ = ["Picker", "make_picker"]


class Picker(Protocol):
    """Chooses among the endpoints that it was made for, at least one."""

    def pick(self, context: PickContext) -> LiveEndpoint:
        """The next endpoint."""
        ...

    def peek(self, context: PickContext) -> LiveEndpoint:
        """What ``pick`` would give now, or, where chance decides, might give. Moves nothing on."""
        ...


def make_picker(
    balancing: Balancing, endpoints: Sequence[LiveEndpoint], random: Callable[[], float]
) -> Picker:
    """The picker that ``balancing`` orders. ``endpoints`` is kept, not copied; ``random`` gives floats in [0, 1).

    Weights count in all but ``RANDOM``, as in Envoy; where they are all the same, the cheaper form without weights is
    taken.
    """
    if balancing.kind is Balancer.RANDOM:
        return Random(endpoints, random)
    even = not balancing.endpoint_weights or _even(endpoints)
    if balancing.kind is Balancer.LEAST_REQUEST:
        if even:
            return LeastRequest(endpoints, random, balancing.choice_count)
        return WeightedLeastRequest(endpoints, random, balancing.active_request_bias)
    return RoundRobin(endpoints, random) if even else WeightedRoundRobin(endpoints, random)


def _even(endpoints: Sequence[LiveEndpoint]) -> bool:
    return len({endpoint.weight for endpoint in endpoints}) == 1
