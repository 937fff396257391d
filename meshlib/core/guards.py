"""Which filter that decides who may pass covers a call (LD-05).

A guard is not known here, so what it covers is refused: 403, as its own "no" would be. Whether it covers a call is Envoy's
rule: the most specific of weighted cluster, route, virtual host and route configuration that speaks of the filter decides;
where none does, the listener's own `disabled`. A filter that guards nothing by itself guards where a place is in force that
makes it a guard, and where a more specific one adds to it (Envoy merges such settings).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.model.call import Response
from meshlib.model.listener import FilterKind

if TYPE_CHECKING:
    from meshlib.core.match import Match
    from meshlib.model.listener import HttpFilter, HttpManager
    from meshlib.model.route import ClusterWeight, FilterSwitch

__all__ = ["covering", "guards_of", "refusal", "words"]


def guards_of(manager: HttpManager, named: frozenset[str]) -> tuple[HttpFilter, ...]:
    """The filters that may cover a call: none, as a rule. ``named``: those that the routes make into guards."""
    return tuple(
        each
        for each in manager.filters
        if each.kind in (FilterKind.GUARD, FilterKind.NETWORK)
        or (each.kind is FilterKind.OTHER and each.name in named)
    )


def covering(guards: tuple[HttpFilter, ...], match: Match | None, weight: ClusterWeight | None) -> str:
    """The name of a guard that is in force for this match and share, or ``""``."""
    return next((each.name for each in guards if _in_force(each, _switches(each.name, match, weight))), "")


def refusal(guard: str) -> Response:
    """What a call gets that a guard covers."""
    return Response(403, (), f"{words(guard)}\n".encode())


def words(guard: str) -> str:
    """Why it is refused."""
    return f"filter {guard} decides who may pass here, and meshlib does not know it"


def _in_force(guard: HttpFilter, switches: tuple[FilterSwitch, ...]) -> bool:
    if guard.kind is FilterKind.NETWORK:
        return True
    if guard.kind is FilterKind.OTHER:
        return bool(switches) and switches[0].on and any(each.on and each.guard for each in switches)
    return switches[0].on if switches else not guard.disabled


def _switches(name: str, match: Match | None, weight: ClusterWeight | None) -> tuple[FilterSwitch, ...]:
    """What places say of the filter, the most specific first."""
    if match is None:
        return ()
    places = (
        weight.filters if weight is not None else (),
        match.route.filters,
        match.virtual_host.filters,
        match.config.filters,
    )
    return tuple(each for place in places for each in place if each.name == name)
