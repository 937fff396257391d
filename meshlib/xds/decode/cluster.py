"""Clusters: how endpoints are found, and how they are called (CD, CB, OD)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from meshlib.core.loads import NAMED, UTILIZATIONS
from meshlib.model.address import Address
from meshlib.model.cluster import Cluster, Destination, Discovery, DnsTarget, LoadReport
from meshlib.model.endpoint import Assignment, Endpoint, Health, LocalityEndpoints
from meshlib.model.policy import Balancing, HashPolicy, Limits, RetryBudget
from meshlib.xds.aggregates import MOST
from meshlib.xds.decode.address import named
from meshlib.xds.decode.balancing import balancing
from meshlib.xds.decode.calls import call_policies
from meshlib.xds.decode.connecting import ahead, connecting
from meshlib.xds.decode.dns import (
    CLUSTER_FAMILIES,
    DNS_FAMILIES,
    Resolving,
    name_servers,
    resolving,
    typed_servers,
)
from meshlib.xds.decode.endpoint import HEALTH, assignment
from meshlib.xds.decode.guards import filter_type
from meshlib.xds.decode.health import health_check
from meshlib.xds.decode.outlier import outlier
from meshlib.xds.decode.report import Report, join, shown, walk
from meshlib.xds.decode.source import config_source
from meshlib.xds.decode.tls import tls_matches, transport_socket
from meshlib.xds.decode.upstream import upstream_options
from meshlib.xds.decode.values import header_name, metadata, number, percent, seconds, unpacked
from meshlib.xds.names import canonical
from meshlib.xds.schema import WireMessage, type_name

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cluster"]

_DNS_CLUSTER = "envoy.extensions.clusters.dns.v3.DnsCluster"
#: Factories of connections for requests of HTTP; the generic one makes these for all calls but CONNECT.
_HTTP_POOLS = frozenset(
    {
        "envoy.extensions.upstreams.http.generic.v3.GenericConnectionPoolProto",
        "envoy.extensions.upstreams.http.http.v3.HttpConnectionPoolProto",
    }
)
_AGGREGATE = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
_KINDS = {
    0: Discovery.STATIC,
    1: Discovery.STRICT_DNS,
    2: Discovery.LOGICAL_DNS,
    3: Discovery.EDS,
    4: Discovery.ORIGINAL_DST,
}
_NO_LIMIT = 2**32 - 1
#: Where ORIGINAL_DST is told another address.
_DESTINATION = "x-envoy-original-dst-host"
_MOST_PORT = 65535
#: ``RoutingPriority``.
_DEFAULT, _HIGH = 0, 1
_Place = tuple[WireMessage, str]
#: What of an aggregate does nothing, in Envoy and gRPC either.
_OF_LEAVES = (
    "load_assignment",
    "lrs_server",
    "outlier_detection",
    "transport_socket",
    "upstream_bind_config",
    "upstream_connection_options",
)
_THEIRS = "the clusters that it names have their own"
# Envoy's default, in seconds.
_CONNECT_TIMEOUT = 5.0


def cluster(message: WireMessage, path: str, report: Report) -> Cluster:
    """A Cluster. `assignment` is set for STATIC; for the DNS kinds it holds the groups that answers fill."""
    name = str(message.name)
    if not name:
        report.problem(join(path, "name"), "must not be empty")
    found = _discovery(message, path, report)
    groups, targets = _members(message, found.kind, path, report)
    options = upstream_options(message, path, report)
    _judge_pool(message, path, report)
    limits, high_limits = _limits(message, path, report)
    timeout = _connect_timeout(message, path, report)
    calls, hashed = call_policies(message, path, report)
    made = Cluster(
        name=name,
        discovery=found.kind,
        children=found.children,
        assignment=groups,
        eds_name=_eds_name(message, path, report) if found.kind is Discovery.EDS else "",
        dns=targets,
        dns_refresh=found.dns.refresh,
        respect_dns_ttl=found.dns.respect_ttl,
        dns_family=found.dns.family,
        dns_failure_refresh=found.dns.failure,
        dns_jitter=found.dns.jitter,
        name_servers=found.dns.servers,
        balancing=_hashed(balancing(message, path, report, provides=found.provides), hashed),
        calls=calls,
        connect_timeout=timeout,
        limits=limits,
        high_limits=high_limits,
        outlier=outlier(message, path, report),
        tls=transport_socket(message, path, report),
        tls_matches=tls_matches(message, path, report),
        http2=options.http2,
        auto_sni=options.names.sni,
        auto_san=options.names.san,
        auto_sni_header=options.names.header,
        stream_limit=options.stream or None,
        idle_timeout=options.idle,
        max_connection_age=options.age,
        max_requests_per_connection=options.requests,
        connecting=replace(
            connecting(message, path, report),
            most_head=options.head,
            most_lines=options.lines,
            most_streams=options.spoken.streams,
            settings=options.spoken.settings,
            pings=options.spoken.pings,
            proper_case=options.spoken.proper_case,
            whole_urls=options.spoken.whole_urls,
        ),
        load_report=_load_report(message, path, report),
        health_check=health_check(message, path, report, http2=options.http2),
        destination=_destination(message, found.kind, path, report),
        ahead=ahead(message, path, report),
        drains=bool(message.close_connections_on_host_health_failure),
        override_statuses=_override_statuses(message),
        metadata=metadata(message),
    )
    return _without_endpoints(message, made, path, report) if found.kind is Discovery.AGGREGATE else made


def _hashed(made: Balancing, own: tuple[HashPolicy, ...]) -> Balancing:
    """With the cluster's ``own`` hash policies, unless its balancer has some."""
    return made if made.hash_policy or not own else replace(made, hash_policy=own)


