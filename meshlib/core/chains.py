"""Which filter chain of a listener takes a call's connection, as Envoy decides it.

One rule after the other, and within each the most specific that there is: destination port, destination address (the longest
prefix), server name (whole, then the longest wildcard), transport, application protocol in the caller's order, source. What a
rule has chosen stands though a later one finds nothing there: then the listener's default chain takes it, or none.

A call has no connection to an Envoy, so what it would be is told by its URL (:func:`connection`). Where that has a name, its address is
not known: each chain that some address leads to may take it (:meth:`Chains.possible`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from meshlib.model.hosts import ip_of
from meshlib.model.listener import Source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshlib.model.listener import ChainMatch

__all__ = ["Chains", "Connection", "connection"]

T = TypeVar("T")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Connection:
    """What a listener would see of a connection. ``address`` None: a name leads there."""

    port: int
    address: _Address | None
    server_name: str
    transport: str
    protocols: tuple[str, ...]

    @property
    def source(self) -> Source:
        local = self.address is not None and self.address.is_loopback
        return Source.SAME_IP_OR_LOOPBACK if local else Source.EXTERNAL


def connection(scheme: str, host: str, port: int, *, inspects_http: bool) -> Connection:
    """The connection of a call to ``scheme://host:port``: what a caller without a mesh would open, as an Envoy reads it."""
    address = ipaddress.ip_address("127.0.0.1") if host == "localhost" else ip_of(host)
    if scheme in ("https", "wss"):
        return Connection(port, address, "" if ip_of(host) else host, "tls", ("http/1.1",))
    protocol = "h2c" if scheme == "grpc" else "http/1.1"
    return Connection(port, address, "", "raw_buffer", (protocol,) if inspects_http else ())


class _Chain(Generic[T]):
    """``value``: what is asked of a call that it takes."""

    __slots__ = ("match", "value")

    def __init__(self, match: ChainMatch, value: T) -> None:
        self.match = match
        self.value = value


class _Prefixes(Generic[T]):
    """The chains of one destination port, by destination address."""

    __slots__ = ("_any", "_by_network", "_lengths")

    def __init__(self, chains: Iterable[_Chain[T]]) -> None:
        self._any: list[_Chain[T]] = []
        self._by_network: dict[_Network, list[_Chain[T]]] = {}
        for chain in chains:
            if not chain.match.prefixes:
                self._any.append(chain)
            for prefix in chain.match.prefixes:
                self._by_network.setdefault(ipaddress.ip_network(prefix), []).append(chain)
        self._lengths = {
            version: sorted(
                {each.prefixlen for each in self._by_network if each.version == version}, reverse=True
            )
            for version in (4, 6)
        }

    def find(self, address: _Address | None) -> tuple[Sequence[_Chain[T]], bool]:
        """The chains of the longest prefix, and whether it tells this address from others."""
        if address is not None:
            for length in self._lengths[address.version]:
                found = self._by_network.get(ipaddress.ip_network((address, length), strict=False))
                if found is not None:
                    return found, length > 0
        return self._any, False

    def all(self) -> Iterator[Sequence[_Chain[T]]]:
        """The chains of each prefix; those without one first."""
        yield self._any
        yield from self._by_network.values()


class Chains(Generic[T]):
    """The chains of a listener, compiled: ``chains`` with what each leads to, ``default`` what else. Immutable."""

    __slots__ = ("_any_port", "_by_port", "default")

    def __init__(self, chains: Iterable[tuple[ChainMatch, T]], default: T | None = None) -> None:
        by_port: dict[int | None, list[_Chain[T]]] = {}
        for match, value in chains:
            by_port.setdefault(match.port, []).append(_Chain(match, value))
        self._any_port = _Prefixes(by_port.pop(None, ()))
        self._by_port = {port: _Prefixes(found) for port, found in by_port.items()}
        self.default = default

    def choose(self, to: Connection) -> T | None:
        """What the connection is taken to; None: nobody takes it, and an Envoy closes it."""
        found, _ = self._of_port(to).find(to.address)
        chosen = _narrowed(found, to)
        return self.default if chosen is None else chosen.value

    def named(self, to: Connection) -> T | None:
        """What the connection is taken to by a chain that names its address."""
        found, tells = self._of_port(to).find(to.address)
        chosen = _narrowed(found, to) if tells else None
        return None if chosen is None else chosen.value

    def possible(self, to: Connection) -> Iterator[T]:
        """What a connection may be taken to whose address is not known: without an address first, the default last."""
        for found in self._of_port(to).all():
            chosen = _narrowed(found, to)
            if chosen is not None:
                yield chosen.value
        if self.default is not None:
            yield self.default

    def with_name(self, to: Connection) -> T | None:
        """What a connection whose address is not known is taken to by a chain that names its server."""
        for found in self._of_port(to).all():
            chosen = _narrowed(found, to)
            if chosen is not None and chosen.match.server_names:
                return chosen.value
        return None

    def _of_port(self, to: Connection) -> _Prefixes[T]:
        return self._by_port.get(to.port, self._any_port)


def _narrowed(chains: Sequence[_Chain[T]], to: Connection) -> _Chain[T] | None:
    """The one of these, which a port and an address led to, that the rest of the rules leave."""
    left = _by_server_name(chains, to.server_name)
    left = [each for each in left if each.match.transport == to.transport] or [
        each for each in left if not each.match.transport
    ]
    left = _by_protocol(left, to.protocols)
    left = [each for each in left if not each.match.unknown_source]
    left = [each for each in left if each.match.source is to.source] or [
        each for each in left if each.match.source is Source.ANY
    ]
    return left[0] if left else None


def _by_server_name(chains: Sequence[_Chain[T]], name: str) -> Sequence[_Chain[T]]:
    if all(not each.match.server_names for each in chains):
        return chains
    wanted, at = name, 0
    while wanted:
        found = [each for each in chains if wanted in each.match.server_names]
        if found:
            return found
        at = name.find(".", at + 1)
        wanted = name[at:] if 0 < at < len(name) - 1 else ""
    return [each for each in chains if not each.match.server_names]


def _by_protocol(chains: Sequence[_Chain[T]], offered: tuple[str, ...]) -> Sequence[_Chain[T]]:
    for protocol in offered:
        found = [each for each in chains if protocol in each.match.protocols]
        if found:
            return found
    return [each for each in chains if not each.match.protocols]
