"""Where attempts go that are to leave the priorities of those before.

Theory (Envoy's ``previous_priorities``; RT-07). After each ``every`` attempts the priorities of all attempts are left out, as if
nobody were well there, and the others have their health's worth of the whole load. Where nobody else is well, all begin anew, and what was
tried before is forgotten. What is decided after an attempt follows from the attempts alone, so that nothing is kept between them.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, TypeVar

from meshlib.core.levels import ALL, split_load

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from meshlib.core.levels import LevelHealth

__all__ = ["Others", "left_out"]

Share = TypeVar("Share")
Pool = TypeVar("Pool")


def left_out(tried: Sequence[int], every: int, well: Collection[int]) -> set[int] | None:
    """The priorities that the next attempt leaves, after attempts at those that were ``tried``; None: it goes as a first one does.
    ``well``: those that have anybody.
    """
    since: list[int] = []
    out: set[int] = set()
    found: set[int] | None = None
    for priority in tried:
        since.append(priority)
        if len(since) < every:
            found = None
        elif len(since) % every == 0:
            out |= set(since)
            if out.issuperset(well):
                out, since = set(), []
            found = out
    return found if well else None


class Others(Generic[Share, Pool]):
    """The levels of a balance, for attempts that leave some of them. ``shares``: who is called of each, of its usable and of its degraded
    endpoints. ``make`` makes a pool of a share, once it is needed.
    """

    __slots__ = ("_levels", "_make", "_shares")

    def __init__(
        self,
        levels: Sequence[LevelHealth],
        shares: Sequence[tuple[Share, Share]],
        make: Callable[[Share], Pool],
    ) -> None:
        self._levels = levels
        self._shares = [share for share, _ in shares] + [share for _, share in shares]
        self._make = make

    def pool(self, tried: Sequence[int], every: int, draw: Callable[[int], int]) -> Pool | None:
        """Where the next attempt goes; None: where a first one does. ``draw`` gives a number below its argument."""
        levels = self._levels
        out = left_out(tried, every, {level.priority for level in levels if level.healthy or level.degraded})
        if out is None:
            return None
        first, second = split_load(
            [0 if level.priority in out else level.healthy for level in levels],
            [0 if level.priority in out else level.degraded for level in levels],
        )
        return self._make(self._shares[bisect_right(list(accumulate([*first, *second])), draw(ALL))])
