"""What every picker is, and which one a cluster asks for.

Theory. A picker is made for one set of endpoints, all of them usable, and is thrown away with it: when an endpoint comes,
leaves, or changes its weight or health, a new one is made. So a pick never has to look whether an endpoint may be
called, and costs the same for 5 and for 10,000. What must outlive it (calls in flight, ejections) is kept in
:class:`~meshlib.core.endpoint.LiveEndpoint`, which survives; hence a new picker inherits all counters.

The consistent-hashing balancers look at all endpoints of a priority at once, whatever their localities (:func:`make_table`).

A picker is not thread-safe: the cluster that owns it calls it under its own lock. The holder of the pick counts it as
active, not the picker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.core.balance.bounded import Bounded
from meshlib.core.balance.first import First
from meshlib.core.balance.least import FullScan, LeastRequest, WeightedLeastRequest
from meshlib.core.balance.maglev import Maglev
from meshlib.core.balance.orca import OrcaRoundRobin
from meshlib.core.balance.peak import PeakEwma
from meshlib.core.balance.rand import Random
from meshlib.core.balance.ring import Ring
from meshlib.core.balance.robin import RoundRobin, WeightedRoundRobin
from meshlib.core.balance.warming import Warming
from meshlib.model.policy import Balancer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.balance.consistent import Table
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext
    from meshlib.model.policy import Balancing

__all__ = ["Picker", "make_picker", "make_table"]


class Picker(Protocol):
    """Chooses among the endpoints that it was made for, at least one."""

    def pick(self, context: PickContext) -> LiveEndpoint:
        """The next endpoint."""
        ...

    def peek(self, context: PickContext) -> LiveEndpoint:
        """What ``pick`` would give now, or, where chance decides, might give. Moves nothing on."""
        ...


def make_picker(
    balancing: Balancing, endpoints: Sequence[LiveEndpoint], random: Callable[[], float], own: int = 0
) -> Picker:
    """The picker that ``balancing`` orders, where that is none of consistent hashing, with its slow start. ``endpoints`` is kept, not copied; ``random``
    gives floats in [0, 1); ``own`` stands for this caller among others.

    Weights count in all but ``RANDOM`` and ``PICK_FIRST``, as in Envoy; where they are all the same, the cheaper form without weights
    is taken.
    """
    made = _picker(balancing, endpoints, random, own)
    if balancing.slow_start is None:
        return made
    return Warming(made, endpoints, balancing.slow_start, random)


def _picker(
    balancing: Balancing, endpoints: Sequence[LiveEndpoint], random: Callable[[], float], own: int
) -> Picker:
    kind = balancing.kind
    if kind is Balancer.RANDOM:
        return Random(endpoints, random)
    if kind is Balancer.PICK_FIRST:
        return First(endpoints, own if balancing.shuffled else None)
    if kind is Balancer.ORCA:
        return OrcaRoundRobin(endpoints, random, balancing.reports)
    even = not balancing.endpoint_weights or _even(endpoints)
    if kind is Balancer.PEAK_EWMA:
        return PeakEwma(endpoints, random, weighted=not even)
    if kind is Balancer.LEAST_REQUEST:
        if not even:
            return WeightedLeastRequest(endpoints, random, balancing.active_request_bias)
        if balancing.full_scan:
            return FullScan(endpoints, random)
        return LeastRequest(endpoints, random, balancing.choice_count)
    return RoundRobin(endpoints, random) if even else WeightedRoundRobin(endpoints, random)


def make_table(balancing: Balancing, weighted: Sequence[tuple[LiveEndpoint, float]]) -> Table:
    """The table of ring hash or of Maglev. ``weighted``: endpoints with their parts of the calls."""
    made: Table
    if balancing.kind is Balancer.MAGLEV:
        made = Maglev(weighted, balancing.table_size, hostname=balancing.hash_hostname)
    else:
        made = Ring(
            weighted,
            balancing.least_places,
            balancing.most_places,
            hostname=balancing.hash_hostname,
            murmur=balancing.murmur,
        )
    return Bounded(made, weighted, balancing.load_factor) if balancing.load_factor else made


def _even(endpoints: Sequence[LiveEndpoint]) -> bool:
    return len({endpoint.weight for endpoint in endpoints}) == 1
