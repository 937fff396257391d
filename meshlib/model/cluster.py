"""Clusters: a name, how its endpoints are found, and how they are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from meshlib.model.address import Address
from meshlib.model.endpoint import Assignment, Health
from meshlib.model.health import CheckedAt, HealthCheck
from meshlib.model.policy import (
    Adaptive,
    Balancing,
    Breaker,
    Limits,
    Outlier,
    RateLimit,
    ResponseMatch,
    RetryPolicy,
)
from meshlib.model.route import Mirror
from meshlib.model.tls import Tls, TlsMatch

__all__ = [
    "EYEBALLS",
    "CallPolicies",
    "Cluster",
    "Connecting",
    "Destination",
    "Discovery",
    "DnsTarget",
    "Eyeballs",
    "Keepalive",
    "LoadReport",
    "NameServers",
    "Pings",
]


class Discovery(Enum):
    """Where a cluster's endpoints come from."""

    STATIC = "static"
    EDS = "eds"
    STRICT_DNS = "strict_dns"
    LOGICAL_DNS = "logical_dns"
    SRV = "srv"
    ORIGINAL_DST = "original_dst"
    AGGREGATE = "aggregate"


@dataclass(frozen=True, slots=True)
class DnsTarget:
    """A name to resolve. ``port`` is 0 for SRV. ``group``: index of the assignment's locality that the answers fill;
    ``weight`` is what each answer gets there. ``refresh`` in seconds (Envoy ``dns_refresh_rate``, 5 s) is used where
    the answer's TTL is not to be respected. ``check``: how the health of what it leads to is asked for.
    """

    name: str
    port: int = 0
    group: int = 0
    weight: int = 1
    hostname: str = ""
    check: CheckedAt | None = None


@dataclass(frozen=True, slots=True)
class NameServers:
    """Who is asked for the names of a cluster, and how: ``addresses``, by default whom the process asks; over ``tcp`` only; with the
    system's list for ``search``; one after the other (``rotate``), and not always the first. A try takes at most ``timeout`` seconds, a
    look-up ``lifetime``; None: our own. ``routable``: addresses of a family are left out of which no interface of this machine has one.
    """

    addresses: tuple[Address, ...] = ()
    tcp: bool = False
    search: bool = True
    rotate: bool = False
    timeout: float | None = None
    lifetime: float | None = None
    routable: bool = False


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Envoy ``TcpKeepalive``, times in seconds; None: the system's own."""

    probes: int | None = None
    idle: int | None = None
    interval: int | None = None


@dataclass(frozen=True, slots=True)
class Eyeballs:
    """The order in which an endpoint's addresses are tried (Envoy ``HappyEyeballsConfig``): ``count`` of a family, and one of the other
    between them. It begins with ``first``, ``"v4"`` or ``"v6"``; ``""``: with the family of the first address.
    """

    first: str = ""
    count: int = 1


#: Envoy's default.
EYEBALLS = Eyeballs()


