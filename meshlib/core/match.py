"""Route matching as Envoy does it, compiled: checklist VH, RM, HM.

:func:`compile_routes` runs once a configuration, off the request path; :meth:`CompiledRoutes.match` runs once a call, and
its cost does not grow with the number of virtual hosts, nor with the number of routes of which a path can tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from meshlib.core.conditions import Condition, compile_conditions
from meshlib.core.domains import DomainIndex, without_port
from meshlib.core.grpc_routes import for_grpc
from meshlib.core.hashing import RouteHash
from meshlib.core.lines import OF_THE_CONNECTION
from meshlib.core.paths import PathIndex, path_only, path_test, without_parameters
from meshlib.core.rewrite import RouteRewrite, compile_edits, compile_rewrite
from meshlib.core.strings import fold, wire
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.route import Redirect, Route

if TYPE_CHECKING:
    from meshlib.core.edits import EditSet
    from meshlib.model.call import Head
    from meshlib.model.route import FilterSwitch, RouteConfiguration, VirtualHost

__all__ = ["CompiledHost", "CompiledRoute", "CompiledRoutes", "Match", "compile_routes"]

_MILLION = 1_000_000
_EVERYTHING = RouteMatch(PathMatch(PathKind.PREFIX, ""))


class Match:
    """What a head was matched to. ``name`` is the route's own, or says where it stands (``"reviews/3"``)."""

    __slots__ = ("compiled", "config", "hash", "name", "route", "virtual_host")

    def __init__(
        self,
        virtual_host: VirtualHost,
        route: Route,
        config: RouteConfiguration,
        name: str,
        compiled: RouteRewrite,
    ) -> None:
        self.virtual_host = virtual_host
        self.route = route
        self.config = config
        self.name = name
        self.compiled = compiled
        self.hash = RouteHash(getattr(route.action, "hash_policy", ()))

    def __repr__(self) -> str:
        return f"Match({self.virtual_host.name!r}, {self.name!r})"


class CompiledRoute:
    """One route: what is left to test once the index named it, and what it gives."""

    __slots__ = ("conditions", "match", "path", "per_million", "tests")

    def __init__(self, route: Route, match: Match) -> None:
        self.path = path_test(route.match.path)
        self.per_million = route.match.per_million
        self.conditions: tuple[Condition, ...] = compile_conditions(route.match)
        self.tests = tuple(condition.test for condition in self.conditions)
        self.match = match


class CompiledHost:
    """One virtual host. Immutable; safe to share between threads."""

    __slots__ = ("_config", "_cut", "_index", "_levels", "_routes", "host")

    def __init__(self, host: VirtualHost, config: RouteConfiguration, config_edits: EditSet | None) -> None:
        self.host = host
        self._config = config
        self._cut = config.ignore_path_parameters
        self._levels = (compile_edits(host.edits), config_edits)
        self._routes = tuple(self._compile(route, number) for number, route in enumerate(host.routes))
        self._index = PathIndex([(route.match.path, _path_decides(route.match)) for route in host.routes])

    def _compile(self, route: Route, number: int) -> CompiledRoute:
        name = route.name or f"{self.host.name}/{number}"
        rewrite = compile_rewrite(route, self.host, self._config, self._levels)
        return CompiledRoute(route, Match(self.host, route, self._config, name, rewrite))

    @property
    def routes(self) -> tuple[CompiledRoute, ...]:
        return self._routes

    def find(self, head: Head, random: Callable[[], float]) -> Match | None:
        """The first route that matches (RM-01)."""
        if self.host.require_tls and (secured := self._secured(head)) is not None:
            return secured
        path = path_only(head.path)
        if self._cut:
            path = without_parameters(path)
        drawn: float | None = None
        for number in self._index.candidates(path):
            route = self._routes[number]
            if route.path is not None and not route.path(path):
                continue
            if route.per_million is not None:
                if drawn is None:
                    drawn = random() * _MILLION
                if drawn >= route.per_million:
                    continue
            for test in route.tests:
                if not test(head):
                    break
            else:
                return route.match
        return None

    def explain(self, head: Head, random: Callable[[], float], trace: list[str]) -> Match | None:
        """As :meth:`find`, telling of each candidate why it was passed over."""
        if self.host.require_tls and (secured := self._secured(head)) is not None:
            trace.append(f"virtual host {self.host.name} requires TLS ({self.host.require_tls})")
            return secured
        path = path_only(head.path)
        if self._cut:
            path = without_parameters(path)
        drawn: float | None = None
        for number in self._index.candidates(path):
            route = self._routes[number]
            if route.path is not None and not route.path(path):
                continue
            if route.per_million is not None and drawn is None:
                drawn = random() * _MILLION
            failed = _failed(route, head, drawn)
            where = f"route {route.match.name} ({_path_words(route.match.route.match.path)})"
            if not failed:
                trace.append(f"{where} matches")
                return route.match
            trace.append(f"{where} does not match: {failed}")
        trace.append(f"no route of virtual host {self.host.name} matches {head.path}")
        return None

    def _secured(self, head: Head) -> Match | None:
        """The redirect that ``require_tls`` orders. ``external``: our calls are the mesh's own, not external."""
        if self.host.require_tls != "all" or head.scheme == "https":
            return None
        route = Route(_EVERYTHING, Redirect(scheme="https", host=head.authority))
        name = f"{self.host.name}/require_tls"
        rewrite = compile_rewrite(route, self.host, self._config, (None, None))
        return Match(self.host, route, self._config, name, rewrite)


