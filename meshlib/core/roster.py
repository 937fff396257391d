"""The endpoints of a cluster over its updates: who stays is the same object, who leaves is marked gone.

An endpoint is known by its address; where that changed, by one of its additional addresses (DS-01: the whole set is one
endpoint, in any order). Of endpoints that share an address the first in order of priority counts, as in Envoy.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from meshlib.core.endpoint import Down, LiveEndpoint
from meshlib.core.locality import Group
from meshlib.model.endpoint import Health

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.model.address import Address
    from meshlib.model.cluster import Cluster
    from meshlib.model.endpoint import Endpoint, Locality, LocalityEndpoints
    from meshlib.model.tls import Tls

__all__ = ["Roster", "plan_roster", "tls_of", "told"]

#: Envoy: the endpoint metadata that ``transport_socket_matches`` is held against.
_SOCKET_MATCH = "envoy.transport_socket_match"

#: What the configuration does not say.
_KEPT = Down.EJECTED | Down.CHECK | Down.UNCOUNTED

_Entry = tuple["LiveEndpoint", "Endpoint", "Locality", int, "Tls | None"]


@dataclass(slots=True)
class Roster:
    """A cluster's endpoints, by address and by locality, with its overprovisioning factor in percent and whether weights are its
    levels' health. ``apply`` puts a planned one into force. ``planned``: whether its endpoints were made.
    """

    live: dict[Address, LiveEndpoint] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    factor: int = 140
    weighted: bool = False
    gone: list[LiveEndpoint] = field(default_factory=list)
    changed: list[_Entry] = field(default_factory=list)
    planned: bool = True

    @property
    def made(self) -> Mapping[Address, LiveEndpoint]:
        """``live`` of one that is planned; nobody else is there yet."""
        return self.live if self.planned else {}

    @property
    def shown(self) -> Mapping[Address, LiveEndpoint]:
        """Who is there, to be told of and not to be kept: of one that is not planned, endpoints that nobody else sees."""
        return self.live

    @property
    def applied(self) -> bool:
        """Whether nothing is left to ``apply``."""
        return not (self.changed or self.gone)

    def says_again(self, other: Roster) -> bool:
        """Whether a balance made of ``other``, which is in force, is right for this one."""
        alike = self.factor == other.factor and self.weighted is other.weighted
        return self.applied and alike and self.groups == other.groups

    def begin(self, old: Roster, now: float) -> None:
        """Say of those that are not in ``old`` that they came now."""
        known = {id(live) for live in old.made.values()}
        for live in self.live.values():
            if id(live) not in known:
                live.since = now

    def apply(self, most: int = sys.maxsize) -> list[LiveEndpoint]:
        """Write what changed into the endpoints that stay, and mark those that left: ``most`` of them at a time, under the
        lock of their cluster. Answers those that it marked.
        """
        count = min(most, len(self.changed))
        for _ in range(count):
            live, endpoint, locality, priority, tls = self.changed.pop()
            live.endpoint = endpoint
            live.address = endpoint.address
            live.name = str(endpoint.address)
            live.hostname = endpoint.hostname
            live.weight = max(1, endpoint.weight)
            live.locality = locality
            live.priority = priority
            if (
                live.tls != tls
            ):  # an equal one stays the same object: whoever keeps connections to it compares those
                live.tls = tls
            live.down = (live.down & _KEPT) | _down(endpoint, tls)
            live.degraded = live.degraded_by_plan or (live.check is not None and live.check.degraded)
        marked = [self.gone.pop() for _ in range(min(most - count, len(self.gone)))]
        for live in marked:
            live.gone = True
        return marked


def plan_roster(
    old: Mapping[Address, LiveEndpoint], cluster: Cluster, give_way: Callable[[], object] = bool
) -> Roster:
    """The roster that ``cluster`` orders, with the endpoints of ``old`` where they stay. Changes none of them yet, so
    it needs no lock as long as one writer plans. ``give_way`` is called at each endpoint.
    """
    factor, weighted = told(cluster)
    roster = Roster(factor=factor, weighted=weighted)
    if cluster.assignment is not None:
        for part in sorted(cluster.assignment.localities, key=lambda item: item.priority):
            _add(roster, old, cluster, part, give_way)
    if old:
        roster.gone = _gone(old, roster, give_way)
    return roster


def told(cluster: Cluster) -> tuple[int, bool]:
    """The ``factor`` and ``weighted`` of its roster."""
    assignment = cluster.assignment
    return (
        (140, False)
        if assignment is None
        else (assignment.overprovisioning_factor, assignment.weighted_health)
    )


def _gone(
    old: Mapping[Address, LiveEndpoint], roster: Roster, give_way: Callable[[], object]
) -> list[LiveEndpoint]:
    kept, gone = set(), []
    for live in roster.live.values():
        give_way()
        kept.add(id(live))
    for live in old.values():
        give_way()
        if id(live) not in kept:
            gone.append(live)
    return gone


def _add(
    roster: Roster,
    old: Mapping[Address, LiveEndpoint],
    cluster: Cluster,
    part: LocalityEndpoints,
    give_way: Callable[[], object],
) -> None:
    priority, locality, there = part.priority, part.locality, roster.live
    group = Group(priority, part.weight, locality=locality)
    members = group.endpoints
    alike = not cluster.tls_matches and (cluster.tls is None or not cluster.tls.proxied)
    tls = cluster.tls
    for endpoint in part.endpoints:
        give_way()
        address = endpoint.address
        if address in there:
            continue
        if not alike:
            tls = tls_of(cluster, endpoint, part)
        live = old.get(address) if old else None
        if live is None and endpoint.additional_addresses:
            live = _renamed(roster, old, endpoint)
        if live is None:
            down = _down(endpoint, tls)
            live = LiveEndpoint(endpoint, priority=priority, locality=locality, tls=tls, down=down)
        elif not _same(live, endpoint, part, tls):
            roster.changed.append((live, endpoint, locality, priority, tls))
        there[address] = live
        members.append(live)
    roster.groups.append(group)


def _renamed(roster: Roster, old: Mapping[Address, LiveEndpoint], endpoint: Endpoint) -> LiveEndpoint | None:
    for address in endpoint.additional_addresses:
        live = old.get(address)
        if (
            live is not None
            and endpoint.address in live.endpoint.additional_addresses
            and live not in roster.live.values()
        ):
            return live
    return None


def _same(live: LiveEndpoint, endpoint: Endpoint, part: LocalityEndpoints, tls: Tls | None) -> bool:
    known = live.endpoint
    return (
        (known is endpoint or (known == endpoint and known.metadata == endpoint.metadata))
        and live.priority == part.priority
        and live.locality == part.locality
        and live.tls == tls
    )


def _down(endpoint: Endpoint, tls: Tls | None) -> int:
    down = 0 if endpoint.health is Health.UNKNOWN or endpoint.health.usable else Down.CONTROL_PLANE
    return down | Down.TLS if tls is not None and tls.closed else down


def tls_of(cluster: Cluster, endpoint: Endpoint, locality: LocalityEndpoints) -> Tls | None:
    """What a connection to ``endpoint`` must use: the first of ``transport_socket_matches`` all of whose labels the
    endpoint's metadata has (or, where that has none at all, its locality's), else the cluster's own; through the endpoint's proxy, or
    its locality's, where that goes through one (TL-07).
    """
    labels = endpoint.metadata.get(_SOCKET_MATCH)
    if labels is None:
        labels = locality.metadata.get(_SOCKET_MATCH, {})
    tls = cluster.tls
    for entry in cluster.tls_matches:
        if all(name in labels and labels[name] == value for name, value in entry.match.items()):
            tls = entry.tls
            break
    if tls is None or not tls.proxied:
        return tls
    proxy = endpoint.proxy or locality.proxy or tls.proxy
    if proxy is not None and endpoint.address.unix:
        return replace(tls, unsupported=f"{endpoint.address} cannot be reached through a proxy")
    return tls if proxy == tls.proxy else replace(tls, proxy=proxy)
