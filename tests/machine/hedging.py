"""What holds of calls whose attempts run beside each other by either protocol's rules, on a live cluster and a clock that only the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshlib.core.effects import Effect, Finish, Rest, Send, Sleep
from meshlib.core.plan import Plan
from meshlib.model.call import Outcome, OutcomeKind
from tests.support.live_kit import Watched


@dataclass
class Running:
    """A call: what it has in flight, and when its plan is to be woken."""

    plan: Plan
    flight: dict[int, Send] = field(default_factory=dict)
    until: float | None = None
    answered: bool = False


class Hedged(RuleBasedStateMachine):
    """An initial rule sets `watched` and `calls`. ``sends`` is told of each attempt, ``failed`` says whether an end is no answer, and
    ``attempts_are_bounded`` holds at every step.
    """

    watched: Watched
    calls: list[Running]

    def sends(self, call: Running, attempt: Send) -> None:
        raise NotImplementedError

    def failed(self, end: Finish) -> bool:
        raise NotImplementedError

    def attempts_are_bounded(self, call: Running) -> None:
        raise NotImplementedError

    # --- what happens -------------------------------------------------------------------------------------------------

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
            call.until = None
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

    def drawn(self, data):
        """A call that has attempts in flight, and the number of one."""
        call = data.draw(st.sampled_from([call for call in self.calls if call.flight]))
        return call, data.draw(st.sampled_from(sorted(call.flight)))

    def follow(self, call: Running, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.sends(call, effect)
            call.flight[effect.number] = effect
            call.until = effect.hedge_at
        elif isinstance(effect, Rest):
            call.until = effect.until
            assert call.flight or call.until is not None, "somebody has to wake it"
        elif isinstance(effect, Sleep):
            assert not call.flight
            call.until = self.watched.now + effect.seconds
        else:
            assert isinstance(effect, Finish)
            assert not call.plan.in_flight, "who was overtaken is given up at once"
            call.flight.clear()
            call.until, call.answered = None, True
            if self.failed(effect):
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
            self.attempts_are_bounded(call)
            assert call.flight or call.answered or call.until is not None, "a call is never lost"
        held = sum(len(call.flight) + call.answered for call in self.calls)
        assert live.active == held == sum(endpoint.active for endpoint in live.endpoints)
        assert live.retries >= 0

    def teardown(self):
        if not hasattr(self, "calls"):
            return
        for call in self.calls:
            call.plan.cancel(Outcome(OutcomeKind.CANCELLED), self.watched.now)
            call.plan.close(self.watched.now)
        live = self.watched.live
        assert (live.active, live.retries) == (0, 0)
        assert all(endpoint.active == 0 for endpoint in live.endpoints)
