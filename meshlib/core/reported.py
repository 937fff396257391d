"""The weight of an endpoint by its own reports of its load (LB-07, LB-08, gRFC A58, ORCA).

Theory. An endpoint's weight is how many calls it would serve with nothing else to do: the calls a second that it serves, by the
utilization that they cause; failed calls count as utilization, so that an endpoint which fails fast does not look idle:

    weight = rps / (utilization + eps / rps * penalty)

A report counts once such reports came for ``blackout`` seconds, and for ``expiry`` seconds; then the blackout begins anew.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.core.loads import Metrics
    from meshlib.model.policy import Reports

__all__ = ["ReportedWeight", "weight_of"]


def weight_of(metrics: Metrics, reports: Reports) -> float | None:
    """The weight that a report gives; None: it gives none."""
    used = _utilization(metrics, reports)
    rps = metrics.rps or 0.0
    if used <= 0.0 or rps <= 0.0:
        return None
    weight = rps / (used + (metrics.eps or 0.0) / rps * reports.penalty)
    return weight if isfinite(weight) and weight > 0.0 else None


def _utilization(metrics: Metrics, reports: Reports) -> float:
    """LB-08: the largest of the metrics that are named, else the application's, else the processor's."""
    named = [_named(metrics, name) for name in reports.names]
    return max(named, default=0.0) or metrics.application_utilization or metrics.cpu_utilization or 0.0


def _named(metrics: Metrics, name: str) -> float:
    kind, _, key = name.partition(".")
    if kind == "named_metrics":
        return metrics.named_metrics.get(key, 0.0)
    if kind == "utilization":
        return metrics.utilization.get(key, 0.0)
    found = (
        getattr(metrics, name, None)
        if name in ("cpu_utilization", "mem_utilization", "application_utilization")
        else None
    )
    return found or 0.0


class ReportedWeight:
    """What an endpoint said. Guarded by the lock of its cluster."""

    __slots__ = ("_at", "_since", "_weight")

    def __init__(self) -> None:
        self._weight = 0.0
        self._at = 0.0
        self._since: float | None = None

    def add(self, metrics: Metrics, reports: Reports, now: float) -> None:
        """Another report. One that gives no weight changes nothing."""
        weight = weight_of(metrics, reports)
        if weight is None:
            return
        if self._since is None:
            self._since = now
        self._weight, self._at = weight, now

    def usable(self, reports: Reports, now: float) -> float:
        """The weight that holds now; 0: none does."""
        if self._since is None:
            return 0.0
        if now - self._at >= reports.expiry:
            self._since = None
            return 0.0
        if reports.blackout and now - self._since < reports.blackout:
            return 0.0
        return self._weight
