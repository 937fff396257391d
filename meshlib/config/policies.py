# ruff: noqa: RUF009  (a field is made by a function that knows what it allows)
"""What the configuration says of how calls are made: retries, breakers, ejection, limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import iscoroutinefunction

from meshlib.config.kinds import (
    Boolean,
    CallsOrSeconds,
    Choice,
    Integer,
    Kind,
    ListOf,
    Number,
    Place,
    SecondsOrShare,
    Text,
    seconds,
)
from meshlib.config.section import Section, only_one, required, setting
from meshlib.config.source import Rank
from meshlib.config.words import METHOD, U32

__all__ = [
    "BreakerConfig",
    "HealthCheckConfig",
    "HedgeConfig",
    "LimitsConfig",
    "OutlierConfig",
    "RateLimitConfig",
    "RetryConfig",
    "RouteLimitsConfig",
    "Strategy",
]

RETRY_ON = (
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream", "retriable-4xx",
    "retriable-status-codes", "envoy-ratelimited",
    "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
)  # fmt: skip
"""Envoy's ``x-envoy-retry-on`` and ``x-envoy-retry-grpc-on`` (RT-02, RT-06)."""


class _Python(Kind[object]):
    """An object that only Python can give: a file cannot."""

    def __init__(self, allowed: str, methods: tuple[str, ...]) -> None:
        self.allowed, self.methods = allowed, methods

    def parse(self, raw: object, at: Place) -> object:
        if at.source.rank is Rank.FILE:
            raise at.refuse(f"must be {self.allowed}, which only a mapping in Python can give, not a file")
        if not all(callable(getattr(raw, name, None)) for name in self.methods):
            raise self.wrong(raw, at)
        return raw

    def dump(self, value: object) -> object:
        return getattr(value, "__name__", type(value).__name__)


class Strategy(Kind[Callable[..., object]]):
    """A strategy of tenacity's. From Python only."""

    def __init__(self, what: str) -> None:
        self._object = _Python(f"a tenacity {what} strategy (a callable)", ("__call__",))
        self.allowed = self._object.allowed

    def parse(self, raw: object, at: Place) -> Callable[..., object]:
        made = self._object.parse(raw, at)
        assert callable(made)
        return made

    def dump(self, value: object) -> object:
        return self._object.dump(value)


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("no path of a URL")
    return text


def _grpc_service(text: str) -> str:
    if not text.isprintable():
        raise ValueError("no name of a service")
    return text


LISTENER = _Python("a pybreaker listener", ("before_call", "failure", "success", "state_change"))
STORAGE = _Python(
    "a pybreaker storage",
    ("increment_counter", "reset_counter", "increment_success_counter", "reset_success_counter"),
)


class _Client(_Python):
    """A client of Redis that blocks: it is used by a thread."""

    def __init__(self) -> None:
        super().__init__("a client of Redis (redis.Redis, not redis.asyncio)", ("pipeline",))

    def parse(self, raw: object, at: Place) -> object:
        made = super().parse(raw, at)
        if iscoroutinefunction(getattr(raw, "execute_command", None)):
            raise self.wrong(raw, at)
        return made


