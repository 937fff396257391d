"""What of a level may be called, and the pickers over that (`meshlib.core.locality` has the theory)."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

from meshlib.core.balance.aperture import Partial
from meshlib.core.balance.consistent import Consistent, Tables, hash_key
from meshlib.core.balance.picker import make_picker, make_table
from meshlib.core.balance.weights import normalized

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meshlib.core.balance.picker import Picker
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.policy import Balancing

__all__ = ["Pool", "Share"]


@dataclass(slots=True)
class Share:
    """What of a level may be called: its endpoints, by locality with the weight that each locality has now (``parts``), and with the
    one that it was given (``given``), and with the part of the calls that is divided among localities without weights (``near``).
    ``panic``: health does not count; ``closed``: nobody is called in its place. ``by_group``: whom each group has of them.
    """

    endpoints: list[LiveEndpoint]
    parts: list[tuple[float, list[LiveEndpoint]]] = field(default_factory=list)
    given: list[tuple[float, list[LiveEndpoint]]] = field(default_factory=list)
    near: list[tuple[float, Sequence[LiveEndpoint]]] = field(default_factory=list)
    panic: bool = False
    closed: bool = False
    by_group: list[list[LiveEndpoint]] = field(default_factory=list)


class Pool:
    """Pickers over one share."""

    __slots__ = ("_ends", "_only", "_pickers", "_random", "endpoints")

    def __init__(
        self,
        share: Share,
        balancing: Balancing,
        random: Callable[[], float],
        own: int,
        tables: Tables,
        edges: Mapping[LiveEndpoint, float] | None,
    ) -> None:
        self.endpoints = share.endpoints
        self._random = random
        parts = (share.parts if balancing.locality_weighted else None) or share.near
        self._ends = list(accumulate(weight for weight, _ in parts))
        self._pickers: list[Picker]
        if balancing.consistent:
            self._pickers = [_consistent(share, balancing, random, tables)]
        else:
            members = [members for _, members in parts] or [share.endpoints]
            self._pickers = [make_picker(balancing, part, random, own) for part in members]
            if edges:
                made = zip(self._pickers, members, strict=True)
                self._pickers = [Partial.over(picker, part, edges, random) for picker, part in made]
        self._only = self._pickers[0] if len(self._pickers) == 1 else None

    def picker(self) -> Picker:
        if self._only is not None:
            return self._only
        pickers = self._pickers
        index = bisect_right(self._ends, self._random() * self._ends[-1])
        return pickers[min(index, len(pickers) - 1)]


def _consistent(
    share: Share, balancing: Balancing, random: Callable[[], float], tables: Tables
) -> Consistent:
    weighted = normalized(share.given) if balancing.locality_weighted else []
    weighted = weighted or normalized([(1.0, share.endpoints)])
    keys = [hash_key(endpoint, hostname=balancing.hash_hostname) for endpoint, _ in weighted]
    table = tables.get((balancing, *weighted, *keys), partial(make_table, balancing, weighted))
    members = [endpoint for endpoint, _ in weighted]
    return Consistent(table, members, random, all_of_them=share.panic, slow=balancing.slow_start)
