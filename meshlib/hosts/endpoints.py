"""The endpoints that one client calls, over our own wire: which connection an attempt gets, and how it is sent there.

A pool belongs to an endpoint, to what the control plane demands of connections to it (its TLS context) and to what the URL
demands (TLS and the name to verify). When one of these changes, new calls use a new pool; the old one closes what is idle at
once and the rest as it comes back.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshlib.extras import INSTALL
from meshlib.hosts.tls import NONE, Made, Names, asked_of, is_rotated, mesh_context, names_of
from meshlib.pools import AsyncEndpointPool, EndpointPool, Pools, PoolSettings, is_usable
from meshlib.runtime.tls import rotations
from meshlib.wire.dial import Place, connect, source_of
from meshlib.wire.dial_async import connect_async
from meshlib.wire.errors import LocalProtocolError, ReadTimeout, UnsupportedProtocol, WireError, WriteTimeout
from meshlib.wire.heads import SIZES, Sizes
from meshlib.wire.message import Outgoing
from meshlib.wire.spelled import Spelling

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Hashable, Sequence

    from meshlib.core.attempt import Send
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.address import Address
    from meshlib.model.cluster import Cluster, Connecting
    from meshlib.model.endpoint import Endpoint
    from meshlib.model.tls import Tls
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["AsyncEndpoints", "Endpoints", "WireSettings", "place_to"]

P = TypeVar("P", EndpointPool[Any], AsyncEndpointPool[Any])
#: What connections depend on: the endpoint, where it is, what the mesh demands there and the material for it, and the names that are
#: asked for. Those of priority HIGH are kept apart, as their limits are.
_Key = tuple["LiveEndpoint", "Address", str, "Tls | None", "Made | None", bool, "Connecting", bool, Names]


#: Endpoints and names that are remembered, before all are looked for anew.
_MOST_FOUND = 16_384


@dataclass(frozen=True, slots=True)
class WireSettings:
    """What the application gave its client. ``ssl`` gives the context for ``https`` URLs, for HTTP/2 or not; ``pool``: limits,
    of one endpoint.
    """

    ssl: Callable[[bool], ssl.SSLContext]
    pool: PoolSettings
    http1: bool = True
    http2: bool = False
    local_address: str | None = None
    socket_options: tuple[Any, ...] = ()


class _Endpoints(Generic[P]):
    """What both kinds have in common: the pools, and what a connection to an endpoint is."""

    def __init__(self, runtime: Runtime, settings: WireSettings) -> None:
        self._runtime = runtime
        self._settings = settings
        self._pools: Pools[_Key, P] = Pools()
        # The pool that was found last for an endpoint and what its names depend on, as long as nothing of its key can have changed: looking
        # for it by its whole key costs more than the rest of it.
        self._found: dict[tuple[LiveEndpoint, Hashable], tuple[Endpoint, Cluster, P]] = {}
        self._view: object = None
        self._rotations = 0
        rotations.followers.add(self)
        runtime.clusters.holders.add(self)

    def rotated(self) -> None:
        """Material of TLS changed: close the idle connections that were made with the old."""
        self._pools.give_up(_is_stale)

    def failed(self, endpoint: LiveEndpoint) -> None:
        """Its health failed: end what is idle, and the rest once it comes back. On any thread."""
        self._pools.drop(endpoint)

    def _pool(self, attempt: Send, host: str) -> P:
        """The pool to ``attempt.endpoint``. ``host``: of an https URL, ``""`` of another. Raises TlsUnusable."""
        if self._runtime.view is not self._view or rotations.count != self._rotations:
            self._view, self._rotations = self._runtime.view, rotations.count
            self._pools.sweep(_is_stale)
            self._found.clear()
        endpoint, cluster = attempt.endpoint, attempt.upstream.cluster
        tls = endpoint.tls
        asked: Hashable = host if tls is None else asked_of(tls, attempt, host)
        if cluster.high:
            asked = asked, True
        found = self._found.get((endpoint, asked))
        if (
            found is not None
            and found[0] is endpoint.endpoint
            and found[1] is cluster
            and not found[2].closed
        ):
            return found[2]
        made = None
        names = Names(host) if host else NONE
        if tls is not None:
            names = names_of(tls, attempt, host)
            http2 = cluster.http2 or self._settings.http2
            made = mesh_context(
                self._runtime.worker, attempt.upstream, tls, http2=http2, named=bool(names.sans)
            )
        key = (
            endpoint,
            endpoint.address,
            endpoint.hostname,
            tls,
            made,
            cluster.http2,
            cluster.connecting,
            cluster.high,
            names,
        )
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools.put(key, partial(self._make, attempt, key))
        else:
            pool.configure(self._settings.pool.within(cluster))
        if len(self._found) >= _MOST_FOUND:
            self._found.clear()
        self._found[endpoint, asked] = endpoint.endpoint, cluster, pool
        return pool

    def _make(self, attempt: Send, key: _Key) -> P:
        cluster, settings = attempt.upstream.cluster, self._settings
        prior_knowledge = cluster.http2 or not settings.http1
        return self._open(
            self._place(attempt, key),
            attempt.upstream.connections_to(attempt.endpoint),
            settings.pool.within(cluster),
            multiplexed=prior_knowledge or (settings.http2 and key[-1] != NONE),
            gone=partial(_is_stale, key),
        )

    def _open(self, place: Place, limits: Any, settings: PoolSettings, **options: Any) -> P:
        raise NotImplementedError

    def _place(self, attempt: Send, key: _Key) -> Place:
        settings, cluster = self._settings, attempt.upstream.cluster
        _, address, _, tls, made, *_, names = key
        http2 = cluster.http2 or settings.http2
        if http2 and find_spec("h2") is None:
            text = f"cluster {cluster.name!r} wants HTTP/2, which needs h2: {INSTALL.format('http2')}"
            raise UnsupportedProtocol(text)
        context: ssl.SSLContext | None = None
        if made is not None:
            context = made[0]
        elif names.sni:
            context = settings.ssl(http2)
        http1 = not cluster.http2 and settings.http1
        others = partial(_others_of, attempt.endpoint)
        return place_to(address, cluster.connecting, tls, context, names, http1, http2, settings, others)


def place_to(
    address: Address,
    connecting: Connecting,
    tls: Tls | None,
    context: ssl.SSLContext | None,
    names: Names,
    http1: bool,
    http2: bool,
    settings: WireSettings | None = None,
    others: Callable[[], Sequence[Address]] | None = None,
) -> Place:
    """Where connections to ``address``, or to ``others`` of the same peer, go and how, as the mesh has it, and the application's
    ``settings``.
    """
    local = None if settings is None else settings.local_address
    return Place(
        host="" if address.unix else address.host,
        port=address.port or (443 if context is not None else 80),
        uds=address.host if address.unix else None,
        proxy=None if tls is None else tls.proxy,
        context=context,
        server_hostname=names.sni,
        names=names.sans,
        http1=http1,
        http2=http2,
        local_address=local,
        sources=connecting.sources,
        others=others,
        orders=_orders(connecting, bound=local is not None),
        socket_options=() if settings is None else settings.socket_options,
        eyeballs=connecting.eyeballs,
        keepalive=connecting.keepalive,
        sizes=_sizes(connecting),
        spelling=Spelling(connecting.proper_case, connecting.whole_urls) if _is_spelled(connecting) else None,
        settings=connecting.settings,
        pings=connecting.pings,
    )


def _is_spelled(connecting: Connecting) -> bool:
    return connecting.proper_case or connecting.whole_urls


#: Levels of options that a socket of a family has, beside its own.
_LEVELS = {
    socket.AF_UNIX: (),
    socket.AF_INET: (socket.IPPROTO_TCP, socket.IPPROTO_IP),
    socket.AF_INET6: (socket.IPPROTO_TCP, socket.IPPROTO_IPV6),
}


def _orders(connecting: Connecting, *, bound: bool) -> dict[int, tuple[tuple[int, int, int], ...]]:
    """By family what a socket is told. The numbers are those of Linux. ``bound``: it comes from an address of the application's."""
    if not (connecting.socket_options or connecting.source_options) or not sys.platform.startswith("linux"):
        return {}
    orders: dict[int, tuple[tuple[int, int, int], ...]] = {}
    for family, levels in _LEVELS.items():
        options = connecting.socket_options
        source = None if bound or family == socket.AF_UNIX else source_of(connecting.sources, family)
        if source is not None and connecting.source_options:
            own = connecting.source_options[connecting.sources.index(source)]
            options = options if own is None else own
        orders[family] = tuple(one for one in options if one[0] == socket.SOL_SOCKET or one[0] in levels)
    return orders


