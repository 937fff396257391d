"""Header and query matchers (HM, RM-07, RM-08), as measured with Envoy 1.40."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.conditions import (
    compile_conditions,
    compile_header,
    cookie,
    integer,
    is_grpc,
    query_parameters,
)
from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.model.match import (
    CookieMatch,
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    RouteMatch,
    StringKind,
    StringMatch,
)


def head(*headers, path="/"):
    return Head("GET", "http", "shop.test:80", path, Headers.of(*headers))


def text(kind, value, *, ignore_case=False):
    return StringMatch(kind, value, ignore_case)


def header(value, match, **fields):
    """Whether the matcher fits a request with this value of `x-h` (None: without it; a tuple: several lines)."""
    values = value if isinstance(value, tuple) else (() if value is None else (value,))
    return compile_header(HeaderMatch("x-h", match, **fields))(head(*(("X-H", each) for each in values)))


EXACT = text(StringKind.EXACT, "gold")


@pytest.mark.parametrize(
    ("match", "fits", "fails"),
    [
        (EXACT, ["gold"], ["Gold", "goldy", "", None]),
        (text(StringKind.PREFIX, "go"), ["go", "gold"], ["ago", "Gold"]),
        (text(StringKind.SUFFIX, "ld"), ["ld", "gold"], ["lda"]),
        (text(StringKind.CONTAINS, "ol"), ["gold", "ol"], ["gOld"]),
        (text(StringKind.REGEX, "g.*d"), ["gold", "gd"], ["golds"]),
        (text(StringKind.EXACT, "GOLD", ignore_case=True), ["gold", "Gold"], ["old"]),
        (text(StringKind.CONTAINS, "Ol", ignore_case=True), ["gOLd"], ["gld"]),
        (text(StringKind.REGEX, "GOLD", ignore_case=True), ["GOLD"], ["gold"]),
        (text(StringKind.EXACT, "é"), ["\u00c3\u00a9"], ["\u00e9"]),
        (text(StringKind.EXACT, "É", ignore_case=True), ["\u00c3\u0089"], ["\u00c3\u00a9"]),
    ],
)
def test_kinds_of_string(match, fits, fails):
    assert [value for value in fits + fails if header(value, match)] == fits


def test_inversion_does_not_make_absence_match():
    assert header("silver", EXACT, invert=True)
    assert not header("gold", EXACT, invert=True)
    assert not header(None, EXACT, invert=True)


def test_a_missing_header_can_count_as_empty():
    assert header(None, text(StringKind.EXACT, ""), missing_as_empty=True)
    assert not header(None, EXACT, missing_as_empty=True)
    assert header(None, EXACT, missing_as_empty=True, invert=True)


def test_presence():
    assert header("", None, present=True)
    assert not header(None, None, present=True)
    assert header(None, None, present=False)
    assert not header("", None, present=False)
    assert header(None, None, present=True, invert=True)
    assert not header("", None, present=True, invert=True)
    assert header(None, None, present=True, missing_as_empty=True)
    assert not header(None, None, present=False, missing_as_empty=True)
    assert header("1", None)
    assert not header(None, None)


def test_one_of_several_lines_is_enough_and_inversion_is_of_all():
    assert header(("gold", "silver"), EXACT)
    assert header(("silver", "gold"), EXACT)
    assert not header(("gold", "silver"), text(StringKind.EXACT, "gold,silver"))
    assert header("gold,silver", text(StringKind.EXACT, "gold,silver"))
    assert not header(("silver", "gold"), EXACT, invert=True)
    assert header(("silver", "lead"), EXACT, invert=True)
    assert header(("99", "5"), None, range=(0, 10))


def test_a_header_of_one_line_is_joined():
    match = compile_header(HeaderMatch("accept", text(StringKind.EXACT, "a,b")))
    assert match(head(("accept", "a"), ("Accept", "b")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (":method", "GET"),
        (":path", "/x?q"),
        (":authority", "shop.test:80"),
        ("host", "shop.test:80"),
        (":scheme", "http"),
    ],
)
def test_what_is_no_header_line_is_visible(name, value):
    assert compile_header(HeaderMatch(name, text(StringKind.EXACT, value)))(head(path="/x?q"))
    assert not compile_header(HeaderMatch(name, present=False))(head())


@pytest.mark.parametrize(
    ("value", "number"),
    [("5", 5), ("-3", -3), ("+4", 4), ("007", 7), (" 12 ", 12), ("", None), ("1.5", None), ("0x1", None), ("--1", None),
     ("1_0", None), ("\u0661", None), ("-", None), ("9" * 30, None), ("9223372036854775807", 2**63 - 1),
     ("-9223372036854775808", -(2**63)), ("9223372036854775808", None)],
)  # fmt: skip
def test_integers(value, number):
    assert integer(value) == number


def test_a_range_ends_before_its_end():
    assert [n for n in range(-2, 4) if header(str(n), None, range=(-1, 2))] == [-1, 0, 1]
    assert not header("x", None, range=(-1, 2))
    assert header("x", None, range=(-1, 2), invert=True)


@pytest.mark.parametrize(
    ("content_type", "grpc"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc-web", False),
        ("text/plain", False),
    ],
)
def test_grpc(content_type, grpc):
    assert is_grpc(head(("content-type", content_type))) is grpc
    assert not is_grpc(head())


class TestQuery:
    @pytest.mark.parametrize(
        ("path", "values"),
        [
            ("/", []),
            ("/?q", [""]),
            ("/?q=", [""]),
            ("/?q=1&q=2", ["1", "2"]),
            ("/?a=q&qq=1", []),
            ("/?a&&q=b=c&", ["b=c"]),
            ("/?q=%20", ["%20"]),
            ("/?Q=1", []),
            ("/q=1", []),
            ("/?a?q=1", []),
        ],
    )
    def test_parsed_as_envoy_does(self, path, values):
        assert query_parameters(path, "q") == values

    @given(st.text("q=&?a/", max_size=12))
    def test_first_value_counts(self, rest):
        values = query_parameters(f"/?{rest}", "q")
        match = QueryMatch("q", StringMatch(StringKind.EXACT, "a"))
        (condition,) = compile_conditions(RouteMatch(PathMatch(PathKind.PREFIX, "/"), query=(match,)))
        assert condition.test(head(path=f"/?{rest}")) is (values[:1] == ["a"])

    def test_presence(self):
        for present, path, fits in (
            (True, "/?q", True),
            (True, "/", False),
            (False, "/", True),
            (False, "/?q", False),
        ):
            match = RouteMatch(PathMatch(PathKind.PREFIX, "/"), query=(QueryMatch("q", present=present),))
            assert compile_conditions(match)[0].test(head(path=path)) is fits


def test_words():
    match = RouteMatch(
        PathMatch(PathKind.PREFIX, "/"),
        (
            HeaderMatch("x-a", EXACT, invert=True),
            HeaderMatch("x-b", range=(1, 2)),
            HeaderMatch("x-c", present=False),
        ),
        (QueryMatch("q", EXACT), QueryMatch("p")),
        grpc=True,
    )
    assert [condition.words for condition in compile_conditions(match)] == [
        "a gRPC request",
        'not (header x-a exact "gold")',
        "header x-b in [1, 2)",
        "header x-c absent",
        'query parameter q exact "gold"',
        "query parameter p present",
    ]


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ([], None),
        (["a=1"], "1"),
        (["b=2; a=1"], "1"),
        (["b=2;a=1"], "1"),
        (["b=2,a=1"], None),
        (["a=2; a=1"], "2"),
        (["a=2", "a=1"], "2"),
        (["x=y", "a=1"], "1"),
        (["A=1"], None),
        (['a="x y"'], "x y"),
        (['a=""'], ""),
        (['a="'], '"'),
        (['a="1'], '"1'),
        (["a="], ""),
        (["a"], None),
        (["a; a=1"], "1"),
        (["a = 1"], None),
        (["a= 1"], " 1"),
        (["a=1 ;b=2"], "1 "),
        (["a=1=2"], "1=2"),
        ([" \ta=1 "], "1"),
        ([";;a=1"], "1"),
    ],
)
def test_the_value_of_a_cookie(lines, value):
    assert cookie(head(*(("Cookie", line) for line in lines)), "a") == value


def test_cookies_are_a_condition_and_inversion_makes_absence_match():
    def fits(invert, *lines):
        match = RouteMatch(PathMatch(PathKind.PREFIX, "/"), cookies=(CookieMatch("a", EXACT, invert),))
        (condition,) = compile_conditions(match)
        assert condition.words == ('not (cookie a exact "gold")' if invert else 'cookie a exact "gold"')
        return condition.test(head(*(("Cookie", line) for line in lines)))

    assert [fits(False, "a=gold"), fits(False, "a=silver"), fits(False)] == [True, False, False]
    assert [fits(True, "a=gold"), fits(True, "a=silver"), fits(True)] == [False, True, True]
