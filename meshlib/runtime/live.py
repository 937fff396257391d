"""A cluster that is in use: its endpoints, what is counted of them, and who may be called now.

One lock per cluster. It guards everything that changes: counters, endpoints' marks, balancer, ejections, breaker. It is
held for a few microseconds, never during I/O, a callback or a call; what has to be told is gathered under it and told
after. Decisions are core's; this file only keeps them together.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from meshlib.core.adaptive import AdaptiveLimit
from meshlib.core.classify import verdict
from meshlib.core.endpoint import Down
from meshlib.core.error_match import ErrorMatch
from meshlib.core.ewma import Ewma
from meshlib.core.latency import Latency
from meshlib.core.limits import may_retry
from meshlib.core.outlier import Ejected, Ejections
from meshlib.core.override import chosen, peeked
from meshlib.core.refusals import dropped, nobody_usable, too_many
from meshlib.core.roster import Roster, plan_roster
from meshlib.core.upstream import Refusal, RefusalKind
from meshlib.model.call import OK
from meshlib.model.events import EndpointEjected, EndpointReturned, EndpointSpared
from meshlib.model.policy import Balancer
from meshlib.runtime.later_roster import next_roster
from meshlib.runtime.limiter import Limiter, limiter_of
from meshlib.runtime.live_balance import LiveBalances
from meshlib.runtime.live_breaker import Breakers, LiveBreaker
from meshlib.runtime.live_connections import LiveConnections
from meshlib.runtime.live_health import Asker, LiveHealth
from meshlib.runtime.live_high import LiveHigh
from meshlib.runtime.live_loads import LiveLoads
from meshlib.runtime.live_pick import LivePick, LiveRetry
from meshlib.runtime.statuses import cluster_status, failure_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.core.breaker import Change
    from meshlib.core.breaker_saved import Saved
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext
    from meshlib.core.zones import Caller
    from meshlib.model.call import Outcome
    from meshlib.model.cluster import Cluster
    from meshlib.model.events import Event
    from meshlib.model.policy import Breaker, RetryBudget
    from meshlib.model.status import ClusterStatus
    from meshlib.runtime.live_breaker import Held

__all__ = ["LiveCluster"]

#: Endpoints that are changed while the lock is held once: some ten microseconds.
_STEP = 32


class LiveCluster:
    """One cluster (:class:`meshlib.core.upstream.Upstream`). Thread-safe; no method blocks.

    ``update`` belongs to the one writer of the configuration.

    Args:
        cluster: What the configuration says.
        random: Floats in [0, 1); thread-safe.
        emit: Is told of events, outside the lock; must not raise.
        clock: Monotonic seconds, for what comes from outside a call.
        now: The same clock's, now.
        give_way: Called at steps of long work.
        caller: This process as a caller; None: nobody knows where it is.
        checks: Who has its endpoints' health asked for; None: nobody has.

    Attributes:
        active: Picks not released. ``retries``, ``connections``, ``pending``: the like. Read them, no more.
        requests: Picks that were given, over all time; ``failures``, ``retried``, ``overflows``, ``ejected``: the like.
        consistent: A request's hash decides; ``labelled``: its labels do.
        loads: Who is told of its attempts, and of what its endpoints say of their load.
        health: The checks of its endpoints' health; None where it asks for none.
    """

    __slots__ = (
        "__weakref__",
        "_adaptive",
        "_balances",
        "_breakers",
        "_checks",
        "_clock",
        "_ejections",
        "_emit",
        "_errors",
        "_ewma",
        "_give_way",
        "_high",
        "_lock",
        "_looks",
        "_random",
        "_roster",
        "_told",
        "active",
        "cluster",
        "connections",
        "consistent",
        "ejected",
        "failures",
        "health",
        "labelled",
        "limiter",
        "loads",
        "overflows",
        "pending",
        "requests",
        "retried",
        "retries",
    )

    def __init__(
        self,
        cluster: Cluster,
        random: Callable[[], float],
        emit: Callable[[Event], None],
        clock: Callable[[], float],
        now: float,
        give_way: Callable[[], object] = bool,
        caller: Caller | None = None,
        checks: Asker | None = None,
    ) -> None:
        self.cluster = cluster
        self.limiter: Limiter | None = None
        self.health: LiveHealth | None = None
        self._checks = checks
        self._adaptive: AdaptiveLimit | None = None
        self.consistent = self.labelled = self._ewma = self._looks = False  # what its balancer looks at
        self.active = self.retries = self.connections = self.pending = 0
        self.requests = self.failures = self.retried = self.overflows = self.ejected = 0
        self._lock = threading.Lock()
        self.loads = LiveLoads(self._lock)
        self._random = random
        self._emit = emit
        self._clock = clock
        self._give_way = give_way
        self._roster = Roster()
        self._balances = LiveBalances(self._roster, cluster.balancing, random, self._lock, give_way)
        self._balances.caller = caller
        self._ejections: Ejections | None = None
        self._errors: ErrorMatch | None = None
        self._breakers = Breakers(self._made_breaker)
        self._told: list[Callable[[], None]] = []
        self._high: LiveHigh | None = None  # once a call of that priority comes
        self._put(cluster, next_roster(self._roster, cluster, give_way), now, rebalance=True)

    # --- a call's side --------------------------------------------------------------------------------------------

    @property
    def high(self) -> LiveHigh:
        """It, as calls of priority HIGH see it."""
        high = self._high
        if high is None:
            with self._lock:
                high = self._high = self._high or LiveHigh(self)
        return high

    def pick(self, context: PickContext, now: float, high: LiveHigh | None = None) -> LivePick | Refusal:
        """An endpoint for one attempt, or why there is none: dropped, breaker, max_requests (of ``high``), nobody usable."""
        with self._lock:
            picked = self._pick(context, now, high or self)
            told = self._told
            if told:
                self._told = []
        if told:
            for tell in told:
                tell()
        return picked

    def peek(self, context: PickContext) -> LiveEndpoint | None:
        """What a pick now would give, were it not refused. Counts nothing and moves nothing on."""
        with self._lock:
            context.now, context.active = self._clock(), self.active
            return peeked(context, self._balances.of(context), self._roster.live, self.cluster)

    def chosen(self, context: PickContext) -> tuple[LiveCluster, PickContext, str]:
        return self, context, ""

    def begin_retry(self, budget: RetryBudget | None, *, limited: bool = True) -> LiveRetry | None:
        with self._lock:
            if limited and not may_retry(self.cluster.limits, budget, self.retries, self.active):
                self.overflows += 1
                return None
            self.retries += 1
            self.retried += 1
        return LiveRetry(self)

    def overflow(self) -> None:
        """A call that was to go there was dropped before it was one."""
        with self._lock:
            self.overflows += 1

    def mark_reached(self, endpoint: LiveEndpoint, by: int) -> None:
        """Channels that cannot connect to ``endpoint`` are ``by`` more, or less."""
        with self._lock:
            endpoint.unreached += by
            self._balances.reshape(grpc=True)

    def reached(self) -> bool:
        seen = ~self._blind
        return any(not (item.down & seen or item.unreached) for item in self._roster.live.values())

    @property
    def _blind(self) -> int:
        """What of :class:`meshlib.core.endpoint.Down` gRPC calls pass over: its own clients do not check health by xDS."""
        check = self.cluster.health_check
        return 0 if check is None or check.grpc else Down.CHECK | Down.UNCOUNTED

    def _pick(self, context: PickContext, now: float, counted: LiveCluster | LiveHigh) -> LivePick | Refusal:
        cluster = self.cluster
        if cluster.assignment is not None and cluster.assignment.drops:
            refused = dropped(cluster, self._random)
            if refused is not None:
                return self.loads.refused(refused)
        if self._ejections is not None and now >= self._ejections.next_sweep:
            self._sweep(now)
        one: Held | None = None
        breaker = self._breakers.one
        if breaker is not None:
            permit = breaker.ask(now)
            if permit is None:
                return Refusal(RefusalKind.BREAKER, f"the breaker of cluster {cluster.name!r} is {breaker}")
            one = breaker, permit
        refusal: Refusal | None = None
        limit, adaptive, active = counted.cluster.limits.max_requests, self._adaptive, counted.active
        if (limit is not None and active >= limit) or (adaptive is not None and active >= adaptive.limit):
            self.overflows += 1
            most = None if adaptive is None else adaptive.limit
            refusal = self.loads.refused(too_many(cluster.name, active, limit, most))
        else:
            if self._looks:
                self._attend(context, now)
            balances = self._balances
            balance = balances.grpc if context.grpc else balances.plain
            balance = balance or balances.of(context)
            endpoint = (
                balance.pick(context)
                if context.override is None
                else chosen(context, balance, self._roster.live, cluster)
            )
            own: Held | None = None
            if self._breakers.each is not None and endpoint is not None:
                balance = balances.of(context)
                others = () if self.labelled else self.endpoints
                endpoint, own = self._breakers.permitted(endpoint, balance, context, others, now)
                if endpoint is None:
                    words = f"the breakers of all endpoints of cluster {cluster.name!r} are open"
                    refusal = Refusal(RefusalKind.BREAKER, words)
            if endpoint is not None:
                endpoint.active += 1
                endpoint.requests += 1
                counted.active += 1
                self.requests += 1
                if breaker is not None:
                    breaker.before_call()
                pick = LivePick(counted, endpoint, one, own)
                if self.loads.on:
                    self.loads.begin(pick, grpc=context.grpc)
                return pick
            refusal = refusal or nobody_usable(cluster, self.endpoints, context)
        if one is not None:
            one[0].settle(one[1], None, now)
        return refusal

    def _attend(self, context: PickContext, now: float) -> None:
        context.now, context.active = now, self.active
        if self.health is not None:
            self.health.rouse(grpc=context.grpc)

    # --- what came of it (under the lock) -------------------------------------------------------------------------

    def _heard(self, pick: LivePick, outcome: Outcome, now: float) -> None:
        endpoint = pick.endpoint
        judged = verdict(outcome) if self._errors is None else self._errors.verdict(outcome)
        if pick.load is not None:
            pick.load.hear(judged)
        if judged.good is False and not pick.failed:
            pick.failed = True
            self.failures += 1
            endpoint.failures += 1
            endpoint.last_error = failure_words(outcome)
        if outcome.kind is OK:
            latency = endpoint.latency
            if latency is None:
                latency = endpoint.latency = Latency(now)
            latency.add(outcome.seconds, now)
        if self._ewma and judged.good is not None:
            ewma = endpoint.ewma
            if ewma is None:
                ewma = endpoint.ewma = Ewma(now)
            ewma.add(outcome.seconds, now, good=judged.good)
        if self._ejections is not None:
            if now >= self._ejections.next_sweep:
                self._sweep(now)
            ejected = self._ejections.hear(endpoint, judged, len(self._roster.live), now, outcome.seconds)
            if ejected is not None:
                self._left_out(ejected)
            if self._ejections.spared:
                self._say_spared(self._ejections)
        if self.health is not None and outcome.headers is not None:
            self.health.overhear(endpoint, outcome.headers, now)
        if self._adaptive is not None and judged.good is not None:
            self._adaptive.hear(outcome.seconds, self.active, now, good=judged.good)
        if pick.one is not None or pick.own is not None:
            pick.settle(judged.good, now, outcome)

    def _sweep(self, now: float) -> None:
        assert self._ejections is not None
        for change in self._ejections.sweep(now, len(self._roster.live)):
            if isinstance(change, Ejected):
                self._left_out(change)
            else:
                self._returned(change)
        self._say_spared(self._ejections)

    def _say_spared(self, ejections: Ejections) -> None:
        for one in ejections.spared:
            self._say(EndpointSpared(self.cluster.name, one.endpoint.name, one.method, one.reason))
        ejections.spared.clear()

    def _left_out(self, ejected: Ejected) -> None:
        self.ejected += 1
        self._balances.reshape()
        name, endpoint = self.cluster.name, ejected.endpoint.name
        self._say(EndpointEjected(name, endpoint, ejected.reason, ejected.seconds, ejected.method))

    def _returned(self, endpoint: LiveEndpoint) -> None:
        self._balances.reshape()
        self._say(EndpointReturned(self.cluster.name, endpoint.name))

    def _apply(self, move: Callable[[], Change | None]) -> None:
        """Move the breaker from outside a call: a storage or a listener said so."""
        with self._lock:
            change = move()
            if self._breakers.one is not None:
                self._breakers.one.changed(change)
            told = self._to_tell()
        for tell in told:
            tell()

    def _say(self, event: Event) -> None:
        self._told.append(lambda: self._emit(event))

    def _later(self, tell: Callable[[], None]) -> None:
        self._told.append(tell)

    def _to_tell(self) -> list[Callable[[], None]]:
        """What gathered; the caller tells it once the lock is free."""
        told = self._told
        if told:
            self._told = []
        return told

    # --- the writer's side ----------------------------------------------------------------------------------------

    def update(self, cluster: Cluster, now: float, caller: Caller | None = None) -> None:
        """The cluster's next configuration. Endpoints that stay keep what is counted, and their turns if all stay as is."""
        old = self.cluster
        moved, self._balances.caller = caller != self._balances.caller, caller
        roster = None
        if not (
            cluster.assignment is old.assignment
            and cluster.tls == old.tls
            and cluster.tls_matches is old.tls_matches
        ):
            roster = next_roster(self._roster, cluster, self._give_way)
        moved = moved or cluster.balancing != old.balancing or cluster.health_check != old.health_check
        self._put(cluster, roster, now, rebalance=moved or roster is not None)

    def retire(self) -> None:
        """It left the configuration: whoever still holds it is refused; calls in flight run on."""
        with self._lock:
            self._roster = roster = Roster(gone=list(self._roster.made.values()))
            self._balances.put(roster)
            self._balances.reshape()
        self._apply_roster(roster)
        if self.health is not None:
            self.health.end()

    def _put(self, cluster: Cluster, roster: Roster | None, now: float, *, rebalance: bool) -> None:
        with self._lock:
            if self._ejections is not None:
                # What was due before is judged by the settings and among the endpoints of then.
                self._sweep(now)
            self.cluster, balancing = cluster, cluster.balancing
            self.consistent, self.labelled = balancing.consistent, balancing.subsets is not None
            self._ewma = balancing.kind is Balancer.PEAK_EWMA
            errors = cluster.calls.errors if cluster.calls is not None else None
            self._errors = None if errors is None else ErrorMatch(errors)
            self._put_outlier(now)
            if cluster.health_check is not None and self._checks is not None and self.health is None:
                self.health = LiveHealth(self, self._checks)
            self.look()
            self._breakers.put(cluster.breaker, cluster.endpoint_breaker, self._roster.made.values())
            self._put_adaptive(now)
            self.limiter = limiter_of(cluster.rate_limit, self.limiter, cluster.name, now)
            self.loads.put(cluster, now)
            if roster is not None and not roster.planned and self._roster.made:
                roster = plan_roster(self._roster.live, cluster)  # a call came meanwhile
            if roster is not None:
                if balancing.slow_start is not None:
                    roster.begin(self._roster, now)
                if self.health is not None:
                    self.health.welcome(roster.live.values(), now)
                self._roster = roster
                self._balances.put(roster)
            self._balances.balancing, self._balances.blind = balancing, self._blind
            if rebalance:
                self._balances.outdate()
            told = self._to_tell()
        for tell in told:
            tell()
        self.loads.steer(cluster.balancing, self._clock)
        if roster is not None:
            self._apply_roster(roster)
        at_once = self._roster.planned or self.consistent or self.labelled
        if at_once and (rebalance or self._balances.plain is None):
            self._balances.remake()
        if self.health is not None:
            self.health.follow()

    def look(self) -> None:
        """Note whether a pick has to look at more than the balance. Under the lock."""
        balancing = self.cluster.balancing
        timed = balancing.slow_start is not None or self._ewma or balancing.kind is Balancer.ORCA
        self._looks = timed or self.consistent or (self.health is not None and self.health.sleeps)

    def _apply_roster(self, roster: Roster) -> None:
        """A few endpoints at a time, so that no call waits for long."""
        while not roster.applied:
            self._give_way()
            with self._lock:
                for endpoint in roster.apply(_STEP):
                    if self._ejections is not None:
                        self._ejections.forget(endpoint)
                self._balances.outdate()

    def _put_outlier(self, now: float) -> None:
        config, ejections = self.cluster.outlier, self._ejections
        if config is None:
            if ejections is not None:
                for endpoint in ejections.clear():
                    self._returned(endpoint)
            self._ejections = None
        elif ejections is None:
            self._ejections = Ejections(config, self._random, now)
        elif config != ejections.config:
            ejections.configure(config, now)

    def _put_adaptive(self, now: float) -> None:
        config, before = self.cluster.adaptive, self._adaptive
        if config is not None and before is not None:
            before.configure(config)
        else:
            self._adaptive = None if config is None else AdaptiveLimit(config, now)

    def _made_breaker(self, config: Breaker, endpoint: str) -> LiveBreaker:
        return LiveBreaker(
            self.cluster.name, config, self._later, self._say, self._apply, self._clock, endpoint
        )

    def saved(self, now: float) -> dict[str, dict[str, object]]:
        """What its breakers know (:meth:`meshlib.runtime.live_breaker.Breakers.saved`)."""
        with self._lock:
            return self._breakers.saved(self._roster.made.values(), now)

    def restore(self, saved: Mapping[str, Saved]) -> None:
        """Have its breakers go on from there."""
        with self._lock:
            self._breakers.restore(saved, self._roster.made.values())
            told = self._to_tell()
        for tell in told:
            tell()

    def connections_to(self, endpoint: LiveEndpoint) -> LiveConnections:
        return LiveConnections(self, endpoint)

    # --- status ---------------------------------------------------------------------------------------------------

    @property
    def endpoints(self) -> tuple[LiveEndpoint, ...]:
        """Everybody in it now, in order of priority."""
        return tuple(self._roster.live.values())

    def status(self, now: float) -> ClusterStatus:
        with self._lock:
            if self._ejections is not None and self._roster.planned:
                self._sweep(now)
            shown, high = self._roster.shown.values(), 0 if self._high is None else self._high.active
            status = cluster_status(self, shown, self._ejections, self._breakers.one, now, high)
            told = self._to_tell()
        for tell in told:
            tell()
        return status
