"""Why a cluster gives no endpoint, in words, where its endpoints or its drops are the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.endpoint import Down
from meshlib.core.upstream import Refusal, RefusalKind
from meshlib.model.cluster import Discovery
from meshlib.model.subset import NO_LABELS, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext
    from meshlib.model.cluster import Cluster

__all__ = ["describe", "dropped", "nobody_usable", "too_many", "without_answer"]


def dropped(cluster: Cluster, random: Callable[[], float]) -> Refusal | None:
    """ED-06: each category takes its share of what those before left."""
    for drop in cluster.assignment.drops if cluster.assignment is not None else ():
        if random() * 1_000_000 < drop.per_million:
            words = f"cluster {cluster.name!r} drops calls ({drop.category or 'no category'})"
            return Refusal(RefusalKind.DROPPED, words, drop.category)
    return None


def too_many(name: str, active: int, limit: int | None, adaptive: int | None) -> Refusal:
    """``active`` calls are in flight: as many as ``limit`` or the latency (``adaptive``) allow."""
    held = adaptive is not None and active >= adaptive
    most = f"its latency allows {adaptive}" if held else f"max_requests is {limit}"
    return Refusal(RefusalKind.MAX_REQUESTS, f"cluster {name!r} has {active} calls in flight, {most}")


def nobody_usable(
    cluster: Cluster, endpoints: Sequence[LiveEndpoint], context: PickContext | None = None
) -> Refusal:
    """None of ``endpoints``, all that the cluster has, may be called; or none that a call of ``context`` is for."""
    override = None if context is None else context.override
    if override is not None and override.strict and cluster.assignment is not None:
        there = any(override.names_it(endpoint) for endpoint in endpoints)
        words = (
            f"the session is at {override.words()}, which {'may not be called now' if there else 'is gone'}"
        )
        kind = RefusalKind.NO_ENDPOINT if there else RefusalKind.SESSION
        return Refusal(kind, f"cluster {cluster.name!r}: {words}")
    words = f"cluster {cluster.name!r} {describe(endpoints)}{without_answer(cluster)}"
    if cluster.balancing.subsets is not None and any(not item.down for item in endpoints):
        labels = getattr(context, "labels", NO_LABELS)
        wanted = f"with {shown(labels)}" if labels else "for a call without labels (metadata_match)"
        words = f"cluster {cluster.name!r} has no usable endpoint {wanted} among {len(endpoints)}"
    if endpoints and all(endpoint.down & Down.TLS for endpoint in endpoints):
        tls = next(item.tls for item in endpoints if item.tls is not None)
        return Refusal(RefusalKind.TLS, f"{words}: {tls.closed}")
    return Refusal(RefusalKind.NO_ENDPOINT, words)


def without_answer(cluster: Cluster) -> str:
    """What ends a sentence on a cluster that has nobody to call: what the resolver or the control plane said, or that nothing
    came yet.
    """
    if cluster.unresolved or cluster.unassigned:
        return f": {cluster.unresolved or cluster.unassigned}"
    if cluster.assignment is not None:
        return ""
    if cluster.dns:
        return f": no answer yet for {', '.join(target.name for target in cluster.dns)}"
    return ": its endpoints have not come yet" if cluster.discovery is Discovery.EDS else ""


def describe(endpoints: Sequence[LiveEndpoint]) -> str:
    """Why nobody among ``endpoints`` can be called, in words."""
    if not endpoints:
        return "has no endpoint"
    counts = {
        "unhealthy": sum(bool(item.down & Down.CONTROL_PLANE) for item in endpoints),
        "failing health checks": sum(_first_of(item, Down.CHECK) for item in endpoints),
        "ejected": sum(_first_of(item, Down.EJECTED) for item in endpoints),
        "behind TLS that cannot be had": sum(item.down == Down.TLS for item in endpoints),
    }
    words = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"has no usable endpoint among {len(endpoints)}" + (f" ({words})" if words else "")


def _first_of(endpoint: LiveEndpoint, reason: int) -> bool:
    """Whether that is why it cannot be called, and nothing that is said before it."""
    before = Down.CONTROL_PLANE if reason == Down.CHECK else Down.CONTROL_PLANE | Down.CHECK
    return bool(endpoint.down & reason) and not endpoint.down & before