def _connect_timeout(message: WireMessage, path: str, report: Report) -> float:
    timeout = seconds(message, "connect_timeout", path, report)
    if timeout == 0:
        report.problem(join(path, "connect_timeout"), "must be more than 0")
    return _CONNECT_TIMEOUT if timeout is None else timeout


@dataclass(frozen=True, slots=True)
class _Discovery:
    kind: Discovery
    dns: Resolving = field(default_factory=Resolving)
    provides: bool = False  # a balancer of its own
    children: tuple[str, ...] = ()


def _discovery(message: WireMessage, path: str, report: Report) -> _Discovery:
    if message.WhichOneof("cluster_discovery_type") == "cluster_type":
        return _custom(message.cluster_type, join(path, "cluster_type"), report)
    kind = _KINDS.get(message.type)
    if kind is None:
        report.problem(join(path, "type"), f"{message.type} is not known")
        return _Discovery(Discovery.STATIC)
    servers = name_servers(message, path, report)
    found = resolving(message, path, report, CLUSTER_FAMILIES, servers)
    return _Discovery(kind, found, kind is Discovery.ORIGINAL_DST)


def _custom(message: WireMessage, path: str, report: Report) -> _Discovery:
    here = join(path, "typed_config")
    nothing = _Discovery(Discovery.STATIC)
    inner = unpacked(message.typed_config, here, report, _DNS_CLUSTER, _AGGREGATE)
    if inner is None:
        return nothing
    walk(inner, here, report)
    if type_name(message.typed_config.type_url) == _AGGREGATE:
        return _aggregate(inner, here, report)
    kind = Discovery.LOGICAL_DNS if inner.all_addresses_in_single_endpoint else Discovery.STRICT_DNS
    return _Discovery(kind, resolving(inner, here, report, DNS_FAMILIES, typed_servers(inner, here, report)))


def _override_statuses(message: WireMessage) -> frozenset[Health] | None:
    """LB-10. A set that is empty allows nobody."""
    common = message.common_lb_config
    if not common.HasField("override_host_status"):
        return None
    return frozenset(HEALTH[status] for status in common.override_host_status.statuses if status in HEALTH)


def _aggregate(message: WireMessage, path: str, report: Report) -> _Discovery:
    """CD-04."""
    here = join(path, "clusters")
    if not len(message.clusters):
        report.problem(here, "must not be empty")
    if len(message.clusters) > MOST:
        report.problem(here, f"are {len(message.clusters)}; the most are {MOST}")
    names: dict[str, None] = {}
    for index, each in enumerate(message.clusters[:MOST]):
        name = canonical(str(each))
        if not name or name in names:
            report.ignore(f"{here}[{index}]", "is named before" if name else "is empty")
        else:
            names[name] = None
    return _Discovery(Discovery.AGGREGATE, provides=True, children=tuple(names))


def _without_endpoints(message: WireMessage, made: Cluster, path: str, report: Report) -> Cluster:
    """An aggregate: what is about endpoints is its leaves', as in Envoy and by gRFC A75; about retries its own, as in Envoy."""
    for each in _OF_LEAVES:
        if message.HasField(each):
            report.ignore(join(path, each), _THEIRS)
    if len(message.transport_socket_matches):
        report.ignore(join(path, "transport_socket_matches"), _THEIRS)
    for index, item in enumerate(message.circuit_breakers.thresholds):
        for each in ("max_connections", "max_pending_requests", "max_requests"):
            if item.HasField(each):
                report.ignore(f"{join(path, 'circuit_breakers.thresholds')}[{index}].{each}", _THEIRS)
    limits, high = (
        Limits(max_retries=each.max_retries, budget=each.budget) for each in (made.limits, made.high_limits)
    )
    return replace(
        made, limits=limits, high_limits=high, outlier=None, tls=None, tls_matches=(), load_report=None
    )


