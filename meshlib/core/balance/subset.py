"""Random subsetting (LB-12; gRFC A68): each caller calls a few endpoints, which it chooses by lot and keeps.

Theory (rendezvous hashing: Thaler and Ravishankar, 1996). Each caller has a seed of its own. The endpoints whose addresses have the lowest
hashes by it are its subset: to each caller another one, each endpoint as likely as any other. One that comes or goes changes at most
one member of a subset, and of most subsets none. With many callers the endpoints have about as many each: with 1,000 callers of 20 each
among 100 endpoints it is 200 ± 13.

Neither weights nor localities matter for who is chosen; they do for what is picked among the chosen.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import TYPE_CHECKING

from meshlib.core.hashing import hash_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshlib.core.endpoint import LiveEndpoint

__all__ = ["random_subset"]


def random_subset(endpoints: Iterable[LiveEndpoint], size: int, seed: int) -> list[LiveEndpoint]:
    """``size`` of ``endpoints``, or all where they are no more, for the caller with this ``seed`` (64 bits). XXH64, as gRPC's."""
    return nsmallest(
        size, endpoints, key=lambda endpoint: (hash_bytes(endpoint.name.encode(), seed), endpoint.name)
    )
