"""Consistent hashing: how a request's hash leads to an endpoint by a table, and to another one.

Tables (`ring`, `maglev`, and `bounded` over one of them) take long to make: tens of milliseconds for thousands of places. So a table is
of all endpoints that the control plane lets be called, and one that is ejected for a while is passed over as if it had no place: whoever
is ejected or returns has no other table made, and moves nobody else's keys. Tables that may be needed again are kept
(:class:`Tables`).

The hash of a call is the same for all its attempts, so that a second attempt, which avoids the endpoints of those before, goes on
from where the hash led: each table says itself where that is. A call that has no hash is given one by chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.core.balance.warming import part_of, warm_at
from meshlib.core.hashing import drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext
    from meshlib.model.policy import SlowStart

__all__ = ["Consistent", "Table", "Tables", "hash_key"]

#: Steps to an endpoint that is wanted, before any other that is.
_STEPS = 8
#: Tables that a cluster keeps: of its levels, with and without panic, for HTTP and for gRPC.
_MOST_TABLES = 8
#: 2^64 by the golden ratio (Knuth, "The art of computer programming", 6.4): spreads hashes that are near each other.
_SPREAD = 0x9E3779B97F4A7C15
_WHOLE = 1 << 64


class Table(Protocol):
    """Immutable."""

    def at(self, value: int, attempt: int, active: int) -> LiveEndpoint:
        """Where this hash leads; ``attempt``: how often it led to one that is not wanted; ``active``: calls in flight in the cluster."""
        ...


class Consistent:
    """Picks by ``table``, which is of ``endpoints``. ``all_of_them``: those that are down are called, too (panic). ``slow``: those that are
    new get their keys one after the other (`warming`).
    """

    __slots__ = ("_all", "_endpoints", "_random", "_slow", "_table", "_warm_at")

    def __init__(
        self,
        table: Table,
        endpoints: Sequence[LiveEndpoint],
        random: Callable[[], float],
        *,
        all_of_them: bool = False,
        slow: SlowStart | None = None,
    ) -> None:
        self._table = table
        self._endpoints = endpoints
        self._random = random
        self._all = all_of_them
        self._slow = slow
        self._warm_at = 0.0 if slow is None else warm_at(endpoints, slow)

    def pick(self, context: PickContext) -> LiveEndpoint:
        value = drawn(self._random) if context.hash is None else context.hash
        first = self._table.at(value, 0, context.active)
        if self._wanted(first, value, context):
            return first
        for attempt in range(1, _STEPS):
            other = self._table.at(value, attempt, context.active)
            if self._wanted(other, value, context):
                return other
        up = [endpoint for endpoint in self._endpoints if self._all or not endpoint.down]
        left = [endpoint for endpoint in up if endpoint not in context.tried]
        others = left or up or self._endpoints
        return others[value % len(others)]

    peek = pick

    def _wanted(self, endpoint: LiveEndpoint, value: int, context: PickContext) -> bool:
        if (endpoint.down and not self._all) or endpoint in context.tried:
            return False
        if self._slow is None or context.now >= self._warm_at:
            return True
        return value * _SPREAD % _WHOLE < part_of(endpoint, self._slow, context.now) * _WHOLE


class Tables:
    """The last tables of a cluster. Whoever asks for one that another makes just then may make it, too."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[object, Table] = {}

    def get(self, key: object, make: Callable[[], Table]) -> Table:
        """The table of ``key``, made if it is not kept."""
        kept = self._kept
        table = kept.pop(key, None)
        if table is None:
            table = make()
        kept[key] = table
        while len(kept) > _MOST_TABLES:
            kept.pop(next(iter(kept)), None)
        return table


def hash_key(endpoint: LiveEndpoint, *, hostname: bool = False) -> bytes:
    """What stands for an endpoint in a table (LB-04): the ``hash_key`` of its metadata under ``envoy.lb``, else its hostname
    where that is wanted, else its address.
    """
    told = endpoint.endpoint.metadata.get("envoy.lb", {}).get("hash_key")
    address = endpoint.address
    if isinstance(told, str) and told:
        text = told
    elif hostname and endpoint.hostname:
        text = endpoint.hostname
    else:
        text = address.host if address.unix else str(address)
    return text.encode("utf-8", "surrogatepass")