def _destination(message: WireMessage, kind: Discovery, path: str, report: Report) -> Destination | None:
    """Of ORIGINAL_DST alone, as in Envoy."""
    held, path = message.original_dst_lb_config, join(path, "original_dst_lb_config")
    if message.WhichOneof("lb_config") != "original_dst_lb_config":
        return None
    if kind is not Discovery.ORIGINAL_DST:
        report.ignore(path, f"the cluster is of type {kind.name}")
        return None
    header, port = str(held.http_header_name), number(held, "upstream_port_override")
    if header and not held.use_http_header:
        report.problem(join(path, "http_header_name"), "is set, and use_http_header is not")
    if header:
        header = header_name(header, join(path, "http_header_name"), report)
    if port is not None and port > _MOST_PORT:
        report.problem(join(path, "upstream_port_override"), f"must be at most {_MOST_PORT}")
    chosen = (header.lower() or _DESTINATION) if held.use_http_header else ""
    return Destination(chosen, port or None) if chosen or port else None


def _eds_name(message: WireMessage, path: str, report: Report) -> str:
    """CD-02, FE-03."""
    held, here = message.eds_cluster_config, join(path, "eds_cluster_config")
    name = canonical(str(held.service_name))
    if report.target and not name and message.name.startswith("xdstp:"):
        report.problem(join(here, "service_name"), "must be set where the cluster's name begins with xdstp:")
    name = name or canonical(str(message.name))
    config_source(held, "eds_config", here, report, ("endpoint", name))
    return name


def _load_report(message: WireMessage, path: str, report: Report) -> LoadReport | None:
    """LR-01, LR-05. Envoy has no use for the field, so that whatever it says is accepted there."""
    if not message.HasField("lrs_server"):
        return None
    here = join(path, "lrs_server")
    if message.lrs_server.WhichOneof("config_source_specifier") != "self":
        report.stricter(here, "must be self", shown(message.lrs_server))
        return None
    if not report.server:
        report.ignore(here, "there is no stream of grpc to its server")
        return None
    names = []
    for index, name in enumerate(message.lrs_report_endpoint_metrics):
        if name in UTILIZATIONS or name.startswith(NAMED):
            names.append(str(name))
        else:
            report.ignore(f"{join(path, 'lrs_report_endpoint_metrics')}[{index}]", str(name))
    return LoadReport(report.server, frozenset(names))


def _judge_pool(message: WireMessage, path: str, report: Report) -> None:
    """What a cluster's connections are to carry; other things than requests of HTTP they cannot."""
    kind = filter_type(message.upstream_config.typed_config)
    if message.HasField("upstream_config") and kind not in _HTTP_POOLS:
        report.ignore(join(path, "upstream_config"), kind or "a type that cannot be read")


def _members(
    message: WireMessage, kind: Discovery, path: str, report: Report
) -> tuple[Assignment | None, tuple[DnsTarget, ...]]:
    here = join(path, "load_assignment")
    given = message.HasField("load_assignment")
    if kind is Discovery.EDS:
        if given:
            report.ignore(here, "the endpoints come from EDS")
        return None, ()
    if kind is Discovery.AGGREGATE:
        return None, ()
    if kind is Discovery.ORIGINAL_DST:
        if given and len(message.load_assignment.endpoints):
            report.problem(here, f"cannot stand beside type {kind.name}")
        return None, ()
    if not given:
        if kind is not Discovery.LOGICAL_DNS:  # a black hole: nobody is there, and that is known
            return Assignment(str(message.name)), ()
        report.problem(here, f"is missing; type {kind.name} needs it")
        return None, ()
    if not (message.load_assignment.cluster_name or report.target):
        report.problem(join(here, "cluster_name"), "must not be empty")
    if kind is Discovery.STATIC:
        return assignment(message.load_assignment, here, report, name=str(message.name)), ()
    if kind is Discovery.LOGICAL_DNS:
        _judge_logical(message.load_assignment, here, report)
    _judge_resolvers(message.load_assignment, here, report)
    return _dns(assignment(message.load_assignment, here, report, address=named, name=str(message.name)))


