"""What a call is promised and where it stops: retries, timeouts, limits, breakers, ejection, balancing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from meshlib.model.subset import LB_SCOPE, Labels, Subsets, has_labels

if TYPE_CHECKING:
    from meshlib.model.match import HeaderMatch

__all__ = [
    "IDEMPOTENT",
    "Adaptive",
    "Aperture",
    "Balancer",
    "Balancing",
    "Breaker",
    "BreakerMode",
    "Elsewhere",
    "FailurePercentage",
    "Fault",
    "HashKind",
    "HashPolicy",
    "Hedge",
    "InternalRedirects",
    "Limits",
    "MatchKind",
    "Outlier",
    "PredicateKind",
    "RateLimit",
    "RedirectPredicate",
    "Reports",
    "ResponseMatch",
    "RetryBudget",
    "RetryPolicy",
    "RouteLimits",
    "SlowOutlier",
    "SlowStart",
    "SuccessRate",
    "ZoneAware",
]


class Balancer(Enum):
    """The picker inside one locality. Names as in a configuration file."""

    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    LEAST_REQUEST = "least_request"
    RING_HASH = "ring_hash"
    MAGLEV = "maglev"
    PEAK_EWMA = "peak_ewma"
    PICK_FIRST = "pick_first"
    ORCA = "orca"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``rate`` calls a second, and ``burst`` of them at once; where there is a ``storage`` (a client of Redis), by all processes that have
    it together.
    """

    rate: float
    burst: float
    storage: object | None = None


