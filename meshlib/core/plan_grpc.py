"""The plan of a gRPC call: the same machine, with gRPC's rules where they differ from Envoy's.

What differs is how routes are read (:mod:`meshlib.core.grpc_routes`), time (TO-01), retries
(:mod:`meshlib.core.retry_grpc`), and the choice of an endpoint, which never falls on one that cannot be connected to:
gRPC's channels know which of their connections stand before they choose. Here connections are made on first use, so that a
choice can be wrong:

    not connected, somebody is untried ──► that one, at once and whatever the policy: nothing was sent (so where an endpoint says that it does not serve)
    not connected, all are tried       ──► the last failure, or, with ``wait_for_ready``, a wait
    nobody may be called               ──► a failure, or, with ``wait_for_ready``, a wait

Where the application asked for it, a call that is UNAUTHENTICATED is made once more at once, beside whatever the policy says: its
credentials are asked for anew by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.attempt import Record, tell, tell_deadline
from meshlib.core.effects import Finish, Wait
from meshlib.core.faults import GRPC_CODES
from meshlib.core.handoff import for_sidecar
from meshlib.core.hedging import UNAVAILABLE, UNREACHED
from meshlib.core.plan import Plan
from meshlib.core.retry import RetryAfter
from meshlib.core.retry_grpc import PUSHBACK, GrpcRetries, grpc_codes, pushback
from meshlib.core.stages import stream_limit
from meshlib.core.upstream import RefusalKind
from meshlib.errors import NoHealthyEndpoint, Overloaded
from meshlib.model.call import OK, Outcome, OutcomeKind

_UNKNOWN = 2

if TYPE_CHECKING:
    from meshlib.core.attempt import Send
    from meshlib.core.effects import Effect
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.faults import Injected
    from meshlib.core.hedging import Hedging
    from meshlib.core.limiting import Limited
    from meshlib.core.match import Match
    from meshlib.core.retry import Deciding
    from meshlib.core.stages import StreamLimits
    from meshlib.core.upstream import Pick, Refusal, RetryPermit, Upstream
    from meshlib.model.call import Head, Response
    from meshlib.model.policy import Hedge, RetryBudget, RetryPolicy
    from meshlib.model.route import Forward

__all__ = ["GrpcPlan"]

_PREVIOUS_ATTEMPTS = b"grpc-previous-rpc-attempts"  # gRFC A6
_RESOURCE_EXHAUSTED = 8
_UNAUTHENTICATED = 16
_THROTTLED = "too many calls to the server fail (retryThrottling)"
#: Seconds after which a call that waits for an endpoint looks again, whether it was woken or not.
_LOOK = 60.0


class _Renewal:
    """The attempt with new credentials (:class:`meshlib.core.retry.Deciding`)."""

    exhausted = False
    why = ""

    def after(self, outcome: Outcome, now: float, started: float) -> RetryAfter:  # noqa: ARG002 - as Deciding
        return RetryAfter(0.0, f"grpc-status {_UNAUTHENTICATED} (unauthenticated), with new credentials")

    def holds(self, outcome: Outcome) -> bool:  # noqa: ARG002 - as Deciding
        return True

    def beside(self) -> None:
        """There are none."""

    def spend(self) -> None:
        raise NotImplementedError


_RENEWAL = _Renewal()


class GrpcPlan(Plan):
    """As :class:`meshlib.core.plan.Plan`."""

    __slots__ = ("_from_file",)

    def start(self, now: float) -> Effect:
        listener = self._call.resolution.listener
        self._from_file = listener is not None and listener.from_file
        return super().start(now)

    def outcome(self, outcome: Outcome, now: float, number: int = 0) -> Effect:
        call, by_policy = self._call, self._retries
        if (
            call.throttle is not None
            and outcome.status == 0
            and (self._policy is not None or self._hedging is not None)
        ):
            call.throttle.succeeded()
        if outcome.status and self.shows_errors:
            outcome.error = (self._flight[number] if number else self._flight[max(self._flight)]).error
        if outcome.status != _UNAUTHENTICATED or not (call.renews and call.replayable):
            return super().outcome(outcome, now, number)
        call.renews, self._retries = False, _RENEWAL
        effect = super().outcome(outcome, now, number)
        self._retries = by_policy
        return effect

    def cancel(self, outcome: Outcome, now: float) -> None:
        if self._answered is not None:
            self._answered.pick.give_up()
        super().cancel(outcome, now)

    def close(self, now: float, failure: Outcome | None = None) -> None:
        if failure is not None and self._attempts and self._open:
            # The status of a stream comes at its end.
            told = self._told_of
            failure.seconds = now - told.attempt.began
            self._attempts[self._attempts.index(told)] = Record(told.attempt, failure, retried=False)
        super().close(now, failure)

    def _own_answer(self, response: Response, words: str) -> Effect:  # noqa: ARG002 - gRPC has no such responses
        return Finish(None, NoHealthyEndpoint, f"{self._call.head.authority}: {words}")

    def _refused_by_filter(self, limited: Limited) -> Effect:
        code = _RESOURCE_EXHAUSTED if limited.exhausted else GRPC_CODES.get(limited.response.status, _UNKNOWN)
        failure = Overloaded if limited.exhausted else NoHealthyEndpoint
        outcome = Outcome(OutcomeKind.OK, code, grpc=True)
        return Finish(outcome, failure, f"{self._call.head.authority}: {limited.words}")

    def _aborted(self, fault: Injected) -> Effect:
        """FI-02: a status is a code by gRPC's own table, and 200 none that it knows. A code of OK would be an answer without messages."""
        code = GRPC_CODES.get(fault.status, _UNKNOWN) if fault.code is None else fault.code or _UNKNOWN
        words = f"{self._call.head.authority}: fault filter abort"
        self._words.append(f"a fault answers code {code}")
        return Finish(Outcome(OutcomeKind.OK, code, grpc=True), NoHealthyEndpoint, words)

    def _made_head(self, match: Match) -> Head:  # noqa: ARG002 - a route edits nothing
        head, handed = self._call.head, self._call.resolution.handed
        return head if handed is None else for_sidecar(handed, head.copy(), grpc=True)

    def _route_limit(self, action: Forward) -> tuple[float | None, str, StreamLimits | None]:
        words = "the route's timeout" if self._from_file else "the route's max_stream_duration"
        return stream_limit(self._call.resolution, action), words, None

    def _time_limits(self, action: Forward, now: float) -> None:
        super()._time_limits(action, now)
        offset, asked = action.grpc_timeout_offset, self._call.deadline
        if not offset or action.grpc_timeout_header_max is None or asked is None:
            return
        # As Envoy: never so much that nothing is left.
        if now < asked - offset and (self.deadline is None or asked - offset < self.deadline):
            self.deadline, self._limit_seconds = asked - offset, None
            self._limit = f"the deadline less the {offset:g} s that its route takes off"

    def _try_limit(self, policy: RetryPolicy) -> float | None:
        return (policy.per_try_timeout or None) if self._from_file else None

    def _begin_hedging(self, hedge: Hedge, upstream: Upstream, now: float) -> None:
        found: Hedge | None = hedge
        if hedge.on_try_timeout:  # a control plane's, which is of HTTP calls
            found = self._call.default_hedge if self._policy is None else None
        if found is not None:
            super()._begin_hedging(found, upstream, now)

    def _retries_of(self, policy: RetryPolicy) -> Deciding:
        call = self._call
        codes = grpc_codes(policy, from_file=self._from_file)
        return GrpcRetries(policy, codes, self._env.random, lambda: call.replayable, call.throttle)

    def _begin_retry(self, upstream: Upstream, budget: RetryBudget | None) -> RetryPermit | None:
        return upstream.begin_retry(budget, limited=self._from_file)  # RT-08

    def _head(
        self,
        match: Match,
        number: int,
        endpoint: LiveEndpoint,
        deadline: float | None,
        now: float,
    ) -> Head:
        head = match.compiled.auto_host(self._made_head(match), endpoint.hostname)  # RW-03
        if number > 1:
            head = head.copy()
            head.headers.put(_PREVIOUS_ATTEMPTS, b"%d" % (number - 1))
        call = self._call
        # The time left is in gRPC's own header, which its channels write.
        tell(head, None, number if call.counted and call.resolution.handed is None else None)
        if self._env.deadlines and deadline is not None:
            tell_deadline(head, deadline - now, self._env.wall(), self._env.deadlines)
        return head

    def _no_hedge(self) -> str:
        call = self._call
        if not call.replayable:
            return "its messages cannot be sent again"
        if call.throttle is not None and not call.throttle.allows():
            return _THROTTLED
        return ""

    def _hedge_on(
        self, hedging: Hedging, outcome: Outcome, now: float, *, counted: bool
    ) -> RetryAfter | None:
        call = self._call
        if outcome.kind is OK and outcome.status == 0:
            return None
        told = pushback(outcome.headers)
        fatal, refused = not hedging.is_waited_on(outcome, self._retries), told is not None and told < 0
        if call.throttle is not None and outcome.sent and not counted and (refused or not fatal):
            call.throttle.failed()
        if refused and not fatal:
            self._words.append(f"no other hedge: the server says not to ({PUSHBACK})")
            hedging.none_left()
        if fatal or refused or not call.replayable:
            return None
        due = hedging.is_left and hedging.hedge.own
        if told is not None:
            hedging.put_off(now + told)
        elif due:
            hedging.put_off(now)
        if not due or self._others(hedging):
            return None
        why = self._no_hedge()
        if why:
            self._words.append(f"no hedge: {why}")
            return None
        hedging.spend()
        code = UNAVAILABLE if outcome.status is None else outcome.status
        return RetryAfter(told or 0.0, f"grpc-status {code} (not fatal): the next hedge", told is not None)

    def _answers(self, hedging: Hedging, outcome: Outcome) -> bool:
        # What came behind the server's metadata is the answer (gRFC A6).
        return not self._call.replayable or super()._answers(hedging, outcome)

    def _instead(self, attempt: Send, outcome: Outcome, now: float) -> Effect | None:
        if outcome.kind not in UNREACHED or self._flight:
            return None
        attempt.release(now)
        self._last = outcome
        return self._send(now)

    def _tried_again(self, pick: Pick, now: float) -> Effect | None:
        last = self._last
        if last is None or last.kind not in UNREACHED or self._flight:
            return super()._tried_again(pick, now)
        pick.release(now)
        upstream = self._upstream
        assert upstream is not None
        return self._wait_reached(upstream, now) if self._call.patient else self._finish(last)

    def _refused(self, refusal: Refusal, now: float) -> Effect:
        upstream = self._upstream
        if self._call.patient and refusal.kind is RefusalKind.NO_ENDPOINT and upstream is not None:
            return self._wait_reached(upstream, now)
        effect = super()._refused(refusal, now)
        if isinstance(effect, Finish) and effect.outcome is None and not self._from_file:
            # Calls that a control plane's thresholds or drops refuse are UNAVAILABLE (A27, A32).
            effect.outcome = Outcome(OutcomeKind.OVERFLOW, UNAVAILABLE, grpc=True)
        return effect

    def _wait_reached(self, upstream: Upstream, now: float) -> Effect:
        self.tried = ()
        until = now + _LOOK if self.deadline is None else min(self.deadline, now + _LOOK)
        return Wait(until, reached=upstream.reached)
