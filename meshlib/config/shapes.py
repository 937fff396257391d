"""The configuration as a mapping, for type checkers: the keys of each table and what they take.

Made by scripts/config_schema.py from the fields of ``Config``; edits here are lost. What a value must be beyond its type
(bounds, names of hosts, what excludes what) is said when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Required, TypedDict

__all__ = [
    "AdaptiveDict", "AdminDict", "ApertureDict", "BreakerDict", "ConfigDict", "DnsDict",
    "EndpointDict", "FaultDict", "HashDict", "HeaderEditsDict", "HeaderMatchDict",
    "HealthCheckDict", "HedgeDict", "IdentityDict", "InboundDict", "LimitsDict", "MatchDict",
    "MirrorDict", "NodeDict", "OutlierDict", "QueryMatchDict", "RateLimitDict", "RedirectDict",
    "ResponseDict", "RetryDict", "RewriteDict", "RouteDict", "RouteLimitsDict", "ServiceDict",
    "ServiceTlsDict", "SessionDict", "SidecarDict", "SlowStartDict", "TelemetryDict", "TlsDict",
    "XdsDict", "ZoneAwareDict",
]  # fmt: skip


class NodeDict(TypedDict, total=False):
    """Who we are to the control plane."""

    id: str | None
    cluster: str | None
    region: str | None
    zone: str | None
    sub_zone: str | None
    metadata: Mapping[str, object]


class TlsDict(TypedDict, total=False):
    """TLS to the control plane; with cert and key, mutual."""

    ca: str | None
    cert: str | None
    key: str | None


class XdsDict(TypedDict, total=False):
    """The control plane. Without server and bootstrap there is none."""

    server: str | list[str] | tuple[str, ...] | None
    bootstrap: str | None
    bootstrap_config: str | None
    tls: TlsDict | None
    token: str | None
    options: Mapping[str, object]
    protocol: Literal["auto", "sotw", "delta", "fetch", "rest", "files"]
    path: str | None
    refresh: float
    api: Literal["v3", "v2"]
    streams: Literal["aggregated", "separate"] | None
    view: Literal["auto", "sidecar", "target"]
    domains: list[str] | tuple[str, ...]
    cold_start: Literal["direct", "fail"]
    last_good: str | None


class EndpointDict(TypedDict, total=False):
    """One endpoint. As text alone: its address."""

    address: Required[str]
    weight: int
    region: str | None
    zone: str | None
    sub_zone: str | None
    priority: int


class HashDict(TypedDict, total=False):
    """What of a request is hashed: one of these."""

    header: str | None
    cookie: str | None
    query: str | None


class SessionDict(TypedDict, total=False):
    """Calls of a session stay with the endpoint that its first call went to."""

    header: str | None
    cookie: str | None
    envelope: bool
    strict: bool | None
    status: int
    ttl: float | None
    path: str | None


class SlowStartDict(TypedDict, total=False):
    """How an endpoint that is new gets its share of the calls."""

    window: Required[float]
    aggression: float
    least: float


class RetryDict(TypedDict, total=False):
    """When and how an attempt is made again."""

    attempts: int
    on: Sequence[
        Literal[
            "5xx",
            "gateway-error",
            "reset",
            "reset-before-request",
            "connect-failure",
            "refused-stream",
            "retriable-4xx",
            "retriable-status-codes",
            "envoy-ratelimited",
            "cancelled",
            "deadline-exceeded",
            "internal",
            "resource-exhausted",
            "unavailable",
        ]
    ]
    statuses: Sequence[int]
    methods: list[str] | tuple[str, ...] | None
    per_try_timeout: float | None
    budget: float | None
    budget_min: int
    backoff_base: float
    backoff_max: float | None
    retry_after: float | None
    stop: Callable[..., object] | None
    wait: Callable[..., object] | None
    retry: Callable[..., object] | None


class HedgeDict(TypedDict, total=False):
    """Another attempt beside one that is slow, at another endpoint: the first good answer is taken, the other attempt is given up. It counts as a retry to budgets and limits; where there are none it has Envoy's budget: a fifth of the calls in flight, or 3."""

    after: Required[float | str]
    max: int
    methods: list[str] | tuple[str, ...] | None


class BreakerDict(TypedDict, total=False):
    """Opens after failures in a row, or at a share of calls that fail or are slow, so that calls fail at once; later lets a few through to see."""

    consecutive_failures: int
    failure_rate: float | None
    slow_call: float | None
    slow_rate: float | None
    window: int | str
    minimum: int
    scope: Literal["service", "endpoint"]
    mode: Literal["on", "observe", "off", "open"]
    open_for: float
    half_open_permits: int
    success_threshold: int
    listeners: Sequence[object]
    storage: object | None


