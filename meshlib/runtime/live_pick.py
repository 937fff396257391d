"""What a live cluster hands out: an endpoint for one attempt, and leave for one retry. Its lock guards both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.core.upstream import Leaf, Reports
from meshlib.model.call import OK

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.loads import Load, Metrics
    from meshlib.model.call import Outcome
    from meshlib.runtime.live_breaker import Held

__all__ = ["LivePick", "LiveRetry"]


class _Loads(Reports, Protocol):
    """What of :class:`meshlib.runtime.live_loads.LiveLoads` they are made for."""

    def measured(self, pick: LivePick, metrics: Metrics) -> None: ...


class _Cluster(Leaf, Protocol):
    """What of :class:`meshlib.runtime.live.LiveCluster` they are made for."""

    active: int
    _lock: threading.Lock

    @property
    def _told(self) -> list[Callable[[], None]]: ...
    @property
    def loads(self) -> _Loads: ...

    def _heard(self, pick: LivePick, outcome: Outcome, now: float) -> None: ...

    def _to_tell(self) -> list[Callable[[], None]]: ...


class _Retries(Protocol):
    """Where retries are counted: a live cluster, or an aggregate."""

    retries: int
    _lock: threading.Lock


class LivePick:
    """An endpoint held for one attempt (:class:`meshlib.core.upstream.Pick`), with the leave of the breakers that it passed, the
    cluster's and the endpoint's own. ``load``: where it counts in a load report; ``listens``: somebody wants to know what its endpoint says of its load.
    """

    __slots__ = (
        "_released",
        "_reported",
        "endpoint",
        "failed",
        "listens",
        "load",
        "one",
        "own",
        "settled",
        "upstream",
    )

    def __init__(
        self,
        cluster: _Cluster,
        endpoint: LiveEndpoint,
        one: Held | None,
        own: Held | None,
    ) -> None:
        self.endpoint = endpoint
        self.one = one
        self.own = own
        self.settled = False  # the breakers heard of it
        self.upstream = cluster
        self._reported = False
        self._released = False
        self.failed = False  # it is counted as a failure
        self.load: Load | None = None
        self.listens = False

    def report(self, outcome: Outcome, now: float) -> None:
        cluster = self.upstream
        with cluster._lock:
            if self._reported or self._released:
                return
            self._reported = True
            cluster._heard(self, outcome, now)
            told = cluster._to_tell() if cluster._told else ()
        for tell in told:
            tell()
        if self.listens and outcome.headers is not None and not outcome.grpc:
            from meshlib.xds.orca import of_headers

            self.measured(of_headers(outcome.headers))

    def settle(self, good: bool | None, now: float, outcome: Outcome | None = None) -> None:
        """Tell the breakers what came of it, under the lock; ``good`` None: nothing that counts."""
        for held in (self.one, self.own):
            if held is not None:
                held[0].settle(held[1], good, now, outcome, again=self.settled)
        self.settled = True

    def measured(self, metrics: Metrics | None) -> None:
        """What the endpoint said of its load; None: nothing that can be read."""
        if metrics is not None:
            self.upstream.loads.measured(self, metrics)

    def give_up(self) -> None:
        """The caller of an RPC gave the answer up that it was reading."""
        with self.upstream._lock:
            if self.load is not None:
                self.load.give_up()

    def release(self, now: float, failure: Outcome | None = None) -> None:
        cluster = self.upstream
        with cluster._lock:
            if self._released:
                return
            self._released = True
            if failure is not None and failure.kind is not OK:
                cluster._heard(self, failure, now)
            elif not self._reported:
                self.settle(None, now)
            if self.load is not None:
                self.load.end()
            self.endpoint.active -= 1
            cluster.active -= 1
            told = cluster._to_tell() if cluster._told else ()
        for tell in told:
            tell()


class LiveRetry:
    """Leave for one retry (:class:`meshlib.core.upstream.RetryPermit`)."""

    __slots__ = ("_cluster",)

    def __init__(self, cluster: _Retries) -> None:
        self._cluster: _Retries | None = cluster

    def release(self) -> None:
        cluster = self._cluster
        if cluster is None:
            return
        with cluster._lock:
            if self._cluster is not None:
                self._cluster = None
                cluster.retries -= 1
