"""Listeners: the entry from which a call finds its routes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum

from meshlib.model.address import Address
from meshlib.model.edits import Mutation
from meshlib.model.limits import Admission, GlobalLimit, LocalLimit
from meshlib.model.matcher import Matcher
from meshlib.model.policy import Fault
from meshlib.model.replies import LocalReplies
from meshlib.model.route import RouteConfiguration
from meshlib.model.session import Session

__all__ = [
    "ChainMatch",
    "Discovered",
    "EscapedSlashes",
    "Extension",
    "FilterChain",
    "FilterKind",
    "HttpFilter",
    "HttpManager",
    "Listener",
    "ProxyStatus",
    "Source",
    "Underscores",
]


class EscapedSlashes(StrEnum):
    """Envoy ``PathWithEscapedSlashesAction``: what becomes of a path with an escaped slash or backslash."""

    KEEP = "keep"
    REJECT = "reject"
    REDIRECT = "redirect"
    FORWARD = "forward"


class Underscores(StrEnum):
    """Envoy ``HeadersWithUnderscoresAction``: what becomes of a request with an underscore in a header's name."""

    ALLOW = "allow"
    REJECT = "reject"
    DROP = "drop"


class FilterKind(StrEnum):
    """What a filter is to a client. GUARD: it decides who may pass, and it is not known how. NETWORK: a guard before the
    connection manager, which no route switches. FAULT: it injects faults. RATE_LIMIT: it limits rates. SESSION: it keeps
    sessions. OTHER: not honoured; a route configuration may put a guard into it.
    """

    ROUTER = "router"
    GUARD = "guard"
    NETWORK = "network"
    FAULT = "fault"
    SESSION = "session"
    RATE_LIMIT = "rate_limit"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Discovered:
    """How the configuration of a filter comes that comes by itself, under the filter's name: ``allowed`` are its types; ``default``:
    what the filter is where none comes, None for nothing.
    """

    allowed: frozenset[str]
    default: FilterKind | None = None


@dataclass(frozen=True, slots=True)
class Extension:
    """The configuration of a filter that came by itself: its ``type``, and what that makes of the filter; ``version`` as of others."""

    name: str
    type: str
    kind: FilterKind
    version: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """A filter of an HTTP connection manager that matters here. ``disabled``: until a route configuration enables it.
    ``discovered``: what it is may turn out to be something else. ``fault``: what a FAULT injects, ``session``: what a SESSION keeps,
    ``limit``: that of a RATE_LIMIT, where no place says otherwise.
    """

    name: str
    kind: FilterKind
    disabled: bool = False
    discovered: Discovered | None = None
    fault: Fault | None = None
    session: Session | None = None
    limit: LocalLimit | GlobalLimit | Admission | None = None


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """Envoy ``ProxyStatusConfig``: replies that tell of a failure say which in ``proxy-status`` (RFC 9209), and who says so: ``name``, the
    node's id, or else the listener's ``server_name``. ``details`` and ``flags``: what more they say; ``recommended``: their status is the RFC's.
    """

    name: str = ""
    node_id: bool = False
    details: bool = True
    flags: bool = True
    recommended: bool = False