@dataclass(frozen=True, slots=True)
class Adaptive:
    """A limit of calls in flight that follows latency, from ``least`` to ``most``."""

    least: int = 4
    most: int = 1000


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to calls on purpose: of a million so many are delayed by ``delay`` seconds, and so many are answered with the status
    ``abort`` (or, of gRPC, ``abort_code``), after the delay where both hold. Each is drawn by itself (FI-01). ``…_by_header``: the call
    says it; its share is counted in ``…_unit`` of a million then. It is for calls to ``cluster``, ``""``: any, that have ``headers`` and come from one of ``nodes``, if there are any;
    ``most`` calls at most are delayed at a time. So many get their response with ``rate`` bytes a second, 0: as they come.
    """

    delay: float = 0.0
    delay_per_million: int = 0
    abort: int = 0
    abort_per_million: int = 0
    abort_code: int | None = None
    delay_by_header: bool = False
    abort_by_header: bool = False
    delay_unit: int = 10_000
    abort_unit: int = 10_000
    cluster: str = ""
    headers: tuple[HeaderMatch, ...] = ()
    nodes: frozenset[str] = frozenset()
    most: int | None = None
    rate: int = 0
    rate_per_million: int = 0
    rate_by_header: bool = False
    rate_unit: int = 10_000


@dataclass(frozen=True, slots=True)
class SlowStart:
    """An endpoint that is new gets its share within ``window`` seconds: ``aggression`` 1 evenly, above it sooner; ``least`` is the part
    that it has at once (Envoy: 1 and 10 %).
    """

    window: float
    aggression: float = 1.0
    least: float = 0.1


@dataclass(frozen=True, slots=True)
class Aperture:
    """Only some ``size`` of a priority's endpoints are called: of ``callers`` this one is the number ``caller``, from 0, and has its part of
    a circle (`meshlib.core.balance.aperture`); ``callers`` 0: a random subset (`meshlib.core.balance.subset`).
    """

    size: int
    caller: int = 0
    callers: int = 0


@dataclass(frozen=True, slots=True)
class ZoneAware:
    """Calls stay in the caller's locality as far as that can take them (`meshlib.core.zones`): ``percent`` of them, where there are
    ``minimum`` usable endpoints (Envoy: 100 and 6). ``force``: all stay while their locality has so many that are usable, 0: as it can
    take. ``by_weight``: localities count by the weights of their endpoints. ``fail_on_panic``: in a panic nobody is called.
    """

    percent: int = 100
    minimum: int = 6
    force: int = 0
    by_weight: bool = False
    fail_on_panic: bool = False


@dataclass(frozen=True, slots=True)
class Reports:
    """How endpoints' own reports of their load become weights (gRFC A58, ``ClientSideWeightedRoundRobin``). Times in seconds.

    ``blackout``: an endpoint's reports count once it has sent them for so long; ``expiry``: they count no more so long after the
    last; ``update``: weights are made anew so often; ``beside``: reports are asked for beside calls, this often; None: they come with
    the answers. ``penalty``: what the share of calls that fail adds to the utilization; ``names``: of the metrics that are a
    utilization, before ``application_utilization`` and the processor's.
    """

    blackout: float = 10.0
    expiry: float = 180.0
    update: float = 1.0
    beside: float | None = None
    penalty: float = 1.0
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Balancing:
    """``choice_count`` and ``active_request_bias`` are Envoy's (least_request; defaults 2 and 1.0), and so is ``full_scan``, which
    looks at all endpoints in the place of ``choice_count``;
    ``locality_weighted``: localities are drawn by their weights first; ``panic_threshold`` in percent (Envoy: 50),
    0 disables panic mode; ``endpoint_weights`` False: all endpoints count alike.

    Of ring_hash ``least_places``, ``most_places``, and whether ``murmur`` is the hash of the places; of maglev ``table_size``; of both
    ``hash_hostname``: endpoints are known by their hostnames, ``load_factor``: percent of its part that an endpoint may have in
    flight, 0: any, and ``hash_policy``, which goes before the route's. ``shuffled``: pick_first's order is drawn. ``reports``: how
    orca makes weights. ``slow_start``: of endpoints that are new. ``zones``: what is said of zone-aware routing,
    likewise. ``override_headers``: a request's headers that name endpoints which go before the balancer's choice, one after the other.
    ``subsets``: a call is for those of its labels; the rest holds in each. ``aperture``: so many endpoints are called at all.
    """

    kind: Balancer = Balancer.ROUND_ROBIN
    choice_count: int = 2
    active_request_bias: float = 1.0
    locality_weighted: bool = False
    panic_threshold: float = 50.0
    endpoint_weights: bool = True
    full_scan: bool = False
    least_places: int = 1024
    most_places: int = 8 * 1024 * 1024
    murmur: bool = False
    table_size: int = 65_537
    hash_hostname: bool = False
    load_factor: int = 0
    hash_policy: tuple[HashPolicy, ...] = ()
    shuffled: bool = False
    reports: Reports = Reports()
    slow_start: SlowStart | None = None
    zones: ZoneAware | None = None
    override_headers: tuple[str, ...] = ()
    subsets: Subsets | None = None
    aperture: Aperture | None = None

    @property
    def consistent(self) -> bool:
        """Whether a request's hash decides."""
        return self.kind is Balancer.RING_HASH or self.kind is Balancer.MAGLEV


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """At most ``percent`` of the calls in flight may be retries, though ``min_concurrency`` always may
    (Envoy ``RetryBudget``: 20 and 3).
    """

    percent: float = 20.0
    min_concurrency: int = 3


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where another attempt goes, beside that it takes an endpoint that was not tried: after each ``every`` attempts to other priorities, 0:
    wherever; to no canary (``canary`` under ``envoy.lb``); to none that has all of one of ``labels``.
    """

    every: int = 0
    canaries: bool = True
    labels: tuple[Labels, ...] = ()

    def omits(self, metadata: Mapping[str, Mapping[str, object]]) -> bool:
        """Whether an endpoint with these is not to be called, while there is another."""
        held = metadata.get(LB_SCOPE, {})
        if not self.canaries and held.get("canary") is True:
            return True
        return any(has_labels(held, labels, any_of_list=True) for labels in self.labels)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When and how an attempt is made again.

    ``on``: Envoy's condition tokens (``5xx``, ``gateway-error``, ``reset``, ``connect-failure``,
    ``retriable-4xx``, ``refused-stream``, ``retriable-status-codes``, ``retriable-headers``,
    ``envoy-ratelimited``, …), lower case. ``retries``: further attempts after the first (Envoy ``num_retries``,
    default 1). Intervals and timeouts in seconds; backoff is full jitter from ``base_interval`` (25 ms) to
    ``max_interval`` (10 × base), RT-04. ``methods`` None: every method. ``budget`` is the policy's own, beside the
    cluster's limits. ``stop``, ``wait`` and ``retry`` are tenacity strategies, used as calculators only: they are given a
    retry state and answer a truth value or seconds; ``retry`` takes the place of ``on``. ``avoid_previous``: another host first; ``elsewhere``: more of where it goes. Of a gRPC application's own policy:
    ``codes`` that are retried; ``multiplier``, by which its waits grow.
    """

    on: frozenset[str] = frozenset()
    retries: int = 1
    per_try_timeout: float | None = None
    per_try_idle_timeout: float | None = None
    base_interval: float = 0.025
    max_interval: float = 0.25
    statuses: frozenset[int] = frozenset()
    headers: tuple[HeaderMatch, ...] = ()
    request_headers: tuple[HeaderMatch, ...] = ()
    methods: frozenset[str] | None = None
    budget: RetryBudget | None = None
    avoid_previous: bool = True
    elsewhere: Elsewhere | None = None
    # (name, "seconds" | "unix_timestamp" | "seconds_or_unix_timestamp" | "milliseconds" | "retry_after"): RT-07; the last as RFC 9110, 10.2.3 has it
    reset_headers: tuple[tuple[str, str], ...] = ()
    max_reset_interval: float = 300.0
    stop: Callable[..., bool] | None = None
    wait: Callable[..., float] | None = None
    retry: Callable[..., bool] | None = None
    codes: frozenset[int] = frozenset()
    multiplier: float = 2.0


