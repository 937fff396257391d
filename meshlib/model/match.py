"""What a request must look like: its path, headers, query parameters and cookies. Routes and retry policies demand it.

These are the values that a control plane (or a file) means, already checked; ``core.match`` and ``core.conditions``
compile them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from meshlib.model.hidden import Hidden, is_credential

__all__ = [
    "CookieMatch",
    "HeaderMatch",
    "PathKind",
    "PathMatch",
    "QueryMatch",
    "RouteMatch",
    "StringKind",
    "StringMatch",
]


#: Of one regular expression: instructions when it is compiled, and characters. Envoy's limit is a runtime key, off by default; RE2's
#: own is its memory.
MAX_PROGRAM = 20_000
MAX_PATTERN = 16_384


class StringKind(Enum):
    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    CONTAINS = "contains"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class StringMatch:
    """Envoy ``StringMatcher``. REGEX is RE2, a full match, and never ignores case (HM-04)."""

    kind: StringKind
    value: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """Envoy ``HeaderMatcher``. Exactly one of ``string``, ``range`` (start, end exclusive) and ``present`` is set;
    ``present`` False matches absence. ``name`` is lower case; ``:method``, ``:path``, ``:authority`` and
    ``:scheme`` are visible. ``joined``: the values of several lines are looked at as one, joined with ",".
    """

    name: str
    string: StringMatch | None = None
    range: tuple[int, int] | None = None
    present: bool | None = None
    invert: bool = False
    missing_as_empty: bool = False
    joined: bool = False

    def __post_init__(self) -> None:
        _hide(self)


@dataclass(frozen=True, slots=True)
class QueryMatch:
    """RM-07: ``string`` against the first value of the key, or ``present``."""

    name: str
    string: StringMatch | None = None
    present: bool | None = None

    def __post_init__(self) -> None:
        _hide(self)


@dataclass(frozen=True, slots=True)
class CookieMatch:
    """``string`` against the value of the cookie; one that is not there has no match, which ``invert`` makes one."""

    name: str
    string: StringMatch
    invert: bool = False

    def __post_init__(self) -> None:
        _hide(self)


def _hide(match: HeaderMatch | QueryMatch | CookieMatch) -> None:
    """What a credential is compared with is not shown."""
    if match.string is not None and is_credential(match.name):
        object.__setattr__(match, "string", replace(match.string, value=Hidden(match.string.value)))


class PathKind(Enum):
    PREFIX = "prefix"
    EXACT = "path"
    SEPARATED_PREFIX = "path_separated_prefix"
    REGEX = "safe_regex"


@dataclass(frozen=True, slots=True)
class PathMatch:
    """Every kind looks at the path without its query (RM-04, and Envoy 1.40 as measured)."""

    kind: PathKind
    value: str
    case_sensitive: bool = True


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """All that is set must hold. ``per_million`` is the runtime fraction's default, None when absent (RM-06)."""

    path: PathMatch
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()
    per_million: int | None = None
    grpc: bool = False
    cookies: tuple[CookieMatch, ...] = ()