def _judge_logical(given: WireMessage, path: str, report: Report) -> None:
    """CD-03."""
    endpoints = sum(len(group.lb_endpoints) for group in given.endpoints)
    if len(given.endpoints) != 1 or endpoints != 1:
        counted = f"{endpoints} in {len(given.endpoints)}"
        report.problem(path, f"LOGICAL_DNS needs exactly one endpoint in one locality, not {counted}")


def _judge_resolvers(given: WireMessage, path: str, report: Report) -> None:
    """CD-03: a resolver of its own cannot be asked for a name that DNS resolves, in Envoy either."""
    for number_of_group, group in enumerate(given.endpoints):
        for index, item in enumerate(group.lb_endpoints):
            if item.endpoint.address.socket_address.resolver_name:
                place = f"{path}.endpoints[{number_of_group}].lb_endpoints[{index}].endpoint.address"
                report.problem(f"{place}.socket_address.resolver_name", "must be empty")


def _dns(given: Assignment) -> tuple[Assignment, tuple[DnsTarget, ...]]:
    """Splits what needs no resolving from the names, whose answers fill the same groups."""
    groups: list[LocalityEndpoints] = []
    targets: list[DnsTarget] = []
    for index, group in enumerate(given.localities):
        ready: list[Endpoint] = []
        for endpoint in group.endpoints:
            if endpoint.address.unix or endpoint.address.is_ip:
                ready.append(endpoint)
            else:
                targets.append(_target(endpoint, endpoint.address, index))
        groups.append(
            LocalityEndpoints(group.locality, tuple(ready), group.weight, group.priority, group.metadata)
        )
    return replace(given, localities=tuple(groups)), tuple(targets)


def _target(endpoint: Endpoint, address: Address, group: int) -> DnsTarget:
    return DnsTarget(address.host, address.port, group, endpoint.weight, endpoint.hostname, endpoint.check)


def _limits(message: WireMessage, path: str, report: Report) -> tuple[Limits, Limits]:
    """CB-01, CB-03: the first thresholds of priority DEFAULT, and of HIGH. 4294967295 is how "no limit" is written. A gRPC client has
    one connection to an endpoint unless it is told (A105); an Envoy, as many as their streams need.
    """
    path = join(path, "circuit_breakers")
    rows = message.circuit_breakers.thresholds
    item, high = _first(rows, join(path, "thresholds"), report, (_DEFAULT, _HIGH))
    single, _ = _first(
        message.circuit_breakers.per_host_thresholds,
        join(path, "per_host_thresholds"),
        report,
        (_DEFAULT,),
    )
    of_one = None if single is None else _limit(single[0], "max_connections", None)
    if of_one == 0 and report.target and single is not None:
        report.problem(join(single[1], "max_connections"), "must not be 0")
    made = Limits(max_connections_per_endpoint=of_one, grpc_connections=1 if report.target else 10)
    first, second = (made if each is None else _of(made, *each, report) for each in (item, high))
    return first, second


def _of(made: Limits, item: WireMessage, here: str, report: Report) -> Limits:
    """``made``, within thresholds."""
    return replace(
        made,
        max_connections=_limit(item, "max_connections", 1024),
        max_pending=_limit(item, "max_pending_requests", 1024),
        max_requests=_limit(item, "max_requests", 1024),
        max_retries=_limit(item, "max_retries", 3),
        budget=_budget(item, here, report),
    )


def _first(
    items: Sequence[WireMessage], path: str, report: Report, priorities: tuple[int, ...]
) -> tuple[_Place | None, _Place | None]:
    """The first of priority DEFAULT and of HIGH, each with where it stands, as far as ``priorities`` has them."""
    chosen: dict[int, _Place] = {}
    for index, item in enumerate(items):
        if item.priority in priorities and item.priority not in chosen:
            chosen[item.priority] = item, f"{path}[{index}]"
        else:
            report.ignore(f"{path}[{index}]", item)
    return chosen.get(_DEFAULT), chosen.get(_HIGH)


def _limit(message: WireMessage, field: str, default: int | None) -> int | None:
    value = number(message, field)
    if value is None:
        return default
    return None if value == _NO_LIMIT else value


def _budget(message: WireMessage, path: str, report: Report) -> RetryBudget | None:
    if not message.HasField("retry_budget"):
        return None
    held = message.retry_budget
    share = percent(held, "budget_percent", join(path, "retry_budget"), report)
    least = number(held, "min_retry_concurrency")
    return RetryBudget(20.0 if share is None else share, 3 if least is None else least)
