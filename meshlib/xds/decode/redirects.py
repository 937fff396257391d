"""Redirects that are followed before a caller sees them: `internal_redirect_policy`, and what stood for it once."""

from __future__ import annotations

from meshlib.model.policy import InternalRedirects, PredicateKind, RedirectPredicate
from meshlib.xds.decode.guards import filter_type
from meshlib.xds.decode.report import Report, join, walk
from meshlib.xds.decode.values import header_name, number, typed
from meshlib.xds.schema import WireMessage

__all__ = ["internal_redirects"]

#: Envoy passes over others.
_STATUSES = frozenset((301, 302, 303, 307, 308))
_HANDLE = 1
_KINDS = {
    f"envoy.extensions.internal_redirect.{kind.value}.v3.{name}Config": kind
    for kind, name in (
        (PredicateKind.PREVIOUS_ROUTES, "PreviousRoutes"),
        (PredicateKind.SAFE_CROSS_SCHEME, "SafeCrossScheme"),
        (PredicateKind.ALLOWED_ROUTES, "AllowListedRoutes"),
    )
}


def internal_redirects(action: WireMessage, path: str, report: Report) -> InternalRedirects | None:
    """Of a RouteAction; None where its redirects are the caller's. A predicate that is not known follows nothing."""
    if not action.HasField("internal_redirect_policy"):
        if action.internal_redirect_action != _HANDLE:
            return None
        most = number(action, "max_internal_redirects")
        return InternalRedirects() if most is None else InternalRedirects(most)
    held, path = action.internal_redirect_policy, join(path, "internal_redirect_policy")
    most = number(held, "max_internal_redirects")
    given = frozenset(int(code) for code in held.redirect_response_codes)
    found = [
        _predicate(item, f"{join(path, 'predicates')}[{index}]", report)
        for index, item in enumerate(held.predicates)
    ]
    known = tuple(each for each in found if each is not None)
    if len(known) < len(found):
        return None
    return InternalRedirects(
        1 if most is None else most,
        given & _STATUSES or (InternalRedirects().statuses if not given else frozenset()),
        known,
        bool(held.allow_cross_scheme_redirect),
        tuple(
            header_name(name, f"{join(path, 'response_headers_to_copy')}[{index}]", report)
            for index, name in enumerate(held.response_headers_to_copy)
        ),
    )


def _predicate(item: WireMessage, path: str, report: Report) -> RedirectPredicate | None:
    name = filter_type(item.typed_config)
    kind = _KINDS.get(name)
    if kind is None:
        report.ignore(path, name or str(item.name))
        return None
    held = typed(item.typed_config, join(path, "typed_config"), report, name)
    if held is None:
        return None
    walk(held, join(path, "typed_config"), report)
    allowed = kind is PredicateKind.ALLOWED_ROUTES
    return RedirectPredicate(kind, frozenset(map(str, held.allowed_route_names)) if allowed else frozenset())
