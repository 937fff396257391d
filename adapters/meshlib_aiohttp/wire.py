"""How the calls of one connector leave: to endpoints by pools of its own connections, and as they are by the connector itself."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from yarl import URL

from meshlib.hosts.runtime import bound
from meshlib.hosts.tls import Made, asked_of, is_rotated, mesh_context, names_of, rotations
from meshlib.pools import AsyncEndpointPool, Pools, PoolSettings
from meshlib.wire.stream_tls import Handshakes
from meshlib_aiohttp.connections import AcquiredConnection, PooledConnection, Slots, left_of
from meshlib_aiohttp.messages import apply, attempt_of, is_head_alone, response_of, written

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshlib.core.attempt import Send
    from meshlib.core.effects import Direct
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.address import Address
    from meshlib.model.call import Head
    from meshlib.model.cluster import Cluster
    from meshlib.model.tls import Tls
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime
    from meshlib_aiohttp.host import Asked

__all__ = ["AiohttpWire"]

#: What aiohttp itself sends once more after a broken connection (RFC 9110, 9.2.2).
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
#: Endpoints and names that are remembered, before all are looked for anew.
_MOST_FOUND = 16_384
#: What aiohttp speaks.
_SPOKEN = ("http/1.1",)
_Pool = AsyncEndpointPool[PooledConnection]
#: Endpoint, where it is, what the mesh demands of connections to it and the material for that, the TLS context, the name to ask for
#: (None: no TLS).
#: The last: calls of priority HIGH, whose limits are their own.
_Key = tuple["LiveEndpoint", "Address", "Tls | None", "Made | None", Any, str | None, tuple[str, ...], bool]

#: Whoever acquires a connection: its session's traces. A dial is made in the task whose turn it is.
_traces: ContextVar[Any] = ContextVar("meshlib_aiohttp_traces", default=())


class AiohttpWire:
    """Of one connector, in its event loop (:class:`meshlib.hosts.protocol.AsyncWire`)."""

    def __init__(self, connector: Callable[[], Any], runtime: Runtime) -> None:
        self._connector = connector
        self._runtime = runtime
        self._pools: Pools[_Key, _Pool] = Pools()
        self._ordered: dict[_Pool, Cluster] = {}  # by what its settings are, as long as the view is the same
        self._view: object = None
        # As of meshlib.hosts.endpoints, where the mesh demands TLS: to look for such a pool by its whole key costs more.
        self._found: dict[tuple[LiveEndpoint, Any], tuple[Any, Cluster, _Pool]] = {}
        self._rotations = 0
        rotations.followers.add(self)
        runtime.clusters.holders.add(self)
        found = connector()
        self._settings = PoolSettings(
            max_connections=found.limit_per_host or None,
            chosen=True,
            max_idle=0 if found.force_close else None,
            keepalive=found._keepalive_timeout,
        )
        #: Every connection ends with its request, which says so.
        self._ends = found.force_close
        self._slots = Slots(found.limit)
        self._open: set[Any] = set()

    async def send(self, asked: Asked, attempt: Send, bounds: Bounds) -> Any:
        request, head = asked.request, attempt.head
        alone = not self._ends and is_head_alone(request)
        while True:
            tried = request if alone else attempt_of(request, head)
            connection, used = await self._acquire(asked, attempt, bounds)
            if used and attempt.handed and connection.pooled.ended():
                connection.close()  # what is written on it would count as sent
                continue
            connection.pooled.bind(bounds)
            bounds.sent = True
            try:
                if alone:
                    return await _exchange(asked, connection, partial(_send_head, request, head))
                response = await _exchange(asked, connection, partial(type(tried).send, tried))
                response._request_info = request.request_info
                return response
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if not used or attempt.handed or not _is_sent_again(request):
                    raise
            await tried.close()  # the body's writer still holds what it reads from

    async def direct(self, asked: Asked, call: Direct, bounds: Bounds) -> Any:
        request = asked.request
        if call.head is None:
            return await _exchange(asked, await asked.connect(), partial(type(request).send, request))
        apply(request, call)
        asked.bounds = bounds
        within = bound(bounds.clock, left_of(bounds))
        try:
            async with within:
                connection = await asked.connect()
                bounds.sent = True
                return await _exchange(asked, connection, partial(type(request).send, request))
        except TimeoutError as error:
            if not within.expired():
                raise
            bounds.expired = True
            raise aiohttp.SocketTimeoutError("the deadline is over") from error

    async def discard(self, response: Any) -> None:
        try:
            if response.connection is not None:
                await asyncio.sleep(0)  # what is at hand is read
        finally:
            if response.connection is not None:
                response.close()
        await response.wait_for_close()

    def rotated(self) -> None:
        """Material of TLS changed: close the idle connections that were made with the old."""
        self._pools.give_up(_is_stale)

    def failed(self, endpoint: LiveEndpoint) -> None:
        """Its health failed: end what is idle, and the rest once it comes back. On any thread."""
        self._pools.drop(endpoint)

    def close(self) -> None:
        """Close what is idle now, and what is in use when it is done."""
        self._pools.close()

    async def aclose(self) -> None:
        self.close()
        await asyncio.sleep(0)  # transports end in the loop's next turn

    @property
    def protocols(self) -> set[Any]:
        """Connections that are open."""
        return {one for one in self._open if one.is_connected()}

    # --- connections --------------------------------------------------------------------------------------------------

    async def _acquire(self, asked: Asked, attempt: Send, bounds: Bounds) -> tuple[AcquiredConnection, bool]:
        """A connection to the endpoint, and whether it has carried a request before. Raises as ``AsyncEndpointPool.acquire``."""
        connector = self._connector()
        if connector is None or connector.closed:
            raise aiohttp.ClientConnectionError("Connector is closed.")
        pool = self._pool(attempt, asked.request)
        await self._slots.acquire(bounds)
        token = _traces.set(asked.traces) if asked.traces else None
        try:
            pooled = await pool.acquire(bounds)
        except BaseException:
            self._slots.release()
            raise
        finally:
            if token is not None:
                _traces.reset(token)
        connection = AcquiredConnection(connector, pool, pooled, self._slots)
        if asked.traces and pooled.used:
            try:
                for trace in asked.traces:
                    await trace.send_connection_reuseconn()
            except BaseException:
                connection.close()
                raise
        return connection, pooled.used

    def _pool(self, attempt: Send, request: Any) -> _Pool:
        if self._runtime.view is not self._view or rotations.count != self._rotations:
            self._view, self._rotations = self._runtime.view, rotations.count
            self._pools.sweep(_is_stale)
            self._ordered.clear()
            self._found.clear()
        endpoint, cluster = attempt.endpoint, attempt.upstream.cluster
        tls = endpoint.tls
        made = context = name = None
        sans: tuple[str, ...] = ()
        asked: Any = None
        if tls is not None:
            asked = asked_of(tls, attempt, request.url.raw_host), cluster.high
            found = self._found.get((endpoint, asked))
            if (
                found is not None
                and found[0] is endpoint.endpoint
                and found[1] is cluster
                and not found[2].closed
            ):
                return found[2]
            name, sans = names_of(tls, attempt, request.url.raw_host)
            made = mesh_context(self._runtime.worker, attempt.upstream, tls, named=bool(sans))
        elif request.is_ssl():
            context, name = request.ssl, request.server_hostname or request.url.raw_host
        key = (endpoint, endpoint.address, tls, made, context, name, sans, cluster.high)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools.put(key, partial(self._make, attempt, key))
            self._ordered[pool] = cluster
        elif self._ordered.get(pool) is not cluster:
            pool.configure(self._settings.within(cluster))
            self._ordered[pool] = cluster
        if asked is not None:
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            self._found[endpoint, asked] = endpoint.endpoint, cluster, pool
        return pool

    def _make(self, attempt: Send, key: _Key) -> _Pool:
        _, address, _, made, context, name, sans, _ = key
        if made is not None:
            context = Handshakes.of(made[0], _SPOKEN, sans)
        url = URL.build(
            scheme="http" if name is None else "https",
            host="localhost" if address.unix else address.host,
            port=address.port or (80 if name is None else 443),
        )
        request = aiohttp.ClientRequest(
            "GET",
            url,
            loop=asyncio.get_running_loop(),
            ssl=True if context is None else context,
            server_hostname=name,
        )
        return AsyncEndpointPool(
            partial(self._dial, request, address.host if address.unix else ""),
            attempt.upstream.connections_to(attempt.endpoint),
            self._settings.within(attempt.upstream.cluster),
            self._runtime.clock,
            gone=lambda: _is_stale(key),
            worker=self._runtime.worker,
        )

    async def _dial(self, request: Any, path: str, bounds: Bounds) -> PooledConnection:
        """A new connection. ``request``: what aiohttp reads of where to and how; ``path``: of a Unix socket."""
        connector, traces = self._connector(), _traces.get()
        try:
            (request.server_hostname or "").encode(
                "idna"
            )  # as ssl does, when asyncio has a socket that nobody would close
        except UnicodeError as error:
            words = f"the name {request.server_hostname!r} cannot be asked for: {error}"
            raise aiohttp.ClientConnectorError(request.connection_key, OSError(None, words)) from error
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=bounds.left("connect"))
        for trace in traces:
            await trace.send_connection_create_start()
        try:
            async with bound(bounds.clock, left_of(bounds) if bounds.alarmed else None):
                if path:
                    protocol = await _connect_unix(connector, request, path, timeout)
                else:
                    protocol = await connector._create_connection(request, list(traces), timeout)
        except TimeoutError as error:
            bounds.timed_out()
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {request.url}") from error
        self._keep(protocol)
        for trace in traces:
            await trace.send_connection_create_end()
        handshakes = request.ssl if isinstance(request.ssl, Handshakes) else None
        return PooledConnection(protocol, request.connection_key, self._runtime.clock, handshakes)

    def _keep(self, protocol: Any) -> None:
        """Know it as long as it is open."""
        lost, kept = protocol.connection_lost, self._open

        def connection_lost(error: BaseException | None) -> None:
            del protocol.connection_lost
            kept.discard(protocol)
            lost(error)

        protocol.connection_lost = connection_lost
        kept.add(protocol)


def _is_stale(key: _Key) -> bool:
    """Whether no new call uses such connections."""
    endpoint, address, tls, made, *_ = key
    return (
        endpoint.gone
        or endpoint.tls is not tls
        or is_rotated(made)
        or (endpoint.address is not address and endpoint.address != address)
    )


async def _exchange(asked: Asked, connection: Any, send: Callable[[Any], Awaitable[Any]]) -> Any:
    """Send the request, up to its response's head: what aiohttp's session does on a connection."""
    try:
        connection.protocol.set_response_params(**asked.parameters)
        response = await send(connection)
        try:
            await response.start(connection)
        except BaseException:
            response.close()
            raise
    except BaseException:
        connection.close()
        raise
    return response


async def _send_head(request: Any, head: Head, connection: Any) -> Any:
    """``ClientRequest.send`` for what is a head alone: without a writer, and without a copy of the request."""
    data, protocol = written(head), connection.protocol
    transport = protocol.transport
    if transport is None or transport.is_closing():
        raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
    transport.write(data)
    protocol.start_timeout()
    return response_of(request, len(data))


def _is_sent_again(request: Any) -> bool:
    """Whether it is, when a kept connection turned out to be closed: so does aiohttp's own client, once."""
    if request.method not in _IDEMPOTENT or not getattr(request.session, "_retry_connection", False):
        return False
    return request._body is None or not request._body.consumed


async def _connect_unix(connector: Any, request: Any, path: str, timeout: Any) -> Any:
    context = connector._get_ssl_context(request)
    try:
        async with asyncio.timeout(timeout.sock_connect):
            _, protocol = await connector._loop.create_unix_connection(
                connector._factory,
                path,
                ssl=context,
                server_hostname=request.server_hostname if context else None,
            )
    except TimeoutError:
        raise
    except OSError as error:
        failed: Any = UnixClientConnectorError(path, request.connection_key, error)
        raise failed from error
    return protocol
