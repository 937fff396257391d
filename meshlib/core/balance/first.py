"""Pick first (LB-09): all calls go to one endpoint, to the next in order only while it may not be called.

The order is that of the control plane; *shuffled* it is drawn, by the caller's own seed, so that many callers do not all come to the
same one, and stays as it is when others come and go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.balance.consistent import hash_key
from meshlib.core.hashing import hash_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext

__all__ = ["First"]


class First:
    """``seed`` None: in the order of ``endpoints``."""

    __slots__ = ("_order",)

    def __init__(self, endpoints: Sequence[LiveEndpoint], seed: int | None) -> None:
        self._order = list(endpoints)
        if seed is not None:
            self._order.sort(key=lambda endpoint: hash_bytes(hash_key(endpoint), seed))

    def pick(self, context: PickContext) -> LiveEndpoint:
        for endpoint in self._order if context.tried else ():
            if endpoint not in context.tried:
                return endpoint
        return self._order[0]

    peek = pick
