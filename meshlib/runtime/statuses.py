"""What is told of an endpoint in use. Read under the lock of its cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.core.endpoint import Down
from meshlib.model.call import OutcomeKind
from meshlib.model.endpoint import Health
from meshlib.model.status import ClusterStatus, EndpointStatus, LatencyStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.outlier import Ejections
    from meshlib.model.call import Outcome
    from meshlib.runtime.live_breaker import LiveBreaker

__all__ = ["cluster_status", "endpoint_status", "failure_words"]

_SHARES = (0.5, 0.99)


def endpoint_status(endpoint: LiveEndpoint, ejections: Ejections | None, now: float) -> EndpointStatus:
    """``ejections``: its cluster's, where it has any."""
    latency = endpoint.latency
    seconds = latency.quantiles(_SHARES, now) if latency is not None else None
    return EndpointStatus(
        endpoint.name,
        endpoint.weight,
        endpoint.priority,
        str(endpoint.locality),
        _health(endpoint),
        endpoint.active,
        endpoint.requests,
        endpoint.failures,
        LatencyStatus(*seconds) if seconds is not None else None,
        endpoint.last_error,
        ejections.left(endpoint, now) if ejections is not None else None,
        *_checked(endpoint),
    )


class _Counted(Protocol):
    """What of :class:`meshlib.runtime.live.LiveCluster` is told."""

    active: int
    requests: int
    failures: int
    retried: int
    overflows: int
    ejected: int


def cluster_status(
    live: _Counted,
    endpoints: Iterable[LiveEndpoint],
    ejections: Ejections | None,
    breaker: LiveBreaker | None,
    now: float,
    high: int = 0,
) -> ClusterStatus:
    """Under the cluster's lock. ``ejections`` and ``breaker``: its own, where it has any; ``high``: how many calls of that priority it
    has.
    """
    return ClusterStatus(
        tuple(endpoint_status(endpoint, ejections, now) for endpoint in endpoints),
        breaker.state.value if breaker is not None else "closed",
        live.active + high,
        live.requests,
        live.failures,
        live.retried,
        live.overflows,
        live.ejected,
    )


def _checked(endpoint: LiveEndpoint) -> tuple[str, int]:
    check = endpoint.check
    if check is None or check.answer is None:
        return "", 0
    held = "failing" if check.failed else "degraded" if check.degraded else "passing"
    return f"{held}: {check.answer.words}", check.total


def _health(endpoint: LiveEndpoint) -> str:
    if endpoint.endpoint.health is Health.DRAINING:
        return "draining"
    if endpoint.down & ~(Down.EJECTED | Down.UNCOUNTED):
        return "unhealthy"
    return "ejected" if endpoint.down else "healthy"


def failure_words(outcome: Outcome) -> str:
    """How an attempt that was not good ended. Text alone: the error itself would keep the call's frames."""
    if outcome.kind is OutcomeKind.OK:
        return f"status {outcome.status}"
    detail = outcome.detail or (str(outcome.error) if outcome.error is not None else "")
    return f"{outcome.kind.value}: {detail}" if detail else outcome.kind.value
