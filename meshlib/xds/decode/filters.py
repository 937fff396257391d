"""HTTP filters of a connection manager: which are honoured, which are reported, which refuse what they cover (LD-03 to LD-06).

view      not known                                decides who may pass (`decode.guards`)
target    refused unless optional (gRFC A39)       refused unless optional
sidecar   ignored and reported                     what it covers is refused, optional or not

A guard that is in force covers its connection manager whole: the listener is refused with it, if no other chain of the
listener is left. It covers less where it is disabled and a route configuration enables it, or where the routes at hand
switch it off somewhere: then the listener serves, and `core.guards` refuses the calls that it covers. One whose
configuration comes by itself (`xds.extensions`) refuses no listener either. Routes that come by
name are not there yet when the listener is judged: nothing is known to be left then.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from meshlib.model.listener import Discovered, FilterKind, HttpFilter
from meshlib.model.route import RouteConfiguration
from meshlib.xds import schema
from meshlib.xds.decode.extension import kind_of
from meshlib.xds.decode.faults import FAULT, fault
from meshlib.xds.decode.guards import GUARDS_HERE, ROUTER, filter_type, is_guard
from meshlib.xds.decode.limits import LIMITS
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.sessions import SESSION, session
from meshlib.xds.decode.values import typed
from meshlib.xds.schema import WireMessage

__all__ = ["GUARDS_HERE", "UPSTREAM_CODEC", "HttpFilters", "http_filters", "label"]

_SWITCHED = {FAULT: FilterKind.FAULT, SESSION: FilterKind.SESSION}
#: What ends a chain of filters on the way to an endpoint: it sends the request.
UPSTREAM_CODEC = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
_STRICT = frozenset(
    f"x-envoy-{name}"
    for name in (
        "upstream-rq-timeout-ms",
        "upstream-rq-per-try-timeout-ms",
        "max-retries",
        "retry-grpc-on",
        "retry-on",
    )
)
_FAULT_NAMES = frozenset({"envoy.filters.http.fault", "envoy.fault"})


@dataclass(slots=True)
class HttpFilters:
    """The filters that matter, and of the guards in force the place and the words of each that covers everything. ``router``: the
    Router, if it could be read.
    """

    found: list[HttpFilter] = field(default_factory=list)
    router: WireMessage | None = None
    covering: list[tuple[str, str]] = field(default_factory=list)


def label(item: WireMessage) -> str:
    """What a filter is called in a report: its type, else its name."""
    which = item.WhichOneof("config_type")
    kind = filter_type(item.typed_config) if which == "typed_config" else ""
    return (kind or str(item.name) or "a filter without a type")[:100]


def http_filters(
    owner: WireMessage, path: str, report: Report, routes: RouteConfiguration | None, *, target: bool
) -> HttpFilters:
    """The filters of a connection manager: the router, which must be there and last, and the guards."""
    path = join(path, "http_filters")
    made = HttpFilters()
    seen: set[str] = set()
    last = len(owner.http_filters) - 1
    if last < 0:
        report.problem(path, "must not be empty: the router is missing")
    for index, item in enumerate(owner.http_filters):
        here = f"{path}[{index}]"
        name = str(item.name)
        if not name:
            report.problem(join(here, "name"), "must not be empty")
        if target and name in seen:
            report.problem(join(here, "name"), f"{name[:100]!r} is there twice")
        seen.add(name)
        if item.disabled and index == last:
            report.problem(join(here, "disabled"), "the last filter must not be disabled")
        if _guarded(item, here, report, made, routes, target=target):
            continue
        if item.disabled:
            if label(item) in LIMITS and not target:
                made.found.append(replace(_other(item, here, report, target=target), disabled=True))
                continue
            kind = _SWITCHED.get(label(item), FilterKind.OTHER)
            kept = (
                session(item.typed_config, join(here, "typed_config"), report)
                if kind is FilterKind.SESSION
                else None
            )
            made.found.append(HttpFilter(name, kind, True, session=kept))
            continue
        router = _router(item, here, report, made)
        if router:
            made.found.append(HttpFilter(name, FilterKind.ROUTER))
            _behind_router(item, here, report, made, routes, target=target)
        else:
            made.found.append(_other(item, here, report, target=target))
        if router != (index == last):
            words = "the router must be the last filter" if router else "the last filter must be the router"
            report.problem(here, words)
    return made


def _guarded(
    item: WireMessage,
    path: str,
    report: Report,
    made: HttpFilters,
    routes: RouteConfiguration | None,
    *,
    target: bool,
) -> bool:
    """Whether the filter is a guard; then it has been kept, or refused."""
    name = str(item.name)
    if not is_guard(item):
        return False
    if target and item.is_optional:
        report.ignore(path, label(item))
        return True
    if not target and _comes_by_itself(item):
        made.found.append(_discovered(item, name))
        report.ignore(
            path,
            f"{label(item)} may be one that decides who may pass: what it covers is answered 403 until it is known",
        )
        return True
    made.found.append(HttpFilter(name, FilterKind.GUARD, bool(item.disabled)))
    if item.disabled or (routes is not None and not target and _lifted(name, routes)):
        report.ignore(path, f"{label(item)} {GUARDS_HERE}: what it covers is answered 403")
    else:
        made.covering.append((path, f"{label(item)} {GUARDS_HERE}"))
    return True


def _comes_by_itself(item: WireMessage) -> bool:
    """Whether its configuration can be asked for: on this very stream."""
    if item.WhichOneof("config_type") != "config_discovery":
        return False
    source = item.config_discovery.config_source
    return source.WhichOneof("config_source_specifier") in ("ads", "self")


def _discovered(item: WireMessage, name: str) -> HttpFilter:
    """It is a guard until it turns out to be none, unless its default is to be in force meanwhile."""
    held = item.config_discovery
    default = kind_of(name, held.default_config) if held.HasField("default_config") else None
    kind = FilterKind.GUARD
    if held.apply_default_config_without_warming and default is not None:
        kind = default
    allowed = frozenset(str(url).rpartition("/")[2] for url in held.type_urls)
    return HttpFilter(name, kind, bool(item.disabled), Discovered(allowed, default))


def _lifted(name: str, routes: RouteConfiguration) -> bool:
    """Whether the routes switch this filter off anywhere."""
    places = [routes.filters]
    for host in routes.virtual_hosts:
        places.append(host.filters)
        places.extend(route.filters for route in host.routes)
        places.extend(share.filters for route in host.routes for share in route.shares)
    return any(each.name == name and not each.on for place in places for each in place)


def _router(item: WireMessage, path: str, report: Report, made: HttpFilters) -> bool:
    if item.WhichOneof("config_type") != "typed_config" or filter_type(item.typed_config) != ROUTER:
        return False
    path = join(path, "typed_config")
    inner = typed(item.typed_config, path, report, ROUTER)
    if inner is not None:
        walk(inner, path, report)
        made.router = inner
        for index, name in enumerate(inner.strict_check_headers):
            if name not in _STRICT:
                place = f"{join(path, 'strict_check_headers')}[{index}]"
                report.problem(place, f"must be one of {', '.join(sorted(_STRICT))}")
    return True


def _behind_router(
    item: WireMessage,
    path: str,
    report: Report,
    made: HttpFilters,
    routes: RouteConfiguration | None,
    *,
    target: bool,
) -> None:
    """Filters for the way to the endpoint: those of the router stand before every cluster."""
    if (
        item.WhichOneof("config_type") != "typed_config"
        or schema.type_name(item.typed_config.type_url) != ROUTER
    ):
        return
    try:
        router = schema.unpack(item.typed_config)
    except (KeyError, ValueError, schema.DecodeError):
        return  # told already
    path = join(path, "typed_config.upstream_http_filters")
    for index, inner in enumerate(router.upstream_http_filters):
        here = f"{path}[{index}]"
        if not _guarded(inner, here, report, made, routes, target=target) and label(inner) != UPSTREAM_CODEC:
            report.ignore(here, label(inner))


def _other(item: WireMessage, path: str, report: Report, *, target: bool) -> HttpFilter:
    """A filter that is no router and guards nothing."""
    which, name = item.WhichOneof("config_type"), str(item.name)
    if which == "typed_config" and filter_type(item.typed_config) == FAULT:
        return HttpFilter(
            name, FilterKind.FAULT, fault=fault(item.typed_config, join(path, "typed_config"), report)
        )
    if which == "typed_config" and filter_type(item.typed_config) == SESSION:
        kept = session(item.typed_config, join(path, "typed_config"), report)
        return HttpFilter(name, FilterKind.SESSION, session=kept)
    if which == "typed_config" and not target and filter_type(item.typed_config) in LIMITS:
        limit = LIMITS[filter_type(item.typed_config)](item.typed_config, join(path, "typed_config"), report)
        return HttpFilter(name, FilterKind.RATE_LIMIT, limit=limit)
    if which is None and name in _FAULT_NAMES:
        return HttpFilter(name, FilterKind.FAULT)
    if which is None and not item.is_optional:
        report.problem(join(path, "typed_config"), "is missing")
    elif target and not item.is_optional and str(item.name) not in _FAULT_NAMES:
        report.problem(path, f"{label(item)} is not supported and not optional")
    else:
        report.ignore(path, label(item))
    return HttpFilter(name, FilterKind.OTHER)
