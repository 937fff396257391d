"""The balances of a live cluster: who is picked next by Envoy's rules, and by gRPC's. Its cluster's lock guards it.

A balance is of endpoints as they are at one moment. Whoever changes one of them calls `reshape`, and the next pick makes another; the
writer of the configuration makes his own before they are in force (`remake`), so that no call waits for it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from meshlib.core.balance.consistent import Tables
from meshlib.core.locality import Balance, grpc_balance
from meshlib.core.narrowing import narrowed
from meshlib.core.subsets import MOST_SUBSETS, SubsetBalance, SubsetIndex

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.locality import Group
    from meshlib.core.roster import Roster
    from meshlib.core.upstream import PickContext
    from meshlib.core.zones import Caller
    from meshlib.model.policy import Balancing

__all__ = ["LiveBalances"]

_log = logging.getLogger("meshlib")

#: How often the writer makes a balance that ejections have overtaken.
_REBALANCES = 3


class LiveBalances:
    """Not thread-safe but for `remake`, which the writer calls without ``lock``.

    Attributes:
        plain: None: somebody was ejected or returned since it was made; the next pick makes another.
        grpc: As ``plain``; there is none before the first gRPC call.
        roster: Whom they are of; ``balancing``: how; ``caller``: this process as a caller, None where nobody knows where it is.
        blind: What of :class:`meshlib.core.endpoint.Down` gRPC's rules pass over.
    """

    __slots__ = (
        "_give_way",
        "_index",
        "_lock",
        "_of_grpc",
        "_own",
        "_random",
        "_shape",
        "_tables",
        "_told",
        "balancing",
        "blind",
        "caller",
        "grpc",
        "plain",
        "roster",
    )

    def __init__(
        self,
        roster: Roster,
        balancing: Balancing,
        random: Callable[[], float],
        lock: threading.Lock,
        give_way: Callable[[], object],
    ) -> None:
        self.roster = roster
        self.balancing = balancing
        self.caller: Caller | None = None
        self.blind = 0
        self.plain: Balance | SubsetBalance | None = None
        self.grpc: Balance | SubsetBalance | None = None
        self._of_grpc = False  # gRPC calls come here
        self._shape = 0  # grows whenever a balance made before would be wrong
        self._random = random
        self._own: int | None = None  # drawn when it is needed, and kept
        self._tables = Tables()
        self._lock = lock
        self._give_way = give_way
        self._index: SubsetIndex | None = None  # of ``roster``
        self._told = False  # that there are too many subsets

    def put(self, roster: Roster) -> None:
        """Others are there. Of those that are made later there is no balance before."""
        self.roster = roster
        self._index = None
        if not roster.planned:
            self.reshape()

    def of(self, context: PickContext) -> Balance | SubsetBalance:
        """The one that a call goes by, made where there is none."""
        if not context.grpc:
            if self.plain is None:
                self.plain = self._made(self._indexed(), self._balanced)
            return self.plain
        if self.grpc is None:
            self._of_grpc = True  # from now on the writer makes it, too
            self.grpc = self._made(self._indexed(), self._balanced_for_grpc)
        return self.grpc

    def reshape(self, *, grpc: bool = False) -> None:
        """Endpoints are not as they were; ``grpc``: only to gRPC's rules."""
        if not grpc:
            self.plain = None
        self.grpc = None
        self._shape += 1

    def outdate(self) -> None:
        """What is being made without the lock will be wrong; what is in force serves until then."""
        self._shape += 1

    def remake(self) -> None:
        """Make the balance of what was put, without the lock: meanwhile calls go by the one before, as they did a moment
        ago. Where somebody was ejected or returned meanwhile it is made again; where that goes on, by the next pick.
        """
        for _ in range(_REBALANCES):
            shape, rules = self._shape, self.balancing.subsets
            index = None if rules is None else SubsetIndex(self.roster.groups, rules, self._give_way)
            if index is not None and index.full and not self._told:
                self._told = True
                _log.warning(
                    "meshlib: a cluster has more than %d subsets: those above are not there", MOST_SUBSETS
                )
            slowly = partial(self._balanced, give_way=self._give_way)
            plain = self._made(index, slowly, self.plain)
            grpc = self._made(index, self._balanced_for_grpc, self.grpc) if self._of_grpc else None
            with self._lock:
                self._index = index
                if shape == self._shape:
                    self.plain, self.grpc = plain, grpc
                    return
        with self._lock:
            self.plain = self.grpc = None

    def _indexed(self) -> SubsetIndex | None:
        rules, index = self.balancing.subsets, self._index
        if rules is None:
            return None
        if index is None or index.rules is not rules:
            index = self._index = SubsetIndex(self.roster.groups, rules)
        return index

    def _made(
        self,
        index: SubsetIndex | None,
        make: Callable[[Sequence[Group]], Balance],
        before: Balance | SubsetBalance | None = None,
    ) -> Balance | SubsetBalance:
        """Of the whole cluster, or of the subsets of ``index``, with what calls needed ``before``."""
        if index is None:
            return make(self.roster.groups)
        made = SubsetBalance(index, make, self.roster.groups)
        if isinstance(before, SubsetBalance):
            made.prepare(before.used)
        return made

    def _balanced(self, groups: Sequence[Group], give_way: Callable[[], object] = bool) -> Balance:
        groups, own, edges = self._narrowed(groups)
        tables = self._tables
        return Balance(
            groups,
            self.balancing,
            self.roster.factor,
            self._random,
            give_way,
            own=own,
            tables=tables,
            caller=self.caller,
            edges=edges,
            weighted=self.roster.weighted,
        )

    def _balanced_for_grpc(self, groups: Sequence[Group]) -> Balance:
        groups, own, edges = self._narrowed(groups)
        return grpc_balance(
            groups, self.balancing, self._random, own, self._tables, self.caller, edges, self.blind
        )

    def _narrowed(
        self, groups: Sequence[Group]
    ) -> tuple[Sequence[Group], int, Mapping[LiveEndpoint, float] | None]:
        """Those that are called at all, the number that stands for this process, and who counts only in part."""
        balancing = self.balancing
        if self._own is None and (balancing.shuffled or balancing.aperture is not None):
            self._own = int(self._random() * (1 << 64))
        own = self._own or 0
        if balancing.aperture is None:
            return groups, own, None
        chosen, parts = narrowed(groups, balancing.aperture, own)
        return chosen, own, parts
