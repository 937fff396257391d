"""HTTP filters and network filters: which are honoured, which are reported, which refuse their listener (LD-03, LD-04).

view      not known                                decides who may pass
target    refused unless optional (gRFC A39)       refused unless optional
sidecar   ignored and reported                     refused, optional or not
"""

from __future__ import annotations

from meshlib.model.listener import HttpFilter
from meshlib.xds import schema
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.schema import WireMessage

__all__ = ["GUARDS", "http_filters", "is_guard", "typed_name"]

ROUTER = "envoy.extensions.filters.http.router.v3.Router"
FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"
_TYPED_STRUCTS = frozenset({"xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"})
# Filters that decide who may pass: without them, a call would be let through that was meant to be stopped.
GUARDS = frozenset(
    f"envoy.extensions.filters.{name}"
    for name in (
        "http.rbac.v3.RBAC",
        "http.ext_authz.v3.ExtAuthz",
        "http.jwt_authn.v3.JwtAuthentication",
        "http.oauth2.v3.OAuth2",
        "http.basic_auth.v3.BasicAuth",
        "http.api_key_auth.v3.ApiKeyAuth",
        "http.csrf.v3.CsrfPolicy",
        "network.rbac.v3.RBAC",
        "network.ext_authz.v3.ExtAuthz",
    )
)
# Without a configuration a filter is known by its name alone.
_GUARD_NAMES = frozenset(
    {
        "envoy.filters.http.rbac",
        "envoy.filters.http.ext_authz",
        "envoy.filters.http.jwt_authn",
        "envoy.filters.http.oauth2",
        "envoy.filters.http.basic_auth",
        "envoy.filters.http.api_key_auth",
        "envoy.filters.http.csrf",
        "envoy.filters.network.rbac",
        "envoy.filters.network.ext_authz",
    }
)
_ROUTER_NAME = "envoy.filters.http.router"


def typed_name(outer: WireMessage) -> str:
    """The type that an Any means: inside a TypedStruct, the type that it names. "" if it cannot be told."""
    try:
        name = schema.type_name(outer.type_url)
        if name not in _TYPED_STRUCTS:
            return name
        inner = schema.unpack(outer)
        url = str(inner.type_url)
        return schema.type_name(url) if "/" in url else url
    except (KeyError, ValueError, schema.DecodeError):
        return ""


def is_guard(name: str, type_name: str) -> bool:
    """Whether a filter, by its own name or its configuration's type, decides who may pass."""
    return type_name in GUARDS or (not type_name and name in _GUARD_NAMES)


def http_filters(owner: WireMessage, path: str, report: Report, *, target: bool) -> tuple[HttpFilter, ...]:
    """The filters of a connection manager that are honoured: the router, which must be there and last."""
    path = join(path, "http_filters")
    found: list[HttpFilter] = []
    seen: set[str] = set()
    last = len(owner.http_filters) - 1
    if last < 0:
        report.problem(path, "must not be empty: the router is missing")
    for index, item in enumerate(owner.http_filters):
        here = f"{path}[{index}]"
        name = str(item.name)
        if not name or name in seen:
            report.problem(
                join(here, "name"), f"{name[:100]!r} is there twice" if name else "must not be empty"
            )
        seen.add(name)
        if item.disabled:
            continue
        kind = _kind(item, here, report, target=target)
        if kind:
            found.append(HttpFilter(name, kind))
        if (kind == "router") != (index == last):
            words = "the router must be the last filter" if kind else "the last filter must be the router"
            report.problem(here, words)
    return tuple(found)


def _kind(item: WireMessage, path: str, report: Report, *, target: bool) -> str:
    """The short name of a filter that is honoured, or "": then it is reported or has been refused."""
    typed = item.WhichOneof("config_type") == "typed_config"
    type_name = typed_name(item.typed_config) if typed else ""
    if type_name in (ROUTER, FAULT):
        try:
            walk(schema.unpack(item.typed_config), join(path, "typed_config"), report)
        except (KeyError, ValueError, schema.DecodeError) as error:
            if schema.type_name(item.typed_config.type_url) not in _TYPED_STRUCTS:
                report.problem(join(path, "typed_config"), str(error) or "cannot be read")
        return "router" if type_name == ROUTER else ""
    if not typed and item.name == _ROUTER_NAME:
        return "router"
    label = type_name or str(item.name)
    if is_guard(str(item.name), type_name) and not (target and item.is_optional):
        report.problem(path, f"{label[:100]} decides who may pass, and is not supported")
    elif target and not item.is_optional:
        report.problem(path, f"{label[:100] or 'a filter without a type'} is not supported and not optional")
    else:
        report.ignore(path, label)
    return ""
