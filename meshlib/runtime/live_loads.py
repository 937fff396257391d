"""What others are told of a live cluster's attempts: load reports, and what endpoints say of their own load (ORCA).

Everything here is under the lock of the cluster but ``measured``, which takes it, and ``hear``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakMethod

from meshlib.core.loads import Loads
from meshlib.core.reported import ReportedWeight
from meshlib.model.cluster import Discovery
from meshlib.model.endpoint import NOWHERE
from meshlib.model.policy import Balancer

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.loads import Metrics
    from meshlib.core.upstream import Refusal
    from meshlib.model.cluster import Cluster
    from meshlib.model.policy import Balancing, Reports
    from meshlib.runtime.live_pick import LivePick

__all__ = ["Hearer", "LiveLoads"]

#: Who is told of what an endpoint said of its load.
Hearer: TypeAlias = "Callable[[LiveEndpoint, Metrics], object]"


class LiveLoads:
    """Of one cluster. ``on``: there is somebody to tell. ``loads``: what is counted for reports; None where the cluster asks for none."""

    __slots__ = (
        "_beside",
        "_followers",
        "_hearers",
        "_lock",
        "_nowhere",
        "_reports",
        "_unsteer",
        "every",
        "loads",
        "on",
    )

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._hearers: tuple[Hearer, ...] = ()
        self._beside: tuple[tuple[Hearer, float], ...] = ()  # with how often
        self._followers: tuple[WeakMethod[Callable[[], object]], ...] = ()
        #: How often endpoints of gRPC are to say it beside calls: the shortest interval of all who want to hear it so, or None.
        self.every: float | None = None
        self._nowhere = False
        # What the balancer asks of the endpoints' reports, and what ends that.
        self._reports: Reports | None = None
        self._unsteer: Callable[[], None] | None = None
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

    def steer(self, balancing: Balancing, clock: Callable[[], float]) -> None:
        """Weigh the endpoints by what they say, where the balancer goes by it. For the one writer of the configuration."""
        wanted = balancing.reports if balancing.kind is Balancer.ORCA else None
        if wanted == self._reports:
            return
        if self._unsteer is not None:
            self._unsteer()
        self._reports, self._unsteer = wanted, None
        if wanted is not None:
            self._unsteer = self.hear(partial(self._weigh, wanted, clock), wanted.beside)

    def _weigh(
        self, reports: Reports, clock: Callable[[], float], endpoint: LiveEndpoint, metrics: Metrics
    ) -> None:
        with self._lock:
            if endpoint.reported is None:
                endpoint.reported = ReportedWeight()
            endpoint.reported.add(metrics, reports, clock())

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

    def hear(self, hearer: Hearer, every: float | None = None) -> Callable[[], None]:
        """Call ``hearer`` with an endpoint and what it said with an answer, in the thread of the call, which it must not hold up; or
        (``every``) with what it says beside calls, that many seconds apart or less: never with both. Gives what ends that.
        """
        with self._lock:
            if every is None:
                self._hearers = (*self._hearers, hearer)
            else:
                self._beside = (*self._beside, (hearer, every))
        self._heard()

        def cancel() -> None:
            with self._lock:
                self._hearers = tuple(other for other in self._hearers if other is not hearer)
                self._beside = tuple(other for other in self._beside if other[0] is not hearer)
            self._heard()

        return cancel

    def _heard(self) -> None:
        """Others hear of it than before."""
        with self._lock:
            self.on = self.loads is not None or bool(self._hearers)
            before, self.every = self.every, min((every for _, every in self._beside), default=None)
            followers = self._followers if before != self.every else ()
        for reference in followers:
            follower = reference()
            if follower is not None:
                follower()

    def follow(self, follower: Callable[[], object]) -> None:
        """Call ``follower``, a method, when ``every`` is another. It is known weakly: a channel that is dropped must go at once."""
        with self._lock:
            self._followers = (*self._followers, WeakMethod(follower))

    def unfollow(self, follower: Callable[[], object]) -> None:
        with self._lock:
            self._followers = tuple(other for other in self._followers if other() not in (None, follower))

    def reported(self, endpoint: LiveEndpoint, metrics: Metrics) -> None:
        """What an endpoint said beside calls."""
        for hearer, _ in self._beside:
            hearer(endpoint, metrics)

    def measured(self, pick: LivePick, metrics: Metrics) -> None:
        """What the endpoint of an attempt said with its answer."""
        with self._lock:
            if pick.load is not None:
                pick.load.measured(metrics)
            hearers = self._hearers
        for hearer in hearers:
            hearer(pick.endpoint, metrics)
