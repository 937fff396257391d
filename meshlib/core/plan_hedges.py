"""What a plan does beside an attempt that is under way: another one, and in the end none but the one that is the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.attempt import record
from meshlib.core.effects import Effect, Rest, Send
from meshlib.core.hedging import OVERTAKEN, hedging_of
from meshlib.core.plan_heads import HeadsPlan
from meshlib.core.stages import is_too_long
from meshlib.model.call import OK, Outcome, OutcomeKind
from meshlib.model.events import AttemptEnded, HedgeStarted

if TYPE_CHECKING:
    from meshlib.core.hedging import Hedging
    from meshlib.core.retry import Deciding, RetryAfter
    from meshlib.core.upstream import Pick, RetryPermit, Upstream
    from meshlib.model.policy import Hedge, RetryBudget, RetryPolicy

__all__ = ["HedgedPlan"]


class HedgedPlan(HeadsPlan):
    """The part of :class:`meshlib.core.plan.Plan` that only calls with hedges come to."""

    __slots__ = ()

    def _send(self, now: float) -> Effect:
        raise NotImplementedError

    def _begin_retry(self, upstream: Upstream, budget: RetryBudget | None) -> RetryPermit | None:
        raise NotImplementedError

    def _retries_of(self, policy: RetryPolicy) -> Deciding:
        raise NotImplementedError

    def _tried_again(self, pick: Pick, now: float) -> Effect | None:
        """What follows where nobody is left that was not tried; else it is sent there again."""
        hedging = self._hedging
        if hedging is None or hedging.retry or not self._flight:
            return None
        if hedging.hedge.on_try_timeout or hedging.hedge.own:
            return None
        self._words.append(f"no hedge: {pick.endpoint.name} was tried, and there is no other endpoint")
        pick.release(now)
        return Rest(None)

    def _begin_hedging(self, hedge: Hedge, upstream: Upstream, now: float) -> None:
        if is_too_long(self._match, self._call.head):
            return
        self._hedging = hedging_of(hedge, self._call, self._policy, upstream, self._env.delays, now)
        if hedge.on_try_timeout and self._hedging is not None:
            self._per_try = None  # it gives nothing up

    def _beside(self, hedging: Hedging, now: float) -> Effect:
        """Another attempt beside those in flight is due: a hedge, or a retry that one of them did not wait for."""
        upstream = self._upstream
        assert upstream is not None
        if self.deadline is not None and now >= self.deadline:
            return Rest(None)
        reason, slow = "", self._flight[max(self._flight)]
        if not hedging.retry:
            why = self._no_hedge()
            if why:
                self._words.append(f"no hedge: {why}")
                hedging.none_left()
                return Rest(None)
            self._permit = self._begin_retry(upstream, hedging.budget)
            if self._permit is None:
                self._words.append(
                    "no hedge: as many are in flight as the limit or the budget of retries allows"
                )
                hedging.none_left()
                return Rest(None)
            reason = hedging.pass_by(slow, self._deciding(), now)
        effect, spent = self._send(now), self.spent
        if not isinstance(effect, Send):  # nobody is left for it: those in flight are still under way
            self.spent = spent
            hedging.retry = False
            hedging.none_left()
            self._end_permit()
            return Rest(None)
        if reason:
            hedging.beside(slow)
            self._words.append(f"attempt {effect.number} beside it: {reason}")
            if self._env.emit is not None:
                self._env.emit(HedgeStarted(self.cluster, effect.number, reason, self._call.key))
        return effect

    def _no_hedge(self) -> str:
        """Why no hedge may be made now, in words; ``""``: one may."""
        return ""

    def _hedge_on(
        self,
        hedging: Hedging,  # noqa: ARG002 - as a rule nothing
        outcome: Outcome,  # noqa: ARG002
        now: float,  # noqa: ARG002
        *,
        counted: bool,  # noqa: ARG002
    ) -> RetryAfter | None:
        """An attempt of a call with hedges ended, and the retry policy orders nothing: what the hedges order in its place. ``counted``:
        that policy was asked.
        """
        return None

    def _answers(self, hedging: Hedging, outcome: Outcome) -> bool:
        """Whether it is the call's answer though others may still come."""
        return not hedging.is_waited_on(outcome, self._retries)

    def keep(self, number: int, now: float) -> None:
        """Nothing can be sent again any more: this attempt goes on alone."""
        if self._hedging is not None:
            self._hedging.retry = False
            self._hedging.none_left()
            self._overtake(now, but=number)

    def _others(self, hedging: Hedging) -> bool:
        """Whether something other than what just ended may still answer."""
        return bool(self._flight) or hedging.retry

    def _overtake(self, now: float, but: int = 0) -> None:
        """The call has its answer, or goes on with one attempt (``but``): the other attempts are given up."""
        for number in tuple(self._flight):
            if number == but:
                continue
            attempt = self._landed(number)
            lost = Outcome(OutcomeKind.CANCELLED, sent=True, seconds=now - attempt.began, detail=OVERTAKEN)
            attempt.pick.report(lost, now)
            self._measure(attempt, lost, now)
            record(self._attempts, attempt, lost, retried=False)
            if self._env.emit is not None:
                self._env.emit(AttemptEnded(attempt.key, attempt.number, lost))
            attempt.withhold()
            attempt.release(now)
        self._end_permit()

    def _measure(self, attempt: Send, outcome: Outcome, now: float) -> None:
        """A first attempt was answered, or would have been no sooner than now."""
        share = self._hedging.hedge.quantile if self._hedging is not None else None
        delays = self._env.delays
        if share is None or delays is None or attempt.number > 1:
            return
        if outcome.kind is OK or outcome.detail is OVERTAKEN:
            delays.add(attempt.upstream, share, now - attempt.began, now)

    def _deciding(self) -> Deciding | None:
        """The retries of the call, where a policy orders some."""
        if self._retries is None and self._policy is not None:
            self._retries = self._retries_of(self._policy)
        return self._retries

    def _end_permit(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.release()

    def _landed(self, number: int) -> Send:
        """The attempt of that number, in flight no more."""
        flight = self._flight
        return flight.pop(number) if number else flight.popitem()[1]
