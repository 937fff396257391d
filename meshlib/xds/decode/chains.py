"""Which connections a filter chain takes, and what a chain of TCP is to an HTTP call.

Envoy holds one chain for a connection, whatever its rules (`core.chains`): chains that overlap are refused, and so is what it
could only find in a table that grows without bound.
"""

from __future__ import annotations

from itertools import product

from meshlib.model.listener import ChainMatch, HttpManager, Source
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.policy import HashKind, HashPolicy, RetryPolicy
from meshlib.model.route import ClusterWeight, Forward, Route, RouteConfiguration, VirtualHost
from meshlib.xds.decode.address import cidr
from meshlib.xds.decode.guards import filter_type
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.subset import call_labels
from meshlib.xds.decode.values import number, seconds
from meshlib.xds.names import canonical
from meshlib.xds.schema import WireMessage

__all__ = ["chain_match", "inspects", "is_redirected", "is_virtual", "judge_overlaps", "tcp_proxy"]

_MAX_PORT = 65535
#: Envoy keeps a table with an entry for every combination of what a chain names; this many a listener are taken.
_MOST_COMBINATIONS = 100_000
_SOURCES = {0: Source.ANY, 1: Source.SAME_IP_OR_LOOPBACK, 2: Source.EXTERNAL}
_FILTERS = "envoy.extensions.filters.listener."
_HTTP_INSPECTOR = (f"{_FILTERS}http_inspector.v3.HttpInspector", "http_inspector")
_ORIGINAL_DST = (f"{_FILTERS}original_dst.v3.OriginalDst", "original_dst")
_NAME_STARTS = ("envoy.filters.listener.", "envoy.listener.")
#: The name of the route and of the virtual host that stand for a TCP proxy.
_TCP = "tcp_proxy"
#: Envoy's longest pause where none is said, in shortest ones.
_MOST_BASES = 10


def chain_match(message: WireMessage, path: str, report: Report) -> ChainMatch:
    """A FilterChainMatch."""
    port = number(message, "destination_port")
    if port is not None and not 1 <= port <= _MAX_PORT:
        report.problem(join(path, "destination_port"), f"must be 1 to {_MAX_PORT}, not {port}")
    prefixes = (
        cidr(item, f"{join(path, 'prefix_ranges')}[{index}]", report)
        for index, item in enumerate(message.prefix_ranges)
    )
    for name in ("direct_source_prefix_ranges", "source_prefix_ranges"):
        for index, item in enumerate(getattr(message, name)):
            cidr(item, f"{join(path, name)}[{index}]", report)
    source = _SOURCES.get(message.source_type)
    if source is None:
        report.problem(join(path, "source_type"), f"{message.source_type} is not known")
    return ChainMatch(
        port,
        tuple(prefixes),
        str(message.transport_protocol),
        tuple(str(item) for item in message.application_protocols),
        _server_names(message, path, report),
        source or Source.ANY,
        bool(
            len(message.direct_source_prefix_ranges)
            or len(message.source_prefix_ranges)
            or len(message.source_ports)
        ),
    )


def _server_names(message: WireMessage, path: str, report: Report) -> tuple[str, ...]:
    names = [str(item).lower() for item in message.server_names]
    for index, name in enumerate(names):
        if "*" in name and not name.startswith("*."):
            place = f"{join(path, 'server_names')}[{index}]"
            report.problem(place, f"{name[:80]!r}: a wildcard stands for whole labels, as in *.example.com")
    return tuple(name.removeprefix("*") for name in names)


def judge_overlaps(message: WireMessage, path: str, report: Report) -> None:
    """Two chains for one connection: Envoy would not know which."""
    same: dict[bytes, int] = {}
    taken: dict[tuple[object, ...], int] = {}
    left = _MOST_COMBINATIONS
    for index, item in enumerate(message.filter_chains):
        report.give_way()
        here = f"{join(path, 'filter_chains')}[{index}]"
        match = item.filter_chain_match
        first = same.setdefault(match.SerializeToString(deterministic=True), index)
        if first != index:
            report.problem(here, f"has the same filter_chain_match as filter_chains[{first}]")
            continue
        lists = _named(match)
        left -= _size(lists)
        if left < 0:
            report.problem(
                here, f"the chains up to here name more than {_MOST_COMBINATIONS} kinds of connections"
            )
            return
        of = (number(match, "destination_port"), match.transport_protocol, match.source_type)
        for names in product(*lists):
            first = taken.setdefault((of, names), index)
            if first != index:
                report.problem(here, f"its filter_chain_match overlaps with that of filter_chains[{first}]")
                break


def _named(match: WireMessage) -> tuple[tuple[object, ...], ...]:
    """What a chain names of each kind of thing that it can name several of; a chain that names none takes any."""
    silent = Report()  # what is wrong with them is told where they are decoded
    prefixes = (match.prefix_ranges, match.direct_source_prefix_ranges, match.source_prefix_ranges)
    return (
        *(tuple(cidr(item, "", silent) for item in ranges) or ("",) for ranges in prefixes),
        tuple(str(name).lower() for name in match.server_names) or ("",),
        tuple(match.application_protocols) or ("",),
        tuple(match.source_ports) or (0,),
    )


