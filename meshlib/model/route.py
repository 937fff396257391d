"""Route configurations: virtual hosts and what their routes do.

These are the values that a control plane (or a file) means, already checked; ``core.match`` compiles them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from meshlib.model.body import BodyFormat
from meshlib.model.edits import NO_EDITS, Edit, EditAction, HeaderEdits, Mutation
from meshlib.model.limits import Admission, DescriptorRule, LimitOverride, LocalLimit
from meshlib.model.match import RouteMatch
from meshlib.model.policy import Fault, HashPolicy, Hedge, InternalRedirects, RetryPolicy, RouteLimits
from meshlib.model.session import Session
from meshlib.model.subset import NO_LABELS, Labels

__all__ = [
    "NO_EDITS",
    "Action",
    "ClusterWeight",
    "DirectResponse",
    "Edit",
    "EditAction",
    "FilterSwitch",
    "Forward",
    "HeaderEdits",
    "HostRewrite",
    "HostRewriteKind",
    "Mirror",
    "NonForwarding",
    "Redirect",
    "RegexRewrite",
    "Route",
    "RouteConfiguration",
    "VirtualHost",
]


@dataclass(frozen=True, slots=True)
class FilterSwitch:
    """One entry of ``typed_per_filter_config``: whether the filter of that name is in force here. ``guard``: what it is
    configured with here decides who may pass; ``fault``: it injects this; ``session``: it keeps this; ``limit``: it limits so.
    ``plain``: here it is only switched on, as it is.
    """

    name: str
    on: bool
    guard: bool = False
    fault: Fault | None = None
    session: Session | None = None
    plain: bool = False
    limit: LocalLimit | LimitOverride | Admission | None = None


@dataclass(frozen=True, slots=True)
class RegexRewrite:
    r"""Replace every match of an RE2 ``pattern`` by ``substitution`` (``\1`` groups)."""

    pattern: str
    substitution: str


class HostRewriteKind(Enum):
    LITERAL = "host_rewrite_literal"
    HEADER = "host_rewrite_header"
    PATH_REGEX = "host_rewrite_path_regex"
    AUTO = "auto_host_rewrite"


@dataclass(frozen=True, slots=True)
class HostRewrite:
    """``value``: the host, or the header's name; ``regex`` for PATH_REGEX. ``trusted``: who orders it may say what a gRPC call's
    authority is, too (gRFC A81).
    """

    kind: HostRewriteKind
    value: str = ""
    regex: RegexRewrite | None = None
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class ClusterWeight:
    """``cluster`` or, when empty, the cluster named by the request header ``cluster_header``. ``labels``: the route's with its own."""

    cluster: str
    weight: int
    edits: HeaderEdits = NO_EDITS
    host_rewrite: HostRewrite | None = None
    cluster_header: str = ""
    filters: tuple[FilterSwitch, ...] = ()
    labels: Labels = NO_LABELS


@dataclass(frozen=True, slots=True)
class Mirror:
    """Of a million calls so many (None: all) go to another cluster, too: ``cluster``, or the one that the header names (RW-04). Their host
    is ``host``, or the call's, with ``-shadow`` behind its name where that is to be. ``mutations``: of its headers alone.
    """

    cluster: str
    per_million: int | None = None
    cluster_header: str = ""
    append_shadow: bool = True
    host: str = ""
    mutations: tuple[Mutation, ...] = ()


