"""Listeners and HTTP connection managers (LD).

The view is a listener's own: one with an `api_listener` belongs to the target view and is judged as gRPC would (also
where it has an address besides, as Istio's have); one with an address belongs to the sidecar view and is judged as
Envoy would. A listener for inbound traffic is kept without its chains: no call of a client enters it, so what it
guards is no business of ours.

A listener whose every chain is covered whole by a filter that decides who may pass is refused; where only some chains
are, these answer 403 and the others serve.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from meshlib.model.address import Address
from meshlib.model.edits import Mutation
from meshlib.model.listener import (
    EscapedSlashes,
    FilterChain,
    FilterKind,
    HttpFilter,
    HttpManager,
    Listener,
    ProxyStatus,
    Underscores,
)
from meshlib.model.matcher import Matcher
from meshlib.model.route import RouteConfiguration
from meshlib.xds.decode.address import UDP, cidr, numeric
from meshlib.xds.decode.chains import (
    chain_match,
    inspects,
    is_redirected,
    is_virtual,
    judge_overlaps,
    tcp_proxy,
)
from meshlib.xds.decode.filters import GUARDS_HERE, http_filters, label
from meshlib.xds.decode.guards import filter_type, is_guard
from meshlib.xds.decode.headers import mutations
from meshlib.xds.decode.matcher import chains_of, matcher
from meshlib.xds.decode.replies import local_replies
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.route import route_configuration
from meshlib.xds.decode.source import config_source
from meshlib.xds.decode.tls import check_socket
from meshlib.xds.decode.values import boolean, header_value, number, seconds, typed, unpacked
from meshlib.xds.names import canonical
from meshlib.xds.schema import WireMessage

__all__ = ["VIEWS", "filter_chain", "listener"]

VIEWS = ("auto", "sidecar", "target")
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TCP = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_CUSTOM_HEADER = "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig"
_EARLY = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
_INBOUND = 1
#: Envoy's bound.
_MOST_KB = 8192
#: The place and the words of each guard that covers a whole filter chain.
_Covering = list[tuple[str, str]]
_ESCAPED_SLASHES = {
    0: EscapedSlashes.KEEP,
    1: EscapedSlashes.KEEP,
    2: EscapedSlashes.REJECT,
    3: EscapedSlashes.REDIRECT,
    4: EscapedSlashes.FORWARD,
}
_UNDERSCORES = {0: Underscores.ALLOW, 2: Underscores.DROP}
_PASS_THROUGH = 2


def listener(message: WireMessage, path: str, report: Report, view: str = "auto") -> Listener:
    """A Listener. `view` other than "auto" says which half to read of one that has both.

    In the target view a listener without api_listener is no problem of the resource (LD-01): its value has
    ``api`` False, and whoever wanted it by name has to say so.
    """
    name = str(message.name)
    has_api = message.HasField("api_listener")
    if has_api and view != "sidecar":
        return _api(message, path, report)
    if not message.HasField("address"):
        report.problem(path, "neither api_listener nor address is set")
    elif not (
        len(message.filter_chains) or message.HasField("default_filter_chain") or _needs_no_chains(message)
    ):
        report.problem(
            join(path, "filter_chains"), "must not be empty, unless there is a default_filter_chain"
        )
    addresses = _addresses(message, path, report)
    if message.traffic_direction == _INBOUND:
        return Listener(name, (), addresses, outbound=False)
    made = [
        _chain(item, f"{join(path, 'filter_chains')}[{index}]", report)
        for index, item in enumerate(message.filter_chains)
    ]
    chooses: Matcher | None = None
    if message.HasField("filter_chain_matcher"):
        _judge_names(message, path, report)
        chooses = matcher(message.filter_chain_matcher, join(path, "filter_chain_matcher"), report)
    else:
        judge_overlaps(message, path, report)
    if message.HasField("default_filter_chain"):
        last, covering = _chain(message.default_filter_chain, join(path, "default_filter_chain"), report)
        made.append((replace(last, default=True), covering))
    _judge_covered([covering for _, covering in made], report)
    by_itself = message.HasField("fcds_config")
    unchosen = message.HasField("filter_chain_matcher") and chooses is None and (by_itself or len(made) > 1)
    return Listener(
        name,
        () if unchosen else tuple(chain for chain, _ in made),
        addresses,
        matcher=None if unchosen else chooses,
        discovered=_discovered(message, chooses, path, report) if by_itself else (),
        unchosen=unchosen,
        virtual=is_virtual(message),
        redirected=is_redirected(message),
        inspects_http=inspects(message, tuple(address.port for address in addresses if not address.unix)),
    )


def _discovered(message: WireMessage, chooses: Matcher | None, path: str, report: Report) -> tuple[str, ...]:
    """The chains that the matcher leads to and that are not here: they come by themselves."""
    here = join(path, "fcds_config")
    if not message.HasField("filter_chain_matcher"):
        report.problem(
            here, "is for the filter chains that a filter_chain_matcher leads to, and there is none"
        )
    names = frozenset(chains_of(chooses)) - {canonical(str(item.name)) for item in message.filter_chains}
    for name in sorted(names):
        report.give_way()
        config_source(message.fcds_config, "config_source", here, report, ("filter_chain", name))
    return tuple(sorted(names))


def filter_chain(message: WireMessage, path: str, report: Report) -> FilterChain:
    """A FilterChain by itself: others of its listeners serve."""
    made, covering = _chain(message, path, report)
    for here, words in covering:
        report.ignore(here, f"{words}: its filter chain answers 403")
    return made


def _judge_names(message: WireMessage, path: str, report: Report) -> None:
    """A matcher tells chains by their names."""
    seen: set[str] = set()
    for index, item in enumerate(message.filter_chains):
        here, name = f"{join(path, 'filter_chains')}[{index}].name", canonical(str(item.name))
        if not name:
            report.problem(here, "must not be empty, beside a filter_chain_matcher")
        elif name in seen:
            report.problem(here, f"{name[:80]!r} is there twice")
        seen.add(name)


def _needs_no_chains(message: WireMessage) -> bool:
    """Whether its filter chains come by themselves, or it listens for what has no connections: filter chains are of connections."""
    return bool(
        message.HasField("api_listener")
        or message.HasField("fcds_config")
        or message.HasField("udp_listener_config")
        or message.address.socket_address.protocol == UDP
    )


def _judge_covered(chains: list[_Covering], report: Report) -> None:
    """What covers a chain whole refuses the listener, unless another chain is left to serve."""
    for here, words in (each for covering in chains for each in covering):
        if all(chains):
            report.problem(here, words, closes=True)
        else:
            report.ignore(here, f"{words}: its filter chain answers 403")


def _api(message: WireMessage, path: str, report: Report) -> Listener:
    report.target = True
    here = join(path, "api_listener.api_listener")
    if not message.name:
        report.problem(join(path, "name"), "must not be empty")
    inner = unpacked(message.api_listener.api_listener, here, report, _HCM)
    if inner is None:
        return Listener(str(message.name), api=True)
    walk(inner, here, report)
    manager, covering = _manager(inner, here, report, target=True)
    for place, words in covering:
        report.problem(place, words, closes=True)
    return Listener(str(message.name), (FilterChain(http=manager),), api=True)


def _addresses(message: WireMessage, path: str, report: Report) -> tuple[Address, ...]:
    """Port 0 is a port yet to be chosen: nobody can call it, and it is left out."""
    given = [(message.address, join(path, "address"))] if message.HasField("address") else []
    given += [
        (item.address, f"{join(path, 'additional_addresses')}[{index}].address")
        for index, item in enumerate(message.additional_addresses)
    ]
    found = (numeric(item, here, report, least_port=0) for item, here in given)
    return tuple(address for address in found if address is not None and (address.unix or address.port))


def _chain(message: WireMessage, path: str, report: Report) -> tuple[FilterChain, _Covering]:
    match = chain_match(message.filter_chain_match, join(path, "filter_chain_match"), report)
    found = _Filters()
    last = len(message.filters) - 1
    for index, item in enumerate(message.filters):
        here = f"{join(path, 'filters')}[{index}]"
        if _network_filter(item, here, report, found) and index != last:
            report.problem(here, "what ends a call must be the last filter of its chain")
    check_socket(message, path, report)
    guards = tuple(found.guards)
    http, tcp = (
        replace(manager, filters=(*guards, *manager.filters)) if manager is not None and guards else manager
        for manager in (found.http, found.tcp)
    )
    return FilterChain(canonical(str(message.name)), match, http, tcp), found.covering


@dataclass(slots=True)
class _Filters:
    """What the network filters of a chain amount to."""

    http: HttpManager | None = None
    tcp: HttpManager | None = None
    guards: list[HttpFilter] = field(default_factory=list)
    covering: _Covering = field(default_factory=list)


def _network_filter(item: WireMessage, path: str, report: Report, found: _Filters) -> bool:
    """Whether it is one that a chain ends with: nothing comes to what would stand behind."""
    here = join(path, "typed_config")
    name = filter_type(item.typed_config) if item.WhichOneof("config_type") == "typed_config" else ""
    if name not in (_HCM, _TCP):
        if is_guard(item):
            found.guards.append(HttpFilter(str(item.name), FilterKind.NETWORK))
            found.covering.append((path, f"{label(item)} {GUARDS_HERE}"))
        elif item.WhichOneof("config_type") is None:
            report.problem(here, "is missing")
        else:
            report.ignore(path, label(item))
        return False
    inner = unpacked(item.typed_config, here, report, _HCM, _TCP)
    if inner is None:
        return True
    walk(inner, here, report)
    if not inner.stat_prefix:
        report.problem(join(here, "stat_prefix"), "must not be empty")
    if name == _HCM:
        found.http, covering = _manager(inner, here, report, target=False)
        found.covering += covering
        _detections(inner, here, report, found)
    else:
        found.tcp = tcp_proxy(inner, here, report)
    return True


def _detections(manager: WireMessage, path: str, report: Report, found: _Filters) -> None:
    """Who looks for the caller's address in a header may refuse calls that lack it, before any route is chosen."""
    for index, item in enumerate(manager.original_ip_detection_extensions):
        if filter_type(item.typed_config) != _CUSTOM_HEADER:
            continue
        here = f"{join(path, 'original_ip_detection_extensions')}[{index}]"
        held = unpacked(item.typed_config, join(here, "typed_config"), report, _CUSTOM_HEADER)
        if held is not None and held.HasField("reject_with_status"):
            found.guards.append(HttpFilter(str(item.name), FilterKind.NETWORK))
            found.covering.append((here, f"{_CUSTOM_HEADER} {GUARDS_HERE}"))


