"""A cluster that is in use, as calls of priority HIGH see it (Envoy ``RoutingPriority``): limits and counters of its own, so that a flood
of other calls leaves room for these. Endpoints, balancing, ejections, breakers and health are the cluster's.

Its cluster's lock guards what it counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from meshlib.core.limits import may_retry
from meshlib.runtime.live_connections import LiveConnections
from meshlib.runtime.live_pick import LiveRetry

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext, Refusal
    from meshlib.model.call import Outcome
    from meshlib.model.cluster import Cluster
    from meshlib.model.policy import RetryBudget
    from meshlib.runtime.live_loads import LiveLoads
    from meshlib.runtime.live_pick import LivePick

__all__ = ["LiveHigh", "high_of"]


def high_of(cluster: Cluster) -> Cluster:
    """``cluster`` with the limits of priority HIGH in the place of those that hold otherwise."""
    return replace(cluster, limits=cluster.high_limits, high=True)


class _Cluster(Protocol):
    """What of :class:`meshlib.runtime.live.LiveCluster` it is made for."""

    cluster: Cluster
    consistent: bool
    labelled: bool
    loads: LiveLoads
    overflows: int
    retried: int
    _lock: threading.Lock
    _told: list[Callable[[], None]]

    def pick(self, context: PickContext, now: float, counted: Any) -> LivePick | Refusal: ...
    def peek(self, context: PickContext) -> LiveEndpoint | None: ...
    def mark_reached(self, endpoint: LiveEndpoint, by: int) -> None: ...
    def reached(self) -> bool: ...
    def _heard(self, pick: LivePick, outcome: Outcome, now: float) -> None: ...
    def _to_tell(self) -> list[Callable[[], None]]: ...


class LiveHigh:
    """:class:`meshlib.core.upstream.Leaf`. Thread-safe; no method blocks.

    Attributes:
        active: Picks of this priority that are not released. ``retries``, ``connections``, ``pending``: the like.
    """

    __slots__ = ("__weakref__", "_lock", "_made", "active", "connections", "of", "pending", "retries")

    limiter = None

    def __init__(self, of: _Cluster) -> None:
        self.of = of
        self._lock = of._lock
        self.active = self.retries = self.connections = self.pending = 0
        self._made = (of.cluster, high_of(of.cluster))

    @property
    def high(self) -> LiveHigh:
        return self

    @property
    def cluster(self) -> Cluster:
        """The same value while its cluster's is."""
        made = self._made
        if made[0] is not self.of.cluster:
            now = self.of.cluster
            made = self._made = (now, high_of(now))
        return made[1]

    @property
    def consistent(self) -> bool:
        return self.of.consistent

    @property
    def labelled(self) -> bool:
        return self.of.labelled

    @property
    def loads(self) -> LiveLoads:
        return self.of.loads

    @property
    def overflows(self) -> int:
        """The cluster's, of both priorities."""
        return self.of.overflows

    @overflows.setter
    def overflows(self, count: int) -> None:
        self.of.overflows = count

    @property
    def _told(self) -> list[Callable[[], None]]:
        return self.of._told

    def _heard(self, pick: LivePick, outcome: Outcome, now: float) -> None:
        self.of._heard(pick, outcome, now)

    def _to_tell(self) -> list[Callable[[], None]]:
        return self.of._to_tell()

    def pick(self, context: PickContext, now: float) -> LivePick | Refusal:
        return self.of.pick(context, now, self)

    def peek(self, context: PickContext) -> LiveEndpoint | None:
        return self.of.peek(context)

    def chosen(self, context: PickContext) -> tuple[Any, PickContext, str]:
        return self, context, ""

    def begin_retry(self, budget: RetryBudget | None, *, limited: bool = True) -> LiveRetry | None:
        of = self.of
        with of._lock:
            if limited and not may_retry(self.cluster.limits, budget, self.retries, self.active):
                of.overflows += 1
                return None
            self.retries += 1
            of.retried += 1
        return LiveRetry(self)

    def mark_reached(self, endpoint: LiveEndpoint, by: int) -> None:
        self.of.mark_reached(endpoint, by)

    def reached(self) -> bool:
        return self.of.reached()

    def connections_to(self, endpoint: LiveEndpoint) -> LiveConnections:
        return LiveConnections(self, endpoint)
