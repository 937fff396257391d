"""The hedges of one call: when another attempt is made beside one that is under way, and which answer is waited for no more.

Theory (Dean and Barroso, "The tail at scale", 2013). A call that takes longer than most often does so by bad luck of its endpoint, and
another one answers at once. So the plan makes a second attempt beside a slow one, takes the first good answer, and gives the other up.

    first ──hedge_at──► hedge ──hedge_at──► …        at most ``most`` in flight
      └── a bad answer while others are in flight (or a retry is due): they are waited for
      └── a good one, or a bad one with nobody left: the call's

An attempt that has a hedge is not made again by the retry policy when it fails: its hedge is that. One that has none is, also while
older ones are in flight. A hedge is paid from the retry budget: where that is used up none is made, and the call goes on as it is.

Of a gRPC call the server has a say (gRFC A6, "Pushback"): by ``grpc-retry-pushback-ms`` it says when the next hedge may be made, or that none may be. By an application's own
policy (``Hedge.own``) a failure that is not fatal has the next one made at once, also where nothing else is in flight:

    a hedge is left, others in flight ──► it is due now, or when the server says
    a hedge is left, nothing in flight ──► as a retry, which the plan makes
    none is left ──► the others are waited for; the last one to fail is the answer

With ``on_try_timeout`` a hedge is a retry of Envoy's, by its rules: it counts among the policy's retries, is made whatever ``retry_on`` has, after
a back-off, to any endpoint; the slow one is reported to the outlier detection as timed out; and what is no reason to retry is an answer, also a 500.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from meshlib.core.classify import verdict
from meshlib.core.latency import Latency
from meshlib.model.call import OK, Outcome, OutcomeKind

if TYPE_CHECKING:
    from meshlib.core.attempt import Send
    from meshlib.core.effects import Call
    from meshlib.core.retry import Deciding
    from meshlib.core.upstream import Delays, Upstream
    from meshlib.model.policy import Hedge, RetryBudget, RetryPolicy

__all__ = ["OVERTAKEN", "UNAVAILABLE", "UNREACHED", "Hedging", "Quantile", "hedging_of", "told"]

#: Said of an attempt that was given up for another's answer.
OVERTAKEN = "hedged away: another attempt was answered first"
#: What a connection that broke is to gRPC.
UNAVAILABLE = 14
#: Nothing was sent to the endpoint, and another may be reached.
UNREACHED = frozenset({OutcomeKind.CONNECT, OutcomeKind.UNHEALTHY})
_TIMED_OUT = "the attempt's time was over, and another was made beside it"

#: Seconds for which a quantile that was read holds.
_HOLDS = 1.0
#: A quantile is believed once so many values lay beyond it.
_BEYOND = 5


class Quantile:
    """One quantile of the last minute, looked up once a second. Not thread-safe."""

    __slots__ = ("_due", "_found", "_latency", "_least", "_share")

    def __init__(self, share: float, now: float) -> None:
        self._share = share
        self._least = ceil(_BEYOND / (1.0 - share))
        self._latency = Latency(now)
        self._found: float | None = None
        self._due = now

    def add(self, seconds: float, now: float) -> None:
        self._latency.add(seconds, now)

    def value(self, now: float) -> float | None:
        """None: there were too few values in the last minute."""
        if now >= self._due:
            found = self._latency.quantiles((self._share,), now)
            enough = found is not None and self._latency.count >= self._least
            self._found = found[0] if enough and found is not None else None
            self._due = now + _HOLDS
        return self._found


class Hedging:
    """Of one call. Its plan's alone.

    Attributes:
        at: When the next attempt is due while others are in flight, a hedge or (``retry``) one that the retry policy orders; None: none is.
        retry: That one is a retry, whose permit the plan holds.
        budget: What a hedge is paid from, beside the cluster's limits.
    """

    __slots__ = ("_delay", "_hedged", "_made", "at", "budget", "hedge", "retry")

    def __init__(self, hedge: Hedge, budget: RetryBudget | None, delay: float | None) -> None:
        self.hedge = hedge
        self.budget = budget
        self.at: float | None = None
        self.retry = False
        self._delay = delay
        self._made = 0
        self._hedged: set[int] = set()

    def begun(self, attempt: Send, retries: Deciding | None, now: float) -> None:
        """``attempt`` was begun, the newest one."""
        delay = self._delay
        if self.hedge.on_try_timeout:
            wait = None if delay is None or retries is None else retries.beside()
            delay = None if delay is None or wait is None else delay + wait
        elif self._made >= self.hedge.most - 1:
            delay = None
        self.retry = False
        self.at = attempt.hedge_at = None if delay is None else now + delay

    def pass_by(self, slow: Send, retries: Deciding | None, now: float) -> str:
        """A hedge of ``slow`` is made now; why, in words."""
        self._made += 1
        if not self.hedge.on_try_timeout:
            return f"attempt {slow.number} has no answer after {now - slow.began:.3g} s"
        if retries is not None:
            retries.spend()
        slow.pick.report(
            Outcome(OutcomeKind.TIMEOUT, sent=True, seconds=now - slow.began, detail=_TIMED_OUT), now
        )
        return f"the time of attempt {slow.number} is over"

    def beside(self, slow: Send) -> None:
        """The hedge of ``slow`` is under way."""
        self._hedged.add(slow.number)

    def is_hedged(self, attempt: Send) -> bool:
        return attempt.number in self._hedged

    def none_left(self) -> None:
        """No other hedge is made."""
        self._delay = None
        if not self.retry:
            self.at = None

    @property
    def is_left(self) -> bool:
        """Whether another may be made."""
        return self._delay is not None and self._made < self.hedge.most - 1

    def put_off(self, when: float) -> None:
        """The next one, if there is one, is due then."""
        if self.is_left and not self.retry:
            self.at = when

    def spend(self) -> None:
        """One is made in the place of an attempt that failed."""
        self._made += 1

    def retry_at(self, when: float) -> None:
        self.at, self.retry = when, True

    def is_waited_on(self, outcome: Outcome, retries: Deciding | None) -> bool:
        """Whether others are waited for after such an answer."""
        if self.hedge.own:
            code = UNAVAILABLE if outcome.status is None else outcome.status
            return outcome.kind in UNREACHED or code in self.hedge.codes
        if outcome.kind is not OK:
            return True
        if retries is not None and retries.holds(outcome):
            return True
        if outcome.grpc:
            return outcome.status in self.hedge.codes
        return not self.hedge.on_try_timeout and verdict(outcome).good is False


def told(hedge: Hedge, policy: RetryPolicy | None) -> str:
    """When another attempt is made, in words that can follow "beside it"."""
    if hedge.on_try_timeout:
        seconds = policy.per_try_timeout if policy is not None and policy.on else None
        return (
            "never: no policy sets an attempt's time"
            if seconds is None
            else f"after {seconds:g} s, as a retry"
        )
    if hedge.after is not None:
        return f"after {hedge.after:g} s"
    if hedge.quantile is not None:
        return f"once it takes longer than {hedge.quantile:.4g} of the first attempts lately did"
    return "never"


def hedging_of(
    hedge: Hedge,
    call: Call,
    policy: RetryPolicy | None,
    upstream: Upstream,
    delays: Delays | None,
    now: float,
) -> Hedging | None:
    """The hedges of a call; None: it gets none. Its body must be one that several attempts can send at a time, and sending it twice must
    be allowed.
    """
    if (
        not call.concurrent
        or call.chained
        or call.idempotent is False
        or call.retry is False
        or call.resolution.handed is not None
    ):
        return None
    if (
        hedge.methods is not None
        and call.idempotent is None
        and not call.grpc
        and call.head.method not in hedge.methods
    ):
        return None
    delay = hedge.after
    if hedge.quantile is not None and delays is not None:
        delay = delays.after(upstream, hedge.quantile, now)
    elif hedge.on_try_timeout:
        delay = policy.per_try_timeout if policy is not None and policy.on else None
    if delay is None and hedge.quantile is None:
        return None
    limits = upstream.cluster.limits
    bounded = limits.max_retries is not None or limits.budget is not None
    own = None if policy is None else policy.budget
    return Hedging(hedge, own if own is not None or bounded else hedge.budget, delay)
