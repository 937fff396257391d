"""Calls whose attempts run beside each other, in any interleaving, on a live cluster and a clock that only the test moves.

Whatever happens: no more attempts of a call are in flight than it may have, no hedge goes where an attempt is under way, no more of them are paid for than the
budget allows; each pick and each permit goes back once; an attempt that was overtaken is nobody's fault; an answer is never lost.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshlib.core.effects import Call, Effect, Env, Finish, Rest, Send, Sleep
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


@dataclass
class Running:
    """A call: what it has in flight, and when its plan is to be woken."""

    plan: Plan
    flight: dict[int, Send] = field(default_factory=dict)
    until: float | None = None
    alone: bool = False  # it sleeps, and nothing is in flight
    answered: bool = False


class HedgedCalls(RuleBasedStateMachine):
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
        call = data.draw(st.sampled_from([call for call in self.calls if call.flight]))
        number = data.draw(st.sampled_from(sorted(call.flight)))
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

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.3]))
    def pass_time(self, seconds):
        """Who is due by then is woken, at its time."""
        then = self.watched.now + seconds
        while True:
            due = [call for call in self.calls if call.until is not None and call.until <= then]
            if not due:
                break
            call = min(due, key=lambda one: one.until)
            self.watched.now = max(self.watched.now, call.until)
            call.until, call.alone = None, False
            self.follow(call, call.plan.woke(self.watched.now))
        self.watched.now = then

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def give_up(self, data):
        call = data.draw(st.sampled_from(self.calls))
        self.calls.remove(call)
        call.plan.cancel(Outcome(OutcomeKind.CANCELLED, sent=True), self.watched.now)

    @precondition(lambda self: any(call.answered for call in self.calls))
    @rule(data=st.data())
    def read(self, data):
        call = data.draw(st.sampled_from([call for call in self.calls if call.answered]))
        self.calls.remove(call)
        call.plan.close(self.watched.now)

    def follow(self, call: Running, effect: Effect) -> None:
        if isinstance(effect, Send):
            hedge = bool(self.events) and isinstance(self.events[-1], HedgeStarted)
            if hedge and self.mode != "try timeout":
                taken = {attempt.endpoint for attempt in call.flight.values()}
                assert effect.endpoint not in taken, "a hedge goes to another endpoint"
            self.events.clear()
            call.flight[effect.number] = effect
            call.until = effect.hedge_at
        elif isinstance(effect, Rest):
            call.until = effect.until
            assert call.flight or call.until is not None, "somebody has to wake it"
        elif isinstance(effect, Sleep):
            assert not call.flight
            call.until, call.alone = self.watched.now + effect.seconds, True
        else:
            assert isinstance(effect, Finish)
            assert not call.plan.in_flight, "who was overtaken is given up at once"
            call.flight.clear()
            call.until, call.answered = None, True
            if effect.outcome is None or effect.outcome.kind is not OutcomeKind.OK:
                self.calls.remove(call)
                call.plan.close(self.watched.now)

    # --- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def is_bounded(self):
        if not hasattr(self, "calls"):
            return
        live = self.watched.live
        for call in self.calls:
            assert set(call.flight) == {attempt.number for attempt in call.plan.in_flight}
            assert len(call.flight) <= self.allowed
            assert call.flight or call.answered or call.until is not None, "a call is never lost"
        held = sum(len(call.flight) + call.answered for call in self.calls)
        assert live.active == held == sum(endpoint.active for endpoint in live.endpoints)
        assert live.retries >= 0

    @invariant()
    def blames_nobody_else(self):
        if hasattr(self, "calls") and self.mode != "try timeout":
            for endpoint in self.watched.live.endpoints:
                assert endpoint.failures == self.blamed[endpoint.name]

    def teardown(self):
        if not hasattr(self, "calls"):
            return
        for call in self.calls:
            call.plan.cancel(Outcome(OutcomeKind.CANCELLED), self.watched.now)
            call.plan.close(self.watched.now)
        live = self.watched.live
        assert (live.active, live.retries) == (0, 0)
        assert all(endpoint.active == 0 for endpoint in live.endpoints)


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
