"""Zone-aware routing: calls stay in the caller's own locality as far as that can take them.

Theory (Envoy's). Endpoints and callers both stand in localities. If a locality has as great a share of the endpoints as it has of the
callers, all calls from there stay there. If it has less, so much stays as its endpoints have room for, and the rest goes where there
is more room than callers, in proportion to that: so every endpoint gets the same load, whoever calls, and as few calls as can be cross a
border. Only usable endpoints count, so that a locality that loses some keeps less, and one that has none left keeps nothing. Only the
first priority is divided so.

    callers    40 %  40 %  20 %     from the first locality 25 / 40 = 62.5 % stay; what is left of its calls goes to the second and
    endpoints  25 %  50 %  25 %     the third as 10 to 5

Shares are whole hundredths of a percent, rounded down, as Envoy's are. It does nothing where there are fewer than two localities or
fewer than ``minimum`` usable endpoints, and nothing where callers are told and cannot be right: when none is in our own locality, or too
few of them are well.

Who the callers are an Envoy is told by its ``local_cluster_name``. *Nobody tells it to most processes*. Where zone-aware routing is asked
for all the same, callers are taken to be as many in each locality that has endpoints: as balanced, if fleets are spread evenly, which is
what they are spread for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshlib.model.endpoint import Health, Locality
from meshlib.model.policy import ZoneAware

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.cluster import Cluster

__all__ = ["Caller", "Fleet", "Zones", "fleet_of", "zones_of"]

_WHOLE = 10_000
_DEFAULT = ZoneAware()


@dataclass(frozen=True, slots=True)
class Fleet:
    """Those who make the calls, ourselves among them: how many are well in each locality, and their weights; how many localities they have, well or not;
    ``well``: percent.
    """

    counts: Mapping[Locality, int] = field(default_factory=dict, hash=False)
    weights: Mapping[Locality, int] = field(default_factory=dict, hash=False)
    localities: frozenset[Locality] = frozenset()
    well: float = 100.0


@dataclass(frozen=True, slots=True)
class Caller:
    """This process. ``fleet`` None: nobody says who else calls."""

    locality: Locality
    fleet: Fleet | None = None


@dataclass(frozen=True, slots=True)
class Zones:
    """How the calls to one priority are divided: parts of ``share`` by locality, out of 10,000. ``closed``: none is to be called."""

    share: Mapping[Locality, float] = field(default_factory=dict, hash=False)
    closed: bool = False

    def parts(
        self, members: Mapping[Locality, Sequence[LiveEndpoint]], everybody: Sequence[LiveEndpoint]
    ) -> list[tuple[float, Sequence[LiveEndpoint]]]:
        """Who gets which part. A locality that has nobody leaves its part to all, and so does what is divided among none."""
        parts: list[tuple[float, Sequence[LiveEndpoint]]] = []
        rest = float(_WHOLE)
        for locality, share in self.share.items():
            inside = members.get(locality)
            if inside and share:
                parts.append((share, inside))
                rest -= share
        if rest >= 1e-6 and parts:
            parts.append((rest, everybody))
        return parts


def fleet_of(cluster: Cluster) -> Fleet:
    """The endpoints of ``cluster`` as fleet. What the control plane says of their health is all that is known of it."""
    counts: dict[Locality, int] = {}
    weights: dict[Locality, int] = {}
    found: set[Locality] = set()
    total = well = 0
    for group in cluster.assignment.localities if cluster.assignment is not None else ():
        if group.priority or not group.endpoints:
            continue
        found.add(group.locality)
        up = [endpoint for endpoint in group.endpoints if endpoint.health.usable]
        total, well = total + len(group.endpoints), well + len(up)
        up = [endpoint for endpoint in up if endpoint.health is not Health.DEGRADED]
        if up:
            counts[group.locality] = counts.get(group.locality, 0) + len(up)
            weight = sum(max(1, endpoint.weight) for endpoint in up)
            weights[group.locality] = weights.get(group.locality, 0) + weight
    return Fleet(counts, weights, frozenset(found), 100.0 * well / total if total else 0.0)


def zones_of(
    rules: ZoneAware | None,
    caller: Caller | None,
    usable: Mapping[Locality, Sequence[LiveEndpoint]],
    threshold: float,
) -> Zones | None:
    """How calls from ``caller`` are divided; None: as if there were no localities.

    ``usable``: of the first priority, by locality, those that have nobody usable among them. ``threshold``: percent, below which
    callers are in a panic. Without ``rules`` Envoy's defaults hold where the callers are known, and nothing is done elsewhere.
    """
    if caller is None or len(usable) < 2:
        return None
    own, fleet = caller.locality, caller.fleet
    if rules is None:
        if fleet is None:
            return None
        rules = _DEFAULT
    if fleet is None:
        if own not in usable:
            return None
        even = dict.fromkeys(usable, 1)
        fleet = Fleet(even, even, frozenset(usable))
    elif own not in fleet.localities or (len(fleet.localities) < 2 and not rules.force):
        return None
    if sum(map(len, usable.values())) < rules.minimum:
        return None
    if fleet.well < threshold:
        return Zones(closed=True) if rules.fail_on_panic else None
    return Zones(_scaled(_divided(rules, own, fleet, usable), rules.percent))


def _divided(
    rules: ZoneAware, own: Locality, fleet: Fleet, usable: Mapping[Locality, Sequence[LiveEndpoint]]
) -> dict[Locality, float]:
    """Out of 10,000 calls from ``own``."""
    if rules.by_weight:
        sizes = {locality: sum(item.weight for item in held) for locality, held in usable.items()}
        theirs = _percentages(fleet.weights, usable)
    else:
        sizes = {locality: len(held) for locality, held in usable.items()}
        theirs = _percentages(fleet.counts, usable)
    ours = _percentages(sizes, usable)
    if own in usable and (0 < ours[own] >= theirs[own] or (rules.force and len(usable[own]) >= rules.force)):
        return {own: float(_WHOLE)}
    stay = ours[own] * _WHOLE // theirs[own] if own in usable and theirs[own] else 0
    room = {locality: max(0, ours[locality] - theirs[locality]) for locality in usable if locality != own}
    total = sum(room.values())
    if not total:  # rounding left none: any locality
        room, total = dict.fromkeys(usable, 1), len(usable)
    divided = {locality: (_WHOLE - stay) * part / total for locality, part in room.items()}
    if stay:
        divided[own] = divided.get(own, 0.0) + stay
    return divided


def _percentages(
    counts: Mapping[Locality, int], localities: Mapping[Locality, object]
) -> dict[Locality, int]:
    total = sum(counts.values())
    return {locality: _WHOLE * counts.get(locality, 0) // total if total else 0 for locality in localities}


def _scaled(divided: Mapping[Locality, float], percent: int) -> Mapping[Locality, float]:
    """``percent`` of the calls are divided at all."""
    if percent >= 100:
        return divided
    return {locality: share * percent / 100.0 for locality, share in divided.items()}