class OutlierDict(TypedDict, total=False):
    """Takes an endpoint that fails out of the balance for a while."""

    consecutive_5xx: int
    consecutive_gateway: int
    success_rate: bool
    failure_percentage: float | None
    latency: float | None
    minimum_calls: int | None
    interval: float
    base_ejection: float
    max_ejection: float | None
    max_ejection_percent: float


class HealthCheckDict(TypedDict, total=False):
    """Asks each endpoint again and again whether it can serve, while calls use the service. One of `path`, `grpc` and `tcp`."""

    path: str | None
    grpc: str | None
    tcp: bool
    interval: float
    timeout: float
    healthy: int
    unhealthy: int


class LimitsDict(TypedDict, total=False):
    """How much may be in flight. What is not given has no limit."""

    max_connections: int | None
    max_requests: int | None
    max_pending: int | None
    max_retries: int | None


class ApertureDict(TypedDict, total=False):
    """Only some of a service's endpoints are called: which, each process draws by lot, or is told by its number among all."""

    size: int
    caller: int | None
    callers: int | None


class ZoneAwareDict(TypedDict, total=False):
    """Calls stay in our zone (`node.zone`, and region and sub_zone where they are told) as far as its endpoints can take them."""

    minimum: int
    force: bool


class RateLimitDict(TypedDict, total=False):
    """A token bucket."""

    rate: Required[float]
    per: float
    burst: int | None
    storage: object | None


class AdaptiveDict(TypedDict, total=False):
    """A limit of calls in flight that follows latency."""

    min: int
    max: int


class ServiceTlsDict(TypedDict, total=False):
    """TLS to the endpoints. An empty table: whom the system's roots know by the name."""

    ca: str | None
    cert: str | None
    key: str | None
    sni: str | None
    sans: list[str] | tuple[str, ...]


class HeaderMatchDict(TypedDict, total=False):
    """What a request header must be (several values are joined by a comma). As text alone: exactly that."""

    exact: str | None
    prefix: str | None
    suffix: str | None
    contains: str | None
    regex: str | None
    present: bool | None
    range: Sequence[int] | None
    ignore_case: bool
    invert: bool
    missing_as_empty: bool


class QueryMatchDict(TypedDict, total=False):
    """What the first value of a query parameter must be. As text alone: exactly that."""

    exact: str | None
    prefix: str | None
    suffix: str | None
    contains: str | None
    regex: str | None
    present: bool | None
    ignore_case: bool


class MatchDict(TypedDict, total=False):
    """Which calls a route is for. All that is given must hold; without a path every path does."""

    prefix: str | None
    path: str | None
    path_separated_prefix: str | None
    regex: str | None
    case_sensitive: bool
    methods: list[str] | tuple[str, ...] | None
    headers: Mapping[str, str | HeaderMatchDict]
    query: Mapping[str, str | QueryMatchDict]
    percent: float | None


class RedirectDict(TypedDict, total=False):
    """An answer that sends the caller elsewhere. What is not given stays as it was asked."""

    scheme: Literal["http", "https"] | None
    host: str | None
    port: int | None
    path: str | None
    prefix: str | None
    status: Literal[301, 302, 303, 307, 308]
    strip_query: bool


class ResponseDict(TypedDict, total=False):
    """An answer that is given without asking anybody."""

    status: Required[int]
    body: str
    content_type: str | None


class RouteLimitsDict(TypedDict, total=False):
    """How much may be in flight by a route. What is not given has no limit."""

    max_requests: int | None


class RewriteDict(TypedDict, total=False):
    """What arrives instead of what was asked. As text alone: its prefix."""

    prefix: str | None
    regex: str | None
    substitution: str | None
    host: str | None


class MirrorDict(TypedDict, total=False):
    """A service that gets calls, too. As text alone: the service, and all of them."""

    service: Required[str]
    percent: float


class FaultDict(TypedDict, total=False):
    """A delay, an answer, or both: the delay comes first. Each is drawn by itself."""

    delay: float | None
    abort: int | None
    percent: float


class HeaderEditsDict(TypedDict, total=False):
    """Changes of headers. Values are Envoy's format: %% is a percent sign."""

    set: Mapping[str, str]
    add: Mapping[str, str]
    remove: list[str] | tuple[str, ...]