def _manager(
    message: WireMessage, path: str, report: Report, *, target: bool
) -> tuple[HttpManager, _Covering]:
    routes, route_name = _routes(message, path, report)
    filters = http_filters(message, path, report, routes, target=target)
    if target:
        _no_forwarded_addresses(message, path, report)
    slashes = _ESCAPED_SLASHES.get(message.path_with_escaped_slashes_action)
    if slashes is None:
        place = join(path, "path_with_escaped_slashes_action")
        report.problem(place, f"{message.path_with_escaped_slashes_action} is not known")
    common = message.common_http_protocol_options
    here = join(path, "common_http_protocol_options")
    router, ranges = filters.router, message.internal_address_config.cidr_ranges
    place = join(path, "internal_address_config.cidr_ranges")
    networks = [cidr(item, f"{place}[{index}]", report) for index, item in enumerate(ranges)]
    # As in Envoy, which of its hops a request came through then decides.
    by_address = message.xff_num_trusted_hops or message.use_remote_address.value
    manager = HttpManager(
        route_name=route_name,
        routes=routes,
        filters=tuple(filters.found),
        max_stream_duration=seconds(common, "max_stream_duration", here, report),
        request_timeout=seconds(message, "request_timeout", path, report),
        stream_idle_timeout=seconds(message, "stream_idle_timeout", path, report),
        most_head=_most_head(message, path, report),
        most_lines=_most_lines(common, here, report),
        strip_any_port=bool(message.strip_any_host_port),
        strip_matching_port=bool(message.strip_matching_host_port),
        merge_slashes=bool(message.merge_slashes),
        normalize_path=boolean(message, "normalize_path", False),
        escaped_slashes=slashes or EscapedSlashes.KEEP,
        underscores=_UNDERSCORES.get(common.headers_with_underscores_action, Underscores.REJECT),
        strip_trailing_dot=bool(message.strip_trailing_host_dot),
        scheme=_scheme(message, path, report),
        user_agent=boolean(message, "add_user_agent", False),
        request_ids=boolean(message, "generate_request_id", False),
        forwarded_port=bool(message.append_x_forwarded_port),
        server_name=_server_name(message, path, report),
        keeps_server=bool(message.server_header_transformation),
        local_replies=local_replies(message, path, report),
        via=header_value(str(message.via), join(path, "via"), report),
        tells_request_id=bool(message.always_set_request_id_in_response),
        proxy_status=_proxy_status(message, path, report),
        mutations=_early_mutations(message, path, report),
        internal=() if by_address else tuple(network for network in networks if network),
        suppress_envoy_headers=router is not None and bool(router.suppress_envoy_headers),
        strict_headers=() if router is None else tuple(map(str, router.strict_check_headers)),
        respect_timeout=router is not None and bool(router.respect_expected_rq_timeout),
    )
    return manager, filters.covering


