"""The balances of a live cluster: who is picked next by Envoy's rules, and by gRPC's. Its cluster's lock guards it.

A balance is of endpoints as they are at one moment. Whoever changes one of them calls `reshape`, and the next pick makes another; the
writer of the configuration makes his own before they are in force (`remake`), so that no call waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.balance.consistent import Tables
from meshlib.core.locality import Balance, grpc_balance

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from meshlib.core.roster import Roster
    from meshlib.core.upstream import PickContext
    from meshlib.core.zones import Caller
    from meshlib.model.policy import Balancing

__all__ = ["LiveBalances"]

#: How often the writer makes a balance that ejections have overtaken.
_REBALANCES = 3


class LiveBalances:
    """Not thread-safe but for `remake`, which the writer calls without ``lock``.

    Attributes:
        plain: None: somebody was ejected or returned since it was made; the next pick makes another.
        grpc: As ``plain``; there is none before the first gRPC call.
        roster: Whom they are of; ``balancing``: how; ``caller``: this process as a caller, None where nobody knows where it is.
    """

    __slots__ = (
        "_give_way",
        "_lock",
        "_of_grpc",
        "_own",
        "_random",
        "_shape",
        "_tables",
        "balancing",
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
        self.plain: Balance | None = None
        self.grpc: Balance | None = None
        self._of_grpc = False  # gRPC calls come here
        self._shape = 0  # grows whenever a balance made before would be wrong
        self._random = random
        self._own = int(random() * (1 << 64)) if balancing.shuffled else 0
        self._tables = Tables()
        self._lock = lock
        self._give_way = give_way

    def of(self, context: PickContext) -> Balance:
        """The one that a call goes by, made where there is none."""
        if not context.grpc:
            if self.plain is None:
                self.plain = self._made(bool)
            return self.plain
        if self.grpc is None:
            self._of_grpc = True  # from now on the writer makes it, too
            self.grpc = self._made_of_grpc()
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
            shape = self._shape
            plain = self._made(self._give_way)
            grpc = self._made_of_grpc() if self._of_grpc else None
            with self._lock:
                if shape == self._shape:
                    self.plain, self.grpc = plain, grpc
                    return
        with self._lock:
            self.plain = self.grpc = None

    def _made(self, give_way: Callable[[], object]) -> Balance:
        roster, own, tables = self.roster, self._own, self._tables
        return Balance(
            roster.groups,
            self.balancing,
            roster.factor,
            self._random,
            give_way,
            own=own,
            tables=tables,
            caller=self.caller,
        )

    def _made_of_grpc(self) -> Balance:
        return grpc_balance(
            self.roster.groups, self.balancing, self._random, self._own, self._tables, self.caller
        )