@dataclass(frozen=True, slots=True)
class RetryConfig(Section):
    """When and how an attempt is made again."""

    attempts: int = setting(Integer(1), "How many attempts in all; the first counts.", 2)
    on: tuple[str, ...] = setting(
        ListOf(Choice(*RETRY_ON), least=1),
        "What is tried again: Envoy's conditions, for gRPC the names of codes.",
        ("connect-failure", "refused-stream", "gateway-error", "unavailable"),
    )
    statuses: tuple[int, ...] = setting(
        ListOf(Integer(100, 599)),
        "Statuses that are tried again; implies `retriable-status-codes` in `on`.",
        (),
    )
    methods: tuple[str, ...] | None = setting(
        ListOf(METHOD),
        "Only these methods are tried again. Default: every one whose body can be replayed.",
        None,
    )
    per_try_timeout: float | None = setting(seconds(), "Seconds for one attempt.", None)
    budget: float | None = setting(
        Number(0),
        "Retries in flight, as a share of calls in flight (0.2 is 20 %). Default: no such limit.",
        None,
    )
    budget_min: int = setting(
        Integer(0), "So many retries in flight are always within the budget (Envoy: 3).", 3
    )
    backoff_base: float = setting(
        seconds(), "The first interval; full jitter from 0 up (Envoy: 25 ms).", 0.025
    )
    backoff_max: float | None = setting(seconds(), "The longest interval. Default: 10 times the first.", None)
    retry_after: float | None = setting(
        seconds(),
        "Waits as the answer's `retry-after` (or `retry-after-ms`, `x-ratelimit-reset`) says, if that is so many seconds at most; else the backoff"
        " holds.",
        None,
    )
    stop: Callable[..., object] | None = setting(
        Strategy("stop"), "Ends the retries, beside `attempts`. From Python only.", None
    )
    wait: Callable[..., object] | None = setting(
        Strategy("wait"), "Says how long to wait, instead of the backoff. From Python only.", None
    )

    retry: Callable[..., object] | None = setting(
        Strategy("retry"),
        "Says whether an attempt is made again, in the place of `on`. From Python only.",
        None,
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.backoff_max is not None and self.backoff_max < self.backoff_base:
            yield "backoff_max", f"must not be less than backoff_base ({self.backoff_base:g})"
        if "retriable-status-codes" in self.on and not self.statuses:
            yield "statuses", "is missing; retriable-status-codes in on needs it"


@dataclass(frozen=True, slots=True)
class HedgeConfig(Section):
    """Another attempt beside one that is slow, at another endpoint: the first good answer is taken, the other attempt is given up. It
    counts as a retry to budgets and limits; where there are none it has Envoy's budget: a fifth of the calls in flight, or 3.
    """

    after: float | str = required(
        SecondsOrShare(),
        'Seconds after which it is begun; "p95": as long as 95 of 100 first attempts took at most in the last minute.',
    )
    max: int = setting(Integer(2, 10), "Attempts in flight, the first included.", 2)
    methods: tuple[str, ...] | None = setting(
        ListOf(METHOD, least=1),
        "Only calls of these methods. Default: those that may be sent twice (DELETE, GET, HEAD, OPTIONS, PUT, TRACE). Of gRPC all are.",
        None,
    )


@dataclass(frozen=True, slots=True)
class BreakerConfig(Section):
    """Opens after failures in a row, or at a share of calls that fail or are slow, so that calls fail at once; later lets a few through
    to see.
    """

    consecutive_failures: int = setting(Integer(0), "So many failures in a row open it; 0: never.", 5)
    failure_rate: float | None = setting(
        Number(0, 1, above=True),
        "This share of the calls in the window failed (0.5 is half of them): it opens.",
        None,
    )
    slow_call: float | None = setting(seconds(), "A call that takes longer is slow.", None)
    slow_rate: float | None = setting(
        Number(0, 1, above=True), "This share of the calls in the window was slow: it opens.", None
    )
    window: int | str = setting(
        CallsOrSeconds(), "The last so many calls, or those of the last seconds.", 100
    )
    minimum: int = setting(Integer(1), "With fewer calls in the window no share opens it.", 20)
    scope: str = setting(
        Choice("service", "endpoint"),
        "What it is of: the service as a whole, or each endpoint by itself.",
        "service",
    )
    mode: str = setting(
        Choice("on", "observe", "off", "open"),
        "on; observe: it moves and tells, and refuses nothing; off: lets all through; open: refuses all.",
        "on",
    )
    open_for: float = setting(seconds(), "Seconds until it lets a call through to see.", 10.0)
    half_open_permits: int = setting(Integer(1), "How many calls may be on trial at a time.", 1)
    success_threshold: int = setting(Integer(1), "So many successes on trial close it.", 1)
    listeners: tuple[object, ...] = setting(
        ListOf(LISTENER), "pybreaker listeners that are told of changes. From Python only.", ()
    )
    storage: object | None = setting(
        STORAGE, "A pybreaker storage that keeps the state. From Python only.", None
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.slow_rate is not None and self.slow_call is None:
            yield "slow_call", "is missing; slow_rate needs it"
        if isinstance(self.window, int) and self.minimum > self.window:
            yield "minimum", f"must not be more than window ({self.window}): so many calls are never in it"
        if self.scope == "endpoint" and (self.listeners or self.storage is not None):
            yield "scope", "endpoint cannot stand beside listeners and storage, which are of one breaker"


@dataclass(frozen=True, slots=True)
class OutlierConfig(Section):
    """Takes an endpoint that fails out of the balance for a while."""

    consecutive_5xx: int = setting(
        Integer(0, U32), "So many 5xx or lost connections in a row eject; 0: never.", 5
    )
    consecutive_gateway: int = setting(Integer(0, U32), "So many 502, 503, 504 in a row eject; 0: never.", 0)
    success_rate: bool = setting(
        Boolean(),
        "Ejects whose share of good calls in an interval is far below that of the others: 1.9 standard deviations below"
        " the mean of at least 5 endpoints.",
        False,
    )
    failure_percentage: float | None = setting(
        Number(1, 100),
        "Ejects of whose calls in an interval this percentage failed.",
        None,
    )
    latency: float | None = setting(
        Number(1, above=True),
        "Ejects whose answers in an interval took more than so many times as long as those of the others (the median of their means).",
        None,
    )
    minimum_calls: int | None = setting(
        Integer(1, U32),
        "With fewer calls in an interval an endpoint is judged by none of the three. Default: 100 for success_rate, 50 for"
        " failure_percentage, 20 for latency.",
        None,
    )
    interval: float = setting(
        seconds(),
        "Seconds between the sweeps that judge the calls since the last and bring endpoints back.",
        10.0,
    )
    base_ejection: float = setting(
        seconds(), "Seconds of a first ejection; grows with each further one.", 30.0
    )
    max_ejection: float | None = setting(
        seconds(), "The longest ejection in seconds. Default: 300, or base_ejection if that is more.", None
    )
    max_ejection_percent: float = setting(
        Number(0, 100),
        "At most this percentage is out at a time, though one endpoint always may be; 0: none.",
        10.0,
    )

    def check(self) -> Iterator[tuple[str, str]]:
        if self.max_ejection is not None and self.max_ejection < self.base_ejection:
            yield "max_ejection", f"must not be less than base_ejection ({self.base_ejection:g})"


@dataclass(frozen=True, slots=True)
class HealthCheckConfig(Section):
    """Asks each endpoint again and again whether it can serve, while calls use the service. One of `path`, `grpc` and `tcp`."""

    path: str | None = setting(
        Text("a path, such as /healthz", _path),
        "GET this path: a status of 2xx is good; any other fails it at once.",
        None,
    )
    grpc: str | None = setting(
        Text("the name of a gRPC service", _grpc_service, any_text=True),
        'Ask `grpc.health.v1.Health` for this service; "" for the server as a whole. Needs `meshlib-client[http2]`.',
        None,
    )
    tcp: bool = setting(Boolean(), "It is enough that a connection is made.", False)
    interval: float = setting(seconds(), "Seconds from the end of a check to the next.", 5.0)
    timeout: float = setting(seconds(), "Seconds for a check.", 1.0)
    healthy: int = setting(
        Integer(1, U32),
        "So many good checks in a row bring an endpoint back; the first of all decides alone.",
        2,
    )
    unhealthy: int = setting(Integer(1, U32), "So many checks in a row without an answer take it out.", 3)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from only_one(self, "path", "grpc")
        if self.tcp and (self.path is not None or self.grpc is not None):
            yield "tcp", "cannot stand beside path and grpc"
        if not self.tcp and self.path is None and self.grpc is None:
            yield "", "must have one of path, grpc, tcp"


@dataclass(frozen=True, slots=True)
class LimitsConfig(Section):
    """How much may be in flight. What is not given has no limit."""

    max_connections: int | None = setting(
        Integer(1, U32), "Connections, over all endpoints; an endpoint may always have one.", None
    )
    max_requests: int | None = setting(Integer(1, U32), "Calls in flight.", None)
    max_pending: int | None = setting(
        Integer(0, U32),
        "Calls that have no connection yet: they wait for one, or open theirs. 0 lets through only what finds one idle.",
        None,
    )
    max_retries: int | None = setting(Integer(0, U32), "Retries in flight.", None)


@dataclass(frozen=True, slots=True)
class RouteLimitsConfig(Section):
    """How much may be in flight by a route. What is not given has no limit."""

    max_requests: int | None = setting(
        Integer(1, U32), "Calls in flight, those that wait for their next attempt among them.", None
    )


@dataclass(frozen=True, slots=True)
class RateLimitConfig(Section):
    """A token bucket."""

    rate: float = required(Number(0, above=True), "So many calls.")
    per: float = setting(seconds(), "In so many seconds.", 1.0)
    burst: int | None = setting(
        Integer(1), "So many of them at once. Default: as many as rate, at least 1.", None
    )
    storage: object | None = setting(
        _Client(),
        "A client of Redis: all processes that have it share the limit. While it does not answer, each has its own. From Python only.",
        None,
    )
