"""Which cluster a call to an aggregate goes to (CD-04, DV-11).

Theory. An aggregate has no endpoints. It names clusters, its *leaves*, in the order in which they are to be used; what a call meets
there is the leaf's own: balancer, limits, TLS, outlier detection, connections.

HTTP calls follow Envoy (measured with 1.40). The priorities of all leaves stand one after the other, those without endpoints left
out, and share the load as the priorities of one cluster do (`core.locality`), by the aggregate's panic threshold; the leaf's own
threshold says who is called there. The draw gives the leaf, the priority and whether its degraded endpoints are meant:

    leaf   priority   usable    load                      called there
    -----  ---------  --------  ------------------------  ------------------------------------
    one    0          50 %      70 %                      the usable
    two    0          100 %     30 %                      the usable
    ----- or, where all are worse than the threshold ----------------------------------------
    one    0          1 of 4    50 %, since 4 of 8        all four, since leaf one panics, too
    two    0          1 of 4    50 %                      all four

A leaf that hashes has its own say about the priority, and only the leaf is drawn: by chance, not by the hash.

Calls of gRPC go to the first leaf that has an endpoint that can be called and connected to (gRFC A75), and where none has, to the
first that has one that may be called.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from meshlib.core.levels import level_loads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.core.levels import LevelHealth
    from meshlib.core.locality import Balance

__all__ = ["Place", "Split", "first_reached", "split"]


class Place(NamedTuple):
    """The number of a leaf, the priority of a level there, and whether its degraded endpoints are meant."""

    leaf: int
    level: int
    degraded: bool


class Split(NamedTuple):
    """Places with the ends of their parts of the load. ``percent``: of each leaf, by its number."""

    places: tuple[Place, ...]
    ends: tuple[int, ...]
    percent: tuple[int, ...]

    def draw(self, random: float) -> Place:
        """``random`` in [0, 1)."""
        places = self.places
        return places[bisect_right(self.ends, random * self.ends[-1])] if len(places) > 1 else places[0]


def split(leaves: Sequence[Sequence[LevelHealth]], threshold: float) -> Split | None:
    """How the load falls on the levels of ``leaves``; ``threshold``: of panic, the aggregate's. None: no leaf has an endpoint."""
    rows = [(leaf, level) for leaf, levels in enumerate(leaves) for level in levels if level.total]
    if not rows:
        return None
    first, second = level_loads([level for _, level in rows], threshold)
    percent = [0] * len(leaves)
    parts: list[tuple[int, Place]] = []
    for (leaf, level), usable, degraded in zip(rows, first, second, strict=True):
        percent[leaf] += usable + degraded
        parts += [(usable, Place(leaf, level.priority, False)), (degraded, Place(leaf, level.priority, True))]
    parts = [(load, place) for load, place in parts if load]
    if not parts:  # nobody is usable and health counts: the first leaf says that, as in Envoy
        leaf, level = rows[0]
        percent[leaf], parts = 100, [(100, Place(leaf, level.priority, False))]
    ends = tuple(accumulate(load for load, _ in parts))
    return Split(tuple(place for _, place in parts), ends, tuple(percent))


def first_reached(leaves: Sequence[Balance]) -> int | None:
    """The number of the leaf that an RPC goes to; None: none has anybody to call."""
    usable = None
    for number, balance in enumerate(leaves):
        if balance.empty:
            continue
        if balance.reached:
            return number
        if usable is None:
            usable = number
    return usable