class RouteDict(TypedDict, total=False):
    """A route: the first whose match holds is taken. Where it says nothing of a target, it is the service itself."""

    name: str | None
    match: MatchDict
    service: str | None
    split: Mapping[str, int] | None
    redirect: RedirectDict | None
    response: ResponseDict | None
    timeout: float | None
    idle_timeout: float | None
    retry: RetryDict | None
    breaker: BreakerDict | None
    limits: RouteLimitsDict | None
    rate_limit: RateLimitDict | None
    hedge: HedgeDict | None
    rewrite: str | RewriteDict | None
    mirror: str | MirrorDict | None
    fault: FaultDict | None
    request_headers: HeaderEditsDict
    response_headers: HeaderEditsDict


class ServiceDict(TypedDict, total=False):
    """A service without a control plane. Nothing but what is written here is done to its calls."""

    endpoints: Sequence[str | EndpointDict] | None
    dns: str | None
    srv: str | None
    balancer: Literal[
        "round_robin", "random", "least_request", "ring_hash", "maglev", "peak_ewma", "pick_first", "orca"
    ]
    hash: Sequence[HashDict]
    session: SessionDict | None
    slow_start: SlowStartDict | None
    timeout: float | None
    retry: RetryDict | None
    hedge: HedgeDict | None
    breaker: BreakerDict | None
    endpoint_breaker: BreakerDict | None
    outlier: OutlierDict | None
    health_check: HealthCheckDict | None
    limits: LimitsDict | None
    aperture: ApertureDict | None
    zone_aware: ZoneAwareDict | None
    rate_limit: RateLimitDict | None
    adaptive: AdaptiveDict | None
    max_connection_age: float | None
    tls: ServiceTlsDict | None
    token: str | None
    routes: Sequence[RouteDict]


class DnsDict(TypedDict, total=False):
    """The resolver of services with dns or srv."""

    nameservers: list[str] | tuple[str, ...]
    port: int
    min_ttl: float
    max_ttl: float


class IdentityDict(TypedDict, total=False):
    """Who we are to other workloads, where TLS is demanded."""

    provider: Literal["files", "istio", "spiffe"] | None
    server: str | None
    token: str | None
    socket: str | None
    cert: str | None
    key: str | None
    ca: str | None
    verify: Literal["when_told", "always"]


class SidecarDict(TypedDict, total=False):
    """Hand-off to a sidecar."""

    mode: Literal["off", "auto", "require", "istio", "linkerd", "consul", "kuma", "dapr", "kato", "envoy"]
    address: str | None
    start_window: float
    fallback: Literal["never", "when_allowed"]


class InboundDict(TypedDict, total=False):
    """What the middlewares for WSGI, ASGI, Django and Flask do beside handing on; all of it is off by default."""

    ready: str | None
    ready_for: list[str] | tuple[str, ...]
    max_requests: int | None
    reject_expired: bool
    access_log: Literal["off", "json", "envoy"]


class AdminDict(TypedDict, total=False):
    """The socket that `meshlib dump PID` reads, which only this user can open, and Envoy's client status service."""

    enabled: bool
    runtime_dir: str | None
    csds: str | None


class TelemetryDict(TypedDict, total=False):
    """What OpenTelemetry is told of beyond the default: what gRPC calls experimental, by gRPC's names (gRFC A79)."""

    metrics: Sequence[
        Literal[
            "grpc.xds_client", "grpc.lb.outlier_detection", "grpc.subchannel", "grpc.client.tls.handshakes"
        ]
    ]
    labels: Sequence[
        Literal["grpc.lb.locality", "grpc.lb.backend_service", "grpc.disconnect_error", "grpc.security_level"]
    ]


class ConfigDict(TypedDict, total=False):
    """All that an application says to meshlib."""

    node: NodeDict
    xds: XdsDict
    services: Mapping[str, ServiceDict]
    services_file: str | None
    bypass: list[str] | tuple[str, ...]
    unknown_hosts: Literal["direct", "refuse"]
    failures: Literal["raise", "respond"]
    spent_retries: Literal["silent", "tell"]
    retry_chains: Literal["stop", "go_on"]
    deadline_headers: Sequence[Literal["finagle", "linkerd"]]
    disabled: bool
    seed: int | None
    dns: DnsDict
    identity: IdentityDict
    sidecar: SidecarDict
    adoption: Mapping[str, str | None]
    inbound: InboundDict
    admin: AdminDict
    telemetry: TelemetryDict
