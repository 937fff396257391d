"""The call plan: one object per call, events in, effects out.

Theory. A call is a small machine. A loop (``hosts/run.py``, ``hosts/run_async.py``) starts it, does what the returned effect says and
tells what became of it, until the effect is an end. The plan never does anything itself: it does no I/O, keeps no clock
and draws no randomness of its own, so that sync and async calls share it and a test needs neither socket nor sleep.

    start ──► Send ──outcome──► Send, Sleep, Finish
          ├─► Ask ──woke──────► (as start, from the rate limits on)
          ├─► Wait ──woke─────► (as start, from the cluster on)
          ├─► Reply            an answer that the configuration orders; nothing is sent
          ├─► Pass             the route goes to a pass-through cluster: the transport calls the URL as it is
          └─► Finish           an end: the last outcome, or a failure
          (a response of 301 to 308 that its route has followed, ``core/redirects.py``: a Sleep, then as woke from the cluster on)
    Sleep ──woke──► Send, Finish
    Send that is hedged ──woke──► Send, Rest      another beside it (``core/hedging.py``)
                        ──outcome──► Rest         others are in flight, and are waited for; at its time, ``woke``

Attempts are kept by number, each with what it holds (``core/attempt.py``). ``woke`` while one is in flight begins another
beside it; the first whose outcome ends the call is the answer, and the others are given up then.

The stages, in their order, and why each stands where it does:

1. deadline    first, so that a call whose time is over costs nothing; asked again before each attempt.
2. route       decides cluster, timeout, retries and the head; fixed for the whole call (RA-02).
3. fault       a delay, then an answer: above the cluster's work, so that an injected one touches no breaker and no limit.
4. rate limit  once a call, and not for its retries; before anything is counted: of the listener's filters (``core/limiting.py``, which
               may ask a service), of the route, of the cluster.
5. breaker and concurrency   the route's, which a call enters once and whose breaker hears of each attempt; then the cluster's, inside
               ``Upstream.pick``, above the choice of an endpoint so that a refused call disturbs no balancer.
6. pick        an endpoint; those tried before are avoided. The pick holds counters until it is released.
7. attempt     the driver's part.
8. classify    once; everything below reads only that (``core/classify.py``).
9. outlier     hears of each attempt (``Pick.report``) before the retry is decided, so that the retry's pick
               already avoids a host that this attempt ejected.
10. retry and budget   last: pays only for what is really tried again.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from meshlib.core.attempt import BLAMELESS, record
from meshlib.core.effects import Effect, Finish, Pass, Reply, Rest, Send, Sleep, Wait
from meshlib.core.failures import (
    FAILURES,
    REFUSALS,
    after_retries,
    not_overloaded,
    timed_out,
    took_long,
)
from meshlib.core.mirrors import shadows
from meshlib.core.override import Named, named_by, tell_picked
from meshlib.core.plan_faults import FaultedPlan
from meshlib.core.retry import Retries, may_matter
from meshlib.core.sessions import hold
from meshlib.core.stages import (
    call_hash,
    call_labels,
    is_too_long,
    mirrors_of,
    retry_policy,
    route,
    time_limits,
)
from meshlib.core.trace import broken, failed
from meshlib.core.upstream import PickContext, Refusal, RefusalKind, RetryPermit, Upstream
from meshlib.errors import DeadlineExceeded, NoHealthyEndpoint
from meshlib.model.call import OK, Outcome, Response
from meshlib.model.cluster import Discovery
from meshlib.model.events import CallEnded, RetryScheduled
from meshlib.model.policy import RetryBudget, RetryPolicy
from meshlib.model.route import Forward

if TYPE_CHECKING:
    from meshlib.core.match import Match
    from meshlib.core.retry import Deciding, RetryAfter
    from meshlib.core.stages import StreamLimits

__all__ = ["Plan"]


class Plan(FaultedPlan):
    """The plan of one call. Not thread-safe: a call is driven by one thread or task at a time; only :meth:`close` may
    come from another (a response that is collected).
    """

    __slots__ = ()

    # --- events ---------------------------------------------------------------------------------------------------

    def start(self, now: float) -> Effect:
        """The first effect. ``now`` is monotonic seconds, here and below."""
        self.started = now
        if self.deadline is not None and now >= self.deadline:
            return self._out_of_time(None)
        call = self._call
        routed = route(call.resolution, call.head, self._env.random, grpc=call.grpc)
        call.head, match, self.cluster, self._weight, answer = routed
        self._match = match
        if answer is not None:
            self._words.append(answer[1])
            return self._own_answer(*answer)
        assert match is not None
        if call.resolution.sessions:
            self._hold_session(match, now)
        action = match.route.action
        assert isinstance(action, Forward)
        self._time_limits(action, now)
        if action.fault is not None or call.resolution.faults:
            effect = self._faulted(match, action, now)
            if effect is not None:
                return effect
        return self._reach(match, now)

    def outcome(self, outcome: Outcome, now: float, number: int = 0) -> Effect:
        """The head of an attempt arrived, or it failed. ``number``: which; 0 for the only one in flight."""
        attempt = self._landed(number)
        retries = self._retries
        if retries is None and self._policy is not None and may_matter(self._policy, outcome):
            retries = self._deciding()
        late = blameless = False
        if outcome.kind is not OK:
            self._now = now
            # The call's own time is over: that is the call's end, whatever the last read reported (RT-06).
            late = outcome.limit is not None or (self.deadline is not None and now >= self.deadline)
            # A limit of our own is not retried, as in Envoy (its overflow).
            blameless = outcome.kind in BLAMELESS
        attempt.pick.report(outcome, now)
        decision = None
        hedging = self._hedging
        if (
            retries is not None
            and not late
            and not blameless
            and not (hedging and hedging.is_hedged(attempt))
        ):
            decision = retries.after(outcome, now, attempt.began)
        if hedging is not None and decision is None and not late and not blameless:
            decision = self._hedge_on(hedging, outcome, now, counted=retries is not None)
        record(self._attempts, attempt, outcome, retried=decision is not None)
        attempt.end_retry()
        if not late and (outcome.kind is not OK or (decision is None and 300 < (outcome.status or 0) < 309)):
            instead = self._instead(attempt, outcome, now)
            if instead is not None:
                return instead
        if decision is not None:
            effect = self._retry(attempt, outcome, decision, now)
            if effect is not None:
                return effect
        if hedging is not None:
            self._measure(attempt, outcome, now)
            if not late and self._others(hedging) and not self._answers(hedging, outcome):
                attempt.release(now)
                return Rest(hedging.at)
        if decision is None and retries is not None and retries.why:
            self._words.append(f"no retry: {retries.why}")
            self.spent = retries.exhausted
        self._answered = attempt
        if self._session is not None and outcome.kind is OK and not late:
            self._session.learn(outcome, attempt.endpoint, self.cluster, now)
        end = self._out_of_time(outcome) if late else self._finish(outcome)
        if hedging is not None:
            self._overtake(now)
        return end

    def woke(self, now: float) -> Effect:
        """A ``Sleep``, a ``Wait`` or an ``Ask`` is over, or another attempt is to be made beside one in flight."""
        if self._flight and self._hedging is not None:
            return self._beside(self._hedging, now)
        if (self._attempts or self._flight) and self._upstream is not None and self._taken is None:
            return self._send(now)
        fault = self._fault
        if fault is not None:
            self._now = now
            self._undelay()
            if self.deadline is not None and now >= self.deadline:
                return self._out_of_time(None)
            if fault.status:
                return self._aborted(fault)
        assert self._match is not None
        return self._reach(self._match, now)

    def cancel(self, outcome: Outcome, now: float) -> None:
        """The caller gave up, whatever was under way: everything held is released."""
        for number in tuple(self._flight):
            attempt = self._landed(number)
            attempt.pick.report(outcome, now)
            record(self._attempts, attempt, outcome, retried=False)
            attempt.release(now)
        self.close(now)

    def close(self, now: float, failure: Outcome | None = None) -> None:
        """The call is over, its body read or given up. Effective once; safe from any thread."""
        # Of an RPC its exchange tells the end.
        if self.leave(now, failure) and self._env.emit is not None and not self._call.grpc:
            self._env.emit(CallEnded(self.info(now)))

    def leave(self, now: float, failure: Outcome | None = None) -> bool:
        """Let go of all, and tell nobody; whether there was something to let go of."""
        try:
            self._open.pop()
        except IndexError:  # it is closed, or another thread closes it
            return False
        if failure is not None and self._attempts:
            self._words.append(broken(failure, self._told_of.attempt.endpoint.name))
        if self._answered is not None:
            self._answered.release(now, failure)
        for attempt in self._flight.values():
            attempt.release(now)
        if self._fault is not None:
            self._undelay()
        if self._permit is not None:
            self._permit.release()
        if self._by_route is not None:
            self._by_route.leave()
        if self._limiting is not None and self._attempts:
            self._limiting.end(failure or self._attempts[-1].outcome, now)
        return True

    # --- what differs for gRPC (:class:`meshlib.core.plan_grpc.GrpcPlan`) ------------------------------------------------

    def _own_answer(self, response: Response, words: str) -> Effect:  # noqa: ARG002 - for a protocol without responses
        return Reply(response)

    def _route_limit(self, action: Forward) -> tuple[float | None, str, StreamLimits | None]:
        return time_limits(self._call.resolution, action, self.started, self._call.head)

    def _try_limit(self, policy: RetryPolicy) -> float | None:
        return policy.per_try_timeout or None

    def _instead(self, attempt: Send, outcome: Outcome, now: float) -> Effect | None:
        """What follows an attempt that failed, whatever the retries say, or a redirect; None: as a rule nothing."""
        return self._led(attempt, outcome, now) if outcome.kind is OK else None

    def _begin_retry(self, upstream: Upstream, budget: RetryBudget | None) -> RetryPermit | None:
        return upstream.begin_retry(budget)

    # --- stages ---------------------------------------------------------------------------------------------------

    def _reach(self, match: Match, now: float) -> Effect:
        """From the rate limits on: again after each wait, since the cluster may be there by then, or known not to come."""
        call, action = self._call, match.route.action
        assert isinstance(action, Forward)
        if call.resolution.limits and self._followed is None:
            limited = self._limit_rates(match, now)
            if limited is not None:
                return limited
        upstream = self._env.upstream(call.resolution.part, self.cluster)
        if isinstance(upstream, str):
            self._now = now
            if not upstream and now < self._ready_by():
                return Wait(self._ready_by())
            why = upstream or self._env.awaits(call.resolution.part, self.cluster)
            message = f"{match.name} names cluster {self.cluster!r}, which {why}"
            if self.deadline is not None and now >= self.deadline:
                return self._out_of_time(None, message)
            answer = self._told(Response(action.not_found_status), "NC")
            return Finish(None, NoHealthyEndpoint, f"route {message}", answer)
        if action.high:
            upstream = upstream.high
        begun, self._upstream = self._upstream is not None and self._taken is None, upstream
        if (action.limits is not None or upstream.limiter is not None) and not begun:
            refused = self._enter(match, action.limits, upstream, now)
            if refused is not None:
                return refused
        headers = upstream.cluster.balancing.override_headers
        if headers and not begun:
            self._overrides += (Named(headers, self._made_head(match)),)
        if upstream.cluster.discovery is Discovery.ORIGINAL_DST and not self._is_bound(
            match, upstream.cluster
        ):
            return Pass(match.compiled.sent(self._made_head(match)), self.deadline)
        policy = self._retry_policy(match, action)
        if policy is not None:
            self._policy = policy
            self._per_try = self._try_limit(policy)
        hedge = action.hedge or (call.default_hedge if policy is None else None)
        if hedge is not None and not begun:
            self._begin_hedging(hedge, upstream, now)
        return self._send(now)

    def _hold_session(self, match: Match, now: float) -> None:
        """Of which session the call is: its cluster and its head may be others for that."""
        call = self._call
        self._session = held = hold(
            call.resolution, match, self._weight, call.head, self._env, now, grpc=call.grpc
        )
        if held is not None:
            call.head = held.head
            self.cluster, self._weight = held.place(match, self.cluster, self._weight)
            self._words.append(held.words())
            self._overrides = (held,)

    def _retries_of(self, policy: RetryPolicy) -> Deciding:
        call = self._call
        return Retries(
            policy,
            self._env.random,
            method=call.head.method,
            replayable=call.replayable and not is_too_long(self._match, call.head),
            idempotent=call.idempotent,
            head=call.head,
            wall=self._env.wall,
        )

    def _time_limits(self, action: Forward, now: float) -> None:
        """The nearest of the application's deadline, this call's timeout and the route's."""
        call = self._call
        seconds, limit, self._limits = self._route_limit(action)
        if call.timeout is not None and (call.timeout == 0 or seconds is None or call.timeout < seconds):
            seconds, limit = call.timeout or None, "the call's timeout"
        if seconds is not None and (self.deadline is None or now + seconds < self.deadline):
            self.deadline, self._limit, self._limit_seconds = now + seconds, limit, seconds

    def _retry_policy(self, match: Match, action: Forward) -> RetryPolicy | None:
        chosen = self._call.retry
        if isinstance(chosen, RetryPolicy):
            return chosen
        if chosen is False or self._call.resolution.handed is not None:  # a sidecar's are the retries
            return None
        upstream = self._upstream
        cluster = None if upstream is None or self._call.grpc else upstream.cluster
        ordered = retry_policy(match, action, cluster)
        return ordered if ordered is not None else self._call.default_retry

    def _send(self, now: float) -> Effect:
        upstream, match = self._upstream, self._match
        assert upstream is not None
        assert match is not None
        if self.deadline is not None and now >= self.deadline:
            self._now = now
            return self._out_of_time(None)
        number = len(self._attempts) + len(self._flight) + 1
        call = self._call
        key = None
        if upstream.consistent:
            self._hash = self._hash or call_hash(match, upstream.cluster.balancing, call, self._env)
            key = self._hash.value  # of all attempts (HP-01)
        context, by_route = PickContext(number, self.tried, key, call.head, grpc=call.grpc), self._by_route
        if self._overrides:
            context.override = named_by(self._overrides, number)
        if upstream.labelled:
            context.labels = call_labels(match, self._weight)
        if self.tried and self._policy is not None and self._policy.elsewhere is not None:
            context.elsewhere = self._policy.elsewhere
        picked = upstream.pick(context, now) if by_route is None else by_route.pick(upstream, context, now)
        if isinstance(picked, Refusal):
            return self._refused(picked, now)
        endpoint = picked.endpoint
        if self._overrides:
            tell_picked(self._overrides, endpoint)
        if endpoint in self.tried:
            instead = self._tried_again(picked, now)
            if instead is not None:
                return instead
        self.tried = (*self.tried, endpoint)
        deadline = self.deadline
        if self._per_try is not None and (deadline is None or now + self._per_try < deadline):
            deadline = now + self._per_try
        head = match.compiled.sent(self._head(match, number, endpoint, deadline, now))
        if self._limiting is not None and self._limiting.request:
            head = head.copy()
            head.headers.raw.extend(self._limiting.request)
        permit, self._permit = self._permit, None
        attempt = Send(number, picked, head, deadline=deadline, permit=permit, began=now, grpc=call.grpc)
        attempt.handed = call.resolution.handed is not None
        attempt.limits = self._limits
        attempt.try_idle = None if self._policy is None else self._policy.per_try_idle_timeout
        self._flight[number] = attempt
        if self._hedging is not None:
            self._hedging.begun(attempt, self._deciding(), now)
        if (match.compiled.mirrors or upstream.cluster.calls is not None) and number == 1 and not call.grpc:
            mirrors = mirrors_of(match, upstream.cluster)
            of = partial(self._made_head, match)
            attempt.mirrors = shadows(mirrors, match, call, of, self.deadline, now, self._env.random)
            self._words.extend(each.words() for each in attempt.mirrors)
        return attempt

    def _told(self, response: Response, flags: str) -> Response:
        """A failure as the response that a sidecar gives, with the route's response edits."""
        match, attempts, reached = self._match, self._attempts, self._upstream is not None
        if match is None:
            return response
        router = self._call.resolution.router
        if router is not None and router.suppresses:
            response = not_overloaded(response)
        if self._retries is not None and self._retries.exhausted:
            flags = f"URX,{flags}"
        return match.compiled.failure_reply(
            self._weight,
            self._call.head,
            after_retries(response) if len(attempts) > 1 else response,
            self._call.resolution.replies,
            cluster=self.cluster if reached else "",
            endpoint=self._told_of.attempt.endpoint.name if attempts else "",
            flags=flags,
            attempts=max(len(attempts), int(reached)),
            seconds=max(0.0, self._now - self.started),
        )

    def _refused(self, refusal: Refusal, now: float) -> Effect:
        self._now = now
        cluster = self._upstream.cluster if self._upstream is not None else None
        if refusal.kind is RefusalKind.NO_ENDPOINT and cluster is not None and cluster.assignment is None:
            # Nothing was ever heard of it: a name being resolved. Worth a wait, once and bounded.
            until = self._ready_by()
            if now < until:
                return Wait(until)
        self._words.append(refusal.detail)
        self.spent = self._last is not None
        if self._last is not None and self._last.kind is not OK:
            # A retry that cannot be made is no news: how the last attempt failed is the answer.
            return self._finish(self._last)
        failure, response, flags = REFUSALS[refusal.kind]
        if refusal.kind is RefusalKind.SESSION and self._session is not None and self._session.session.status:
            # As Envoy where the endpoint is gone, and not where it may not be called now.
            response = replace(response, status=self._session.session.status)
            return self._own_answer(self._told(response, flags), refusal.detail)
        return Finish(None, failure, refusal.detail, self._told(response, flags))

    def _retry(self, attempt: Send, outcome: Outcome, decision: RetryAfter, now: float) -> Effect | None:
        upstream, policy = self._upstream, self._policy
        delay, reason = decision.delay, decision.reason
        assert upstream is not None
        if self._call.chained and (outcome.sent or outcome.status is not None):
            self._words.append(f"no retry ({reason}): it is made for a request that is a retry itself")
            self.spent = True
            return None
        if self.deadline is not None and now + delay >= self.deadline:
            self._words.append(f"no retry ({reason}): {self._limit_words()} leaves no time")
            # Whoever has more time may come back when the upstream says.
            self.spent = not decision.told
            return None
        permit = self._begin_retry(upstream, policy.budget if policy is not None else None)
        if permit is None:
            self._words.append(
                f"no retry ({reason}): as many retries are in flight as the limit or the budget allows"
            )
            self.spent = True
            return None
        self._permit = permit
        if not self._flight:
            self._last = outcome
        attempt.release(now)
        if self._env.emit is not None:
            number = len(self._attempts) + len(self._flight) + 1
            self._env.emit(RetryScheduled(self.cluster, number, delay, reason, self._call.key))
        if self._hedging is None:
            return Sleep(delay)
        self._hedging.retry_at(now + delay)
        return Rest(now + delay) if self._flight else Sleep(delay)

    # --- ends -----------------------------------------------------------------------------------------------------

    def _finish(self, outcome: Outcome) -> Effect:
        if outcome.kind is OK:
            self._status = outcome.status or 0
            return Finish(outcome)
        failure, response, flags = FAILURES[outcome.kind]
        if self._answered is not None and self._answered.longest is not None:
            response, flags = took_long(self._answered.longest, outcome) or (response, flags)
        last = self._told_of
        message = f"{self.cluster}: {failed(last.why(), last.told())}"
        return Finish(outcome, failure, message, self._told(response, flags))

    def _out_of_time(self, outcome: Outcome | None, where: str = "") -> Effect:
        limit = None if outcome is None else outcome.limit
        response, flags = timed_out(limit or self._limit)
        where = self._told_of.attempt.endpoint.name if self._attempts else where
        message = f"{limit or self._limit_words()} is over{where and f' ({where})'}"
        self._words.append(message)
        self.spent = self._policy is not None
        return Finish(outcome, DeadlineExceeded, message, self._told(response, flags))
