"""Load assignments: who is behind a cluster (ED)."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.model.address import Address
from meshlib.model.endpoint import Assignment, Drop, Endpoint, Health, Locality, LocalityEndpoints
from meshlib.xds.decode.address import numeric
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.values import fraction, metadata, number
from meshlib.xds.schema import WireMessage

__all__ = ["assignment"]

_MAX_UINT32 = 2**32 - 1
_HEALTH = {
    0: Health.UNKNOWN,
    1: Health.HEALTHY,
    2: Health.UNHEALTHY,
    3: Health.DRAINING,
    4: Health.TIMEOUT,
    5: Health.DEGRADED,
}
_MAX_PRIORITY = 128

Resolve = Callable[[WireMessage, str, Report], Address | None]


def assignment(
    message: WireMessage, path: str, report: Report, *, address: Resolve = numeric, name: str = ""
) -> Assignment:
    """A ClusterLoadAssignment, from EDS or inline in a cluster (then `name` is the cluster's).

    A locality without a weight is kept with None: only locality-weighted balancing leaves it out (DV-15).
    """
    groups = tuple(
        _group(item, f"{join(path, 'endpoints')}[{index}]", report, address)
        for index, item in enumerate(message.endpoints)
    )
    _check_weights(groups, path, report)
    _check_priorities(groups, path, report)
    _check_localities(groups, path, report)
    _check_addresses(groups, path, report)
    drops, factor = _policy(message, path, report)
    return Assignment(name or str(message.cluster_name), groups, drops, factor)


def _group(message: WireMessage, path: str, report: Report, address: Resolve) -> LocalityEndpoints:
    which = message.WhichOneof("lb_config")
    field = "lb_endpoints"
    held = message.lb_endpoints
    if which == "load_balancer_endpoints":
        held, field = message.load_balancer_endpoints.lb_endpoints, f"{which}.{field}"
    made = (
        _endpoint(item, f"{join(path, field)}[{index}]", report, address) for index, item in enumerate(held)
    )
    endpoints = tuple(endpoint for endpoint in made if endpoint is not None)
    if sum(endpoint.weight for endpoint in endpoints) > _MAX_UINT32:
        report.problem(join(path, field), f"the weights add up to more than {_MAX_UINT32}")
    priority = int(message.priority)
    if priority > _MAX_PRIORITY:
        report.problem(join(path, "priority"), f"must be 0 to {_MAX_PRIORITY}, not {priority}")
    place = message.locality
    return LocalityEndpoints(
        Locality(str(place.region), str(place.zone), str(place.sub_zone)),
        endpoints,
        number(message, "load_balancing_weight"),
        priority,
        metadata(message),
    )


def _endpoint(message: WireMessage, path: str, report: Report, address: Resolve) -> Endpoint | None:
    if message.WhichOneof("host_identifier") != "endpoint":
        if message.WhichOneof("host_identifier") is None:
            report.problem(join(path, "endpoint"), "is missing")
        return None
    weight = number(message, "load_balancing_weight")
    if weight == 0:
        report.problem(join(path, "load_balancing_weight"), "must not be 0")
    health = _HEALTH.get(message.health_status)
    if health is None:
        report.problem(join(path, "health_status"), f"{message.health_status} is not known")
    held, here = message.endpoint, join(path, "endpoint")
    first = address(held.address, join(here, "address"), report)
    others = tuple(
        address(item.address, f"{join(here, 'additional_addresses')}[{index}].address", report)
        for index, item in enumerate(held.additional_addresses)
    )
    if first is None:
        return None
    return Endpoint(
        first,
        1 if weight is None else weight,
        health or Health.UNKNOWN,
        str(held.hostname),
        metadata(message),
        tuple(other for other in others if other is not None),
    )


def _check_weights(groups: tuple[LocalityEndpoints, ...], path: str, report: Report) -> None:
    """ED-01: per priority the localities' weights must fit 32 bits."""
    totals: dict[int, int] = {}
    for group in groups:
        totals[group.priority] = totals.get(group.priority, 0) + (group.weight or 0)
    for priority, total in sorted(totals.items()):
        if total > _MAX_UINT32:
            report.problem(
                join(path, "endpoints"),
                f"the weights of priority {priority} add up to more than {_MAX_UINT32}",
            )


def _check_priorities(groups: tuple[LocalityEndpoints, ...], path: str, report: Report) -> None:
    """ED-02: no gaps. Unlike in gRPC, localities without a weight count: they are used here."""
    found = sorted({group.priority for group in groups})
    if found and found != list(range(len(found))):
        listed = ", ".join(str(priority) for priority in found[:10])
        report.problem(join(path, "endpoints"), f"priorities must begin with 0 and have no gap, not {listed}")


def _check_localities(groups: tuple[LocalityEndpoints, ...], path: str, report: Report) -> None:
    """ED-02: a locality once a priority, else its weight would be a riddle; without weights it may recur."""
    seen: set[tuple[int, Locality]] = set()
    for index, group in enumerate(groups):
        key = (group.priority, group.locality)
        if group.weight is None:
            continue
        if key in seen:
            report.problem(
                f"{join(path, 'endpoints')}[{index}].locality",
                f"{str(group.locality)!r} is already in priority {group.priority}",
            )
        seen.add(key)


def _check_addresses(groups: tuple[LocalityEndpoints, ...], path: str, report: Report) -> None:
    """ED-03: an address stands once in the whole assignment."""
    seen: set[Address] = set()
    for index, group in enumerate(groups):
        for endpoint in group.endpoints:
            for address in (endpoint.address, *endpoint.additional_addresses):
                if address in seen:
                    report.problem(f"{join(path, 'endpoints')}[{index}]", f"{address} is there twice")
                seen.add(address)


def _policy(message: WireMessage, path: str, report: Report) -> tuple[tuple[Drop, ...], int]:
    """ED-06, ED-07."""
    path = join(path, "policy")
    drops: list[Drop] = []
    for index, item in enumerate(message.policy.drop_overloads):
        here = f"{join(path, 'drop_overloads')}[{index}]"
        if not item.category:
            report.problem(join(here, "category"), "must not be empty")
        if not item.HasField("drop_percentage"):
            report.problem(join(here, "drop_percentage"), "is missing")
        share = fraction(item.drop_percentage, join(here, "drop_percentage"), report)
        drops.append(Drop(str(item.category), share))
    factor = number(message.policy, "overprovisioning_factor")
    if factor == 0:
        report.problem(join(path, "overprovisioning_factor"), "must not be 0")
    return tuple(drops), factor or 140
