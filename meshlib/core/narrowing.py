"""Of a cluster's endpoints those that this process calls at all: a random subset, or its aperture.

Each priority is narrowed by itself, and over all its localities. Whoever the control plane lets nobody call has no place; one that is
ejected keeps its own, so that ejections move nobody's connections. Where nobody of the chosen may be called, all are: a process that has
bad luck is no worse off than without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.balance.aperture import aperture
from meshlib.core.balance.subset import random_subset
from meshlib.core.endpoint import Down
from meshlib.core.locality import Group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.policy import Aperture

__all__ = ["narrowed"]


def narrowed(
    groups: Sequence[Group], rules: Aperture, own: int
) -> tuple[Sequence[Group], dict[LiveEndpoint, float]]:
    """The groups with the chosen only, and of which of them only a part is to be called. ``own``: the process's seed."""
    made: list[Group] = []
    parts: dict[LiveEndpoint, float] = {}
    by_priority: dict[int, list[Group]] = {}
    for group in groups:
        by_priority.setdefault(group.priority, []).append(group)
    for held in by_priority.values():
        chosen = _chosen(held, rules, own)
        if chosen is None:
            made += held
            continue
        parts.update(chosen)
        for group in held:
            members = [endpoint for endpoint in group.endpoints if endpoint in chosen]
            if members:
                made.append(Group(group.priority, group.weight, members, group.locality))
    return made, parts


def _chosen(groups: Sequence[Group], rules: Aperture, own: int) -> dict[LiveEndpoint, float] | None:
    """Of one priority, with their parts; None: all of them."""
    listed = [
        endpoint for group in groups for endpoint in group.endpoints if not endpoint.down & ~Down.EJECTED
    ]
    if len(listed) <= rules.size:
        return None
    if rules.callers:
        chosen = aperture(listed, rules.size, rules.caller, rules.callers)
    else:
        chosen = dict.fromkeys(random_subset(listed, rules.size, own), 1.0)
    return chosen if any(not endpoint.down for endpoint in chosen) else None
