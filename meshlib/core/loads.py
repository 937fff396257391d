"""What is counted of a cluster for a load report (LRS): by locality, attempts and how they ended, and by category what was dropped.

Theory. Between two reports the counts grow; a report takes them, and they begin anew (LR-03). What is in progress is never reset. An
attempt counts where its endpoint was when it began, and how it ended when it is over:

    an attempt that               a gRPC call's    an HTTP call's
    ----------------------------  ---------------  ------------------------------------------------
    was answered well             success          success
    was answered badly            error: no OK     error: 5xx, as Envoy has it
    was not answered              error            error
    its caller gave up            error            neither, as in Envoy

Of a locality of which nothing is in progress any more nothing is kept once it was taken: what left the cluster is in one last report
(LR-04). Of an endpoint's own metrics those are summed that ``metrics`` names (LR-05): ``cpu_utilization``, ``mem_utilization``,
``application_utilization``, ``named_metrics.X`` or ``named_metrics.*``.

Guarded by the lock of the cluster, which a pick and a report hold anyway; `Loads.take` takes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from meshlib.core.classify import Verdict
    from meshlib.model.cluster import LoadReport
    from meshlib.model.endpoint import Locality

__all__ = ["ANY_NAMED", "NAMED", "UTILIZATIONS", "ClusterLoad", "Load", "Loads", "LocalityLoad", "Metrics"]

#: Fields of `Metrics` that can be reported by their names.
UTILIZATIONS = ("cpu_utilization", "mem_utilization", "application_utilization")
NAMED = "named_metrics."
ANY_NAMED = "named_metrics.*"
#: Names of metrics that are kept of a locality between two reports: an endpoint may think of ever new ones.
_MOST_NAMES = 1000


@dataclass(frozen=True, slots=True)
class Metrics:
    """What an endpoint said of its own load (ORCA). None: it did not say."""

    cpu_utilization: float | None = None
    mem_utilization: float | None = None
    application_utilization: float | None = None
    rps: float | None = None
    eps: float | None = None
    named_metrics: Mapping[str, float] = field(default_factory=dict)
    utilization: Mapping[str, float] = field(default_factory=dict)
    request_cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LocalityLoad:
    """``metrics``: by name, how many attempts had it, and the sum."""

    locality: Locality
    issued: int
    succeeded: int
    failed: int
    active: int
    metrics: Mapping[str, tuple[int, float]]


@dataclass(frozen=True, slots=True)
class ClusterLoad:
    """The counts of ``seconds``. ``service``: the name of its endpoints where that is another than its own; ``drops``: by category;
    ``refused``: by its circuit breaking.
    """

    cluster: str
    service: str
    seconds: float
    localities: tuple[LocalityLoad, ...]
    drops: Mapping[str, int]
    refused: int

    @property
    def dropped(self) -> int:
        """All of them."""
        return self.refused + sum(self.drops.values())

    @property
    def zero(self) -> bool:
        return not (self.localities or self.dropped)


class _Counts:
    __slots__ = ("active", "failed", "issued", "metrics", "succeeded")

    def __init__(self) -> None:
        self.issued = self.succeeded = self.failed = self.active = 0
        self.metrics: dict[str, tuple[int, float]] = {}


class Load:
    """Of one attempt."""

    __slots__ = ("_counts", "_failed", "_grpc", "_of", "_succeeded")

    def __init__(self, of: Loads, counts: _Counts, *, grpc: bool) -> None:
        self._of = of
        self._counts = counts
        self._grpc = grpc
        self._failed = self._succeeded = False

    def hear(self, judged: Verdict) -> None:
        """An answer, or its want. A later one that is bad outweighs."""
        if judged.status != 200 if judged.grpc else judged.good is False:
            self._failed = True
        elif judged.good:
            self._succeeded = True

    def give_up(self) -> None:
        """Its caller did, while it read the answer."""
        self._succeeded = False

    def measured(self, metrics: Metrics) -> None:
        """What its endpoint said with the answer."""
        sums = self._counts.metrics
        for name, value in self._of.chosen(metrics):
            count, total = sums.get(name, (0, 0.0))
            if count or len(sums) < _MOST_NAMES:
                sums[name] = (count + 1, total + value)

    def end(self) -> None:
        """It is over."""
        counts = self._counts
        counts.active -= 1
        if self._failed or (self._grpc and not self._succeeded):
            counts.failed += 1
        elif self._succeeded:
            counts.succeeded += 1


class Loads:
    """Of one cluster, for one server. ``lock``: the cluster's; ``now``: monotonic seconds, as everywhere here."""

    def __init__(
        self, cluster: str, service: str, report: LoadReport, lock: AbstractContextManager[object], now: float
    ) -> None:
        self.cluster = cluster
        self.service = service
        self.report = report
        self._lock = lock
        self._since = now
        self._localities: dict[Locality, _Counts] = {}
        self._drops: dict[str, int] = {}
        self._refused = 0
        self._all_named = ANY_NAMED in report.metrics

    # --- under the lock

    def begin(self, locality: Locality, *, grpc: bool) -> Load:
        """An attempt goes there."""
        counts = self._localities.get(locality)
        if counts is None:
            counts = self._localities[locality] = _Counts()
        counts.issued += 1
        counts.active += 1
        return Load(self, counts, grpc=grpc)

    def refuse(self, category: str) -> None:
        """A call was dropped, by the name of why, or (``""``) a limit of the cluster had no room for it."""
        if category:
            self._drops[category] = self._drops.get(category, 0) + 1
        else:
            self._refused += 1

    # --- others

    def chosen(self, metrics: Metrics) -> list[tuple[str, float]]:
        """Those that are reported, by their names in the report."""
        names = self.report.metrics
        found: list[tuple[str, float]] = [
            (name, value)
            for name in UTILIZATIONS
            if name in names and (value := getattr(metrics, name)) is not None
        ]
        found += [
            (f"{NAMED}{name}", value)
            for name, value in metrics.named_metrics.items()
            if self._all_named or f"{NAMED}{name}" in names
        ]
        return found

    @property
    def active(self) -> bool:
        """Whether an attempt is in progress."""
        return any(counts.active for counts in tuple(self._localities.values()))

    def take(self, now: float) -> ClusterLoad:
        """The counts since they were last taken. From any thread."""
        with self._lock:
            found = ClusterLoad(
                self.cluster,
                self.service,
                now - self._since,
                tuple(
                    LocalityLoad(
                        locality, each.issued, each.succeeded, each.failed, each.active, each.metrics
                    )
                    for locality, each in self._localities.items()
                ),
                self._drops,
                self._refused,
            )
            self._since, self._drops, self._refused = now, {}, 0
            for locality, each in list(self._localities.items()):
                each.issued = each.succeeded = each.failed = 0
                each.metrics = {}
                if not each.active:
                    del self._localities[locality]
        return found
