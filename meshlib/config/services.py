# ruff: noqa: RUF009  (a field is made by a function that knows what it allows)
"""What the configuration says of services: where they are, how they are called, where their routes send."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshlib.config.hosts import HostPort, check_host
from meshlib.config.identity import ServiceTlsConfig
from meshlib.config.kinds import Boolean, Choice, Filename, Integer, ListOf, MapOf, Number, Text, seconds
from meshlib.config.policies import (
    BreakerConfig,
    HealthCheckConfig,
    HedgeConfig,
    LimitsConfig,
    OutlierConfig,
    RateLimitConfig,
    RetryConfig,
)
from meshlib.config.routes import RouteConfig
from meshlib.config.section import Section, Table, only_one, required, setting
from meshlib.config.words import HEADER, PATH_ONLY, SERVICE, U32
from meshlib.model.address import Address

__all__ = [
    "SERVICES",
    "AdaptiveConfig",
    "ApertureConfig",
    "EndpointConfig",
    "HashConfig",
    "ServiceConfig",
    "SessionConfig",
    "SlowStartConfig",
    "ZoneAwareConfig",
]


def _cookie_name(text: str) -> str:
    if not text.isascii() or not text.isprintable() or set(' =;,"') & set(text):
        raise ValueError("no name of a cookie")
    return text


@dataclass(frozen=True, slots=True)
class EndpointConfig(Section):
    """One endpoint. As text alone: its address."""

    address: Address = required(HostPort(), "Where it listens.")
    weight: int = setting(Integer(1, U32), "Its share among the endpoints of its priority.", 1)
    region: str | None = setting(Text(), "Its region.", None)
    zone: str | None = setting(Text(), "Its zone.", None)
    sub_zone: str | None = setting(Text(), "Its part of the zone.", None)
    priority: int = setting(
        Integer(0, 127), "0 is called first; the next only as that fails (Envoy: up to 127).", 0
    )


@dataclass(frozen=True, slots=True)
class HashConfig(Section):
    """What of a request is hashed: one of these."""

    header: str | None = setting(HEADER, "The value of this header.", None)
    cookie: str | None = setting(
        Text("the name of a cookie", _cookie_name), "The value of this cookie.", None
    )
    query: str | None = setting(Text(), "The first value of this query parameter.", None)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from only_one(self, "header", "cookie", "query")
        if self.header is None and self.cookie is None and self.query is None:
            yield "", "must have one of header, cookie, query"


@dataclass(frozen=True, slots=True)
class SlowStartConfig(Section):
    """How an endpoint that is new gets its share of the calls."""

    window: float = required(seconds(), "Seconds until it has all of it.")
    aggression: float = setting(Number(0.01, 100.0), "1: evenly in that time; more: sooner.", 1.0)
    least: float = setting(Number(0.0, 1.0), "The part of its share that it has at once.", 0.1)


@dataclass(frozen=True, slots=True)
class ZoneAwareConfig(Section):
    """Calls stay in our zone (`node.zone`, and region and sub_zone where they are told) as far as its endpoints can take them."""

    minimum: int = setting(Integer(0), "With fewer usable endpoints in all zones no zone is preferred.", 1)
    force: bool = setting(
        Boolean(),
        "All calls stay while our zone has anybody usable, however few; else only what is its endpoints' share.",
        False,
    )


@dataclass(frozen=True, slots=True)
class ApertureConfig(Section):
    """Only some of a service's endpoints are called: which, each process draws by lot, or is told by its number among all."""

    size: int = setting(Integer(1), "So many endpoints of each priority, at least.", 12)
    caller: int | None = setting(Integer(0), "This process's number, from 0, each once.", None)
    callers: int | None = setting(Integer(1), "How many processes there are.", None)

    def check(self) -> Iterator[tuple[str, str]]:
        if (self.caller is None) is not (self.callers is None):
            yield ("callers" if self.callers is None else "caller"), "is missing: both are given, or none"
        elif self.caller is not None and self.callers is not None and self.caller >= self.callers:
            yield "caller", f"must be less than callers ({self.callers})"


@dataclass(frozen=True, slots=True)
class AdaptiveConfig(Section):
    """A limit of calls in flight that follows latency."""

    min: int = setting(Integer(1), "So many are always let through.", 4)
    max: int = setting(Integer(1), "More never are.", 1000)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.min > self.max:
            yield "min", f"must not be more than max ({self.max})"


@dataclass(frozen=True, slots=True)
class SessionConfig(Section):
    """Calls of a session stay with the endpoint that its first call went to."""

    header: str | None = setting(
        HEADER, "The header in which endpoints name a session, and calls say of which they are.", None
    )
    cookie: str | None = setting(
        Text("the name of a cookie", _cookie_name),
        "The cookie in which answers name the endpoint, in Envoy's form, and calls bring it back.",
        None,
    )
    envelope: bool = setting(
        Boolean(),
        "The address goes with the header's value, as Envoy's envelope does it, so that any process knows it. Default: this process"
        " remembers whose session it is, and the value is as the endpoint chose it.",
        default=False,
    )
    strict: bool | None = setting(
        Boolean(),
        "A session whose endpoint is gone goes to no other. Default: true for header, false for cookie.",
        None,
    )
    status: int = setting(
        Integer(400, 599),
        "What a call of such a session is answered. 404 has a client of MCP begin another.",
        404,
    )
    ttl: float | None = setting(
        seconds(),
        "Seconds after its last call for which a session is remembered; of a cookie, until its end. Default: a day; as long as"
        " the cookie's holder keeps it.",
        None,
    )
    path: str | None = setting(PATH_ONLY, "The paths that the cookie is for. Default: all.", None)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from only_one(self, "header", "cookie")
        if self.header is None and self.cookie is None:
            yield "", "must have one of header, cookie"
        if self.cookie is not None and self.envelope:
            yield "envelope", "is for header"
        if self.header is not None and self.path is not None:
            yield "path", "is for cookie"
        if self.envelope and self.ttl is not None:
            yield "ttl", "is not for envelope: nothing is remembered"