def _most_head(message: WireMessage, path: str, report: Report) -> int | None:
    most = number(message, "max_request_headers_kb")
    if most is not None and not 1 <= most <= _MOST_KB:
        report.problem(join(path, "max_request_headers_kb"), f"must be 1 to {_MOST_KB}, not {most}")
    return None if most is None else most * 1024


def _most_lines(common: WireMessage, path: str, report: Report) -> int | None:
    most = number(common, "max_headers_count")
    if most == 0:
        report.problem(join(path, "max_headers_count"), "must be at least 1")
    return most


def _scheme(message: WireMessage, path: str, report: Report) -> str:
    held = message.scheme_header_transformation
    if held.WhichOneof("transformation") != "scheme_to_overwrite":
        return ""
    if held.scheme_to_overwrite not in ("http", "https"):
        place = join(path, "scheme_header_transformation.scheme_to_overwrite")
        report.problem(place, f"must be http or https, not {held.scheme_to_overwrite[:20]!r}")
    return str(held.scheme_to_overwrite)


def _server_name(message: WireMessage, path: str, report: Report) -> str:
    """What replies of our own say; a response of an endpoint has its own."""
    if message.server_header_transformation == _PASS_THROUGH:
        return ""
    return header_value(str(message.server_name), join(path, "server_name"), report)


