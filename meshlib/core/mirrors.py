"""Calls that go to another cluster, too, whose answer nobody reads (RW-04; Envoy's ``request_mirror_policies``).

A call is mirrored once, with the head of its first attempt, by the mirrors of its cluster, or else of the most specific of route, virtual host and route
configuration that has any; each draws by itself. What is mirrored is a call of its own, without retries, within the route's timeout:
nothing that becomes of it reaches the call.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from meshlib.core.attempt import Shadow, tell
from meshlib.core.edits import Mutations
from meshlib.core.formats import Values
from meshlib.core.rewrite import named_cluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.match import Match
    from meshlib.core.resolution import Resolution
    from meshlib.model.call import Head
    from meshlib.model.edits import Mutation
    from meshlib.model.route import Mirror

__all__ = ["MOST_SECONDS", "is_drawn", "shadow_host", "shadows"]

_MILLION = 1_000_000
_SUFFIX = "-shadow"
#: What has no timeout is bounded all the same: Envoy's default of a route. Seconds.
MOST_SECONDS = 15.0


class _Call(Protocol):
    """What of a call (:class:`meshlib.core.effects.Call`)."""

    counted: bool
    resolution: Resolution


def shadows(
    mirrors: tuple[Mirror, ...],
    match: Match,
    call: _Call,
    made: Callable[[], Head],
    deadline: float | None,
    now: float,
    random: Callable[[], float],
) -> tuple[Shadow, ...]:
    """What of a call goes elsewhere, too. ``made`` gives its head as the route sends it, a new one; ``deadline`` is the call's."""
    found = []
    for mirror in mirrors:
        if not is_drawn(mirror, random):
            continue
        head = match.compiled.sent(made())
        cluster = mirror.cluster or named_cluster(head, mirror.cluster_header)
        if not cluster:
            continue
        if match.virtual_host.include_attempt_count or call.counted:
            tell(head, None, 1)
        if mirror.mutations:
            name, host = match.route.name, match.virtual_host.name
            values = Values(head, cluster=cluster, route=name, virtual_host=host)
            _compiled(mirror.mutations).apply(head, values)
        head.authority = shadow_host(mirror, head.authority)
        left = MOST_SECONDS if deadline is None else deadline - now
        found.append(Shadow(call.resolution.part, cluster, head, left))
    return tuple(found)


@lru_cache(maxsize=256)
def _compiled(mutations: tuple[Mutation, ...]) -> Mutations:
    return Mutations(mutations)


def is_drawn(mirror: Mirror, random: Callable[[], float]) -> bool:
    """Whether this call is among those that are mirrored."""
    return mirror.per_million is None or random() * _MILLION < mirror.per_million


def shadow_host(mirror: Mirror, authority: str) -> str:
    """The host that the mirrored call is for, as Envoy has it (measured, 1.40)."""
    if mirror.host or not mirror.append_shadow:
        return mirror.host or authority
    at = authority.rfind(":")
    if at < 0 or "]" in authority[at:]:
        return authority + _SUFFIX
    return authority[:at] + _SUFFIX + authority[at:]
