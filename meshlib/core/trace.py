"""A call's decisions in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.core.match import Match
    from meshlib.core.resolve import Resolution
    from meshlib.model.call import Attempt, Head
    from meshlib.model.route import ClusterWeight

__all__ = ["render"]


def render(
    resolution: Resolution,
    head: Head,
    match: Match | None,
    cluster: str,
    weight: ClusterWeight | None,
    attempts: Sequence[Attempt],
    words: Sequence[str],
) -> tuple[str, ...]:
    """The lines of ``CallInfo.trace()``: what was asked, who knew the host, route, cluster, each attempt, the end."""
    lines = [f"{head.method} {head.scheme}://{head.authority}{head.path}"]
    if resolution.reason:
        lines.append(resolution.reason)
    if resolution.listener is not None:
        lines.append(f"listener {resolution.listener.name} ({resolution.part})")
    if match is not None:
        lines.append(f"virtual host {match.virtual_host.name}, route {match.name}")
    if cluster:
        share = f" (weight {weight.weight} of its route's split)" if weight is not None else ""
        lines.append(f"cluster {cluster}{share}")
    lines.extend(attempt_line(attempt) for attempt in attempts)
    lines.extend(words)
    return tuple(lines)


def attempt_line(attempt: Attempt) -> str:
    """One attempt: where it went, how it ended, how long it took."""
    status = f" {attempt.status}" if attempt.status is not None else ""
    sent = "" if attempt.sent else ", nothing was sent"
    took = f"{attempt.seconds * 1000:.1f} ms"
    return f"attempt {attempt.number} to {attempt.endpoint}: {attempt.outcome}{status} in {took}{sent}"
