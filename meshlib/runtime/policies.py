"""The policies of a configuration file as values of the model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.config.kinds import CallsOrSeconds, SecondsOrShare
from meshlib.model.health import GrpcCheck, HealthCheck, HttpCheck, TcpCheck
from meshlib.model.policy import (
    IDEMPOTENT,
    Adaptive,
    Aperture,
    Balancer,
    Balancing,
    Breaker,
    BreakerMode,
    FailurePercentage,
    Fault,
    HashKind,
    HashPolicy,
    Hedge,
    Limits,
    Outlier,
    RateLimit,
    RetryBudget,
    RetryPolicy,
    RouteLimits,
    SlowOutlier,
    SlowStart,
    SuccessRate,
    ZoneAware,
)
from meshlib.model.session import Session, SessionKind

if TYPE_CHECKING:
    from meshlib.config import BreakerConfig, LimitsConfig, OutlierConfig, RetryConfig
    from meshlib.config.policies import HealthCheckConfig, HedgeConfig, RateLimitConfig
    from meshlib.config.routes import FaultConfig, RouteConfig
    from meshlib.config.services import AdaptiveConfig, ServiceConfig, SessionConfig

__all__ = [
    "adaptive",
    "balancing",
    "breaker",
    "breakers",
    "fault",
    "health_check",
    "hedge",
    "limits",
    "outlier",
    "rate_limit",
    "retry_policy",
    "route_limits",
    "session",
]

#: Where an upstream says when it wants to be asked again, the more exact one first.
_RETRY_AFTER = (
    ("retry-after-ms", "milliseconds"),
    ("retry-after", "retry_after"),
    ("x-ratelimit-reset", "seconds_or_unix_timestamp"),
)
#: Seconds after its last call for which a session is remembered: how long one may rest overnight.
_DAY = 86_400.0


def retry_policy(config: RetryConfig) -> RetryPolicy:
    """``attempts`` counts the first, so one less is a retry; ``statuses`` imply their condition; ``budget`` is a share
    where the model's is percent.
    """
    conditions = {*config.on, "retriable-status-codes"} if config.statuses else set(config.on)
    budget = None if config.budget is None else RetryBudget(config.budget * 100.0, config.budget_min)
    longest = 10.0 * config.backoff_base if config.backoff_max is None else config.backoff_max  # RT-04
    return RetryPolicy(
        on=frozenset(conditions),
        retries=config.attempts - 1,
        per_try_timeout=config.per_try_timeout,
        base_interval=config.backoff_base,
        max_interval=longest,
        statuses=frozenset(config.statuses),
        methods=None if config.methods is None else frozenset(method.upper() for method in config.methods),
        budget=budget,
        reset_headers=() if config.retry_after is None else _RETRY_AFTER,
        max_reset_interval=config.retry_after or 0.0,
        stop=config.stop,  # type: ignore[arg-type]  # a strategy of tenacity's: its answer is a truth value
        wait=config.wait,  # type: ignore[arg-type]  # likewise: seconds
        retry=config.retry,  # type: ignore[arg-type]  # likewise: a truth value
    )


def hedge(config: HedgeConfig) -> Hedge:
    """The same fields."""
    after = config.after
    methods = None if config.methods is None else frozenset(method.upper() for method in config.methods)
    return Hedge(
        after=None if isinstance(after, str) else after,
        quantile=SecondsOrShare.share(after) if isinstance(after, str) else None,
        most=config.max,
        methods=IDEMPOTENT if methods is None else methods,
    )


def breaker(config: BreakerConfig) -> Breaker:
    """The same fields."""
    window = config.window
    return Breaker(
        consecutive_failures=config.consecutive_failures,
        open_for=config.open_for,
        half_open_permits=config.half_open_permits,
        success_threshold=config.success_threshold,
        listeners=config.listeners,
        storage=config.storage,
        failure_rate=config.failure_rate,
        slow_call=config.slow_call,
        slow_rate=config.slow_rate,
        window=window if isinstance(window, int) else 0,
        window_seconds=CallsOrSeconds.seconds(window) if isinstance(window, str) else None,
        minimum=config.minimum,
        mode=BreakerMode(config.mode),
    )


def breakers(service: ServiceConfig) -> tuple[Breaker | None, Breaker | None]:
    """The service's own, and that of each endpoint."""
    own, each = service.breaker, service.endpoint_breaker
    if own is not None and own.scope == "endpoint":
        own, each = None, own
    return None if own is None else breaker(own), None if each is None else breaker(each)


