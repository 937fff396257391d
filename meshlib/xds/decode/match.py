"""What a route matches (RM, HM)."""

from __future__ import annotations

from meshlib.model.match import CookieMatch, PathKind, PathMatch, QueryMatch, RouteMatch
from meshlib.xds.decode.report import Report, join
from meshlib.xds.decode.values import boolean, header_match, regex, runtime_fraction, string_match
from meshlib.xds.schema import WireMessage

__all__ = ["query_match", "route_match"]

_PATHS = {
    "prefix": PathKind.PREFIX,
    "path": PathKind.EXACT,
    "path_separated_prefix": PathKind.SEPARATED_PREFIX,
}
_ANYTHING = PathMatch(PathKind.PREFIX, "")


def route_match(message: WireMessage, path: str, report: Report) -> RouteMatch | None:
    """The match, or None where nothing that a client does can fulfil it: then the route is left out.

    CONNECT requests, dynamic metadata and filter state do not occur here, and a call comes without TLS: what keeps a route out is
    reported.
    """
    where = _path_match(message, path, report)
    made = RouteMatch(
        where or _ANYTHING,
        tuple(
            header_match(item, f"{join(path, 'headers')}[{index}]", report)
            for index, item in enumerate(message.headers)
        ),
        tuple(
            query_match(item, f"{join(path, 'query_parameters')}[{index}]", report)
            for index, item in enumerate(message.query_parameters)
        ),
        runtime_fraction(message, "runtime_fraction", path, report),
        message.HasField("grpc"),
        tuple(
            _cookie_match(item, f"{join(path, 'cookies')}[{index}]", report)
            for index, item in enumerate(message.cookies)
        ),
    )
    never = _never(message)
    if never:
        report.ignore(join(path, never), getattr(message, never))
    return None if where is None or never else made


def _never(message: WireMessage) -> str:
    """The field that nothing in a client fulfils; ``""`` where there is none."""
    if message.WhichOneof("path_specifier") == "connect_matcher":
        return "connect_matcher"
    if any(not each.invert for each in message.dynamic_metadata):
        return "dynamic_metadata"
    if len(message.filter_state):
        return "filter_state"
    return "tls_context" if _wants_tls(message) else ""


def _wants_tls(message: WireMessage) -> bool:
    return message.HasField("tls_context") and (
        message.tls_context.presented.value or message.tls_context.validated.value
    )


def _path_match(message: WireMessage, path: str, report: Report) -> PathMatch | None:
    which = message.WhichOneof("path_specifier")
    sensitive = boolean(message, "case_sensitive", True)
    if which is None:
        report.problem(path, "one of prefix, path, safe_regex and path_separated_prefix must be set")
        return _ANYTHING
    if which == "safe_regex":
        return PathMatch(PathKind.REGEX, regex(message.safe_regex, join(path, which), report), sensitive)
    kind = _PATHS.get(which)
    if kind is None:  # connect_matcher, and path_match_policy, which the table refuses
        return None
    value = str(getattr(message, which))
    if kind is PathKind.SEPARATED_PREFIX and (
        len(value) < 2 or value.endswith("/") or "?" in value or "#" in value
    ):
        report.problem(
            join(path, which), "must be a path of two characters or more, without ?, # and / at its end"
        )
    return PathMatch(kind, value, sensitive)


def query_match(message: WireMessage, path: str, report: Report) -> QueryMatch:
    """A QueryParameterMatcher (RM-07)."""
    if not message.name:
        report.problem(join(path, "name"), "must not be empty")
    which = message.WhichOneof("query_parameter_match_specifier")
    if which == "string_match":
        return QueryMatch(message.name, string_match(message.string_match, join(path, which), report))
    return QueryMatch(message.name, None, bool(message.present_match) if which else True)


def _cookie_match(message: WireMessage, path: str, report: Report) -> CookieMatch:
    if not message.name:
        report.problem(join(path, "name"), "must not be empty")
    if not message.HasField("string_match"):
        report.problem(join(path, "string_match"), "must be set")
    string = string_match(message.string_match, join(path, "string_match"), report)
    return CookieMatch(str(message.name), string, bool(message.invert_match))