@dataclass(frozen=True, slots=True)
class ServiceConfig(Section):
    """A service without a control plane. Nothing but what is written here is done to its calls."""

    endpoints: tuple[EndpointConfig, ...] | None = setting(
        ListOf(Table(EndpointConfig, shorthand="address")), "Where it is.", None
    )
    dns: Address | None = setting(
        HostPort(unix=False), "A name and a port: every A and AAAA record is an endpoint.", None
    )
    srv: str | None = setting(
        Text("the name of an SRV record", check_host),
        "The name of SRV records: endpoints with weights, priorities.",
        None,
    )
    balancer: str = setting(
        Choice(
            "round_robin",
            "random",
            "least_request",
            "ring_hash",
            "maglev",
            "peak_ewma",
            "pick_first",
            "orca",
        ),
        "Who is next: in turn; by lot; the less busy of two; by a hash of the request, on a ring or in a table; the one of two that"
        " would be done sooner; always the first; in turn, by what endpoints say of their load.",
        "round_robin",
    )
    hash: tuple[HashConfig, ...] = setting(
        ListOf(Table(HashConfig)),
        "What of a request ring_hash and maglev go by: the first that is there. Default: nothing, so that each call goes by lot.",
        (),
    )
    session: SessionConfig | None = setting(
        Table(SessionConfig),
        "Which calls stay with the endpoint that the first of them went to. Default: none.",
        None,
    )
    slow_start: SlowStartConfig | None = setting(
        Table(SlowStartConfig),
        "How an endpoint that is new gets its share of the calls. Default: at once.",
        None,
    )
    timeout: float | None = setting(
        seconds(zero=True),
        "Seconds for the whole call with its retries; 0: none, as where it is not given.",
        None,
    )
    retry: RetryConfig | None = setting(Table(RetryConfig), "When a call is tried again.", None)
    hedge: HedgeConfig | None = setting(
        Table(HedgeConfig), "When a call is made a second time beside itself.", None
    )
    breaker: BreakerConfig | None = setting(Table(BreakerConfig), "When calls fail at once.", None)
    endpoint_breaker: BreakerConfig | None = setting(
        Table(BreakerConfig),
        "A breaker of each endpoint by itself, beside the service's own. Its numbers may be others.",
        None,
    )
    outlier: OutlierConfig | None = setting(Table(OutlierConfig), "When an endpoint is left out.", None)
    health_check: HealthCheckConfig | None = setting(
        Table(HealthCheckConfig),
        "How endpoints are asked whether they can serve. Default: they are not.",
        None,
    )
    limits: LimitsConfig | None = setting(Table(LimitsConfig), "How much may be in flight.", None)
    aperture: ApertureConfig | None = setting(
        Table(ApertureConfig), "Only so many endpoints are called. Default: all.", None
    )
    zone_aware: ZoneAwareConfig | None = setting(
        Table(ZoneAwareConfig),
        "Calls stay in our zone as far as it can take them. Default: zones do not matter.",
        None,
    )
    rate_limit: RateLimitConfig | None = setting(
        Table(RateLimitConfig),
        "How many calls this process makes to it in a time; more are answered 429.",
        None,
    )
    adaptive: AdaptiveConfig | None = setting(
        Table(AdaptiveConfig), "How many calls are in flight follows latency; more fail at once.", None
    )
    max_connection_age: float | None = setting(
        seconds(),
        "Seconds after which a connection is replaced, between two calls. Default: it lives as long as it is used.",
        None,
    )
    tls: ServiceTlsConfig | None = setting(
        Table(ServiceTlsConfig), "TLS to the endpoints. Default: plain text.", None
    )
    token: str | None = setting(
        Filename(),
        "A file with a token that calls carry as `authorization: Bearer`, read again at each use; over TLS only.",
        None,
    )
    routes: tuple[RouteConfig, ...] = setting(
        ListOf(Table(RouteConfig)),
        "Which calls go elsewhere; those that no route is for go to the endpoints.",
        (),
    )

    def check(self) -> Iterator[tuple[str, str]]:
        yield from only_one(self, "endpoints", "dns", "srv")
        own = self.endpoint_breaker
        if own is not None and (own.listeners or own.storage is not None):
            yield "endpoint_breaker", "cannot have listeners or storage, which are of one breaker"
        if own is not None and self.breaker is not None and self.breaker.scope == "endpoint":
            yield (
                "endpoint_breaker",
                'cannot stand beside a breaker whose scope is "endpoint": each endpoint has one',
            )
        if self.token is not None and self.tls is None:
            yield "token", "needs tls: without it everybody on the way could read it"
        if self.zone_aware is not None and self.balancer in ("ring_hash", "maglev", "pick_first"):
            yield "zone_aware", f'is not for balancer = "{self.balancer}", which looks at no zones'
        elif self.zone_aware is not None and not any(item.zone for item in self.endpoints or ()):
            yield "zone_aware", "needs endpoints with a zone"
        if self.hash and self.balancer not in ("ring_hash", "maglev"):
            yield "hash", f'is for balancer = "ring_hash" and "maglev", not for "{self.balancer}"'


SERVICES: MapOf[ServiceConfig] = MapOf(SERVICE, Table(ServiceConfig))
