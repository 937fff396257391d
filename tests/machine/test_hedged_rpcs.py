"""gRPC calls with hedges, in any interleaving, on a live cluster and a clock that only the test moves: the rules of gRFC A6.

Beside what holds of HTTP calls (``test_hedged_calls.py``): no more attempts are made in all than the policy has; a status that is not fatal ends no call while an
attempt is in flight or may be made, and one that is ends it; after a pushback no hedge is begun before its time, or none at all; where the throttle is used up none is; a
call that is committed to one attempt has no other in flight, and begins none.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from meshlib.core.effects import Call, Env, Finish, Rest, Send
from meshlib.core.match import compile_routes
from meshlib.core.plan_grpc import GrpcPlan
from meshlib.core.resolution import Resolution
from meshlib.core.retry_grpc import PUSHBACK
from meshlib.hosts.grpc.own_retries import Throttle
from meshlib.model.call import Head, Outcome, OutcomeKind
from meshlib.model.headers import Headers
from meshlib.model.listener import Listener
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.policy import Hedge, RetryBudget
from meshlib.model.route import Forward, Route, RouteConfiguration, VirtualHost
from tests.machine.hedging import Hedged, Running
from tests.support.live_kit import Watched, flat

DELAY, PUSHED = 0.05, 0.2
UNAVAILABLE, NOT_FOUND = 14, 5
ENDS = {
    "ok": (0, None),
    "not fatal": (UNAVAILABLE, None),
    "fatal": (NOT_FOUND, None),
    "stop": (UNAVAILABLE, "-1"),
    "later": (UNAVAILABLE, "200"),
}


def outcome(kind: str) -> Outcome:
    if kind == "refused":
        return Outcome(OutcomeKind.CONNECT, grpc=True)
    code, said = ENDS[kind]
    headers = Headers.of() if said is None else Headers.of((PUSHBACK, said))
    return Outcome(OutcomeKind.OK, code, headers, True, grpc=True)


@dataclass
class Rpc(Running):
    plan: GrpcPlan
    call: Call | None = None
    made: int = 0
    stopped: bool = False  # a server said not to
    not_before: float = 0.0
    kept: bool = False  # to one attempt


class HedgedRpcs(Hedged):
    @initialize(
        endpoints=st.integers(1, 4),
        most=st.integers(2, 5),
        delay=st.sampled_from([0.0, DELAY]),
        own=st.booleans(),
        throttled=st.booleans(),
        budget=st.none() | st.builds(RetryBudget, st.sampled_from([0.0, 100.0]), st.integers(0, 3)),
        deadline=st.sampled_from([None, 2.0]),
        seed=st.integers(0, 5),
    )
    def begin(self, endpoints, most, delay, own, throttled, budget, deadline, seed):
        self.watched, self.own, self.most, self.seconds = (
            Watched(flat(endpoints), seed=seed),
            own,
            most,
            deadline,
        )
        self.throttle = Throttle(6.0, 0.5) if throttled else None
        codes = frozenset({UNAVAILABLE})
        self.hedge = Hedge(after=delay, most=most, methods=None, budget=budget, codes=codes, own=own)
        action = Forward(cluster="c", hedge=None if own else self.hedge)
        route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "/")), action)
        routes = compile_routes(RouteConfiguration("r", (VirtualHost("v", ("*",), (route,)),)))
        listener = Listener("l", from_file=True)
        self.resolution = Resolution("mesh", "a test", part="p", listener=listener, routes=routes)
        live = self.watched.live
        self.env = Env(lambda part, name: live, random.Random(seed).random, lambda: 0.0)
        self.calls: list[Rpc] = []

    # --- what happens -------------------------------------------------------------------------------------------------

    @rule()
    def start(self):
        head = Head("POST", "http", "h", "/s/m", Headers.of())
        now = self.watched.now
        call = Call(
            self.resolution,
            head,
            deadline=None if self.seconds is None else now + self.seconds,
            default_hedge=self.hedge if self.own else None,
            concurrent=True,
            grpc=True,
            throttle=self.throttle,
        )
        running = Rpc(GrpcPlan(call, self.env), call=call)
        self.calls.append(running)
        self.follow(running, running.plan.start(now))

    @precondition(lambda self: any(call.flight for call in self.calls))
    @rule(data=st.data(), kind=st.sampled_from([*ENDS, "refused"]))
    def end_attempt(self, data, kind):
        call, number = self.drawn(data)
        call.flight.pop(number)
        now, late = self.watched.now, self.seconds is not None and call.call.deadline <= self.watched.now
        if kind == "stop":
            call.stopped = True
        if kind == "later":
            call.not_before = now + PUSHED
        effect = call.plan.outcome(outcome(kind), now, number)
        if kind in ("ok", "fatal"):
            assert isinstance(effect, Finish), "it is the answer"
        elif call.flight and not (late or call.kept):
            assert isinstance(effect, Rest | Send), "others are under way"
        elif call.kept and kind != "refused":
            assert isinstance(effect, Finish), "what was sent cannot be sent again"
        self.follow(call, effect)

    @precondition(lambda self: any(call.flight for call in self.calls))
    @rule(data=st.data())
    def fill(self, data):
        """More was sent than is kept: one attempt goes on alone."""
        call, number = self.drawn(data)
        call.call.replayable = False
        call.plan.keep(number, self.watched.now)
        call.flight = {number: call.flight[number]}
        call.until, call.kept = None, True

    # --- what holds ---------------------------------------------------------------------------------------------------

    def sends(self, call, attempt):
        now = self.watched.now
        call.made += 1
        retried = any(attempt.outcome == "connect" for attempt in call.plan.info(now).attempts)
        if call.made > 1 and not retried:
            assert not call.stopped, "a server said not to"
            assert now >= call.not_before, "a server said when"
            assert not call.kept
            # One that follows a failure was decided with it, as a retry is.
            if self.throttle is not None and call.flight:
                assert self.throttle.allows()

    def failed(self, end):
        return end.failure is not None

    def attempts_are_bounded(self, call):
        assert len(call.flight) <= self.most
        refused = sum(each.outcome == "connect" for each in call.plan.info(self.watched.now).attempts)
        assert call.made - refused <= self.most, "what was never sent does not count"


HedgedRpcs.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestHedgedRpcs = HedgedRpcs.TestCase
