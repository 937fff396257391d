"""RE2: full matches, replacement as RE2's own, what is refused, and what an expression begins with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.regex import MAX_PATTERN, Regex, compile_regex, problem


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("a|ab", "ab", True),
        ("", "", True),
        (".*", "a\u00e9", True),
        ("(?i)GOLD", "gold", True),
        ("caf..", "caf\u00c3\u00a9", True),  # "café" on the wire: a character a byte
        ("caf.", "caf\u00c3\u00a9", False),
        ("caf\u00e9", "caf\u00c3\u00a9", True),
    ],
)
def test_all_of_the_text_must_match(pattern, text, matches):
    assert compile_regex(pattern).full(text) is matches


@pytest.mark.parametrize(
    ("pattern", "substitution", "text", "result"),
    [
        ("/v[0-9]+", "/v9", "/v1/v22/x", "/v9/v9/x"),
        ("^/([^/]+)/(.*)$", r"/\2/\1", "/a/b/c", "/b/c/a"),
        ("x*", "-", "axb", "-a-b-"),
        ("", "-", "ab", "-a-b-"),
        ("b*", "-", "bb", "-"),
        ("a", r"\\\0", "a", "\\a"),
        ("(a)|b", r"<\1>", "ab", "<a><>"),
        ("z", "-", "ab", "ab"),
        ("a", "é", "a", "\u00c3\u00a9"),
    ],
)
def test_every_match_is_replaced(pattern, substitution, text, result):
    assert compile_regex(pattern).replace_all(text, substitution) == result


@pytest.mark.parametrize("pattern", ["(", "a{99999}", "(?=a)", r"(a)\1", "[z-a]", "a" * (MAX_PATTERN + 1)])
def test_what_re2_does_not_take_is_told(pattern):
    assert problem(pattern)
    with pytest.raises(ValueError, match=r"\w"):
        compile_regex(pattern)


def test_too_large_a_program_is_refused():
    assert "too large" in problem("a{1000}" * 30)


@pytest.mark.parametrize(
    ("substitution", "wrong"), [(r"\2", "names group 2 of 1"), (r"\x", "digit"), ("\\", "digit")]
)
def test_a_substitution_fits_its_expression(substitution, wrong):
    assert wrong in problem("(a)", substitution)
    assert problem("(a)", r"\1\0\\") is None


def test_patterns_are_compiled_once():
    assert compile_regex("/once/.*") is compile_regex("/once/.*")


def test_a_hostile_expression_takes_linear_time():
    assert not compile_regex("(a*)*b").full("a" * 100_000)


PIECES = st.sampled_from(
    ["a", "b", "/", "ab", "a*", "b?", "(a|b)", "[ab]", ".", "a+", "(?i:a)", "^", "$", "\u00e9"]
)
TEXT = st.text("ab/A\u00c3\u00a9", max_size=8)


@given(st.lists(PIECES, max_size=6).map("".join), TEXT)
def test_whatever_matches_begins_with_the_prefix(pattern, text):
    if problem(pattern) is not None:
        return
    regex = Regex(pattern)
    if regex.full(text):
        assert text.startswith(regex.prefix)


@pytest.mark.parametrize(
    ("pattern", "prefix"), [("/api/v[0-9]/.*", "/api/v"), ("/a", "/a"), (".*", ""), ("/a|/b", "/")]
)
def test_prefix_is_found(pattern, prefix):
    assert compile_regex(pattern).prefix == prefix
