"""What a route demands beside its path: headers, query parameters, cookies, a share of the calls, gRPC.

Each becomes a test of a head; :class:`Condition` keeps the words for it, so that a trace can say which one failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from meshlib.core.lines import ONE_LINE_REQUEST
from meshlib.core.strings import StringTest, compile_string, describe_string, wire
from meshlib.model.call import Head
from meshlib.model.match import CookieMatch, HeaderMatch, QueryMatch, RouteMatch

__all__ = [
    "Condition",
    "compile_conditions",
    "compile_header",
    "cookie",
    "header_value",
    "header_values_match",
    "integer",
    "is_grpc",
    "query_parameters",
]

_PSEUDO = frozenset((":method", ":path", ":authority", ":scheme", "host"))
_JOINED = frozenset(name.decode() for name in ONE_LINE_REQUEST)
_INT64 = 1 << 63
_SPACE = " \t\n\r\v\f"


@dataclass(frozen=True, slots=True)
class Condition:
    """``test`` says whether a head fulfils it; ``words`` what it demands."""

    test: Callable[[Head], bool]
    words: str


def compile_conditions(match: RouteMatch) -> tuple[Condition, ...]:
    """All but path and runtime fraction: gRPC, headers, query, cookies."""
    found: list[Condition] = []
    if match.grpc:
        found.append(Condition(is_grpc, "a gRPC request"))
    found.extend(Condition(compile_header(item), _header_words(item)) for item in match.headers)
    found.extend(Condition(_query(item), _query_words(item)) for item in match.query)
    found.extend(Condition(_cookie(item), _cookie_words(item)) for item in match.cookies)
    return tuple(found)


# --- headers ----------------------------------------------------------------------------------------------------------


def header_value(head: Head, name: str) -> str | None:
    """The value of header ``name`` (lower case), all lines joined with ","; ``:method``, ``:path``,
    ``:authority`` (also as ``host``) and ``:scheme`` are the head's own (HM-05).
    """
    if name not in _PSEUDO:
        return head.headers.get(name)
    if name == ":path":
        return head.path
    if name == ":method":
        return head.method
    return head.scheme if name == ":scheme" else head.authority


def compile_header(match: HeaderMatch) -> Callable[[Head], bool]:
    """A test of a request's head (HM-01 to HM-05).

    Of a header with several lines one that fits is enough, and inversion is of all of them, as in Envoy since it looks at
    lines one by one (measured with 1.40); the headers of which Envoy keeps one line are joined with ",".
    """
    name = wire(match.name)
    fits = header_values_match(match)
    if name in _PSEUDO:
        return lambda head: fits(header_value(head, name))
    if match.joined or name in _JOINED or _looks_at_presence(match):
        return lambda head: fits(head.headers.get(name))
    missing, invert = fits(None), match.invert
    plain = header_values_match(replace(match, invert=False))
    raw_name = name.encode("latin-1")

    def matches(head: Head) -> bool:
        value = head.headers.get(name)
        if value is None:
            return missing
        if "," in value:
            lines = [line.decode("latin-1") for key, line in head.headers.raw if key.lower() == raw_name]
            return any(map(plain, lines)) is not invert
        return plain(value) is not invert

    return matches


def _looks_at_presence(match: HeaderMatch) -> bool:
    return match.string is None and match.range is None


def header_values_match(match: HeaderMatch) -> Callable[[str | None], bool]:
    """A test of one value, None for a header that is not there."""
    invert = match.invert
    if _looks_at_presence(match):
        wanted = (match.present is not False) is not invert
        if match.missing_as_empty:
            return lambda _value: wanted
        return lambda value: (value is not None) is wanted
    matches = _value_test(match)
    if match.missing_as_empty:
        return lambda value: matches(value or "") is not invert
    # Inversion does not make absence match (HM-02).
    return lambda value: value is not None and matches(value) is not invert


def _value_test(match: HeaderMatch) -> StringTest:
    if match.range is not None:
        return _in_range(*match.range)
    assert match.string is not None
    return compile_string(match.string)


def _in_range(start: int, end: int) -> StringTest:
    def matches(value: str) -> bool:
        number = integer(value)
        return number is not None and start <= number < end

    return matches


def integer(text: str) -> int | None:
    """A base-10 integer of 64 bits with optional sign and surrounding space (HM-03), or None."""
    digits = text.strip(_SPACE)
    unsigned = digits[1:] if digits[:1] in ("-", "+") else digits
    if not (unsigned.isascii() and unsigned.isdigit()) or len(unsigned) > 64:
        return None
    number = int(digits)
    return number if -_INT64 <= number < _INT64 else None


def unsigned(text: str) -> int | None:
    """The same without a sign but ``+``: up to 2⁶⁴ − 1."""
    digits = text.strip(_SPACE).removeprefix("+")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 64:
        return None
    number = int(digits)
    return number if number < 2 * _INT64 else None


def is_grpc(head: Head) -> bool:
    """RM-08: ``application/grpc`` or ``application/grpc+…``."""
    kind = head.headers.get("content-type")
    return kind is not None and (kind == "application/grpc" or kind.startswith("application/grpc+"))


# --- query ------------------------------------------------------------------------------------------------------------


def query_parameters(path: str, name: str) -> list[str]:
    """The values of a query parameter in their order, not decoded (RM-07)."""
    _, _, query = path.partition("?")
    found: list[str] = []
    if name not in query:
        return found
    for piece in query.split("&"):
        key, _, value = piece.partition("=")
        if key == name and (piece or not name):
            found.append(value)
    return found


def _query(match: QueryMatch) -> Callable[[Head], bool]:
    name = wire(match.name)
    test = compile_string(match.string) if match.string is not None else None
    wanted = match.present is not False

    def matches(head: Head) -> bool:
        values = query_parameters(head.path, name)
        if test is None:
            return bool(values) is wanted
        return bool(values) and test(values[0])

    return matches


# --- cookies ----------------------------------------------------------------------------------------------------------


def cookie(head: Head, name: str) -> str | None:
    """The value of the first cookie of that name, without the quotation marks around it (measured with Envoy 1.40)."""
    if head.headers.get("cookie") is None:
        return None
    for key, line in head.headers.raw:
        if key.lower() != b"cookie":
            continue
        for pair in line.decode("latin-1").strip(_SPACE).split(";"):
            own, equals, value = pair.lstrip(_SPACE).partition("=")
            if equals and own == name:
                return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return None


def _cookie(match: CookieMatch) -> Callable[[Head], bool]:
    name, test, invert = wire(match.name), compile_string(match.string), match.invert

    def matches(head: Head) -> bool:
        value = cookie(head, name)
        return (value is not None and test(value)) is not invert

    return matches


# --- words ------------------------------------------------------------------------------------------------------------


def _header_words(match: HeaderMatch) -> str:
    if match.string is not None:
        words = f"header {match.name} {describe_string(match.string)}"
    elif match.range is not None:
        words = f"header {match.name} in [{match.range[0]}, {match.range[1]})"
    else:
        words = f"header {match.name} {'present' if match.present is not False else 'absent'}"
    return f"not ({words})" if match.invert else words


def _query_words(match: QueryMatch) -> str:
    if match.string is not None:
        return f"query parameter {match.name} {describe_string(match.string)}"
    return f"query parameter {match.name} {'present' if match.present is not False else 'absent'}"


def _cookie_words(match: CookieMatch) -> str:
    words = f"cookie {match.name} {describe_string(match.string)}"
    return f"not ({words})" if match.invert else words
