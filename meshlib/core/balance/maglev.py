"""Maglev: a table of endpoints that a hash is an index of (LB-05).

Theory (Eisenbud and others, "Maglev: a fast and reliable software network load balancer", 2016). Each endpoint has its own order of
all slots. They take turns, and whoever has the turn takes the first slot in its order that is free, until none is; those of less
weight pass turns. Shares are even to within a slot or two, a look-up is one step, and an endpoint that goes moves few slots of the
others. The table must be much larger than the number of endpoints, and its size a prime, so that each order reaches each slot.

A second attempt asks with another hash, made of the first.
"""

from __future__ import annotations

from array import array
from itertools import repeat
from operator import mod
from typing import TYPE_CHECKING

from meshlib.core.balance.consistent import hash_key
from meshlib.core.hashing import hash_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meshlib.core.endpoint import LiveEndpoint

__all__ = ["MOST_SLOTS", "TABLE_SIZE", "Maglev"]

#: Envoy's and the paper's size of a table.
TABLE_SIZE = 65_537
#: Slots at most, whatever is asked for (Envoy allows five million): 8 MB, and a second to fill. A prime, too.
MOST_SLOTS = 1_048_573
_MASK = (1 << 64) - 1


class Maglev:
    """``weighted``: endpoints with their parts of the calls. ``size``: of the table, a prime."""

    __slots__ = ("_endpoints", "_size", "_table")

    def __init__(
        self,
        weighted: Sequence[tuple[LiveEndpoint, float]],
        size: int = TABLE_SIZE,
        *,
        hostname: bool = False,
    ) -> None:
        # In the order of their keys: in whatever order endpoints come, the table is the same.
        keyed = sorted(
            ((hash_key(endpoint, hostname=hostname), endpoint, part) for endpoint, part in weighted),
            key=lambda item: item[0],
        )
        self._endpoints = [endpoint for _, endpoint, _ in keyed]
        self._size = min(size, MOST_SLOTS)
        self._table = _filled([(key, part) for key, _, part in keyed], self._size)

    def at(self, value: int, attempt: int, active: int) -> LiveEndpoint:  # noqa: ARG002 - loads do not matter
        if attempt:
            value ^= -attempt & _MASK
        return self._endpoints[self._table[value % self._size]]


def _filled(keyed: Sequence[tuple[bytes, float]], size: int) -> array[int]:
    """The table, of indexes of ``keyed``."""
    table = array("L", bytes(array("L").itemsize * size))
    free = bytearray(b"\1") * size
    orders = [_order(key, size, free) for key, _ in keyed]
    heaviest = max(part for _, part in keyed)
    due = [0.0] * len(keyed)
    left, turn = size, 0
    while True:
        turn += 1
        for index, (_, part) in enumerate(keyed):
            # The heaviest takes a slot at each turn, one of a third of its weight at each third.
            if turn * part < due[index]:
                continue
            due[index] += heaviest
            slot = next(orders[index])
            table[slot] = index
            free[slot] = 0
            left -= 1
            if not left:
                return table


def _order(key: bytes, size: int, free: bytearray) -> Iterator[int]:
    """The slots that are free when they are asked for, in this endpoint's order. Nothing of the loop is in Python."""
    offset, skip = hash_bytes(key) % size, hash_bytes(key, 1) % (size - 1) + 1
    return filter(free.__getitem__, map(mod, range(offset, offset + skip * size, skip), repeat(size)))
