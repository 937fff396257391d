"""Connections made: names to addresses, addresses to sockets, TLS, and which protocol is spoken.

Addresses of a name are tried as RFC 8305 ("happy eyeballs") says: families take turns, the next address is tried when one
fails or has not answered for 250 ms, and the first that is connected wins.

The connect timeout bounds all of it, the TLS handshake included, as Envoy's does. Only what the system's resolver takes for a
name is not interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections import deque
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from meshlib.extras import needed
from meshlib.model.cluster import EYEBALLS, Eyeballs
from meshlib.wire.connection import Connection
from meshlib.wire.errors import ConnectError, ConnectTimeout, UnsupportedProtocol
from meshlib.wire.heads import SIZES, Sizes
from meshlib.wire.proxied import ask
from meshlib.wire.readable import waiting_poll
from meshlib.wire.stream import Stream
from meshlib.wire.stream_tls import Handshakes
from meshlib.wire.trace import traced

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from meshlib.model.address import Address as MeshAddress
    from meshlib.model.cluster import Keepalive, Pings
    from meshlib.pools.bounds import Bounds
    from meshlib.wire.multiplexed import Multiplexed
    from meshlib.wire.spelled import Spelling

__all__ = [
    "ATTEMPT_DELAY",
    "Place",
    "connect",
    "failed",
    "interleave",
    "open_stream",
    "opened",
    "prepared",
    "secured",
    "source_of",
    "speaks_http2",
    "unsupported_without_h2",
]

#: Seconds until the next address is tried (RFC 8305, 5: "Connection Attempt Delay").
ATTEMPT_DELAY = 0.25

Address = tuple[int, Any]

#: As `Eyeballs` names them.
_FAMILIES = {"v4": int(socket.AF_INET), "v6": int(socket.AF_INET6)}


@dataclass(frozen=True, slots=True)
class Place:
    """Where connections go and how.

    Attributes:
        host: A name or an IP address.
        port: Its port.
        uds: The path of a Unix socket, which goes before host and port.
        others: Gives further addresses of the same peer, where ``host`` is one.
        eyeballs: The order in which those are tried.
        proxy: Through whom connections to host and port go; None: nobody.
        context: TLS; None: plain text. It is changed for nobody else.
        server_hostname: The name that TLS asks for and checks; default: ``host``.
        names: Of which the certificate must have one, in the place of those of the mesh's context.
        http1: HTTP/1.1 may be spoken.
        http2: HTTP/2 may be. With both, ALPN decides, and in plain text it is HTTP/1.1; alone it is spoken by prior knowledge.
        local_address: The address that connections come from.
        sources: Where that is not said: addresses, of which the first of its family is a connection's; none of it: the first of all.
        orders: Arguments of ``setsockopt`` by the family of a socket, set before it connects.
        socket_options: Further ones, for sockets of any family, which come after those.
        keepalive: What the system's probes are to be; None: there are none.
        sizes: How much of a response's head is read.
        spelling: Of requests of HTTP/1.1; None: as they are.
        settings: What HTTP/2 tells the peer beside our own; ``pings``: how its connections are kept alive.
        handshakes: TLS sessions to be resumed, of this very place.
        hop: Where sockets are connected to: it, or the place of its proxy.
    """

    host: str
    port: int
    uds: str | None = None
    proxy: MeshAddress | None = None
    context: ssl.SSLContext | None = None
    server_hostname: str = ""
    names: tuple[str, ...] = ()
    http1: bool = True
    http2: bool = False
    local_address: str | None = None
    sources: tuple[str, ...] = ()
    orders: Mapping[int, tuple[tuple[int, int, int], ...]] = field(default_factory=dict, compare=False)
    socket_options: tuple[Any, ...] = ()
    others: Callable[[], Sequence[MeshAddress]] | None = field(default=None, compare=False)
    eyeballs: Eyeballs = EYEBALLS
    keepalive: Keepalive | None = None
    sizes: Sizes = SIZES
    spelling: Spelling | None = None
    settings: tuple[tuple[int, int], ...] = ()
    pings: Pings | None = None
    handshakes: Handshakes | None = field(init=False, compare=False, repr=False, default=None)
    hop: Place = field(init=False, compare=False, repr=False)
    _beyond: str = field(init=False, compare=False, repr=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "hop", self if self.proxy is None else self._proxy(self.proxy))
        if self.context is not None:
            offers = ["h2"] * self.http2 + ["http/1.1"] * self.http1
            object.__setattr__(self, "handshakes", Handshakes.of(self.context, offers, self.names))

    def _proxy(self, proxy: MeshAddress) -> Place:
        """The place of the proxy: bytes in the clear, to that address."""
        place = replace(
            self,
            host="" if proxy.unix else proxy.host,
            port=proxy.port,
            uds=proxy.host if proxy.unix else None,
            others=None,
            proxy=None,
            context=None,
            names=(),
        )
        object.__setattr__(place, "_beyond", f" (the proxy to {self})")
        return place

    @property
    def target(self) -> bytes:
        """What a proxy is asked for."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}".encode("ascii")

    def __str__(self) -> str:
        return f"{self.uds or f'{self.host}:{self.port}'}{self._beyond}"


