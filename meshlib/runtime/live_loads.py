"""What others are told of a live cluster's attempts: load reports, and what endpoints say of their own load (ORCA).

Everything here is under the lock of the cluster but ``measured``, which takes it, and ``hear``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from meshlib.core.loads import Loads
from meshlib.model.cluster import Discovery
from meshlib.model.endpoint import NOWHERE

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.loads import Metrics
    from meshlib.core.upstream import Refusal
    from meshlib.model.cluster import Cluster
    from meshlib.runtime.live_pick import LivePick

__all__ = ["Hearer", "LiveLoads"]

#: Who is told of what an endpoint said of its load.
Hearer: TypeAlias = "Callable[[LiveEndpoint, Metrics], object]"


class LiveLoads:
    """Of one cluster. ``on``: there is somebody to tell. ``loads``: what is counted for reports; None where the cluster asks for none."""

    __slots__ = ("_hearers", "_lock", "_nowhere", "loads", "on")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._hearers: tuple[Hearer, ...] = ()
        self._nowhere = False
        self.loads: Loads | None = None
        self.on = False

    def put(self, cluster: Cluster, now: float) -> None:
        """The cluster's next configuration. What was counted under another name, or for another server, whoever reports has still."""
        loads, report = self.loads, cluster.load_report
        service = cluster.eds_name if cluster.eds_name != cluster.name else ""
        if report is None:
            self.loads = None
        elif loads is None or (loads.report, loads.service) != (report, service):
            self.loads = Loads(cluster.name, service, report, self._lock, now)
        self._nowhere = cluster.discovery is Discovery.LOGICAL_DNS
        self.on = self.loads is not None or bool(self._hearers)

    def begin(self, pick: LivePick, *, grpc: bool) -> None:
        """An attempt, where there is somebody to tell."""
        loads = self.loads
        pick.listens = bool(self._hearers)
        if loads is not None:
            pick.load = loads.begin(NOWHERE if self._nowhere else pick.endpoint.locality, grpc=grpc)
            pick.listens = pick.listens or bool(loads.report.metrics)

    def refused(self, refusal: Refusal) -> Refusal:
        """A call that was dropped, or for which a limit left no room."""
        if self.loads is not None:
            self.loads.refuse(refusal.category)
        return refusal

    def hear(self, hearer: Hearer) -> Callable[[], None]:
        """Call ``hearer`` with an endpoint and what it said with an answer, in the thread of the call, which it must not hold up. Gives
        what ends that.
        """
        self._put_hearers((*self._hearers, hearer))
        return lambda: self._put_hearers(tuple(other for other in self._hearers if other is not hearer))

    def _put_hearers(self, hearers: tuple[Hearer, ...]) -> None:
        with self._lock:
            self._hearers = hearers
            self.on = self.loads is not None or bool(hearers)

    def measured(self, pick: LivePick, metrics: Metrics) -> None:
        """What the endpoint of an attempt said with its answer."""
        with self._lock:
            if pick.load is not None:
                pick.load.measured(metrics)
            hearers = self._hearers
        for hearer in hearers:
            hearer(pick.endpoint, metrics)
