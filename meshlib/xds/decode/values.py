"""Small values that many messages hold: durations, fractions, wrappers, strings, regexes, headers, metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping

from meshlib.core.regex import compile_regex
from meshlib.core.regex import problem as regex_problem
from meshlib.model.match import HeaderMatch, StringKind, StringMatch
from meshlib.model.route import RegexRewrite
from meshlib.xds import schema
from meshlib.xds.decode.report import MAX_PROGRAMS, Report, join
from meshlib.xds.schema import WireMessage

__all__ = [
    "boolean",
    "fraction",
    "header_match",
    "header_name",
    "header_value",
    "metadata",
    "number",
    "percent",
    "regex",
    "rewrite",
    "runtime_fraction",
    "seconds",
    "string_match",
    "struct",
    "typed",
    "unpacked",
]

# ER-12: the range of google.protobuf.Duration.
_MAX_SECONDS = 315_576_000_000
_MAX_NANOS = 999_999_999
_DENOMINATORS = {0: 10_000, 1: 100, 2: 1}
_MILLION = 1_000_000
# What a name may hold: RFC 9110 `token`, and the colon of a pseudo header.
_NAME = frozenset("!#$%&'*+-.^_`|~:0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_BAD_IN_VALUE = ("\r", "\n", "\0")


def seconds(owner: WireMessage, field: str, path: str, report: Report) -> float | None:
    """The Duration in `field`, None if it is not set (or wrong: then it is reported)."""
    if not owner.HasField(field):
        return None
    duration = getattr(owner, field)
    if not (0 <= duration.seconds <= _MAX_SECONDS and 0 <= duration.nanos <= _MAX_NANOS):
        report.problem(
            join(path, field),
            f"must be 0 to {_MAX_SECONDS} s, not {duration.seconds} s and {duration.nanos} ns",
        )
        return None
    return float(duration.seconds + duration.nanos / 1e9)


def number(owner: WireMessage, field: str) -> int | None:
    """The wrapped integer in `field`, None if it is not set."""
    return int(getattr(owner, field).value) if owner.HasField(field) else None


def boolean(owner: WireMessage, field: str, default: bool) -> bool:
    """The wrapped truth value in `field`."""
    return bool(getattr(owner, field).value) if owner.HasField(field) else default


def percent(owner: WireMessage, field: str, path: str, report: Report) -> float | None:
    """The Percent in `field`, 0 to 100; None if it is not set."""
    if not owner.HasField(field):
        return None
    value = float(getattr(owner, field).value)
    if not (math.isfinite(value) and 0.0 <= value <= 100.0):
        report.problem(join(path, field), f"must be 0 to 100, not {value}")
        return None
    return value


def fraction(message: WireMessage, path: str, report: Report) -> int:
    """A FractionalPercent in parts of a million; more than all is all (RM-06, ED-06)."""
    scale = _DENOMINATORS.get(message.denominator)
    if scale is None:
        report.problem(join(path, "denominator"), f"{message.denominator} is not known")
        return 0
    return min(int(message.numerator) * scale, _MILLION)


def runtime_fraction(owner: WireMessage, field: str, path: str, report: Report) -> int | None:
    """The default of a RuntimeFractionalPercent in parts of a million; None if the field is not set."""
    if not owner.HasField(field):
        return None
    value = getattr(owner, field)
    if not value.HasField("default_value"):
        report.problem(join(path, f"{field}.default_value"), "is missing")
        return None
    return fraction(value.default_value, join(path, f"{field}.default_value"), report)


def regex(message: WireMessage, path: str, report: Report) -> str:
    """The pattern of a RegexMatcher, checked by RE2 itself (RM-03)."""
    pattern = str(message.regex)
    wrong = regex_problem(pattern) if pattern else "is missing"
    if wrong:
        report.problem(join(path, "regex"), wrong)
    elif not report.affords(compile_regex(pattern).size):
        report.problem(
            join(path, "regex"), f"the resource's expressions have more than {MAX_PROGRAMS} instructions"
        )
    return pattern


def rewrite(message: WireMessage, path: str, report: Report) -> RegexRewrite:
    """A RegexMatchAndSubstitute; each group that it names must be there."""
    pattern = regex(message.pattern, join(path, "pattern"), report)
    text = header_value(str(message.substitution), join(path, "substitution"), report)
    if pattern and not regex_problem(pattern):
        wrong = regex_problem(pattern, text)
        if wrong:
            report.problem(join(path, "substitution"), wrong)
    return RegexRewrite(pattern, text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")


_KINDS = {
    "exact": StringKind.EXACT,
    "prefix": StringKind.PREFIX,
    "suffix": StringKind.SUFFIX,
    "contains": StringKind.CONTAINS,
}


def string_match(message: WireMessage, path: str, report: Report) -> StringMatch:
    """A StringMatcher. Empty prefix, suffix and contains are refused (HM-04)."""
    which = message.WhichOneof("match_pattern")
    if which == "safe_regex":
        return StringMatch(
            StringKind.REGEX,
            regex(message.safe_regex, join(path, "safe_regex"), report),
            bool(message.ignore_case),
        )
    kind = _KINDS.get(which or "")
    if kind is None:
        if which is None:
            report.problem(path, "one of exact, prefix, suffix, contains and safe_regex must be set")
        return StringMatch(StringKind.EXACT, "")
    value = str(getattr(message, which))
    if not value and kind is not StringKind.EXACT:
        report.problem(join(path, which), "must not be empty")
    return StringMatch(kind, value, bool(message.ignore_case))


def header_name(name: str, path: str, report: Report) -> str:
    """A header's name in lower case. Envoy takes one that no header can have."""
    if not name:
        report.problem(path, "must not be empty")
    elif not _NAME.issuperset(name):
        report.stricter(
            path, f"{_short(name)} is no name of a header", f"{_short(name)} is no name of a header"
        )
        header_value(name, path, report)
    return name.lower()