def connect(
    place: Place, bounds: Bounds, trace: Callable[[str, dict[str, Any]], object] | None = None
) -> Connection | Multiplexed:
    """A connection to ``place``, ready for a request. Raises ConnectError, ConnectTimeout, UnsupportedProtocol."""
    stream = open_stream(place, bounds, trace)
    try:
        if not speaks_http2(place, stream.protocol):
            return Connection(stream, place.sizes, place.spelling)
        with unsupported_without_h2():
            from meshlib.wire.multiplexed import Multiplexed
        return Multiplexed(stream, place.sizes, place.settings, place.pings)
    except BaseException:
        stream.close()
        raise


def open_stream(
    place: Place, bounds: Bounds, trace: Callable[[str, dict[str, Any]], object] | None = None
) -> Stream:
    """A stream to ``place``, within TLS where that is demanded. Raises ConnectError, ConnectTimeout."""
    try:
        seconds = bounds.left("connect")
    except TimeoutError as error:
        raise ConnectTimeout(f"{place}: {error}") from error
    until = None if seconds is None else monotonic() + seconds
    hop = place.hop
    if trace is None:
        stream = _open(hop, bounds, until)
    else:
        step, info = opened(hop, seconds)
        stream = traced(trace, step, info, _open, hop, bounds, until)
    if hop is place and place.handshakes is None:
        return stream
    try:
        if hop is not place:
            ask(stream, str(hop), place.target, bounds, until)
            if place.handshakes is None:
                return stream
        step, info = secured(place, seconds)
        name = info["server_hostname"]
        left = None if until is None else max(0.0, until - monotonic())
        return traced(trace, step, info, stream.start_tls, place.handshakes, name, bounds, left)
    except BaseException:
        stream.close()
        raise


def opened(place: Place, timeout: float | None) -> tuple[str, dict[str, Any]]:
    """The step of opening a socket as a trace is told of it."""
    options = {"timeout": timeout, "socket_options": list(place.socket_options)}
    if place.uds is not None:
        return "connection.connect_unix_socket", {"path": place.uds, **options}
    where = {"host": place.host, "port": place.port, "local_address": place.local_address}
    return "connection.connect_tcp", {**where, **options}


def secured(place: Place, timeout: float | None) -> tuple[str, dict[str, Any]]:
    """The step of the TLS handshake, likewise."""
    name = place.server_hostname or place.host
    return "connection.start_tls", {"ssl_context": place.context, "server_hostname": name, "timeout": timeout}


def speaks_http2(place: Place, chosen: bytes | None) -> bool:
    """Whether a connection to ``place`` speaks HTTP/2, given what ALPN chose."""
    return place.http2 and (chosen == b"h2" or not place.http1)


@contextlib.contextmanager
def unsupported_without_h2() -> Iterator[None]:
    """Around the import of what h2 is needed for."""
    try:
        with needed("http2", "HTTP/2"):
            yield
    except ModuleNotFoundError as error:
        raise UnsupportedProtocol(str(error)) from error


def interleave(addresses: Iterable[Address], eyeballs: Eyeballs = EYEBALLS) -> list[Address]:
    """The addresses of a name as they are tried: in the resolver's order, but that families take turns (RFC 8305, 4), as ``eyeballs``
    says.
    """
    families: dict[int, deque[Address]] = {}
    first = _FAMILIES.get(eyeballs.first)
    if first is not None:
        families[first] = deque()
    for family, address in addresses:
        queue = families.setdefault(family, deque())
        if (family, address) not in queue:
            queue.append((family, address))
    ordered: list[Address] = []
    first = next(iter(families), None)
    while families:
        for family in list(families):
            queue = families[family]
            count = eyeballs.count if family == first else 1
            ordered += [queue.popleft() for _ in range(min(len(queue), count))]
            if not queue:
                del families[family]
    return ordered


def prepared(place: Place, family: int) -> socket.socket:
    """A socket that is not connected yet, with all that is asked of it. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if place.keepalive is not None:
                _keep_alive(sock, place.keepalive)
        for option in place.orders.get(family, ()):
            sock.setsockopt(*option)
        for option in place.socket_options:
            sock.setsockopt(*option)
        source = _source(place, family)
        if source is not None:
            sock.bind((source, 0))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _source(place: Place, family: int) -> str | None:
    """The address that a connection of this family comes from; None: the system's choice."""
    if family == socket.AF_UNIX:
        return None
    if place.local_address is not None or not place.sources:
        return place.local_address
    return source_of(place.sources, family)


def source_of(sources: Sequence[str], family: int) -> str | None:
    """Of the addresses that connections come from, that of a connection of this family; None: none is said."""
    six = family == socket.AF_INET6
    first = sources[0] if sources else None
    return next((source for source in sources if (":" in source) is six), first)