class CompiledRoutes:
    """A route configuration, ready to be asked. Immutable; safe to share between threads.

    ``guarded``: names of filters that some place makes into one that decides who may pass. ``internal_only``: names of headers that calls
    lose which are not internal.
    """

    __slots__ = ("_domains", "_grpc", "config", "guarded", "internal_only")

    def __init__(self, config: RouteConfiguration, give_way: Callable[[], object] = bool) -> None:
        self.config = config
        self._grpc: CompiledRoutes | None = None
        edits = compile_edits(config.edits)
        hosts = [CompiledHost(host, config, edits) for host in _each(config, give_way)]
        self._domains = DomainIndex(
            (domain, host)
            for host, written in zip(hosts, _each(config, give_way), strict=True)
            for domain in written.domains
        )
        names = frozenset(fold(wire(name)).encode("latin-1") for name in config.internal_only_headers)
        self.internal_only = names - OF_THE_CONNECTION - {b"host"}
        switches = _switches(config, give_way)
        self.guarded = frozenset(each.name for each in switches if each.on and each.guard)

    @property
    def grpc(self) -> CompiledRoutes:
        """The same for gRPC calls. Threads that come at once, before it is prepared, may each compile it."""
        found = self._grpc
        return found if found is not None else self.prepare_grpc()

    @property
    def of_grpc(self) -> bool:
        """Whether it is there: gRPC calls came, by this configuration or by those before."""
        return self._grpc is not None

    def prepare_grpc(self) -> CompiledRoutes:
        """Compile it for gRPC calls, unless that was done."""
        if self._grpc is None:
            self._grpc = CompiledRoutes(for_grpc(self.config))
        return self._grpc

    def names(self) -> Iterable[str]:
        """The domains that are whole names, in lower case."""
        return self._domains.names()

    def knows(self, authority: str) -> bool:
        """Whether a virtual host other than ``*`` is for this authority."""
        return self._domains.named(self._key(authority, None)) is not None

    def virtual_host(self, authority: str, port: int | None = None) -> CompiledHost | None:
        """The virtual host for this authority. ``port``: strip it from the authority if it is that (Envoy's
        ``strip_matching_host_port``).
        """
        return self._domains.find(self._key(authority, port))

    def match(self, head: Head, random: Callable[[], float], trace: list[str] | None = None) -> Match | None:
        """The route for ``head``, or None. ``random`` gives a float in [0, 1); it is asked at most once, when the first
        runtime fraction is reached: as in Envoy, all fractions of a call are held against one number.
        """
        host = self.virtual_host(head.authority)
        if trace is None:
            return host.find(head, random) if host is not None else None
        if host is None:
            trace.append(f"no virtual host of {self.config.name or 'the routes'} is for {head.authority}")
            return None
        trace.append(f"virtual host {host.host.name} is for {head.authority}")
        return host.explain(head, random, trace)

    def _key(self, authority: str, port: int | None) -> str:
        if self.config.ignore_port or (port is not None and authority.endswith(f":{port}")):
            return without_port(authority)
        return authority


def compile_routes(config: RouteConfiguration, give_way: Callable[[], object] = bool) -> CompiledRoutes:
    """The configuration compiled. Its values are already checked; an expression that is not RE2 raises ValueError. ``give_way`` is
    called at each virtual host.
    """
    return CompiledRoutes(config, give_way)


def _each(config: RouteConfiguration, give_way: Callable[[], object]) -> Iterator[VirtualHost]:
    """Its virtual hosts, of which there may be many."""
    for host in config.virtual_hosts:
        give_way()
        yield host


def _switches(config: RouteConfiguration, give_way: Callable[[], object]) -> Iterator[FilterSwitch]:
    yield from config.filters
    for host in _each(config, give_way):
        yield from host.filters
        for route in host.routes:
            yield from route.filters
            for share in route.shares:
                yield from share.filters


def _path_decides(match: RouteMatch) -> bool:
    always = match.per_million is None or match.per_million >= _MILLION
    return always and not (match.headers or match.query or match.grpc or match.cookies)


def _failed(route: CompiledRoute, head: Head, drawn: float | None) -> str:
    if route.per_million is not None and (drawn or 0.0) >= route.per_million:
        return f"it is for {route.per_million / 10_000:g} % of the calls, and this is none of them"
    return next((item.words for item in route.conditions if not item.test(head)), "")


def _path_words(path: PathMatch) -> str:
    if path.kind is PathKind.PREFIX and path.value in ("", "/"):
        return "every path"
    case = "" if path.case_sensitive or path.kind is PathKind.REGEX else ", case ignored"
    return f'{path.kind.value} "{path.value}"{case}'
