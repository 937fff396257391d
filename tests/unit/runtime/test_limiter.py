"""Local rate limits of filters: no bucket gives more than it has, and what it has outlives other numbers."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.limits import Descriptor, DescriptorLimit, LocalLimit
from meshlib.model.policy import RateLimit
from meshlib.runtime import limiter
from meshlib.runtime.limiter import LocalLimits

USERS = ("a", "b")
POLICY = LocalLimit(
    RateLimit(3.0, 5.0),
    tuple(
        DescriptorLimit((("user", user),), RateLimit(rate, 2.0))
        for user, rate in zip(USERS, (1.0, 2.0), strict=True)
    ),
)


def user(name):
    return (Descriptor((("user", name),)),)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0, 2), st.integers(1, 3)),
        min_size=1,
        max_size=60,
    ),
    st.booleans(),
)
def test_no_more_pass_than_a_bucket_has_whatever_comes(calls, always):
    limits, policy, now = LocalLimits(), replace(POLICY, always=always), 0.0
    passed = {"a": 0, "b": 0, "c": 0}
    for name, later, hits in calls:
        now += later
        made = (Descriptor((("user", name),), hits),)
        if limits.take(("p", "l"), policy, made, now)[0]:
            passed[name] += 1 if name == "c" else hits
    assert passed["a"] <= 2.0 + 1.0 * now + 1e-6
    assert passed["b"] <= 2.0 + 2.0 * now + 1e-6
    assert passed["c"] <= 5.0 + 3.0 * now + 1e-6


def test_buckets_are_of_their_place_and_outlive_other_numbers():
    limits = LocalLimits()
    take = lambda policy, place="l", now=0.0: limits.take(("p", place), policy, user("a"), now)[0]  # noqa: E731
    assert [take(POLICY) for _ in range(3)] == [True, True, False]
    assert take(POLICY, "another")
    more = replace(POLICY, limits=(DescriptorLimit((("user", "a"),), RateLimit(1.0, 10.0)),))
    assert not take(more), "what was taken stays taken"
    assert take(more, now=1.0)
    assert take(replace(POLICY, limits=()), now=1.0), "it counts with the others now"


def test_what_is_left_is_told_of_the_bucket_that_decided():
    limits = LocalLimits()
    for _ in range(2):
        passes, lines = limits.take(("l",), POLICY, user("a"), 0.0)
    assert (passes, dict(lines)) == (
        True,
        {b"x-ratelimit-limit": b"2", b"x-ratelimit-remaining": b"0", b"x-ratelimit-reset": b"1"},
    )


def test_places_without_end_are_forgotten(monkeypatch):
    monkeypatch.setattr(limiter, "MOST", 3)
    limits = LocalLimits()
    for number in range(50):
        limits.take((str(number),), POLICY, (), 0.0)
    assert len(limits._live) == 3
