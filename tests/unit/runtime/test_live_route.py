"""Routes with limits of their own: what is in flight, the breaker beside those of cluster and endpoints, what outlives an update."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshlib.core.upstream import PickContext, Refusal, RefusalKind
from meshlib.model.events import BreakerChanged
from meshlib.model.policy import Breaker, BreakerMode, RateLimit, RouteLimits
from meshlib.runtime import live_route
from meshlib.runtime.live_route import LiveRoute, LiveRoutes
from tests.support.live_kit import CANCELLED, ERROR, OK, REFUSED, Watched, flat

CONTEXT = PickContext()
TWO = Breaker(consecutive_failures=2, open_for=10.0)


def live(limits, events=None):
    return LiveRoute("api", limits, (events if events is not None else []).append, lambda: 0.0, 0.0)


def call(route, upstream, outcome, now):
    """One attempt, whole; what refused it."""
    pick = route.pick(upstream, CONTEXT, now)
    if isinstance(pick, Refusal):
        return pick
    pick.report(outcome, now)
    pick.release(now)
    return None


def test_so_many_calls_are_in_flight_and_no_more():
    route = live(RouteLimits(max_requests=2))
    assert route.enter() is None
    assert route.enter() is None
    refused = route.enter()
    assert (refused.kind, refused.detail) == (
        RefusalKind.MAX_REQUESTS,
        "route api has 2 calls in flight, max_requests is 2",
    )
    assert (route.active, route.overflows) == (2, 1)
    route.leave()
    assert route.enter() is None
    route.put(RouteLimits(max_requests=1), 0.0)
    route.leave()
    assert route.enter() is not None, (
        "lowered: nothing in flight is stopped, and nothing begins before it has drained"
    )


def test_its_breaker_opens_for_its_calls_alone_and_the_clusters_hears_of_them_too():
    events, watched = [], Watched(flat(1, breaker=Breaker(consecutive_failures=3)))
    api, rest = live(RouteLimits(breaker=TWO), events), live(RouteLimits(breaker=TWO))
    assert call(api, watched.live, ERROR, 0.0) is None
    assert call(api, watched.live, REFUSED, 0.0) is None
    refused = call(api, watched.live, OK, 1.0)
    assert (refused.kind, refused.detail) == (RefusalKind.BREAKER, "the breaker of route api is open")
    assert events == [BreakerChanged("", "closed", "open", route="api")]
    assert (api.breaker, rest.breaker) == ("open", "closed")
    assert call(rest, watched.live, ERROR, 1.0) is None
    assert watched.live.status(1.0).breaker == "open", "the third of the cluster's"
    assert call(rest, watched.live, OK, 1.0).detail == "the breaker of cluster 'c' is open"


@pytest.mark.parametrize("why", ["refused below", "cancelled", "given up", "raised"])
def test_a_probe_that_comes_to_nothing_is_given_back(why):
    watched = Watched(flat(1))
    route = live(RouteLimits(breaker=TWO))
    for _ in range(2):
        call(route, watched.live, ERROR, 0.0)
    upstream = watched.live
    if why == "refused below":
        upstream = Watched(flat(0)).live
        assert call(route, upstream, OK, 10.0).kind is RefusalKind.NO_ENDPOINT
    elif why == "cancelled":
        call(route, upstream, CANCELLED, 10.0)
    elif why == "given up":
        route.pick(upstream, CONTEXT, 10.0).release(10.0)
    else:
        with pytest.raises(AttributeError):
            route.pick(object(), CONTEXT, 10.0)
    assert route.breaker == "half_open"
    assert call(route, watched.live, OK, 10.0) is None
    assert route.breaker == "closed"


def test_a_body_that_breaks_after_a_good_head_is_a_failure():
    watched = Watched(flat(1))
    route = live(RouteLimits(breaker=Breaker(consecutive_failures=1)))
    pick = route.pick(watched.live, CONTEXT, 0.0)
    pick.report(OK, 0.0)
    assert route.breaker == "closed"
    pick.release(1.0, REFUSED)
    pick.release(1.0, REFUSED)
    assert route.breaker == "open"


def routes_kit():
    told = []
    kept = LiveRoutes(SimpleNamespace(now=lambda: 0.0), told.append)
    return kept, told


def match(name, host="reviews"):
    return SimpleNamespace(
        name=name, config=SimpleNamespace(name="reviews"), virtual_host=SimpleNamespace(name=host)
    )


def test_what_is_known_outlives_other_numbers_and_other_modes():
    kept, told = routes_kit()
    watched = Watched(flat(1))
    share = Breaker(consecutive_failures=0, failure_rate=0.5, window=10, minimum=10)
    limits = RouteLimits(breaker=share)
    for _ in range(4):
        call(kept.of("static", match("api"), limits, 0.0), watched.live, ERROR, 0.0)
    for changed in (
        replace(share, minimum=8),
        replace(share, mode=BreakerMode.OBSERVE),
        replace(share, minimum=5),
    ):
        limits = RouteLimits(breaker=changed)
        assert kept.of("static", match("api"), limits, 1.0).breaker == "closed"
    route = kept.of("static", match("api"), limits, 1.0)
    assert kept.of("other", match("api"), limits, 1.0) is not route
    assert kept.of("static", match("api", "ratings"), limits, 1.0) is not route
    call(route, watched.live, ERROR, 1.0)
    assert route.breaker == "open", "the fifth of five"
    assert told == [BreakerChanged("", "closed", "open", route="api")]


def test_names_without_end_are_forgotten_but_none_that_has_a_call(monkeypatch):
    monkeypatch.setattr(live_route, "MOST", 3)
    kept, _ = routes_kit()
    limits = RouteLimits(max_requests=5)
    held = kept.of("static", match("held"), limits, 0.0)
    assert held.enter() is None
    for number in range(50):
        kept.of("static", match(f"r{number}"), limits, 0.0)
    assert len(kept._live) == 3
    assert kept.of("static", match("held"), limits, 0.0) is held


def test_a_rate_limit_of_its_own():
    route = live(RouteLimits(rate_limit=RateLimit(1.0, 2.0)))
    assert [route.limiter.take(0.0) for _ in range(3)] == [True, True, False]
    route.put(RouteLimits(rate_limit=RateLimit(10.0, 2.0)), 0.0)
    assert route.limiter.take(0.1)


class Calls(RuleBasedStateMachine):
    """Calls of one route that are begun, reported, cancelled, broken and given up in any order, while numbers change: what is held
    comes back, and no limit is ever exceeded.
    """

    def __init__(self):
        super().__init__()
        self.watched = Watched(
            flat(3, endpoint_breaker=TWO, breaker=Breaker(consecutive_failures=4, open_for=5.0))
        )
        self.route = live(RouteLimits(breaker=TWO, max_requests=4))
        self.calls = []  # each with the pick that it holds
        self.now = 0.0

    @rule()
    def begin(self):
        before = self.route.active
        refused = self.route.enter()
        assert (refused is None) == (before < self.route.limits.max_requests)
        if refused is None:
            self.calls.append(None)

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 9), outcome=st.sampled_from([OK, ERROR, REFUSED, CANCELLED, None]))
    def attempt(self, which, outcome):
        which %= len(self.calls)
        if self.calls[which] is not None:
            self.calls[which].release(self.now)
            self.calls[which] = None
        pick = self.route.pick(self.watched.live, CONTEXT, self.now)
        if isinstance(pick, Refusal):
            return
        if outcome is not None:
            pick.report(outcome, self.now)
        self.calls[which] = pick

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 9), failure=st.sampled_from([None, ERROR, REFUSED, CANCELLED]))
    def end(self, which, failure):
        pick = self.calls.pop(which % len(self.calls))
        if pick is not None:
            pick.release(self.now, failure)
            pick.release(self.now, failure)
        self.route.leave()

    @rule(seconds=st.sampled_from([0.1, 4.9, 5.0, 10.0]))
    def later(self, seconds):
        self.now += seconds

    @rule(most=st.integers(1, 5), failures=st.integers(1, 3), mode=st.sampled_from(list(BreakerMode)))
    def configure(self, most, failures, mode):
        breaker = replace(TWO, consecutive_failures=failures, mode=mode)
        self.route.put(RouteLimits(breaker=breaker, max_requests=most), self.now)

    @invariant()
    def what_is_held_is_counted(self):
        held = [pick for pick in self.calls if pick is not None]
        assert self.route.active == len(self.calls)
        assert self.watched.live.active == len(held)
        assert sum(endpoint.active for endpoint in self.watched.live.endpoints) == len(held)

    def teardown(self):
        while self.calls:
            self.end(0, None)
        assert (self.route.active, self.watched.live.active) == (0, 0)
        # Whatever was on trial came back: once its time is over each breaker probes, and closes.
        self.route.put(RouteLimits(breaker=TWO, max_requests=4), self.now)
        for _ in range(8):
            self.now += 100.0
            assert call(self.route, self.watched.live, OK, self.now) is None
        assert self.route.breaker == "closed"
        assert self.watched.live.status(self.now).breaker == "closed"


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