#: Methods that may be sent more than once (RFC 9110, 9.2.2).
IDEMPOTENT = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"))


@dataclass(frozen=True, slots=True)
class Hedge:
    """When another attempt is made beside one that is under way: the first good answer is the call's, and the others are given up.

    One of them says when. ``after``: so many seconds later; ``quantile``: later than this share of the first attempts to the cluster took
    lately; ``on_try_timeout`` (Envoy ``hedge_on_per_try_timeout``): when the retry policy's time for an attempt is over, which gives it
    up no more: what is made then is a retry.

    ``most``: attempts in flight, the first included; of ``on_try_timeout`` the retry policy's number holds. ``methods`` None: any. ``budget`` holds
    where neither a retry policy nor the cluster has one. ``codes``: what a gRPC call's other attempts are waited for (gRFC A6,
    ``nonFatalStatusCodes``); any other is the answer. ``own``: it is a gRPC application's own (``hedgingPolicy``), by A6 alone: such a code has the next
    attempt begun at once, and that may go where one was made.
    """

    after: float | None = None
    quantile: float | None = None
    on_try_timeout: bool = False
    most: int = 2
    methods: frozenset[str] | None = IDEMPOTENT
    budget: RetryBudget | None = RetryBudget()
    codes: frozenset[int] = frozenset((14,))
    own: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Envoy ``CircuitBreakers.Thresholds`` of priority DEFAULT (CB-03). None: no limit. ``max_connections_per_endpoint`` is of its
    ``per_host_thresholds``. ``grpc_connections``: so many a gRPC channel opens to an endpoint where neither that nor the application
    says: as many as gRPC has at most (gRFC A105).
    """

    max_connections: int | None = 1024
    max_pending: int | None = 1024
    max_requests: int | None = 1024
    max_retries: int | None = 3
    budget: RetryBudget | None = None
    max_connections_per_endpoint: int | None = None
    grpc_connections: int = 10

    @classmethod
    def unlimited(cls) -> Limits:
        """What a service of the configuration file has unless limits are written."""
        return cls(None, None, None, None)


class BreakerMode(Enum):
    """ON: it refuses while it is open. OBSERVE: it moves and tells, and refuses nothing. OFF: it lets all through, and counts nothing.
    OPEN: it refuses all.
    """

    ON = "on"
    OBSERVE = "observe"
    OFF = "off"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """Opens after ``consecutive_failures`` (0: never), or when of the calls in a window a share of ``failure_rate`` failed or one of
    ``slow_rate`` took longer than ``slow_call`` seconds, where there were ``minimum``. The window is the last ``window`` calls, or those
    of the last ``window_seconds``. It stays open ``open_for`` seconds, then lets ``half_open_permits`` calls
    probe at a time; ``success_threshold`` successes close it.
    ``listeners`` and ``storage`` are pybreaker's.
    """

    consecutive_failures: int = 5
    open_for: float = 10.0
    half_open_permits: int = 1
    success_threshold: int = 1
    listeners: tuple[object, ...] = ()
    storage: object | None = None
    failure_rate: float | None = None
    slow_call: float | None = None
    slow_rate: float | None = None
    window: int = 100
    window_seconds: float | None = None
    minimum: int = 20
    mode: BreakerMode = BreakerMode.ON


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """What holds for the calls of one route, beside the limits of their cluster. ``max_requests``: calls in flight, those that wait
    for their next attempt among them. ``breaker`` hears of each attempt; over ``rate_limit`` a call is answered 429.
    """

    breaker: Breaker | None = None
    max_requests: int | None = None
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class SuccessRate:
    """A host whose share of good calls in an interval is more than ``stdev_factor`` standard deviations (Envoy counts in
    thousandths) below the mean of all that had ``request_volume`` calls, where at least ``minimum_hosts`` had. Enforcing in
    percent; the second one is for failures of local origin where they are counted apart.
    """

    minimum_hosts: int = 5
    request_volume: int = 100
    stdev_factor: float = 1.9
    enforcing: int = 100
    enforcing_local_origin: int = 100


@dataclass(frozen=True, slots=True)
class FailurePercentage:
    """A host of whose calls in an interval ``threshold`` percent failed. The other fields are as in ``SuccessRate``."""

    threshold: float = 85.0
    minimum_hosts: int = 5
    request_volume: int = 50
    enforcing: int = 0
    enforcing_local_origin: int = 0


@dataclass(frozen=True, slots=True)
class SlowOutlier:
    """A host whose answers in an interval took, in the mean, more than ``factor`` times the median of the others' means, where it and at
    least one of them had ``request_volume`` answers.
    """

    factor: float
    request_volume: int = 20


@dataclass(frozen=True, slots=True)
class Outlier:
    """Envoy ``OutlierDetection`` (OD-01, OD-06). ``enforcing_*`` in percent, times in seconds.

    0 in ``consecutive_5xx`` or ``consecutive_gateway`` and None in ``success_rate``, ``failure_percentage`` or ``latency``, which no
    Envoy has, switch that detector off. ``uneject_by_check``: a check of its health that passes ends an ejection. What stands by default is what an empty message means: consecutive 5xx and success rate (OD-02).
    """

    consecutive_5xx: int = 5
    enforcing_5xx: int = 100
    consecutive_gateway: int = 5
    enforcing_gateway: int = 0
    interval: float = 10.0
    base_ejection: float = 30.0
    max_ejection: float = 300.0
    max_ejection_percent: float = 10.0
    jitter: float = 0.0
    split_local_origin: bool = False
    consecutive_local_origin: int = 5
    enforcing_local_origin: int = 100
    always_eject_one: bool = False
    success_rate: SuccessRate | None = SuccessRate()
    failure_percentage: FailurePercentage | None = None
    latency: SlowOutlier | None = None
    uneject_by_check: bool = True


class HashKind(Enum):
    HEADER = "header"
    COOKIE = "cookie"
    SOURCE_IP = "source_ip"
    QUERY = "query_parameter"
    FILTER_STATE = "filter_state"


@dataclass(frozen=True, slots=True)
class HashPolicy:
    """One entry of a route's hash policies (HP-01). ``ttl`` in seconds; with ``path`` and ``attributes`` it is of a cookie that is made."""

    kind: HashKind
    name: str = ""
    terminal: bool = False
    pattern: str = ""
    substitution: str = ""
    ttl: float | None = None
    path: str = ""
    attributes: tuple[tuple[str, str], ...] = ()