def _size(lists: tuple[tuple[object, ...], ...]) -> int:
    size = 1
    for items in lists:
        size *= len(items)
    return size


def is_virtual(message: WireMessage) -> bool:
    """Whether an Envoy does not bind the listener's address: what another listener was given for it comes to it."""
    if message.HasField("bind_to_port"):
        return not message.bind_to_port.value
    old = message.deprecated_v1
    return bool(old.HasField("bind_to_port") and not old.bind_to_port.value)


def is_redirected(message: WireMessage) -> bool:
    """Whether its connections were made to other addresses, and are told apart by these."""
    return bool(message.use_original_dst.value) or _has_filter(message, *_ORIGINAL_DST, ports=())


def inspects(message: WireMessage, ports: tuple[int, ...]) -> bool:
    """Whether it looks which protocol plain text on its ports is; it looks into TLS wherever a chain asks for that."""
    return _has_filter(message, *_HTTP_INSPECTOR, ports=ports)


def _has_filter(message: WireMessage, kind: str, name: str, *, ports: tuple[int, ...]) -> bool:
    for item in message.listener_filters:
        found = filter_type(item.typed_config) if item.WhichOneof("config_type") == "typed_config" else ""
        if found != kind and (found or _short(str(item.name)) != name):
            continue
        disabled = item.HasField("filter_disabled")
        if not (disabled and ports and all(_holds(item.filter_disabled, port) for port in ports)):
            return True
    return False


def _short(name: str) -> str:
    return next((name.removeprefix(start) for start in _NAME_STARTS if name.startswith(start)), name)


def _holds(rule: WireMessage, port: int) -> bool:
    """A ListenerFilterChainMatchPredicate, of a connection to this port."""
    which = rule.WhichOneof("rule")
    if which == "or_match":
        return any(_holds(each, port) for each in rule.or_match.rules)
    if which == "and_match":
        return all(_holds(each, port) for each in rule.and_match.rules)
    if which == "not_match":
        return not _holds(rule.not_match, port)
    if which == "destination_port_range":
        span = rule.destination_port_range
        return bool(span.start <= port < span.end)
    return bool(which == "any_match" and rule.any_match)


def tcp_proxy(message: WireMessage, path: str, report: Report) -> HttpManager:
    """A TcpProxy, as what it is to an HTTP call: one route to its clusters, without timeout and retry."""
    action = _forward(message, path, report)
    route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "")), action, _TCP)
    routes = RouteConfiguration(_TCP, (VirtualHost(_TCP, ("*",), (route,)),))
    return HttpManager(routes=routes)


def _forward(message: WireMessage, path: str, report: Report) -> Forward:
    which = message.WhichOneof("cluster_specifier")
    retry, hashed, labels = _connecting(message, path, report), _hash_policies(message), call_labels(message)
    if which == "cluster":
        if not message.cluster:
            report.ignore(join(path, which), "it is empty: connections lead nowhere")
        name = canonical(str(message.cluster))
        return Forward(cluster=name, timeout=0.0, retry=retry, hash_policy=hashed, labels=labels)
    entries = message.weighted_clusters.clusters
    if not len(entries):
        report.problem(path, "one of cluster and weighted_clusters must be set")
    for index, entry in enumerate(entries):
        here = f"{join(path, 'weighted_clusters.clusters')}[{index}]"
        if not entry.name:
            report.problem(join(here, "name"), "must not be empty")
        if not entry.weight:
            report.problem(join(here, "weight"), "must be at least 1")
    shares = tuple(
        ClusterWeight(str(entry.name), int(entry.weight), labels=call_labels(entry, labels))
        for entry in entries
    )
    return Forward(weighted=shares, timeout=0.0, retry=retry, hash_policy=hashed, labels=labels)


def _connecting(message: WireMessage, path: str, report: Report) -> RetryPolicy | None:
    """How often a connection is tried to be made: of whom no byte was sent to another may be asked. An Envoy waits between two tries
    only where it is told to.
    """
    attempts = number(message, "max_connect_attempts")
    if attempts == 0:
        report.problem(join(path, "max_connect_attempts"), "must be at least 1")
    base = most = 0.0
    if message.HasField("backoff_options"):
        here = join(path, "backoff_options")
        base = seconds(message.backoff_options, "base_interval", here, report) or 0.0
        said = seconds(message.backoff_options, "max_interval", here, report)
        most = _MOST_BASES * base if said is None else said
        if base <= 0.0 or most < base:
            report.problem(here, "needs a base_interval above 0, and none of max_interval below it")
    if attempts is None or attempts < 2:
        return None
    return RetryPolicy(
        frozenset({"connect-failure"}),
        attempts - 1,
        base_interval=base,
        max_interval=most,
        avoid_previous=False,
    )


def _hash_policies(message: WireMessage) -> tuple[HashPolicy, ...]:
    kinds = {"source_ip": HashKind.SOURCE_IP, "filter_state": HashKind.FILTER_STATE}
    return tuple(
        HashPolicy(kinds[which])
        for which in (item.WhichOneof("policy_specifier") for item in message.hash_policy)
        if which in kinds
    )
