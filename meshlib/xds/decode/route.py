"""Route configurations and virtual hosts (VH)."""

from __future__ import annotations

from meshlib.model.joining import check_mode
from meshlib.model.route import Route, RouteConfiguration, VirtualHost
from meshlib.xds.decode.action import action, mirrors
from meshlib.xds.decode.guards import switches
from meshlib.xds.decode.headers import header_edits
from meshlib.xds.decode.hedge import hedge_policy, with_hedge
from meshlib.xds.decode.limits import asked_of_routes, descriptor_rules, told_of_route
from meshlib.xds.decode.match import route_match
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.retry import retry_policy
from meshlib.xds.decode.values import boolean, header_name, header_value, metadata, number
from meshlib.xds.schema import WireMessage

__all__ = ["route_configuration"]

#: Envoy's limit where the route configuration sets none (`max_direct_response_body_size_bytes`).
_LONGEST_BODY = 4096
_TLS = {0: "", 1: "external", 2: "all"}


def route_configuration(message: WireMessage, path: str, report: Report) -> RouteConfiguration:
    """A RouteConfiguration, inline or by itself. Every virtual host is checked, also those that no host asks for."""
    given = number(message, "max_direct_response_body_size_bytes")
    longest = 0 if report.target else _LONGEST_BODY if given is None else given
    hosts = [
        _virtual_host(item, f"{join(path, 'virtual_hosts')}[{index}]", report, longest)
        for index, item in enumerate(message.virtual_hosts)
    ]
    _check_domains(hosts, path, report)
    return RouteConfiguration(
        name=str(message.name),
        virtual_hosts=tuple(hosts),
        edits=header_edits(message, path, report),
        mirrors=mirrors(message, path, report),
        most_specific_wins=bool(message.most_specific_header_mutations_wins),
        ignore_port=bool(message.ignore_port_in_host_matching),
        ignore_path_parameters=bool(message.ignore_path_parameters_in_path_matching),
        filters=switches(message, path, report),
        validate_clusters=boolean(message, "validate_clusters", True),
        internal_only_headers=tuple(
            header_name(name, f"{join(path, 'internal_only_headers')}[{index}]", report)
            for index, name in enumerate(message.internal_only_headers)
        ),
    )


def _virtual_host(message: WireMessage, path: str, report: Report, longest: int) -> VirtualHost:
    report.give_way()
    if not message.name:
        report.problem(join(path, "name"), "must not be empty")
    if not len(message.domains):
        report.problem(join(path, "domains"), "must not be empty")
    if message.require_tls not in _TLS:
        report.problem(join(path, "require_tls"), f"{message.require_tls} is not known")
    asked = asked_of_routes(message)
    routes = (
        _route(item, f"{join(path, 'routes')}[{index}]", report, longest, asked)
        for index, item in enumerate(message.routes)
    )
    hedge = hedge_policy(message, path, report)
    return VirtualHost(
        name=str(message.name),
        domains=tuple(str(domain) for domain in message.domains),
        routes=tuple(with_hedge(route, hedge) for route in routes if route is not None),
        edits=header_edits(message, path, report),
        retry=retry_policy(message, path, report),
        mirrors=mirrors(message, path, report),
        include_attempt_count=bool(message.include_request_attempt_count),
        attempt_count_in_response=bool(message.include_attempt_count_in_response),
        tells_timeout_retries=bool(message.include_is_timeout_retry_header),
        require_tls=_TLS.get(message.require_tls, ""),
        adoption=_adoption(message, path, report),
        filters=switches(message, path, report),
        rate_limits=descriptor_rules(message, path, report),
        body_limit=_body_limit(message),
    )


def _adoption(message: WireMessage, path: str, report: Report) -> str:
    """How far clients have joined: ``metadata.filter_metadata["meshlib"]["adoption"]``, as a configuration file writes it."""
    said = metadata(message).get("meshlib", {}).get("adoption", "")
    try:
        return check_mode(str(said)) if said != "" else ""
    except ValueError:
        report.ignore(f"{join(path, 'metadata')}.filter_metadata[meshlib].adoption", said)
        return ""


def _check_domains(hosts: list[VirtualHost], path: str, report: Report) -> None:
    """VH-04: no domain twice. gRPC refuses a `*` that is not at one end, and the empty domain; to Envoy such a `*` is a
    letter like others, and nothing is at the empty one.
    """
    taken: set[str] = set()
    for index, host in enumerate(hosts):
        report.give_way()
        for place, domain in enumerate(host.domains):
            here = f"{join(path, 'virtual_hosts')}[{index}].domains[{place}]"
            inner = domain[1:] if domain.startswith("*") else domain.removesuffix("*")
            if report.target and (not domain or "*" in inner):
                report.problem(here, f"{domain[:100]!r}: a `*` may stand alone, first or last")
            header_value(domain, here, report)
            if domain.lower() in taken:
                report.problem(here, f"{domain[:100]!r} is already a domain of this configuration")
            taken.add(domain.lower())


def _route(
    message: WireMessage, path: str, report: Report, longest: int, asked: frozenset[tuple[str, ...]]
) -> Route | None:
    report.give_way()
    if not message.HasField("match"):
        report.problem(join(path, "match"), "is missing")
        return None
    match = route_match(message.match, join(path, "match"), report)
    does = action(message, path, report, longest)
    edits = header_edits(message, path, report)
    if match is None or does is None:
        return None
    asked |= asked_of_routes(message.route)
    return Route(
        match,
        does,
        str(message.name),
        edits,
        switches(message, path, report),
        body_limit=_body_limit(message),
        metadata=told_of_route(message, asked) if asked else (),
    )


def _body_limit(owner: WireMessage) -> int | None:
    """How many bytes of a request's body an Envoy holds to send them again; the newer of its two fields goes before."""
    newer = number(owner, "request_body_buffer_limit")
    return number(owner, "per_request_buffer_limit_bytes") if newer is None else newer