def _keep_alive(sock: socket.socket, keepalive: Keepalive) -> None:
    """Raises OSError."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))  # macOS has the other name
    for name, value in (
        (idle, keepalive.idle),
        (getattr(socket, "TCP_KEEPINTVL", None), keepalive.interval),
        (getattr(socket, "TCP_KEEPCNT", None), keepalive.probes),
    ):
        if name is not None and value is not None:
            sock.setsockopt(socket.IPPROTO_TCP, name, value)


def failed(place: Place, errors: list[OSError]) -> ConnectError:
    """What is said of a place of which no address could be connected."""
    words = "; ".join(dict.fromkeys(str(error) or type(error).__name__ for error in errors))
    return ConnectError(f"{place}: {words or 'the name has no address'}")


def _open(place: Place, bounds: Bounds, until: float | None) -> Stream:
    """A socket that is connected. Raises ConnectError, ConnectTimeout."""
    race = _Race(place, until)
    try:
        if place.uds is not None:
            addresses: list[Address] = [(socket.AF_UNIX, place.uds)]
        else:
            addresses = _addresses(place)
        with bounds.ringing(race.stop):
            race.run(addresses)
        if race.winner is None:
            raise failed(place, race.errors) from (race.errors[-1] if race.errors else None)
        stream = Stream(race.winner)
        race.winner = None
        return stream
    except TimeoutError as error:
        bounds.timed_out()
        raise ConnectTimeout(f"{place}: {error}") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that is none
        raise ConnectError(f"{place}: {error}") from error
    finally:
        race.end()


def numeric(place: Place) -> list[Address]:
    """The address that the place is named by, and its peer's others, as they are tried; empty where it has a name. An address is nobody's
    to resolve: event loops and gevent ask in one of a few threads, and grpc's calls may hold them all while they wait for this connection.
    """
    for family, empty in ((socket.AF_INET, ()), (socket.AF_INET6, (0, 0))):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, place.host)
            first = (family, (place.host, place.port, *empty))
            others = () if place.others is None else place.others()
            return [first] if not others else interleave((first, *map(_numeric, others)), place.eyeballs)
    return []


def _numeric(address: MeshAddress) -> Address:
    if address.unix:
        return socket.AF_UNIX, address.host
    six = ":" in address.host
    where = (address.host, address.port, 0, 0) if six else (address.host, address.port)
    return (socket.AF_INET6 if six else socket.AF_INET), where


def _addresses(place: Place) -> list[Address]:
    """Raises OSError, UnicodeError."""
    if known := numeric(place):
        return known
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    return interleave((family, address) for family, _, _, _, address in found)


class _Race:
    """Addresses of one place, tried until one is connected. ``stop`` may come from another thread."""

    def __init__(self, place: Place, until: float | None) -> None:
        self._place = place
        self._until = until
        self._poll = waiting_poll()
        self._pending: dict[int, socket.socket] = {}
        self._stopped = False
        self.errors: list[OSError] = []
        self.winner: socket.socket | None = None

    def run(self, addresses: list[Address]) -> None:
        """``winner`` is set after it, or ``errors`` tell why not. Raises TimeoutError."""
        waiting = deque(addresses)
        next_at = 0.0
        while self.winner is None and not self._stopped and (waiting or self._pending):
            now = monotonic()
            if waiting and (now >= next_at or not self._pending):
                self._begin(*waiting.popleft())
                next_at = now + ATTEMPT_DELAY
                continue
            if self._until is not None and now >= self._until:
                raise TimeoutError("not connected in time")
            ends = [end for end in (self._until, next_at if waiting else None) if end is not None]
            if self._settle(self._poll.poll((min(ends) - now) * 1000.0 if ends else None)):
                next_at = 0.0

    def _begin(self, family: int, address: Any) -> None:
        try:
            sock = prepared(self._place, family)
        except OSError as error:
            self.errors.append(error)
            return
        number = sock.fileno()
        self._pending[number] = sock
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            self._poll.register(number, select.POLLOUT)
        else:
            self._over(number, code)

    def _settle(self, events: list[tuple[int, int]]) -> bool:
        """Whether one has failed."""
        before = len(self.errors)
        for number, _ in events:
            self._poll.unregister(number)
            self._over(number, self._pending[number].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return len(self.errors) > before

    def _over(self, number: int, code: int) -> None:
        sock = self._pending.pop(number)
        if code:
            sock.close()
            self.errors.append(OSError(code, os.strerror(code)))
        elif self.winner is None:
            self.winner = sock
        else:
            sock.close()

    def stop(self) -> None:
        """Wake who waits for it."""
        self._stopped = True
        for sock in list(self._pending.values()):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def end(self) -> None:
        """Close all that nobody has."""
        for sock in (*self._pending.values(), *((self.winner,) if self.winner is not None else ())):
            sock.close()
