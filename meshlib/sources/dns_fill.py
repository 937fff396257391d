"""What DNS answered, as the assignment of a cluster. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.model.address import Address
from meshlib.model.cluster import Discovery
from meshlib.model.endpoint import Assignment, Endpoint, Locality, LocalityEndpoints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.model.cluster import Cluster, DnsTarget
    from meshlib.sources.dns_query import Found

__all__ = ["fill"]


def fill(cluster: Cluster, answers: Sequence[tuple[Found, ...]], before: Assignment | None) -> Assignment:
    """``cluster.assignment`` is the template: its localities are the groups that the targets fill, with what is written
    in them already. ``answers`` has one entry a target; ``before`` is what was made last.
    """
    template = cluster.assignment or Assignment(cluster.name)
    groups = list(template.localities) or [LocalityEndpoints(Locality(), ())]
    if cluster.discovery is Discovery.SRV:
        return replace(template, localities=_by_priority(groups[0], answers))
    members = [list(group.endpoints) for group in groups]
    taken = {endpoint.address for group in members for endpoint in group}
    for target, found in zip(cluster.dns, answers, strict=True):
        into = members[min(target.group, len(members) - 1)]
        if cluster.discovery is Discovery.LOGICAL_DNS:
            into.extend(_one(target, found, before))
            continue
        for endpoint in _each(target, found):
            # Two names may lead to one address (ED-03 forbids that; the first holds).
            if endpoint.address not in taken:
                taken.add(endpoint.address)
                into.append(endpoint)
    filled = (replace(group, endpoints=tuple(into)) for group, into in zip(groups, members, strict=True))
    return replace(template, localities=tuple(filled))


def _each(target: DnsTarget, found: tuple[Found, ...]) -> list[Endpoint]:
    hostname = target.hostname or target.name
    return [
        Endpoint(Address(item.address, target.port), target.weight, hostname=hostname, check=target.check)
        for item in found
    ]


def _one(target: DnsTarget, found: tuple[Found, ...], before: Assignment | None) -> list[Endpoint]:
    """LOGICAL_DNS: all addresses are one endpoint (CD-03). The one in use stays in front while it is still there, so
    that a server that rotates its answers does not move connections.
    """
    addresses = [Address(item.address, target.port) for item in found]
    in_use = {endpoint.address for endpoint in before.endpoints} if before is not None else set()
    addresses.sort(key=lambda address: address not in in_use)
    if not addresses:
        return []
    hostname = target.hostname or target.name
    return [
        Endpoint(
            addresses[0],
            target.weight,
            hostname=hostname,
            additional_addresses=tuple(addresses[1:]),
            check=target.check,
        )
    ]


def _by_priority(
    group: LocalityEndpoints, answers: Sequence[tuple[Found, ...]]
) -> tuple[LocalityEndpoints, ...]:
    """SRV: a group for each priority that was found."""
    rows: dict[int, dict[Address, Endpoint]] = {}
    for found in answers:
        for item in found:
            address = Address(item.address, item.port)
            row = rows.setdefault(item.priority, {})
            row.setdefault(address, Endpoint(address, item.weight, hostname=item.target))
    return tuple(
        replace(group, endpoints=tuple(row.values()), priority=priority)
        for priority, row in sorted(rows.items())
    )
