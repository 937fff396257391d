"""Listeners: the entry from which a call finds its routes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from meshlib.model.address import Address
from meshlib.model.route import RouteConfiguration

__all__ = ["ChainMatch", "FilterChain", "FilterKind", "HttpFilter", "HttpManager", "Listener"]


class FilterKind(StrEnum):
    """What a filter is to a client. GUARD: it decides who may pass, and it is not known how. WRAPPER: it becomes a
    guard where a route configuration puts one into it. NETWORK: a guard before the connection manager, which no route
    switches.
    """

    ROUTER = "router"
    GUARD = "guard"
    WRAPPER = "wrapper"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """A filter of an HTTP connection manager that matters here. ``disabled``: until a route configuration enables it."""

    name: str
    kind: FilterKind
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class HttpManager:
    """``HttpConnectionManager``: ``routes`` inline, or the route configuration named ``route_name`` (linked into
    ``routes`` once it is known). Times in seconds; None: not set.
    """

    route_name: str = ""
    routes: RouteConfiguration | None = None
    filters: tuple[HttpFilter, ...] = ()
    max_stream_duration: float | None = None
    request_timeout: float | None = None
    strip_any_port: bool = False
    strip_matching_port: bool = False
    merge_slashes: bool = False
    normalize_path: bool = False


@dataclass(frozen=True, slots=True)
class ChainMatch:
    """``FilterChainMatch``, what a plain client's connection can be held against."""

    port: int | None = None
    prefixes: tuple[str, ...] = ()
    transport: str = ""
    protocols: tuple[str, ...] = ()
    server_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FilterChain:
    """``http`` is None for a chain of TCP; then ``tcp_cluster`` names where it goes."""

    name: str = ""
    match: ChainMatch = field(default_factory=ChainMatch)
    http: HttpManager | None = None
    tcp_cluster: str = ""


@dataclass(frozen=True, slots=True)
class Listener:
    """Target view (``api`` True): one chain, no address that matters. Sidecar view: ``addresses`` are what an Envoy
    would bind, ``chains`` in order, the default chain last. ``from_file``: it stands for a service of a
    configuration file, whose routes have no timeout by default.
    """

    name: str
    chains: tuple[FilterChain, ...] = ()
    addresses: tuple[Address, ...] = ()
    api: bool = False
    outbound: bool = True
    from_file: bool = False

    @property
    def http(self) -> HttpManager | None:
        """The connection manager of the first chain that has one."""
        return next((chain.http for chain in self.chains if chain.http is not None), None)
