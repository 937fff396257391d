"""Which filters decide who may pass, and where a route configuration switches filters on and off (LD-05, LD-06).

A filter is a guard if its configuration's type says so; where the type says nothing (there is none, or it is a bare
Struct), its name tells. What guards: role-based access, external authorization, tokens, passwords, keys, sign-in, forged
requests. What does not, though it may end a call: limits (they ask how many, not who), buffers, faults, CORS (the browser
decides), credentials that are added for the callee to judge. Programs (external processing, Wasm, Go, Lua) may do
anything: of each it is asked what an Envoy does that cannot run it (`decode.programs`).

A filter that runs others (a match delegate, a composite, a filter chain) names their types somewhere inside: it is a guard
if one of them is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meshlib.model.limits import Admission, LimitOverride, LocalLimit
from meshlib.model.route import FilterSwitch
from meshlib.xds import schema
from meshlib.xds.decode import programs
from meshlib.xds.decode.faults import FAULT, fault
from meshlib.xds.decode.limits import ADMISSION, GLOBAL_HERE, LOCAL, admission, local_limit, override
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.sessions import SESSION_HERE, session_here
from meshlib.xds.schema import WireMessage

__all__ = ["GUARDS_HERE", "ROUTER", "filter_type", "is_guard", "switches"]

#: Said of one in a report.
GUARDS_HERE = "decides who may pass, and is not supported"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"
_TYPED_STRUCTS = frozenset({"xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"})
#: A part of a type's name, of any version: `envoy.extensions.filters.http.rbac.v3.RBAC`, `…http.jwt_authn.v2alpha…`.
_KINDS = frozenset(
    {
        "api_key_auth",
        "authn",  # Istio's
        "basic_auth",
        "client_ssl_auth",
        "csrf",
        "ext_authz",
        "jwt_auth",  # Istio's, before Envoy had one
        "jwt_authn",
        "oauth2",
        "rbac",
    }
)
_CILIUM = frozenset({"cilium.L7Policy", "cilium.NetworkFilter"})
_NAMES = frozenset({"cilium.l7policy", "cilium.network", "istio_authn", "jwt-auth"})
_NAME_STARTS = ("envoy.filters.http.", "envoy.filters.network.", "envoy.")
#: What it is that they run comes with their configuration.
_WRAPPERS = frozenset(
    {
        "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        "envoy.extensions.filters.http.composite.v3.Composite",
        "envoy.extensions.filters.http.filter_chain.v3.FilterChainConfig",
    }
)
_INSIDE = tuple(f".{kind}.v".encode() for kind in sorted(_KINDS))
_FILTER_CONFIG = "envoy.config.route.v3.FilterConfig"
#: Settings of a guard for one place by which it lets every call pass there.
_LIFTED_BY: Mapping[str, Callable[[WireMessage], bool]] = {
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute": lambda message: bool(message.disabled),
    "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig": lambda message: bool(message.disabled),
    "envoy.extensions.filters.http.rbac.v3.RBACPerRoute": lambda message: not message.HasField("rbac"),
}


def filter_type(outer: WireMessage) -> str:
    """The type that an Any means: inside a TypedStruct, the type that it names. "" if it cannot be told."""
    try:
        name = schema.type_name(outer.type_url)
        if name not in _TYPED_STRUCTS:
            return name
        inner = schema.unpack(outer)
        return _named(str(inner.type_url))
    except (KeyError, ValueError, schema.DecodeError):
        return ""


def is_guard(item: WireMessage) -> bool:
    """Whether a filter (of HTTP or of the network) decides who may pass, or may turn into one that does."""
    which = item.WhichOneof("config_type")
    if which == "config_discovery":
        return _discovers_guard(str(item.name), item.config_discovery)
    held = item.typed_config if which == "typed_config" else None
    return _guards(str(item.name), held) or (not _tells(held) and _short(str(item.name)) in programs.KINDS)


def switches(owner: WireMessage, path: str, report: Report) -> tuple[FilterSwitch, ...]:
    """`owner.typed_per_filter_config` as what it switches on and off, whatever the filters are. In the target view a type that is not
    known, and is neither optional nor a guard's, refuses the resource (gRFC A39).
    """
    held = owner.typed_per_filter_config
    if not len(held):
        return ()
    path = join(path, "typed_per_filter_config")
    return tuple(_switch(str(name), held[name], f"{path}[{name}]", report) for name in sorted(held))


def _switch(name: str, outer: WireMessage, path: str, report: Report) -> FilterSwitch:
    """A configuration that cannot be read switches on: nothing is left open by mistake."""
    inner: WireMessage | None = outer
    optional = False
    if filter_type(outer) == _FILTER_CONFIG:
        try:
            wrapped = schema.unpack(outer)
        except (KeyError, ValueError, schema.DecodeError):
            return FilterSwitch(name, True, True)
        if wrapped.disabled:
            return FilterSwitch(name, False)
        inner = wrapped.config if wrapped.HasField("config") else None
        optional = bool(wrapped.is_optional)
    kind = filter_type(inner) if inner is not None else FAULT
    if kind == SESSION_HERE and inner is not None:
        keeps, kept = session_here(inner, path, report)
        return FilterSwitch(name, keeps, session=kept)
    injected = fault(inner, path, report) if kind == FAULT and inner is not None else None
    limit = _limit(kind, inner, path, report)
    made = FilterSwitch(
        name, not _lifts(inner), _guards(name, inner), injected, plain=inner is None, limit=limit
    )
    words = kind[:100] or "a type that cannot be read"
    if report.target and not (optional or made.guard or kind in (FAULT, ROUTER)):
        report.problem(path, f"{words} is not supported and not optional")
    elif made.guard and made.on:
        report.ignore(path, f"{words}: what it covers is answered 403")
    elif not made.guard and kind not in (FAULT, ROUTER) and limit is None:
        report.ignore(path, words)
    return made


def _limit(
    kind: str, outer: WireMessage | None, path: str, report: Report
) -> LocalLimit | LimitOverride | Admission | None:
    """GRPC has no such filters."""
    if outer is None or report.target:
        return None
    if kind == LOCAL:
        return local_limit(outer, path, report, here=True)
    if kind == ADMISSION:
        return admission(outer, path, report)
    return override(outer, path, report) if kind == GLOBAL_HERE else None


def _lifts(outer: WireMessage | None) -> bool:
    kind = filter_type(outer) if outer is not None else ""
    if outer is None or kind not in _LIFTED_BY:
        return outer is not None and programs.lifted(kind, outer)
    try:
        return _LIFTED_BY[kind](schema.unpack(outer, kind))
    except (KeyError, ValueError, schema.DecodeError):
        return False  # inside a TypedStruct it is not read


def _discovers_guard(name: str, source: WireMessage) -> bool:
    """By ECDS may come what `type_urls` allow; until then, and if it fails, the default is in force."""
    if source.HasField("default_config") and _guards(name, source.default_config):
        return True
    allowed = [_named(str(url)) for url in source.type_urls]
    return not allowed or any(
        _type_guards(kind) or kind in _WRAPPERS or programs.is_program(kind) for kind in allowed
    )


def _guards(name: str, outer: WireMessage | None) -> bool:
    if outer is None or not _tells(outer):
        return name.partition("/")[0] in _NAMES or _short(name) in _KINDS
    kind = filter_type(outer)
    if kind == ROUTER:
        return False  # the filters inside are behind it: `decode.filters` looks at each
    if _type_guards(kind):
        return True
    if programs.is_program(kind):
        return programs.decides(kind, outer)
    # An Any inside has its type's name in plain bytes, however deep it is.
    return any(part in outer.value for part in _INSIDE) or programs.holds(outer)


def _tells(outer: WireMessage | None) -> bool:
    """Whether a configuration's type says what it is."""
    kind = filter_type(outer) if outer is not None else ""
    return bool(kind) and not kind.startswith("google.protobuf.")


def _type_guards(kind: str) -> bool:
    return kind in _CILIUM or not _KINDS.isdisjoint(kind.split("."))


def _short(name: str) -> str:
    """A canonical or deprecated name (`envoy.ext_authz`) without what they begin with; a slash tells instances apart."""
    name = name.partition("/")[0]
    return next((name.removeprefix(start) for start in _NAME_STARTS if name.startswith(start)), name)


def _named(url: str) -> str:
    return url.rpartition("/")[2]