def route_limits(config: RouteConfig) -> RouteLimits | None:
    """None: it has none of its own."""
    if config.breaker is None and config.limits is None and config.rate_limit is None:
        return None
    return RouteLimits(
        None if config.breaker is None else breaker(config.breaker),
        None if config.limits is None else config.limits.max_requests,
        rate_limit(config.rate_limit),
    )


def outlier(config: OutlierConfig) -> Outlier:
    """A detector that is written down is meant: it is enforced at 100 %, also where Envoy's default is 0 (OD-06), and a
    failure percentage holds however few endpoints there are.
    """
    calls, percent = config.minimum_calls, config.failure_percentage
    made = Outlier(
        consecutive_5xx=config.consecutive_5xx,
        consecutive_gateway=config.consecutive_gateway,
        enforcing_gateway=100,
        interval=config.interval,
        base_ejection=config.base_ejection,
        max_ejection_percent=config.max_ejection_percent,
        # Envoy's rule alone would never eject one of three at the default of 10 %; who writes `outlier` means it to.
        always_eject_one=config.max_ejection_percent > 0,
        success_rate=SuccessRate(request_volume=calls or 100) if config.success_rate else None,
        failure_percentage=None
        if percent is None
        else FailurePercentage(percent, minimum_hosts=1, request_volume=calls or 50, enforcing=100),
        latency=None if config.latency is None else SlowOutlier(config.latency, calls or 20),
    )
    longest = (
        max(made.max_ejection, made.base_ejection) if config.max_ejection is None else config.max_ejection
    )
    return replace(made, max_ejection=longest)


def health_check(config: HealthCheckConfig | None) -> HealthCheck | None:
    """Checks of a service drift apart by up to a tenth of their interval, so that many processes do not ask at one moment."""
    if config is None:
        return None
    how: HttpCheck | GrpcCheck | TcpCheck = TcpCheck()
    if config.grpc is not None:
        how = GrpcCheck(config.grpc)
    elif config.path is not None:
        how = HttpCheck(config.path, expected=((200, 300),))
    return HealthCheck(
        how, config.interval, config.timeout, config.healthy, config.unhealthy, jitter_percent=10
    )


def limits(config: LimitsConfig | None) -> Limits:
    """What is not written has no limit."""
    if config is None:
        return Limits.unlimited()
    return replace(
        Limits.unlimited(),
        max_connections=config.max_connections,
        max_requests=config.max_requests,
        max_pending=config.max_pending,
        max_retries=config.max_retries,
    )


def rate_limit(config: RateLimitConfig | None) -> RateLimit | None:
    """A burst that is not written is what the rate is."""
    if config is None:
        return None
    burst = max(1.0, config.rate) if config.burst is None else config.burst
    return RateLimit(config.rate / config.per, burst, config.storage)


def adaptive(config: AdaptiveConfig | None) -> Adaptive | None:
    """The same fields."""
    return None if config is None else Adaptive(config.min, config.max)


def fault(config: FaultConfig | None) -> Fault | None:
    """``percent`` holds for both, each drawn by itself."""
    if config is None:
        return None
    of_a_million = round(config.percent * 10_000)
    return Fault(config.delay or 0.0, of_a_million, config.abort or 0, of_a_million)


def balancing(service: ServiceConfig) -> Balancing:
    """The balancer of a service, and what it hashes: of several the first that a request has."""
    hashed = [
        HashPolicy(kind, name, terminal=True)
        for entry in service.hash
        for kind, name in (
            (HashKind.HEADER, entry.header),
            (HashKind.COOKIE, entry.cookie),
            (HashKind.QUERY, entry.query),
        )
        if name is not None
    ]
    slow, near, few = service.slow_start, service.zone_aware, service.aperture
    return Balancing(
        Balancer(service.balancer),
        hash_policy=tuple(hashed),
        slow_start=None if slow is None else SlowStart(slow.window, slow.aggression, slow.least),
        aperture=None if few is None else Aperture(few.size, few.caller or 0, few.callers or 0),
        zones=None if near is None else ZoneAware(minimum=near.minimum, force=int(near.force)),
    )


def session(config: SessionConfig | None) -> Session | None:
    """Of a header whose value an endpoint chose it is remembered here where it is, or the value takes its address along."""
    if config is None:
        return None
    if config.cookie is not None:
        kept = Session(SessionKind.COOKIE, config.cookie, float(int(config.ttl or 0)), config.path or "")
    else:
        assert config.header is not None
        kind = SessionKind.ENVELOPE if config.envelope else SessionKind.MEMORY
        kept = Session(kind, config.header.lower(), config.ttl or _DAY)
    strict = config.cookie is None if config.strict is None else config.strict
    return replace(kept, strict=strict, status=config.status if strict else 0)