def is_header_name(name: str) -> bool:
    """Whether a header may have it."""
    return bool(name) and _NAME.issuperset(name)


def header_value(value: str, path: str, report: Report) -> str:
    """A text that will stand in the head of a request."""
    if any(bad in value for bad in _BAD_IN_VALUE):
        report.problem(path, "must not hold a line break or NUL")
    return value


_OLD_STRINGS = {
    "exact_match": StringKind.EXACT,
    "prefix_match": StringKind.PREFIX,
    "suffix_match": StringKind.SUFFIX,
    "contains_match": StringKind.CONTAINS,
}


def header_match(message: WireMessage, path: str, report: Report) -> HeaderMatch:
    """A HeaderMatcher (HM-01 to HM-04). None of its kinds set: the header must be there, as in Envoy; gRPC refuses it."""
    name = header_name(message.name, join(path, "name"), report)
    string: StringMatch | None = None
    bounds: tuple[int, int] | None = None
    present: bool | None = None
    which = message.WhichOneof("header_match_specifier")
    if which is None:
        report.stricter(path, "one of string_match, present_match, range_match and the like must be set", "")
        present = True
    elif which == "present_match":
        present = bool(message.present_match)
    elif which == "range_match":
        bounds = (int(message.range_match.start), int(message.range_match.end))
        if bounds[0] > bounds[1]:
            report.stricter(
                join(path, which), f"start {bounds[0]} is after end {bounds[1]}", "nothing is in it"
            )
    elif which == "string_match":
        string = string_match(message.string_match, join(path, which), report)
    elif which == "safe_regex_match":
        string = StringMatch(StringKind.REGEX, regex(message.safe_regex_match, join(path, which), report))
    else:
        string = StringMatch(_OLD_STRINGS[which], str(getattr(message, which)))
        if not string.value and string.kind is StringKind.EXACT:
            # To Envoy an empty exact_match is one that is not set: any value fits (measured, 1.40).
            string = StringMatch(StringKind.PREFIX, "")
        elif not string.value:
            report.problem(join(path, which), "must not be empty")
    return HeaderMatch(
        name, string, bounds, present, bool(message.invert_match), bool(message.treat_missing_header_as_empty)
    )


def metadata(owner: WireMessage, field: str = "metadata") -> Mapping[str, Mapping[str, object]]:
    """`filter_metadata` of the Metadata in `field`, as plain values."""
    if not owner.HasField(field):
        return {}
    held = getattr(owner, field).filter_metadata
    return {str(key): struct(held[key]) for key in sorted(held)}


def struct(message: WireMessage) -> Mapping[str, object]:
    """A google.protobuf.Struct as plain values."""
    plain = schema.to_json(message)
    assert isinstance(plain, dict)
    return plain


def unpacked(outer: WireMessage, path: str, report: Report, *names: str) -> WireMessage | None:
    """What an Any holds, if it is one of `names` (upstream names); else None and a problem."""
    try:
        found = schema.type_name(outer.type_url)
        if found not in names:
            report.problem(path, f"must hold {' or '.join(names)}, not {_short(found)}")
            return None
        return schema.unpack(outer)
    except (KeyError, ValueError, schema.DecodeError) as error:
        report.problem(path, str(error.args[0] if error.args else error) or "cannot be read")
        return None


def typed(outer: WireMessage, path: str, report: Report, name: str) -> WireMessage | None:
    """What an Any holds that is known to mean `name` (an upstream name): what is inside a TypedStruct is reported and not read;
    what cannot be read is a problem.
    """
    if outer.type_url.rpartition("/")[2] != name:
        report.ignore(path, name)
        return None
    return unpacked(outer, path, report, name)