def _others_of(endpoint: LiveEndpoint) -> tuple[Address, ...]:
    """Its further addresses, as they are when a connection is made: DNS may tell others any time."""
    return endpoint.endpoint.additional_addresses


def _sizes(connecting: Connecting) -> Sizes:
    head, lines, streams = connecting.most_head, connecting.most_lines, connecting.most_streams
    if head is None and lines is None and streams is None:
        return SIZES
    # Fewer streams than ours are what is asked for; more would take longer each.
    most = min(streams or SIZES.streams, SIZES.streams)
    return replace(SIZES, head=head or SIZES.head, lines=lines or SIZES.lines, streams=most)


class Endpoints(_Endpoints[EndpointPool[Any]]):
    """For blocking callers, of one process. Thread-safe. ``dial`` makes the connections."""

    def __init__(
        self, runtime: Runtime, settings: WireSettings, dial: Callable[[Place, Bounds], Any] = connect
    ) -> None:
        super().__init__(runtime, settings)
        self._dial = dial

    def open(self, request: Outgoing, attempt: Send, name: str, bounds: Bounds) -> Any:
        """One attempt up to its response's head, as :class:`meshlib.wire.connection.Incoming`. Raises what the wire and the
        pools raise. ``name`` as for the pool.
        """
        pool = self._pool(attempt, name)
        while True:
            connection = pool.acquire(bounds)
            try:
                incoming = connection.send(request, bounds)
            except BaseException as error:
                again = _ended_unseen(connection, bounds, error)
                pool.release(connection)
                if again:
                    continue
                raise
            incoming.on_end = partial(pool.release, connection)
            incoming.on_lost = partial(pool.abandon, connection)
            return incoming

    def close(self) -> None:
        """Close what is idle now, and what is in use when it is done."""
        self._pools.close()

    def _open(self, place: Place, limits: Any, settings: PoolSettings, **options: Any) -> EndpointPool[Any]:
        runtime = self._runtime
        return EndpointPool(
            partial(self._dial, place), limits, settings, runtime.clock, worker=runtime.worker, **options
        )