@dataclass(frozen=True, slots=True)
class Pings:
    """When a connection of HTTP/2 is asked whether its peer is there (Envoy ``KeepaliveSettings``). Times in seconds.

    Every ``interval``, None: never, to which a part up to ``jitter`` of it is added; and before a request, where the connection has
    carried none for ``idle``, None: not. It ends where nothing came for ``timeout``.
    """

    timeout: float
    interval: float | None = None
    jitter: float = 0.15
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class Connecting:
    """How connections are made, and how much of a response's head they read. ``sources``: addresses that they come from; the first of
    a family holds for that. ``socket_options``: level, name and value, in the numbers of Linux; ``source_options``: of each source those
    that take their place, None where it has none. ``eyeballs``: as said there. ``most_head``: bytes, ``most_lines``;
    None: our own bounds (60 KiB, 100), which are Envoy's. ``most_streams``: of HTTP/2, at once on a connection; None: 1,024.
    ``settings``: what is told of it beside our own, each a number and its value; ``pings``: how it is kept alive. Of HTTP/1.1
    ``proper_case``: each word of a header's name begins with a capital; ``whole_urls``: the target is the URL.
    """

    sources: tuple[str, ...] = ()
    keepalive: Keepalive | None = None
    socket_options: tuple[tuple[int, int, int], ...] = ()
    source_options: tuple[tuple[tuple[int, int, int], ...] | None, ...] = ()
    eyeballs: Eyeballs = EYEBALLS
    most_head: int | None = None
    most_lines: int | None = None
    most_streams: int | None = None
    settings: tuple[tuple[int, int], ...] = ()
    pings: Pings | None = None
    proper_case: bool = False
    whole_urls: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """Where calls of a pass-through cluster go, where not to their URL: to the address that ``header`` has, ``""``: to none; to ``port``
    in the place of their own, None: to theirs.
    """

    header: str = ""
    port: int | None = None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What calls to a cluster come to is reported to ``server``, the control plane that the cluster came from. ``metrics``: those of
    the endpoints' own that are summed (see `core.loads`).
    """

    server: str
    metrics: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CallPolicies:
    """What a cluster orders of the HTTP calls to it: it goes before what their routes and virtual hosts order. None, ``()``: theirs holds.
    ``errors``: the responses that count as errors of an endpoint, None: by their status.
    """

    retry: RetryPolicy | None = None
    mirrors: tuple[Mirror, ...] = ()
    errors: ResponseMatch | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """``assignment`` holds the endpoints: inline for STATIC, from EDS, or as DNS answered; None while nothing is known.
    For the DNS kinds the localities of ``assignment`` are the groups that ``dns`` fills. ``connect_timeout`` in
    seconds (Envoy default 5). ``dns_failure_refresh``: the first pause after a failure and the longest; ``dns_jitter``: at most so much
    is added to each pause; ``name_servers``: who is asked. ``unresolved``: what the resolver said of its names that have no address;
    ``unassigned``: why the control plane gave it nobody. ``children``: the clusters that an aggregate names; ``leaves``: those of them,
    and of the aggregates among them, that are no aggregates, in order, whether they are there or not. ``http2``: talk HTTP/2 (prior knowledge in plain text).
    ``token``: the file with the token that calls carry, over TLS only, ``""`` for none.
    ``stream_limit``: seconds that an attempt of an HTTP call may take, its response included. ``idle_timeout``: seconds after which an idle connection ends; ``max_connection_age``: after which one is replaced between two
    calls; ``max_requests_per_connection``: how many it carries at most.
    ``endpoint_breaker``: each endpoint has one of its own, beside the cluster's ``breaker``.
    ``rate_limit``: of calls to it by this process; over it they are answered 429. ``adaptive``: of those in flight. ``calls``: what it orders of calls beside. ``health_check``: how its endpoints are asked whether they can serve. ``auto_sni``: the name that is asked for by TLS is the request's
    host, or the value of its header ``auto_sni_header``; ``auto_san``: that name must be in the certificate.
    ``drains``: connections to an endpoint that fails its checks, or is ejected, take no other call (Envoy
    ``close_connections_on_host_health_failure``). ``destination``: of a pass-through cluster. ``ahead``: for each
    request so many connections to its endpoint are made (Envoy ``per_upstream_preconnect_ratio``). ``high_limits``: of calls of priority HIGH; ``high``: it is the cluster as those see it.
    ``override_statuses``: the health that an endpoint may have that is named for a call; None: not said. ``version``: under which the control plane sent it, "" where nobody did.
    """

    name: str
    discovery: Discovery = Discovery.STATIC
    assignment: Assignment | None = None
    eds_name: str = ""
    dns: tuple[DnsTarget, ...] = ()
    dns_refresh: float = 5.0
    respect_dns_ttl: bool = True
    dns_family: str = "auto"
    dns_failure_refresh: tuple[float, float] | None = None
    dns_jitter: float = 0.0
    name_servers: NameServers | None = None
    unresolved: str = ""
    unassigned: str = ""
    children: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    balancing: Balancing = field(default_factory=Balancing)
    connect_timeout: float | None = 5.0
    limits: Limits = field(default_factory=Limits)
    high_limits: Limits = field(default_factory=Limits)
    high: bool = False
    outlier: Outlier | None = None
    breaker: Breaker | None = None
    endpoint_breaker: Breaker | None = None
    tls: Tls | None = None
    tls_matches: tuple[TlsMatch, ...] = ()
    token: str = ""
    http2: bool = False
    auto_sni: bool = False
    auto_san: bool = False
    auto_sni_header: str = ""
    stream_limit: float | None = None
    idle_timeout: float | None = None
    max_connection_age: float | None = None
    max_requests_per_connection: int | None = None
    connecting: Connecting = Connecting()
    rate_limit: RateLimit | None = None
    adaptive: Adaptive | None = None
    calls: CallPolicies | None = None
    load_report: LoadReport | None = None
    drains: bool = False
    destination: Destination | None = None
    ahead: float = 1.0
    override_statuses: frozenset[Health] | None = None
    health_check: HealthCheck | None = None
    metadata: Mapping[str, Mapping[str, object]] = field(default_factory=dict, hash=False)
    version: str = field(default="", compare=False)
