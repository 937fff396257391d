"""Ring hash (LB-03, LB-04): endpoints have many places on a circle of hashes, a request goes to the next one.

Theory (Karger and others, "Consistent hashing and random trees", 1997; the details are ketama's, as Envoy has them). Each endpoint has
places in proportion to its part of the calls, at the hashes of its key with a number. An endpoint that comes or goes moves only
what lies between its places and those before. The ring has so many places that the least endpoint has a whole number of them, and
at least ``least``: with 1,024 places for ten endpoints their shares vary by some 10 %.

Search is bisection. A second attempt takes the places that follow.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from math import ceil
from typing import TYPE_CHECKING

from meshlib.core.balance.consistent import hash_key
from meshlib.core.balance.murmur import murmur2
from meshlib.core.hashing import hash_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.core.endpoint import LiveEndpoint

__all__ = ["MOST_PLACES", "Ring"]

#: Places at most, whatever is asked for (Envoy allows eight million): 12 MB, and a second to make.
MOST_PLACES = 1 << 20


class Ring:
    """``weighted``: endpoints with their parts of the calls. ``least`` and ``most``: Envoy's bounds of the ring's size."""

    __slots__ = ("_endpoints", "_hashes", "_members")

    def __init__(
        self,
        weighted: Sequence[tuple[LiveEndpoint, float]],
        least: int = 1024,
        most: int = 8 * 1024 * 1024,
        *,
        hostname: bool = False,
        murmur: bool = False,
    ) -> None:
        smallest = min(part for _, part in weighted)
        scale = max(1.0, min(ceil(smallest * least) / smallest, most, MOST_PLACES))
        digest = murmur2 if murmur else hash_bytes
        places: list[tuple[int, int]] = []
        target = 0.0
        for index, (endpoint, part) in enumerate(weighted):
            key = hash_key(endpoint, hostname=hostname) + b"_"
            target += scale * part
            # Places are counted over all endpoints: what one has too much by rounding the next has too little.
            count = max(0, ceil(target - len(places)))
            places += [(digest(b"%s%d" % (key, number)), index) for number in range(count)]
        places.sort()
        self._endpoints = [endpoint for endpoint, _ in weighted]
        self._hashes = array("Q", [place for place, _ in places])
        self._members = array("L", [index for _, index in places])

    def at(self, value: int, attempt: int, active: int) -> LiveEndpoint:  # noqa: ARG002 - loads do not matter
        place = bisect_left(self._hashes, value) + attempt
        return self._endpoints[self._members[place % len(self._members)]]
