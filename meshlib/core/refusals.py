"""Why a cluster gives no endpoint, in words, where its endpoints or its drops are the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.endpoint import Down
from meshlib.core.locality import describe, without_answer
from meshlib.core.upstream import Refusal, RefusalKind
from meshlib.model.subset import NO_LABELS, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext
    from meshlib.model.cluster import Cluster

__all__ = ["dropped", "nobody_usable"]


def dropped(cluster: Cluster, random: Callable[[], float]) -> Refusal | None:
    """ED-06: each category takes its share of what those before left."""
    for drop in cluster.assignment.drops if cluster.assignment is not None else ():
        if random() * 1_000_000 < drop.per_million:
            words = f"cluster {cluster.name!r} drops calls ({drop.category or 'no category'})"
            return Refusal(RefusalKind.DROPPED, words, drop.category)
    return None


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
