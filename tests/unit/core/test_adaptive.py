"""A limit that follows latency: it finds what a service takes, and does not run away when nothing is answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.adaptive import AdaptiveLimit
from meshlib.core.upstream import PickContext, Refusal, RefusalKind
from meshlib.model.policy import Adaptive
from tests.support.live_kit import OK, Watched, flat


def windows(limit, count, seconds, *, now, good=True, active=None, calls=20):
    """So many windows of calls that take so long."""
    for _ in range(count):
        for _ in range(calls):
            limit.hear(seconds, limit.limit if active is None else active, now, good=good)
        now += 0.11
        limit.hear(seconds, limit.limit if active is None else active, now, good=good)
    return now


def test_it_grows_while_latency_stays_and_shrinks_as_it_rises():
    limit = AdaptiveLimit(Adaptive(4, 200), 0.0)
    now = windows(limit, 90, 0.02, now=0.0)
    assert limit.limit == 200
    now = windows(limit, 10, 0.2, now=now)
    before = limit.limit
    assert before < 100
    windows(limit, 60, 0.02, now=now)
    assert limit.limit > before


def test_one_that_is_not_used_does_not_grow():
    limit = AdaptiveLimit(Adaptive(4, 200), 0.0)
    windows(limit, 60, 0.02, now=0.0, active=5)
    assert limit.limit == 20


def test_when_every_call_times_out_it_goes_to_the_least():
    """All take equally long then: that must not look like the best there is."""
    limit = AdaptiveLimit(Adaptive(4, 1000), 0.0)
    now = windows(limit, 30, 0.02, now=0.0)
    grown = limit.limit
    assert grown > 50
    for _ in range(60):
        for _ in range(20):
            limit.hear(1.0, limit.limit, now, good=False)
        now += 1.0
    assert limit.limit == 4
    windows(limit, 60, 0.02, now=now)
    assert limit.limit > 50, "and it comes back"


def test_a_service_that_became_slower_for_good_is_not_held_to_what_it_was():
    limit = AdaptiveLimit(Adaptive(4, 100), 0.0)
    now = windows(limit, 30, 0.02, now=0.0)
    now = windows(limit, 20, 0.1, now=now)
    low = limit.limit
    windows(limit, 1500, 0.1, now=now)
    assert limit.limit > low


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.floats(0, 2), st.booleans(), st.integers(0, 500)),
        min_size=1,
        max_size=300,
    ),
    st.integers(1, 50),
    st.integers(0, 500),
)
def test_it_stays_within_its_bounds_whatever_comes(calls, least, more):
    limit, now = AdaptiveLimit(Adaptive(least, least + more), 0.0), 0.0
    for seconds, later, good, active in calls:
        now += later
        limit.hear(seconds, active, now, good=good)
        assert least <= limit.limit <= least + more


def test_other_bounds_hold_at_once():
    limit = AdaptiveLimit(Adaptive(4, 100), 0.0)
    limit.configure(Adaptive(2, 10))
    assert limit.limit == 10
    limit.configure(Adaptive(30, 100))
    assert limit.limit == 30


def test_a_live_cluster_refuses_what_is_over_it():
    watched = Watched(flat(2, adaptive=Adaptive(3, 3)))
    held = [watched.live.pick(PickContext(), 0.0) for _ in range(3)]
    refused = watched.live.pick(PickContext(), 0.0)
    assert isinstance(refused, Refusal)
    assert refused.kind is RefusalKind.MAX_REQUESTS
    assert refused.detail == "cluster 'c' has 3 calls in flight, its latency allows 3"
    held[0].report(OK, 0.0)
    held[0].release(0.0)
    assert not isinstance(watched.live.pick(PickContext(), 0.0), Refusal)


@pytest.mark.parametrize("seconds", [0.0, 1e-9])
def test_no_time_at_all_is_no_division_by_nothing(seconds):
    windows(AdaptiveLimit(Adaptive(4, 200), 0.0), 5, seconds, now=0.0)
