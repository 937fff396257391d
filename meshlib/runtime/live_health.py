"""The active health checks of one cluster, between who asks (a prober), who is asked (its endpoints) and who picks (its calls).

Theory.

    asleep ──a pick──► awake: the first round ──all have answered──► awake, settled ──no call for long──► asleep

*Asleep*: nobody is asked and no check says anything of anybody: a process asks only where its calls go. The first call does not wait
for the first round, as an Envoy that warms a cluster does: until that is over, an endpoint is called unless a check of it failed.
From then on one that comes is not called before its first check passed, as in Envoy. A fork, or the end of the mesh, stops the asking
and changes nothing else.

All of it is guarded by the cluster's lock. Answers come in the prober's thread, picks in any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.core.endpoint import Down
from meshlib.core.health import Answer, Check
from meshlib.core.upstream import Leaf
from meshlib.model.events import EndpointChecked

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.outlier import Ejections
    from meshlib.model.cluster import Cluster
    from meshlib.model.events import Event
    from meshlib.model.headers import Headers
    from meshlib.model.health import HealthCheck
    from meshlib.runtime.live_balance import LiveBalances

__all__ = ["Asked", "Asker", "LiveHealth"]

_AT_ONCE = "x-envoy-immediate-health-check-fail"
_BITS = Down.CHECK | Down.UNCOUNTED


class Asker(Protocol):
    """Who has endpoints asked (:class:`meshlib.runtime.checks.Checks`)."""

    now: Callable[[], float]
    idle: float

    def begin(self, health: LiveHealth) -> None: ...

    def look(self, health: LiveHealth) -> None: ...

    def end(self, health: LiveHealth) -> None: ...


class Asked(Leaf, Protocol):
    """What of :class:`meshlib.runtime.live.LiveCluster` is asked and marked."""

    active: int
    requests: int
    _lock: threading.Lock
    _random: Callable[[], float]
    _balances: LiveBalances
    _ejections: Ejections | None

    @property
    def endpoints(self) -> tuple[LiveEndpoint, ...]: ...

    def look(self) -> None: ...

    def _later(self, tell: Callable[[], None]) -> None: ...

    def _returned(self, endpoint: LiveEndpoint) -> None: ...

    def _say(self, event: Event) -> None: ...

    def _to_tell(self) -> list[Callable[[], None]]: ...


class LiveHealth:
    """Of one cluster; thread-safe unless a method says otherwise. ``upstream`` is the cluster, ``awake``: its endpoints are asked."""

    __slots__ = (
        "__weakref__",
        "_checks",
        "_dirty",
        "_requests",
        "_settled",
        "_unknown",
        "_untold",
        "_used_at",
        "awake",
        "upstream",
    )

    def __init__(self, upstream: Asked, checks: Asker) -> None:
        self.upstream = upstream
        self._checks = checks
        self.awake = False
        self._settled = False  # the first round is over
        self._unknown = 0  # endpoints that have not answered yet
        self._dirty = False  # who may be called has changed since the balance was made
        self._untold: list[EndpointChecked] = []
        self._requests = 0
        self._used_at = 0.0

    @property
    def config(self) -> HealthCheck | None:
        return self.upstream.cluster.health_check

    @property
    def cluster(self) -> Cluster:
        return self.upstream.cluster

    @property
    def sleeps(self) -> bool:
        """Whether a call is to wake it."""
        return not self.awake and self.config is not None

    # --- calls, under the cluster's lock --------------------------------------------------------------------------

    def rouse(self, *, grpc: bool) -> None:
        """A call picks: its endpoints are asked from now on, if they were not."""
        config = self.config
        if not self.awake and config is not None and (config.grpc or not grpc):
            self.awake = True
            self.upstream.look()
            self.upstream._later(self.begin)

    def look_on(self, *, grpc: bool) -> None:
        """A call looks at who is well here, and may go elsewhere for that (an aggregate's): that is use, too."""
        self.rouse(grpc=grpc)
        self._requests = -1  # the next sweep sees another number

    def overhear(self, endpoint: LiveEndpoint, headers: Headers, now: float) -> None:
        """The head of a call's answer: it may say that its endpoint wants no more."""
        check = endpoint.check
        if check is None or not self.awake or headers.get(_AT_ONCE) is None or check.failed:
            return
        check.fail_now(f"a call was answered with {_AT_ONCE}", now)
        self._mark(endpoint, check)
        self.upstream._say(self._event(endpoint, check, first=False))
        self.upstream._balances.reshape()
        self._dirty = False

    # --- configuration ----------------------------------------------------------------------------------------------

    def welcome(self, endpoints: Iterable[LiveEndpoint], now: float) -> None:
        """These are its endpoints from now on; some may be new. Under the lock."""
        config = self.config
        if not (self.awake and self._settled and config is not None):
            return
        for endpoint in endpoints:
            if endpoint.check is None and not _is_off(endpoint):
                endpoint.check = Check(config, now)
                self._mark(endpoint, endpoint.check)

    def follow(self) -> None:
        """The configuration of the cluster, or its endpoints, may have changed. For the one writer."""
        if self.awake:
            if self.config is None:
                self.sleep()
            else:
                self._checks.look(self)

    def begin(self) -> None:
        """It was asleep, and a call uses it. Blocks for nothing."""
        self._used_at = self._checks.now()
        self._checks.begin(self)

    def end(self) -> None:
        """The cluster left the configuration."""
        self.awake = False
        self._checks.end(self)

    def sleep(self) -> None:
        """Ask no more until a call comes; what was known is forgotten."""
        self._checks.end(self)
        upstream = self.upstream
        with upstream._lock:
            self.awake = self._settled = False
            for endpoint in upstream.endpoints:
                _lift(endpoint)
            upstream._balances.reshape()
            upstream.look()

    def sweep(self, now: float, idle: float) -> bool:
        """Note whether calls came since the last time; whether none has for ``idle`` seconds."""
        upstream = self.upstream
        if upstream.requests != self._requests or upstream.active:
            self._requests, self._used_at = upstream.requests, now
        return now - self._used_at >= idle

    @property
    def stays(self) -> bool:
        """Whether its endpoints are asked, though seldom, when no call uses it any more."""
        config = self.config
        return config is not None and config.no_traffic is not None

    # --- the prober ---------------------------------------------------------------------------------------------------

    def members(self, now: float) -> list[tuple[LiveEndpoint, Check]]:
        """Who is to be asked now. Forgets what was known of others."""
        upstream, config = self.upstream, self.config
        found: list[tuple[LiveEndpoint, Check]] = []
        with upstream._lock:
            if not self.awake or config is None:
                return []
            lifted = False
            for endpoint in upstream.endpoints:
                if _is_off(endpoint):
                    lifted = _lift(endpoint) or lifted
                    continue
                check = endpoint.check
                if check is None:
                    check = endpoint.check = Check(config, now)
                    self._mark(endpoint, check)
                check.config = config
                found.append((endpoint, check))
            self._unknown = sum(check.first for _, check in found)
            self._settled = self._settled or not self._unknown
            if lifted or self._dirty:
                self._dirty = False
                upstream._balances.reshape()
        return found

    def hear(self, endpoint: LiveEndpoint, answer: Answer, now: float) -> float:
        """A check ended: in how many seconds the next one is to begin. ``settle`` is to be called soon after."""
        upstream = self.upstream
        with upstream._lock:
            check = endpoint.check
            if check is None or not self.awake:
                return 0.0
            first, before = check.first, _word(check)
            used = now - self._used_at < self._checks.idle
            heard, wait = check.hear(answer, now, upstream._random, used=used)
            if first:
                self._unknown -= 1
                self._settled = self._settled or self._unknown <= 0
            if heard.changed:
                self._mark(endpoint, check)
            ejections = upstream._ejections
            if heard.unejects and ejections is not None and ejections.pardon(endpoint):
                upstream._returned(endpoint)
                self._dirty = True
            config, edge = check.config, first or before != _word(check)
            if edge or (config.log_successes if answer.good else config.log_failures):
                self._untold.append(self._event(endpoint, check, first=first, edge=edge))
            if (
                heard.edge
                and not (check.failed or first)
                and upstream.cluster.balancing.slow_start is not None
            ):
                endpoint.since = now  # as Envoy: from when it passes
        return wait

    def settle(self) -> None:
        """Put into force what was heard, and tell of it: who is told finds that calls go by it. The next pick need not make a balance."""
        upstream = self.upstream
        with upstream._lock:
            dirty, self._dirty = self._dirty, False
            events, self._untold = self._untold, []
            if dirty:
                upstream._balances.outdate()
        if dirty:
            upstream._balances.remake()
        if not (events or dirty):
            return
        with upstream._lock:
            for event in events:
                upstream._say(event)
            told = upstream._to_tell()
        for tell in told:
            tell()

    # --- under the lock -------------------------------------------------------------------------------------------------

    def _mark(self, endpoint: LiveEndpoint, check: Check) -> None:
        """Write into ``endpoint`` what its checks say."""
        bits = 0
        if check.failed and (self._settled or not check.first):
            bits = Down.CHECK
            if check.excluded or (check.first and check.config.new_count_not):
                bits = _BITS
        degraded = check.degraded or endpoint.degraded_by_plan
        if endpoint.down & _BITS != bits or endpoint.degraded != degraded:
            endpoint.down = endpoint.down & ~_BITS | bits
            endpoint.degraded = degraded
            self._dirty = True

    def _event(
        self, endpoint: LiveEndpoint, check: Check, *, first: bool, edge: bool = True
    ) -> EndpointChecked:
        assert check.answer is not None
        name, answer, health = self.upstream.cluster.name, check.answer, _word(check)
        return EndpointChecked(name, endpoint.name, health, answer.words, edge, first, answer.good)


def _word(check: Check) -> str:
    """What its endpoint is held for."""
    return "unhealthy" if check.failed else "degraded" if check.degraded else "healthy"


def _is_off(endpoint: LiveEndpoint) -> bool:
    at = endpoint.endpoint.check
    return at is not None and at.off


def _lift(endpoint: LiveEndpoint) -> bool:
    """Forget what is known of it; whether anything was."""
    known = endpoint.check is not None
    endpoint.check = None
    endpoint.down &= ~_BITS
    endpoint.degraded = endpoint.degraded_by_plan
    return known