class AsyncEndpoints(_Endpoints[AsyncEndpointPool[Any]]):
    """For the tasks of one event loop."""

    async def open(self, request: Outgoing, attempt: Send, name: str, bounds: Bounds) -> Any:
        """As ``Endpoints.open``."""
        pool = self._pool(attempt, name)
        while True:
            connection = await pool.acquire(bounds)
            try:
                incoming = await connection.send(request, bounds)
            except BaseException as error:
                again = _ended_unseen(connection, bounds, error)
                pool.release(connection)
                if again:
                    continue
                raise
            incoming.on_end = partial(pool.release, connection)
            incoming.on_lost = partial(pool.abandon, connection)
            return incoming

    async def aclose(self) -> None:
        """As ``Endpoints.close``."""
        self._pools.close()

    def _open(
        self, place: Place, limits: Any, settings: PoolSettings, **options: Any
    ) -> AsyncEndpointPool[Any]:
        return AsyncEndpointPool(
            partial(connect_async, place),
            limits,
            settings,
            self._runtime.clock,
            worker=self._runtime.worker,
            **options,
        )


def _ended_unseen(connection: Any, bounds: Bounds, error: BaseException) -> bool:
    """Whether this is a kept connection that its peer ended meanwhile: nothing was sent, so another one takes the request.
    What is wrong with the request is wrong on every connection, and a time that is over is over.
    """
    ours = isinstance(error, LocalProtocolError | ReadTimeout | WriteTimeout)
    ended = isinstance(error, WireError) and not ours and not is_usable(connection)
    return ended and connection.used and not bounds.sent


def _is_stale(key: _Key) -> bool:
    """Whether no new call will use its pool."""
    endpoint, address, hostname, tls, made, *_ = key
    return (
        endpoint.gone
        or endpoint.tls is not tls
        or is_rotated(made)
        or (endpoint.address is not address and endpoint.address != address)
        or endpoint.hostname != hostname
    )
