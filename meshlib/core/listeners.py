"""Listeners that a control plane made for an Envoy, and which of them a URL leads to: rule 4 of what a URL means.

    URL                                      listener
    ---------------------------------------  -----------------------------------------------------------------------
    an address that one is at                that one; loopback also reaches one that is bound on every address
    a name, or an address                    one on the URL's port, a virtual host of which (not only ``*``) is for the Host
    a name, by TLS                           one on the URL's port a filter chain of which names it (``server_names``)
    another address, not loopback            one on every address of the URL's port that is not bound (``bind_to_port``
                                             false): whatever goes there is redirected to it
    the same                                 one on every address of the URL's port a filter chain of which names it
    the same                                 one to which connections are redirected (``use_original_dst``) a filter
                                             chain of which names it

Within a listener the call is of the filter chain that takes its connection (:mod:`meshlib.core.chains`, `meshlib.core.matched`). Where
none does, an Envoy would close the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from meshlib.core.chains import Chains, Connection, connection
from meshlib.core.departure import compile_departure
from meshlib.core.faults import faults_of
from meshlib.core.guards import guards_of
from meshlib.core.matched import MatchedChains
from meshlib.core.normalize import Entrance, stripped
from meshlib.core.replies import compile_replies
from meshlib.core.resolution import Resolution
from meshlib.core.router import compile_router
from meshlib.core.sessions import sessions_of
from meshlib.model.hosts import canonical_host, ip_of
from meshlib.model.listener import FilterKind

if TYPE_CHECKING:
    from meshlib.core.match import CompiledRoutes
    from meshlib.model.listener import HttpManager, Listener

__all__ = ["Entry", "Listeners"]

#: Every address, of each version of IP: what a listener says, nothing is bound.
_ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104


class Entry:
    """A listener with what is called through it; without ``routes`` they have not come yet."""

    __slots__ = (
        "departure",
        "entrance",
        "faults",
        "guards",
        "limits",
        "listener",
        "manager",
        "part",
        "replies",
        "router",
        "routes",
        "sessions",
    )

    def __init__(
        self,
        part: str,
        listener: Listener,
        manager: HttpManager,
        routes: CompiledRoutes | None,
        node: tuple[str, str],
    ) -> None:
        self.part = part
        self.listener = listener
        self.manager = manager
        self.routes = routes
        entrance = Entrance(manager, listener.addresses[0].port if listener.addresses else None, node)
        self.entrance = entrance if entrance.changes else None
        self.guards = guards_of(manager, routes.guarded if routes is not None else frozenset())
        self.faults = faults_of(manager)
        self.sessions = sessions_of(manager)
        self.limits = tuple(each for each in manager.filters if each.kind is FilterKind.RATE_LIMIT)
        self.replies = compile_replies(manager, node[1])
        self.departure = compile_departure(manager)
        self.router = compile_router(manager)

    def resolution(self, reason: str, name: str = "") -> Resolution:
        return Resolution(
            "mesh",
            reason,
            part=self.part,
            listener=self.listener,
            routes=self.routes,
            manager=self.manager,
            name=name,
            entrance=self.entrance,
            guards=self.guards,
            faults=self.faults,
            sessions=self.sessions,
            limits=self.limits,
            replies=self.replies,
            departure=self.departure,
            router=self.router,
        )

    def knows(self, authority: str, port: int) -> bool:
        """Whether a virtual host of it, other than ``*``, is for this authority."""
        return self.routes is not None and self.routes.knows(stripped(authority, self.manager, port))

    @property
    def lacks(self) -> str:
        """What of it has not come yet, in words."""
        name = self.manager.route_name
        named = f"route configuration {name}" if name else "the routes"
        return f"{named} of listener {self.listener.name} {'has' if name else 'have'} not come yet"


class _Reached:
    """A listener with its chains, compiled."""

    __slots__ = ("chains", "entries", "listener")

    def __init__(self, listener: Listener, entry: Callable[[HttpManager], Entry]) -> None:
        made = [
            (chain, entry(chain.manager) if chain.manager is not None else None) for chain in listener.chains
        ]
        self.listener = listener
        self.entries = tuple(each for _, each in made if each is not None)
        default = next((each for chain, each in made if chain.default), None)
        self.chains: Chains[Entry | None] | MatchedChains[Entry | None]
        if listener.matcher is not None:
            named = {chain.name: each for chain, each in made if not chain.default}
            self.chains = MatchedChains(named, listener.matcher, default)
        else:
            self.chains = Chains(((chain.match, each) for chain, each in made if not chain.default), default)

    def connection(self, scheme: str, host: str, port: int) -> Connection:
        return connection(scheme, host, port, inspects_http=self.listener.inspects_http)

    def is_at(self, host: str) -> bool:
        return any(address.host == host for address in self.listener.addresses if not address.unix)


class Listeners:
    """Filled with :meth:`add`, then only asked: safe to share between threads."""

    __slots__ = ("_addresses", "_ports", "_redirected")

    def __init__(self) -> None:
        self._addresses: dict[tuple[str, int], _Reached] = {}
        self._ports: dict[int, list[_Reached]] = {}
        self._redirected: list[_Reached] = []

    def add(self, listener: Listener, entry: Callable[[HttpManager], Entry]) -> None:
        """``entry`` makes what is called through a chain. A listener none of whose chains carries a call is none."""
        closes = listener.unchosen or listener.discovered
        if not listener.outbound or not (
            closes or any(chain.manager is not None for chain in listener.chains)
        ):
            return
        reached = _Reached(listener, entry)
        if listener.redirected:
            self._redirected.append(reached)
        for address in listener.addresses:
            if not address.unix:
                self._addresses.setdefault((canonical_host(address.host), address.port), reached)
                self._ports.setdefault(address.port, []).append(reached)

    def find(self, scheme: str, host: str, port: int, authority: str) -> tuple[Entry | None, str] | None:
        """What carries the call, and why, in words; ``(None, why)``: its listener takes no such connection. ``host`` is in its
        canonical form.
        """
        reached = self._at(host, port)
        if reached is not None:
            why = f"listener {reached.listener.name} has the URL's address"
            return self._taken(reached, reached.connection(scheme, host, port), why)
        return self._for_host(scheme, host, port, authority) or self._for_address(scheme, host, port)

    def _at(self, host: str, port: int) -> _Reached | None:
        for address in _addresses_of(host):
            reached = self._addresses.get((address, port))
            # Nobody redirects what stays on this machine.
            if reached is not None and not (reached.listener.virtual and address in _ANY.values()):
                return reached
        return None

    def _for_host(self, scheme: str, host: str, port: int, authority: str) -> tuple[Entry, str] | None:
        for reached in self._ports.get(port, ()):
            to = reached.connection(scheme, host, port)
            possible = reached.chains.possible(to) if to.address is None else (reached.chains.choose(to),)
            for entry in possible:
                if entry is not None and entry.knows(authority, port):
                    name = entry.listener.name
                    return entry, f"listener {name} is on port {port} and has a virtual host for {authority}"
        return self._for_server(scheme, host, port)

    def _for_server(self, scheme: str, host: str, port: int) -> tuple[Entry, str] | None:
        for reached in self._ports.get(port, ()):
            entry = reached.chains.with_name(reached.connection(scheme, host, port))
            if entry is not None:
                return entry, f"a filter chain of listener {reached.listener.name} is for {host} by TLS"
        return None

    def _for_address(self, scheme: str, host: str, port: int) -> tuple[Entry | None, str] | None:
        address = ip_of(host)
        if address is None or address.is_loopback:
            return None
        everywhere = [each for each in self._ports.get(port, ()) if each.is_at(_ANY[address.version])]
        for reached in everywhere:
            if reached.listener.virtual:
                why = f"what goes to port {port} is redirected to listener {reached.listener.name}"
                return self._taken(reached, reached.connection(scheme, host, port), why)
        for reached in (*everywhere, *self._redirected):
            entry = reached.chains.named(reached.connection(scheme, host, port))
            if entry is not None:
                return entry, f"a filter chain of listener {reached.listener.name} is for {host}"
        return None

    @staticmethod
    def _taken(reached: _Reached, to: Connection, why: str) -> tuple[Entry | None, str]:
        entry = reached.chains.choose(to)
        return entry, why if entry is not None else f"{why}, and none of its filter chains takes the call"

    def waiting(self, port: int) -> Entry | None:
        """One on this port whose routes have not come yet."""
        entries = (entry for reached in self._ports.get(port, ()) for entry in reached.entries)
        return next((entry for entry in entries if entry.routes is None), None)

    def names(self) -> Iterator[str]:
        """Every host that virtual hosts name whole."""
        for found in self._ports.values():
            for reached in found:
                for entry in reached.entries:
                    if entry.routes is not None:
                        yield from entry.routes.names()


def _addresses_of(host: str) -> tuple[str, ...]:
    """The addresses under which a listener may have what ``host`` spells. This machine's own loopback also reaches
    a listener on every address; another IP does not, for it may be somebody else's.
    """
    if host == "localhost":
        return "127.0.0.1", "::1", *_ANY.values()
    address = ip_of(host)
    if address is None:
        return ()
    return (str(address), *_ANY.values()) if address.is_loopback else (str(address),)
