"""The connections to one endpoint of a live cluster, as their pools count them. The cluster's lock guards the counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.core.limits import reached

if TYPE_CHECKING:
    import threading

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.cluster import Cluster

__all__ = ["LiveConnections"]


class _Cluster(Protocol):
    """What of :class:`meshlib.runtime.live.LiveCluster` they are made for."""

    connections: int
    pending: int
    overflows: int
    _lock: threading.Lock

    @property
    def cluster(self) -> Cluster: ...


class LiveConnections:
    """:class:`meshlib.core.upstream.Connections`: all that lead to one endpoint, whichever pool they are in."""

    __slots__ = ("_cluster", "_endpoint")

    def __init__(self, cluster: _Cluster, endpoint: LiveEndpoint) -> None:
        self._cluster = cluster
        self._endpoint = endpoint

    @property
    def limited(self) -> bool:
        limits = self._cluster.cluster.limits
        return limits.max_connections is not None or limits.max_connections_per_endpoint is not None

    def open_connection(self, *, force: bool = False) -> bool:
        cluster, endpoint = self._cluster, self._endpoint
        with cluster._lock:
            limits = cluster.cluster.limits
            if not force and (
                reached(limits.max_connections, cluster.connections)
                or reached(limits.max_connections_per_endpoint, endpoint.connections)
            ):
                return False
            cluster.connections += 1
            endpoint.connections += 1
            return True

    def close_connection(self) -> None:
        with self._cluster._lock:
            self._cluster.connections -= 1
            self._endpoint.connections -= 1

    def begin_pending(self) -> bool:
        cluster = self._cluster
        with cluster._lock:
            if reached(cluster.cluster.limits.max_pending, cluster.pending):
                cluster.overflows += 1
                return False
            cluster.pending += 1
            return True

    def end_pending(self) -> None:
        with self._cluster._lock:
            self._cluster.pending -= 1
