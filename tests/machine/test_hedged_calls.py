"""Calls whose attempts run beside each other, in any interleaving, on a live cluster and a clock that only the test moves.

Whatever happens: no more attempts of a call are in flight than it may have, no hedge goes where an attempt is under way, no more of them are paid for than the
budget allows; each pick and each permit goes back once; an attempt that was overtaken is nobody's fault; an answer is never lost.
"""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from meshlib.core.effects import Call, Env, Finish, Send
from meshlib.core.limits import budget_ceiling
from meshlib.core.match import compile_routes
from meshlib.core.plan import Plan
from meshlib.core.resolution import Resolution
from meshlib.model.call import Head, Outcome, OutcomeKind
from meshlib.model.events import HedgeStarted
from meshlib.model.headers import Headers
from meshlib.model.listener import Listener
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.policy import Hedge, RetryBudget, RetryPolicy
from meshlib.model.route import Forward, Route, RouteConfiguration, VirtualHost
from meshlib.runtime.delays import LiveDelays
from tests.machine.hedging import Hedged, Running
from tests.support.live_kit import Watched, flat

OUTCOMES = {
    "good": Outcome(OutcomeKind.OK, 200, Headers.of(), True),
    "bad": Outcome(OutcomeKind.OK, 503, Headers.of(), True),
    "not found": Outcome(OutcomeKind.OK, 404, Headers.of(), True),
    "refused": Outcome(OutcomeKind.CONNECT),
    "reset": Outcome(OutcomeKind.RESET, sent=True),
    "own limit": Outcome(OutcomeKind.OVERFLOW, error=RuntimeError("full")),
}
BAD = {"bad", "refused", "reset", "own limit"}


class _Budgeted:
    """A cluster that says of each retry that it lets through whether the budget has room for it."""

    def __init__(self, watched: Watched, budget: RetryBudget) -> None:
        self.watched, self.budget = watched, budget
        self.live = watched.live

    def __getattr__(self, name: str):
        return getattr(self.live, name)

    def begin_retry(self, budget, **more):
        assert budget == self.budget
        room = self.live.retries < budget_ceiling(budget, self.live.active)
        permit = self.live.begin_retry(budget, **more)
        assert (permit is not None) is room
        return permit


class HedgedCalls(Hedged):
    @initialize(
        endpoints=st.integers(1, 4),
        most=st.integers(2, 4),
        mode=st.sampled_from(["after", "quantile", "try timeout"]),
        retries=st.none() | st.integers(0, 3),
        budget=st.builds(RetryBudget, st.sampled_from([0.0, 20.0, 100.0]), st.integers(0, 3)),
        deadline=st.sampled_from([0.0, 2.0]),
        seed=st.integers(0, 5),
    )
    def begin(self, endpoints, most, mode, retries, budget, deadline, seed):
        self.watched = Watched(flat(endpoints), seed=seed)
        self.budget, self.most, self.mode = budget, most, mode
        on = frozenset({"5xx", "connect-failure"})
        if mode == "try timeout":
            retries = retries or 1
        self.policy = None
        if retries is not None:
            timeout = 0.05 if mode == "try timeout" else None
            self.policy = RetryPolicy(on, retries, timeout, budget=budget)
        hedge = Hedge(
            after=0.05 if mode == "after" else None,
            quantile=0.5 if mode == "quantile" else None,
            on_try_timeout=mode == "try timeout",
            most=most,
            budget=budget,
        )
        action = Forward(cluster="c", hedge=hedge, retry=self.policy, timeout=deadline)
        route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "/")), action)
        routes = compile_routes(RouteConfiguration("r", (VirtualHost("v", ("*",), (route,)),)))
        self.resolution = Resolution("mesh", "a test", part="p", listener=Listener("l"), routes=routes)
        self.events: list[object] = []
        live, rand = _Budgeted(self.watched, budget), random.Random(seed).random
        self.env = Env(lambda part, name: live, rand, lambda: 0.0, self.events.append, delays=LiveDelays())
        self.calls: list[Running] = []
        self.blamed: Counter[str] = Counter()
        self.allowed = most if mode != "try timeout" else (retries or 0) + 1

    # --- what happens -------------------------------------------------------------------------------------------------

    @rule()
    def start(self):
        head = Head("GET", "http", "h", "/", Headers.of())
        running = Running(Plan(Call(self.resolution, head, concurrent=True), self.env))
        self.calls.append(running)
        self.follow(running, running.plan.start(self.watched.now))

    @precondition(lambda self: any(call.flight for call in self.calls))
    @rule(data=st.data(), kind=st.sampled_from(sorted(OUTCOMES)))
    def end_attempt(self, data, kind):
        call, number = self.drawn(data)
        attempt = call.flight.pop(number)
        if kind in BAD - {"own limit"}:
            self.blamed[attempt.endpoint.name] += 1
        effect = call.plan.outcome(
            Outcome(
                **{
                    name: getattr(OUTCOMES[kind], name)
                    for name in ("kind", "status", "headers", "sent", "error")
                }
            ),
            self.watched.now,
            number,
        )
        if kind in ("good", "not found"):
            assert isinstance(effect, Finish), "a good answer is never waited over"
        self.follow(call, effect)

    # --- what holds ---------------------------------------------------------------------------------------------------

    def sends(self, call, attempt):
        hedge = bool(self.events) and isinstance(self.events[-1], HedgeStarted)
        if hedge and self.mode != "try timeout":
            taken = {each.endpoint for each in call.flight.values()}
            assert attempt.endpoint not in taken, "a hedge goes to another endpoint"
        self.events.clear()

    def failed(self, end):
        return end.outcome is None or end.outcome.kind is not OutcomeKind.OK

    def attempts_are_bounded(self, call):
        assert len(call.flight) <= self.allowed

    @invariant()
    def blames_nobody_else(self):
        if hasattr(self, "calls") and self.mode != "try timeout":
            for endpoint in self.watched.live.endpoints:
                assert endpoint.failures == self.blamed[endpoint.name]


HedgedCalls.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestHedgedCalls = HedgedCalls.TestCase


def test_hedges_are_drawn_from_the_budget_and_none_is_made_beyond_it() -> None:
    budget = RetryBudget(20.0, 1)
    watched = Watched(flat(4))
    upstream = _Budgeted(watched, budget)
    action = Forward(cluster="c", hedge=Hedge(after=0.05, budget=budget), timeout=0.0)
    routes = compile_routes(
        RouteConfiguration(
            "r", (VirtualHost("v", ("*",), (Route(RouteMatch(PathMatch(PathKind.PREFIX, "/")), action),)),)
        )
    )
    resolution = Resolution("mesh", "a test", part="p", listener=Listener("l"), routes=routes)
    env = Env(lambda part, name: upstream, lambda: 0.5, lambda: 0.0)
    plans = [
        Plan(Call(resolution, Head("GET", "http", "h", "/", Headers.of()), concurrent=True), env)
        for _ in range(6)
    ]
    for plan in plans:
        plan.start(0.0)
    beside = [isinstance(plan.woke(0.05), Send) for plan in plans]
    # A fifth of 6 in flight is more than 1, and of 7, the first hedge among them; of 8 it is less than 2.
    assert beside == [True, True, False, False, False, False]
    assert "no hedge" in "\n".join(plans[2].info(0.05).trace())
    for plan in plans:
        plan.cancel(Outcome(OutcomeKind.CANCELLED), 0.1)
    assert (watched.live.active, watched.live.retries) == (0, 0)
