"""When the endpoints of a cluster are made.

A process is often told of many clusters and calls a few of them. So the endpoints of a cluster are made when somebody first looks for
one: a call, `explain`, `wait_ready`. The status tells of them without keeping them. Those of a cluster that has many, and those of which
much is made (a ring, an index of subsets), the writer of the configuration makes, so that no call waits for that; as he does all that
follows once a cluster is called.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from meshlib.core.roster import Roster, plan_roster, told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.address import Address
    from meshlib.model.cluster import Cluster

__all__ = ["LaterRoster", "next_roster"]

#: Endpoints that a first call may have to make: some 3 microseconds for each (docs/decisions/0070).
_FEW = 256


class LaterRoster(Roster):
    """The first roster of ``cluster``: whoever first looks at ``live`` or ``groups`` plans it. It orders no changes, for nobody was there.

    Thread-safe: its lock guards the planning, and whoever has it takes no other.
    """

    __slots__ = ("_cluster", "_lock")

    def __init__(self, cluster: Cluster) -> None:
        self.factor, self.weighted = told(cluster)
        self.gone = []
        self.changed = []
        self.planned = False
        self._cluster = cluster
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> object:
        """What is not there before it is planned; afterwards nobody comes here."""
        if name not in ("live", "groups"):
            raise AttributeError(name)
        with self._lock:
            if not self.planned:
                made = plan_roster({}, self._cluster)
                self.groups, self.live = made.groups, made.live
                self.planned = True
                del self._cluster
        return object.__getattribute__(self, name)

    @property
    def shown(self) -> Mapping[Address, LiveEndpoint]:
        with self._lock:
            return self.live if self.planned else plan_roster({}, self._cluster).live


def next_roster(old: Roster, cluster: Cluster, give_way: Callable[[], object] = bool) -> Roster | None:
    """The roster that ``cluster`` orders after ``old``, planned now or later; None: ``old`` is right for it. Of one writer, without a lock.
    ``give_way`` is called at each endpoint.
    """
    if not old.made and _may_wait(cluster):
        give_way()
        return LaterRoster(cluster)
    roster = plan_roster(old.live, cluster, give_way)
    return None if roster.says_again(old) else roster


def _may_wait(cluster: Cluster) -> bool:
    """Whether little is to be made of few; slow start has to know who was there before."""
    balancing = cluster.balancing
    if balancing.consistent or balancing.subsets is not None or balancing.slow_start is not None:
        return False
    there = () if cluster.assignment is None else cluster.assignment.localities
    return 0 < sum(len(part.endpoints) for part in there) <= _FEW
