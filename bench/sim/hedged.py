"""Calls that a plan of meshlib makes, with its hedges, over the queues of `bench.sim.model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.sim.model import Call, Server, Simulation
from meshlib.core import effects
from meshlib.core.match import compile_routes
from meshlib.core.plan import Plan
from meshlib.core.resolution import Resolution
from meshlib.model.call import Head, Outcome, OutcomeKind
from meshlib.model.headers import Headers
from meshlib.model.listener import Listener
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.policy import Hedge
from meshlib.model.route import Forward, Route, RouteConfiguration, VirtualHost
from meshlib.runtime.delays import LiveDelays

__all__ = ["HedgedSimulation"]


@dataclass(slots=True)
class _Planned(Call):
    """``due``: when its plan is to be woken."""

    plan: Plan | None = None
    due: float | None = None


class HedgedSimulation(Simulation):
    """As `Simulation`; ``hedge``: None for none."""

    def __init__(self, servers: list[Server], rate: float, *, hedge: Hedge | None, **more: Any) -> None:
        super().__init__(servers, rate, **more)
        action = Forward(cluster="sim", hedge=hedge, timeout=self._timeout)
        route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "/")), action)
        routes = compile_routes(RouteConfiguration("sim", (VirtualHost("sim", ("*",), (route,)),)))
        self._resolution = Resolution("mesh", "", part="sim", listener=Listener("sim"), routes=routes)
        self._env = effects.Env(
            lambda *_: self._live, self._random.random, lambda: self.now, delays=LiveDelays()
        )

    def _attempt(self, call: Call) -> None:
        head = Head("GET", "http", "sim", "/", Headers.of())
        plan = Plan(effects.Call(self._resolution, head, concurrent=True), self._env)
        planned = _Planned(call.began, plan=plan)
        self._at(self.now + self._timeout, lambda: self._late(planned))
        self._follow(planned, plan.start(self.now))

    def _follow(self, call: _Planned, effect: effects.Effect) -> None:
        if isinstance(effect, effects.Send):
            self.attempts.append(self.now)
            self._wake_at(call, effect.hedge_at)
            self._send(self._of[effect.endpoint.address], call, effect.number)
        elif isinstance(effect, effects.Rest):
            self._wake_at(call, effect.until)
        else:
            assert isinstance(effect, effects.Finish)
            assert call.plan is not None
            call.plan.close(self.now)
            self._end(call, good=effect.failure is None)

    def _wake_at(self, call: _Planned, when: float | None) -> None:
        call.due = when
        if when is not None:
            self._at(when, lambda: self._woke(call, when))

    def _woke(self, call: _Planned, when: float) -> None:
        if not call.over and call.due == when:
            assert call.plan is not None
            self._follow(call, call.plan.woke(self.now))

    def _answered(self, call: Call, number: int) -> None:
        assert isinstance(call, _Planned)
        assert call.plan is not None
        if not call.over:
            began = next(attempt.began for attempt in call.plan.in_flight if attempt.number == number)
            outcome = Outcome(OutcomeKind.OK, 200, sent=True, seconds=self.now - began)
            self._follow(call, call.plan.outcome(outcome, self.now, number))

    def _late(self, call: _Planned) -> None:
        if not call.over:
            assert call.plan is not None
            attempt = call.plan.in_flight[0]
            outcome = Outcome(OutcomeKind.TIMEOUT, sent=True, seconds=self._timeout, late=True)
            self._follow(call, call.plan.outcome(outcome, self.now, attempt.number))
