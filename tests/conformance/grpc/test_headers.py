"""Routes that ask for metadata."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.testing import build

X = "x-tier"

MATCHERS: list[Any] = [
    # The matcher; values that match; values that do not. None: the call has no such metadata.
    pytest.param({"string_match": {"exact": "gold"}}, ["gold"], ["golden", "Gold", "", None], id="exact"),
    pytest.param({"string_match": {"prefix": "go"}}, ["go", "gold"], ["ago", "Gold", None], id="prefix"),
    pytest.param({"string_match": {"suffix": "ld"}}, ["ld", "gold"], ["golds", None], id="suffix"),
    pytest.param({"string_match": {"contains": "ol"}}, ["ol", "gold"], ["g o l d", None], id="contains"),
    pytest.param(
        {"string_match": {"safe_regex": {"regex": "g.*d"}}},
        ["gold", "gd"],
        ["golds", "a gold", None],
        id="regex",
    ),
    pytest.param(
        {"string_match": {"exact": "GOLD", "ignore_case": True}},
        ["gold", "gOLD"],
        ["golds", None],
        id="ignore-case",
    ),
    pytest.param(
        {"string_match": {"prefix": "GO", "ignore_case": True}}, ["gold"], ["ago"], id="prefix-ignore-case"
    ),
    pytest.param({"exact_match": "gold"}, ["gold"], ["golden", None], id="old-exact"),
    pytest.param({"prefix_match": "go"}, ["gold"], ["ago", None], id="old-prefix"),
    pytest.param({"suffix_match": "ld"}, ["gold"], ["golds", None], id="old-suffix"),
    pytest.param({"contains_match": "ol"}, ["gold"], ["silver", None], id="old-contains"),
    pytest.param({"safe_regex_match": {"regex": "g.*d"}}, ["gold"], ["golds", None], id="old-regex"),
    pytest.param(
        {"range_match": {"start": "-5", "end": "10"}},
        ["-5", "0", "9"],
        ["10", "-6", "five", "1.5", "", None],
        id="range",
    ),
    pytest.param({"present_match": True}, ["gold", ""], [None], id="present"),
    pytest.param({"present_match": False}, [None], ["gold"], id="absent"),
    pytest.param({"present_match": True, "invert_match": True}, [None], ["gold"], id="present-inverted"),
    pytest.param(
        {"string_match": {"exact": "gold"}, "invert_match": True}, ["silver"], ["gold", None], id="inverted"
    ),
    pytest.param(
        {"range_match": {"start": "1", "end": "3"}, "invert_match": True},
        ["3", "x"],
        ["1"],
        id="range-inverted",
    ),
]


@pytest.fixture
def choose(scene, connect):
    """A function that routes what these matchers ask for to ``a``, the rest to ``b``; gives a caller."""

    def make(*matchers):
        scene.named("a", "b")
        scene.route(build.route(match={"headers": list(matchers)}, cluster="a"), build.route(cluster="b"))
        return connect()

    return make


@pytest.mark.parametrize(("matcher", "matching", "other"), MATCHERS)
def test_matcher(choose, matcher, matching, other):
    """HM-02, HM-03, HM-04."""
    caller = choose({"name": X, **matcher})
    expected = dict.fromkeys(matching, "a") | dict.fromkeys(other, "b")
    found = {value: caller.outcome(metadata=_metadata(value)) for value in expected}
    assert found == expected


def _metadata(value: str | None) -> tuple[tuple[str, str], ...]:
    return () if value is None else ((X, value),)


def test_all_matchers_must_hold(choose):
    """HM-01."""
    caller = choose({"name": X, "string_match": {"exact": "gold"}}, {"name": "x-beta", "present_match": True})
    assert caller.outcome(metadata=((X, "gold"), ("x-beta", "1"))) == "a"
    assert caller.outcome(metadata=((X, "gold"),)) == "b"
    assert caller.outcome(metadata=(("x-beta", "1"),)) == "b"


def test_several_values_are_one_text_with_commas(choose):
    """HM-01: no blank between them."""
    caller = choose({"name": X, "string_match": {"exact": "gold,silver"}})
    assert caller.outcome(metadata=((X, "gold"), (X, "silver"))) == "a"
    assert caller.outcome(metadata=((X, "silver"), (X, "gold"))) == "b"
    assert caller.outcome(metadata=((X, "gold"),)) == "b"


@pytest.mark.oracle_differs("C-core compares a matcher's name as it is written")
def test_matchers_name_is_compared_without_case(choose):
    """HM-01."""
    caller = choose({"name": "X-Tier", "string_match": {"exact": "gold"}})
    assert caller.outcome(metadata=((X, "gold"),)) == "a"


def test_binary_metadata_never_matches(choose):
    """HM-05: of names that end in ``-bin`` nothing is seen."""
    caller = choose({"name": "x-tier-bin", "present_match": True})
    assert caller.outcome(metadata=(("x-tier-bin", b"gold"),)) == "b"


def test_content_type_is_grpcs(choose):
    """HM-05: whatever the call says of it."""
    caller = choose({"name": "content-type", "string_match": {"exact": "application/grpc"}})
    assert caller.outcome() == "a"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            "grpc-timeout",
            marks=pytest.mark.oracle_differs("C-core has its own grpc-timeout among the metadata"),
        ),
        "user-agent",
        "te",
    ],
)
def test_what_the_transport_adds_is_not_seen(choose, name):
    """HM-05: only the metadata of the call counts."""
    caller = choose({"name": name, "present_match": True})
    assert caller.outcome(timeout=5) == "b"