@dataclass(frozen=True, slots=True)
class HttpManager:
    """``HttpConnectionManager``: ``routes`` inline, or the route configuration named ``route_name`` (linked into
    ``routes`` once it is known). Times in seconds; None: not set.

    ``most_head``: the bytes, ``most_lines``: the lines that the head of a request has at most.
    ``scheme``: every call counts as one of it. ``server_name``: what replies of the listener's own say in ``server``;
    ``keeps_server``: unless they say something already. ``user_agent``: calls say whose they are (``add_user_agent``). ``request_ids``: a call without an ``x-request-id`` gets one;
    ``tells_request_id``: responses have that of their call. ``via``: what is added to ``via`` of requests and responses; ``mutations``: of a request, before all
    else. ``internal``: networks as ``10.0.0.0/8``, calls from which are internal. Of its router: ``suppress_envoy_headers``: it adds none; of internal
    calls, ``strict_headers`` must be such as can be read, and ``respect_timeout``: ``x-envoy-expected-rq-timeout-ms`` takes the place of the route's timeout.
    """

    route_name: str = ""
    routes: RouteConfiguration | None = None
    filters: tuple[HttpFilter, ...] = ()
    max_stream_duration: float | None = None
    request_timeout: float | None = None
    stream_idle_timeout: float | None = None
    most_head: int | None = None
    most_lines: int | None = None
    strip_any_port: bool = False
    strip_matching_port: bool = False
    merge_slashes: bool = False
    normalize_path: bool = False
    escaped_slashes: EscapedSlashes = EscapedSlashes.KEEP
    underscores: Underscores = Underscores.ALLOW
    strip_trailing_dot: bool = False
    scheme: str = ""
    user_agent: bool = False
    request_ids: bool = False
    forwarded_port: bool = False
    server_name: str = ""
    keeps_server: bool = False
    local_replies: LocalReplies | None = None
    via: str = ""
    tells_request_id: bool = False
    proxy_status: ProxyStatus | None = None
    mutations: tuple[Mutation, ...] = ()
    internal: tuple[str, ...] = ()
    suppress_envoy_headers: bool = False
    strict_headers: tuple[str, ...] = ()
    respect_timeout: bool = False


class Source(Enum):
    """Envoy ``ConnectionSourceType``: from where a connection comes."""

    ANY = "any"
    SAME_IP_OR_LOOPBACK = "same_ip_or_loopback"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class ChainMatch:
    """``FilterChainMatch``: which connections a chain takes. ``prefixes`` as ``10.0.0.0/8``; ``server_names`` in lower case, a
    wildcard as ``.example.com``. ``unknown_source``: it demands an address or a port of the caller, and which a sidecar's caller
    would have is not known.
    """

    port: int | None = None
    prefixes: tuple[str, ...] = ()
    transport: str = ""
    protocols: tuple[str, ...] = ()
    server_names: tuple[str, ...] = ()
    source: Source = Source.ANY
    unknown_source: bool = False


@dataclass(frozen=True, slots=True)
class FilterChain:
    """One of ``http`` and ``tcp`` is set, if it ends a call at all. ``tcp``: what a chain of TCP is to an HTTP call: one route to its
    clusters, without a policy. ``default``: it takes what no other chain of its listener does, whatever ``match`` says. ``version``: under
    which the control plane sent it, "" where it came with its listener.
    """

    name: str = ""
    match: ChainMatch = field(default_factory=ChainMatch)
    http: HttpManager | None = None
    tcp: HttpManager | None = None
    default: bool = False
    version: str = field(default="", compare=False)

    @property
    def manager(self) -> HttpManager | None:
        """What is asked of a call that the chain takes."""
        return self.http if self.http is not None else self.tcp


@dataclass(frozen=True, slots=True)
class Listener:
    """Target view (``api`` True): one chain, no address that matters. Sidecar view: ``addresses`` are what an Envoy
    would bind, ``chains`` in order, the default chain last.

    ``from_file``: it stands for a service of a configuration file, whose routes have no timeout by default. ``virtual``: an Envoy does
    not bind its addresses (``bind_to_port``): what is redirected to another listener comes to it. ``redirected``: such another one, to
    which connections come that were made to any address (``use_original_dst``, or the listener filter). ``inspects_http``: it looks
    which protocol plain text is. ``matcher``: it chooses among the chains by their names, whatever they match. ``discovered``: those of them that come by
    themselves. ``unchosen``: which chain
    takes a connection cannot be told here, so that none does. ``version``:
    under which the control plane sent this, "" where nobody did.
    """

    name: str
    chains: tuple[FilterChain, ...] = ()
    addresses: tuple[Address, ...] = ()
    api: bool = False
    outbound: bool = True
    from_file: bool = False
    virtual: bool = False
    redirected: bool = False
    inspects_http: bool = False
    matcher: Matcher | None = None
    discovered: tuple[str, ...] = ()
    unchosen: bool = False
    version: str = field(default="", compare=False)

    @property
    def http(self) -> HttpManager | None:
        """The connection manager of the first chain that has one."""
        return next((chain.http for chain in self.chains if chain.http is not None), None)
