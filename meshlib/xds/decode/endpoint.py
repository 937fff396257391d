"""Load assignments: who is behind a cluster (ED).

gRPC refuses more than Envoy: weights that do not fit 32 bits, a gap in the priorities, a locality or an address that
stands twice, port 0. In the sidecar view such an assignment holds, as far as it can be called.

Most endpoints are an IPv4 address, a weight and a health, and there may be a hundred thousand of them. Such a *plain* one is read
without its fields being gone through one by one: where what was read accounts for all of its bytes, there is nothing else in it
that could be wrong, or would have to be reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from meshlib.model.address import Address
from meshlib.model.endpoint import Assignment, Drop, Endpoint, Health, Locality, LocalityEndpoints
from meshlib.xds.decode.address import numeric
from meshlib.xds.decode.health import checked_at
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.values import fraction, metadata, number, seconds, unpacked
from meshlib.xds.schema import WireMessage

__all__ = ["assignment", "load_assignment"]

#: Of a host, with room for a port: RFC 1035 has 253 characters.
_LONGEST_NAME = 260
_MAX_UINT32 = 2**32 - 1
HEALTH = {
    0: Health.UNKNOWN,
    1: Health.HEALTHY,
    2: Health.UNHEALTHY,
    3: Health.DRAINING,
    4: Health.TIMEOUT,
    5: Health.DEGRADED,
}
_MAX_PRIORITY = 128
#: Where typed metadata has the proxy on the way to an endpoint, and as what (gRFC A86).
_PROXY = "envoy.http11_proxy_transport_socket.proxy_address"
_ADDRESS = "envoy.config.core.v3.Address"
_PARTS = {0: 100, 1: 10_000, 2: 1_000_000}  # DenominatorType
_MAX_PORT = 65535
_OCTETS = frozenset(map(str, range(256)))
_NONE: Mapping[str, Mapping[str, object]] = {}

Resolve = Callable[[WireMessage, str, Report], Address | None]


def load_assignment(message: WireMessage, path: str, report: Report) -> Assignment:
    """A ClusterLoadAssignment by itself, and what of it is not honoured."""
    groups, plain = _groups(message, path, report, numeric)
    rest = message
    if plain:
        rest = type(message)()
        rest.CopyFrom(message)
        for index in plain:
            rest.endpoints[index].ClearField("lb_endpoints")
    walk(rest, path, report)
    return _made(message, groups, path, report, str(message.cluster_name))


def assignment(
    message: WireMessage, path: str, report: Report, *, address: Resolve = numeric, name: str = ""
) -> Assignment:
    """A ClusterLoadAssignment, from EDS or inline in a cluster (then `name` is the cluster's).

    A locality without a weight is kept with None: only locality-weighted balancing leaves it out (DV-15).
    """
    groups, _ = _groups(message, path, report, address)
    return _made(message, groups, path, report, name or str(message.cluster_name))


def _groups(
    message: WireMessage, path: str, report: Report, address: Resolve
) -> tuple[tuple[LocalityEndpoints, ...], list[int]]:
    """The localities, and the indexes of those that have plain endpoints only."""
    groups, plain = [], []
    for index, item in enumerate(message.endpoints):
        endpoints = _plain_endpoints(item, report)
        if endpoints is not None:
            plain.append(index)
        groups.append(_group(item, endpoints, f"{join(path, 'endpoints')}[{index}]", report, address))
    return tuple(groups), plain


def _made(
    message: WireMessage, groups: tuple[LocalityEndpoints, ...], path: str, report: Report, name: str
) -> Assignment:
    if report.target:
        _check_weights(groups, path, report)
        _check_priorities(groups, path, report)
        _check_localities(groups, path, report)
        _check_addresses(groups, path, report)
    else:
        groups = _joined(groups)
    drops, factor = _policy(message, path, report)
    stale = seconds(message.policy, "endpoint_stale_after", join(path, "policy"), report)
    return Assignment(
        name, groups, drops, factor, bool(message.policy.weighted_priority_health), stale or 0.0
    )


def _plain_endpoints(message: WireMessage, report: Report) -> tuple[Endpoint, ...] | None:
    """Those of a locality, where all are plain."""
    found = []
    give_way = report.give_way
    for item in message.lb_endpoints:
        give_way()
        endpoint = _plain(item)
        if endpoint is None:
            return None
        found.append(endpoint)
    return tuple(found)


def _plain(message: WireMessage) -> Endpoint | None:
    held = message.endpoint.address.socket_address
    host, port = held.address, held.port_value
    octets = host.split(".")
    if len(octets) != 4 or not _OCTETS.issuperset(octets) or not 0 < port <= _MAX_PORT:
        return None
    # Three messages in each other, of two bytes each; a tag and a length before the host; a tag and one to three bytes of the port.
    rest = message.ByteSize() - (6 + 2 + len(host) + (2 if port < 1 << 7 else 3 if port < 1 << 14 else 4))
    if not rest:
        return Endpoint(Address(host, port), 1, Health.UNKNOWN, "", _NONE)
    weight, health = message.load_balancing_weight.value, message.health_status
    if weight:
        rest -= 2 + 1 + _varint(weight)
    if health:
        rest -= 1 + _varint(health)
    if rest or health not in HEALTH:
        return None
    return Endpoint(Address(host, port), weight or 1, HEALTH[health], "", _NONE)


def _varint(number: int) -> int:
    """Its length on the wire, where it has at most 32 bits."""
    return 1 + (number >= 1 << 7) + (number >= 1 << 14) + (number >= 1 << 21) + (number >= 1 << 28)


def _group(
    message: WireMessage, endpoints: tuple[Endpoint, ...] | None, path: str, report: Report, address: Resolve
) -> LocalityEndpoints:
    which = message.WhichOneof("lb_config")
    field = "lb_endpoints"
    held = message.lb_endpoints
    if which == "load_balancer_endpoints":
        held, field, endpoints = message.load_balancer_endpoints.lb_endpoints, f"{which}.{field}", None
    if endpoints is None:
        made = (
            _endpoint(item, f"{join(path, field)}[{index}]", report, address)
            for index, item in enumerate(held)
        )
        endpoints = tuple(endpoint for endpoint in made if endpoint is not None)
    if report.target and sum([endpoint.weight for endpoint in endpoints]) > _MAX_UINT32:
        report.problem(join(path, field), f"the weights add up to more than {_MAX_UINT32}")
    weight = number(message, "load_balancing_weight")
    if weight == 0 and not report.target:
        report.problem(join(path, "load_balancing_weight"), "must not be 0")
    priority = int(message.priority)
    if priority > _MAX_PRIORITY:
        report.problem(join(path, "priority"), f"must be 0 to {_MAX_PRIORITY}, not {priority}")
    if report.target and weight and not message.HasField("locality"):
        report.problem(join(path, "locality"), "is missing")  # ED-01
    place = message.locality
    return LocalityEndpoints(
        Locality(str(place.region), str(place.zone), str(place.sub_zone)),
        endpoints,
        weight,
        priority,
        metadata(message),
        _proxy(message, path, report),
    )


def _endpoint(message: WireMessage, path: str, report: Report, address: Resolve) -> Endpoint | None:
    report.give_way()
    if message.WhichOneof("host_identifier") != "endpoint":
        if message.WhichOneof("host_identifier") is None:
            report.problem(join(path, "endpoint"), "is missing")
        return None
    weight = number(message, "load_balancing_weight")
    if weight == 0:
        report.problem(join(path, "load_balancing_weight"), "must not be 0")
    health = HEALTH.get(message.health_status)
    if health is None:  # to Envoy it is healthy, to gRPC no endpoint
        report.ignore(join(path, "health_status"), f"{message.health_status} is not known")
        health = Health.UNHEALTHY if report.target else Health.UNKNOWN
    held, here = message.endpoint, join(path, "endpoint")
    first = address(held.address, join(here, "address"), report)
    others = tuple(
        address(item.address, f"{join(here, 'additional_addresses')}[{index}].address", report)
        for index, item in enumerate(held.additional_addresses)
    )
    if first is None:
        return None
    if not (first.unix or first.port):
        report.ignore(join(here, "address"), "nobody can be called at port 0: the endpoint is left out")
        return None
    return Endpoint(
        first,
        1 if weight is None else weight,
        health,
        _hostname(held, here, report),
        metadata(message),
        tuple(other for other in others if other is not None),
        _proxy(message, path, report),
        checked_at(held, here, report, address),
    )


def _proxy(owner: WireMessage, path: str, report: Report) -> Address | None:
    """TL-07. What is there of another type is somebody else's."""
    held = owner.metadata.typed_filter_metadata
    if (
        not owner.HasField("metadata")
        or _PROXY not in held
        or not held[_PROXY].type_url.endswith(f"/{_ADDRESS}")
    ):
        return None
    path = f"{join(path, 'metadata.typed_filter_metadata')}[{_PROXY!r}]"
    message = unpacked(held[_PROXY], path, report, _ADDRESS)
    if message is None:
        return None
    if report.target and message.WhichOneof("address") != "socket_address":
        report.problem(join(path, "socket_address"), "is missing")
        return None
    return numeric(message, path, report, least_port=1)


def _hostname(message: WireMessage, path: str, report: Report) -> str:
    """A name that calls may carry as their host (RW-03). gRPC would send whatever it is given."""
    name = str(message.hostname)
    if len(name) <= _LONGEST_NAME and all("!" <= character <= "~" for character in name):
        return name
    report.ignore(join(path, "hostname"), name)
    return ""


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


def _joined(groups: tuple[LocalityEndpoints, ...]) -> tuple[LocalityEndpoints, ...]:
    """To Envoy a locality that comes again in its priority is the same one; the last weight given holds for all of it."""
    found: dict[tuple[int, Locality, int], LocalityEndpoints] = {}
    for index, group in enumerate(groups):
        key = (group.priority, group.locality, 0)
        known = found.get(key)
        if known is None:
            found[key] = group
        elif (
            known.metadata != group.metadata
        ):  # endpoints read their locality's labels: it stays a group of its own
            found[group.priority, group.locality, index] = group
        else:
            weight = known.weight if group.weight is None else group.weight
            found[key] = replace(known, endpoints=known.endpoints + group.endpoints, weight=weight)
    return tuple(found.values())


def _check_addresses(groups: tuple[LocalityEndpoints, ...], path: str, report: Report) -> None:
    """ED-03: an address stands once in the whole assignment."""
    seen: set[Address] = set()
    for index, group in enumerate(groups):
        for endpoint in group.endpoints:
            report.give_way()
            for address in (endpoint.address, *endpoint.additional_addresses):
                if address in seen:
                    report.problem(f"{join(path, 'endpoints')}[{index}]", f"{address} is there twice")
                seen.add(address)


def _check_drop(share: WireMessage, index: int, path: str, report: Report) -> None:
    """Envoy takes one category, of no more than everything; gRPC takes all, and cuts each down to that."""
    if report.target:
        return
    if index:
        report.problem(path, "there may be one category only")
    if share.numerator > _PARTS.get(share.denominator, share.numerator):
        report.problem(join(path, "drop_percentage"), "must be no more than 100 %")


def _policy(message: WireMessage, path: str, report: Report) -> tuple[tuple[Drop, ...], int]:
    """ED-06, ED-07."""
    path = join(path, "policy")
    drops: list[Drop] = []
    for index, item in enumerate(message.policy.drop_overloads):
        here = f"{join(path, 'drop_overloads')}[{index}]"
        if not item.category:
            report.problem(join(here, "category"), "must not be empty")
        if not item.HasField("drop_percentage"):
            report.stricter(join(here, "drop_percentage"), "is missing", "drops none without a percentage")
        share = fraction(item.drop_percentage, join(here, "drop_percentage"), report)
        _check_drop(item.drop_percentage, index, here, report)
        drops.append(Drop(str(item.category), share))
    factor = number(message.policy, "overprovisioning_factor")
    if factor == 0:
        report.problem(join(path, "overprovisioning_factor"), "must not be 0")
    return tuple(drops), factor or 140