def _proxy_status(message: WireMessage, path: str, report: Report) -> ProxyStatus | None:
    if not message.HasField("proxy_status_config"):
        return None
    held = message.proxy_status_config
    place = join(path, "proxy_status_config.literal_proxy_name")
    return ProxyStatus(
        header_value(str(held.literal_proxy_name), place, report),
        bool(held.use_node_id),
        not held.remove_details,
        not held.remove_response_flags,
        bool(held.set_recommended_response_code),
    )


def _early_mutations(message: WireMessage, path: str, report: Report) -> tuple[Mutation, ...]:
    """Other extensions than Envoy's own are not run."""
    made: list[Mutation] = []
    for index, item in enumerate(message.early_header_mutation_extensions):
        here = f"{join(path, 'early_header_mutation_extensions')}[{index}]"
        kind = filter_type(item.typed_config)
        if kind != _EARLY:
            report.ignore(here, kind or str(item.name))
            continue
        held = typed(item.typed_config, join(here, "typed_config"), report, _EARLY)
        if held is not None:
            walk(held, join(here, "typed_config"), report)
            made += mutations(held, "mutations", join(here, "typed_config"), report)
    return tuple(made)


def _routes(message: WireMessage, path: str, report: Report) -> tuple[RouteConfiguration | None, str]:
    """LD-02: inline, or by name on this very stream."""
    which = message.WhichOneof("route_specifier")
    if which == "route_config":
        return route_configuration(message.route_config, join(path, which), report), ""
    if which == "rds":
        name = canonical(str(message.rds.route_config_name))
        config_source(message.rds, "config_source", join(path, which), report, ("route", name))
        if not name:
            report.problem(join(path, "rds.route_config_name"), "must not be empty")
        return None, name
    if which is None:
        report.problem(path, "one of rds and route_config must be set")
    return None, ""


def _no_forwarded_addresses(message: WireMessage, path: str, report: Report) -> None:
    """LD-07."""
    if message.xff_num_trusted_hops:
        report.problem(join(path, "xff_num_trusted_hops"), f"must be 0, not {message.xff_num_trusted_hops}")
    if len(message.original_ip_detection_extensions):
        report.problem(join(path, "original_ip_detection_extensions"), "must be empty")