@dataclass(frozen=True, slots=True)
class Forward:
    """``RouteAction``. Exactly one of ``cluster``, ``weighted`` and ``cluster_header`` is set.

    ``timeout`` in seconds: None where the configuration sets none (core applies the default of the view: 15 s for a
    control plane's route, none for a configuration file's), 0 switches it off (TO-02). ``grpc_timeout_offset``: so much earlier than its caller
    says a gRPC call ends for which there is a ``grpc_timeout_header_max``. ``labels``: for which subset of the cluster
    calls are (``metadata_match``).

    Which of ``weighted`` a call goes to is drawn, or said: by the number in the header ``share_header``, or by the hash of
    ``hash_policy`` (``share_by_hash``). ``high``: the limits of priority HIGH hold for its calls. ``redirects``: which responses are followed
    before the caller sees them; None: none.
    """

    cluster: str = ""
    weighted: tuple[ClusterWeight, ...] = ()
    cluster_header: str = ""
    prefix_rewrite: str = ""
    regex_rewrite: RegexRewrite | None = None
    host_rewrite: HostRewrite | None = None
    append_forwarded_host: bool = False
    timeout: float | None = None
    idle_timeout: float | None = None
    max_stream_duration: float | None = None
    grpc_timeout_header_max: float | None = None
    grpc_timeout_offset: float = 0.0
    retry: RetryPolicy | None = None
    hash_policy: tuple[HashPolicy, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    not_found_status: int = 503
    share_header: str = ""
    share_by_hash: bool = False
    fault: Fault | None = None
    hedge: Hedge | None = None
    labels: Labels = NO_LABELS
    limits: RouteLimits | None = None
    rate_limits: tuple[DescriptorRule, ...] = ()
    include_host_limits: bool = False
    high: bool = False
    redirects: InternalRedirects | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Envoy ``RedirectAction`` (RA-04). Empty or None: left as it was."""

    status: int = 301
    https: bool = False
    scheme: str = ""
    host: str = ""
    port: int | None = None
    path: str | None = None
    prefix_rewrite: str | None = None
    regex_rewrite: RegexRewrite | None = None
    strip_query: bool = False


@dataclass(frozen=True, slots=True)
class DirectResponse:
    status: int
    body: bytes = b""
    content_type: str = ""
    format: BodyFormat | None = None


@dataclass(frozen=True, slots=True)
class NonForwarding:
    """A route that only a server may use."""


Action = Forward | Redirect | DirectResponse | NonForwarding


@dataclass(frozen=True, slots=True)
class Route:
    """``body_limit``: a call whose body has more bytes is not made again; None: the virtual host's holds. ``metadata``: what of it the rules of
    rate limits ask for, by its path.
    """

    match: RouteMatch
    action: Action
    name: str = ""
    edits: HeaderEdits = NO_EDITS
    filters: tuple[FilterSwitch, ...] = ()
    body_limit: int | None = None
    metadata: tuple[tuple[tuple[str, ...], str], ...] = ()

    @property
    def shares(self) -> tuple[ClusterWeight, ...]:
        """Of a weighted split, else none."""
        return self.action.weighted if isinstance(self.action, Forward) else ()


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """``require_tls``: ``""``, ``"external"`` or ``"all"``. ``retry`` holds where the route has none (RT-01). ``adoption``: how far
    its services have joined, ``""`` where it does not say. ``version``: of the route configuration that it came with, where it is
    kept in a newer one. ``body_limit``: of routes that have none. ``tells_timeout_retries``: a retry says whether the attempt before took too long
    (``x-envoy-is-timeout-retry``).
    """

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...] = ()
    edits: HeaderEdits = NO_EDITS
    retry: RetryPolicy | None = None
    hash_policy: tuple[HashPolicy, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    include_attempt_count: bool = False
    attempt_count_in_response: bool = False
    tells_timeout_retries: bool = False
    require_tls: str = ""
    adoption: str = ""
    filters: tuple[FilterSwitch, ...] = ()
    rate_limits: tuple[DescriptorRule, ...] = ()
    body_limit: int | None = None
    version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class RouteConfiguration:
    """``validate_clusters`` False: routes may name clusters that are not there. ``version``: under which the control plane sent it,
    "" where it came inside a listener, or from elsewhere. ``internal_only_headers``: what calls lose that are not internal.
    """

    name: str
    virtual_hosts: tuple[VirtualHost, ...] = ()
    edits: HeaderEdits = NO_EDITS
    mirrors: tuple[Mirror, ...] = ()
    most_specific_wins: bool = False
    ignore_port: bool = False
    ignore_path_parameters: bool = False
    filters: tuple[FilterSwitch, ...] = ()
    validate_clusters: bool = True
    internal_only_headers: tuple[str, ...] = ()
    version: str = field(default="", compare=False)