class MatchKind(Enum):
    """Of a :class:`ResponseMatch`: what of it counts."""

    EVERYTHING = "any_match"
    HEADERS = "http_response_headers_match"
    NOT = "not_match"
    ALL = "and_match"
    ANY = "or_match"


@dataclass(frozen=True, slots=True)
class ResponseMatch:
    """Envoy ``MatchPredicate``, of responses: ``headers`` of them must all hold, or what ``inner`` ones say; ``:status`` is a header."""

    kind: MatchKind
    inner: tuple[ResponseMatch, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()


class PredicateKind(Enum):
    """Of an internal redirect. PREVIOUS_ROUTES: a route leads to another once; SAFE_CROSS_SCHEME: never from TLS' absence into TLS;
    ALLOWED_ROUTES: to these alone.
    """

    PREVIOUS_ROUTES = "previous_routes"
    SAFE_CROSS_SCHEME = "safe_cross_scheme"
    ALLOWED_ROUTES = "allow_listed_routes"


@dataclass(frozen=True, slots=True)
class RedirectPredicate:
    """``routes``: the names that are allowed."""

    kind: PredicateKind
    routes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class InternalRedirects:
    """Envoy ``InternalRedirectPolicy``: a call follows as many responses as ``most`` of these ``statuses`` where every one of ``predicates``
    takes it, with the lines that responses have of the names ``copied``; ``cross_scheme``: also from http to https and back.
    """

    most: int = 1
    statuses: frozenset[int] = frozenset({302})
    predicates: tuple[RedirectPredicate, ...] = ()
    cross_scheme: bool = False
    copied: tuple[str, ...] = ()
