"""Where attempts connect to, and how an aiohttp connector is made to go there.

A connector keeps its connections by a key that it reads from the request: host, port, TLS. An attempt hands it a copy of
its request whose URL is the endpoint's, so the connector keeps a pool per endpoint with its own means and settings; its
limits hold beside the cluster's.

    attempt ──connect──► idle connection?  yes ───────────────────────────────────► aiohttp's connect
                                  no ──► pending ──► permit of the cluster ──► dial ──► aiohttp's connect
                                            │            └─ none: wait for one of this lane
                                            └─ too many: Overloaded

All of it belongs to the connector's event loop; only a ``Permit`` may be ended by another thread.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from meshlib.errors import Overloaded
from meshlib.runtime.tls import context_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.effects import Send
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import Connections
    from meshlib.model.call import Response
    from meshlib.model.cluster import Tls
    from meshlib.runtime.runtime import Runtime

__all__ = ["LEG", "Lanes", "Leg", "canned", "lanes_of"]

#: The attribute by which a request says where it goes.
LEG = "_meshlib_leg"
_LANES = "_meshlib_lanes"
_SECURE = frozenset({"https", "wss"})
_numbers = itertools.count(1)


class Permit:
    """One connection, counted by its cluster until ``done``."""

    __slots__ = ("_lane", "_runtime")

    def __init__(self, lane: Lane, runtime: Runtime) -> None:
        self._lane: Lane | None = lane
        self._runtime = runtime
        lane.open += 1

    def done(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.open -= 1
            lane.limits.close_connection()
            lane.wake()

    def __del__(self) -> None:
        """Its loop ended before the connection did. The collector may run in a thread that holds the cluster's lock."""
        lane, self._lane = self._lane, None
        if lane is not None and self._runtime.worker.running:
            self._runtime.worker.post(lane.limits.close_connection)


class Lane:
    """The connections of one connector to one endpoint."""

    __slots__ = ("endpoint", "keys", "limits", "number", "open", "tls", "waiting")

    def __init__(self, endpoint: LiveEndpoint, limits: Connections) -> None:
        self.endpoint = endpoint
        self.tls: Tls | None = endpoint.tls
        self.limits = limits
        self.number = next(_numbers)
        self.open = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.keys: set[Any] = set()

    @property
    def ended(self) -> bool:
        return self.endpoint.gone or self.endpoint.tls is not self.tls

    def wake(self) -> None:
        """A connection is free, or may be made."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def permit(
        self, runtime: Runtime, idle: Callable[[], bool], seconds: float | None
    ) -> Permit | None:
        """Leave to connect; None where an idle connection came back meanwhile. Raises Overloaded."""
        if self.limits.open_connection(force=self.open == 0):
            return Permit(self, runtime)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self._turn()
                    if idle():
                        return None
                    if self.limits.open_connection(force=self.open == 0):
                        return Permit(self, runtime)
        except TimeoutError:
            raise Overloaded("max_connections: no connection was free in time") from None

    async def _turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.wake()
            raise


class Leg:
    """Where one attempt goes, and how far it came. ``response``: it goes nowhere, this is its answer."""

    __slots__ = (
        "connect_timeout",
        "connection",
        "dialed",
        "lane",
        "pending",
        "permit",
        "response",
        "reused",
        "runtime",
        "sent",
    )

    def __init__(
        self, runtime: Runtime, effect: Send | None, lane: Lane | None, response: Response | None
    ) -> None:
        self.runtime = runtime
        self.lane = lane
        self.connect_timeout = effect.connect_timeout if effect is not None else None
        self.response = response
        self.permit: Permit | None = None
        self.pending = False  # counted by the cluster until it is connected
        self.connection: Connection | None = None
        self.dialed = False  # connecting has begun
        self.reused = False
        self.sent = False  # a byte of the request may have left

    async def connect(
        self, connector: Any, original: Any, request: Any, traces: Any, timeout: Any
    ) -> Connection:
        """A connection for ``request``. ``original``: aiohttp's own ``connect``."""
        if self.response is not None:
            return canned(connector, request, self.response)
        lane = self.lane
        assert lane is not None
        dial = self._dial(request, lane)
        key = dial.connection_key
        lane.keys.add(key)

        def idle() -> bool:
            return any(protocol.is_connected() for protocol, _ in connector._conns.get(key, ()))

        try:
            if not idle():
                self._begin_pending(lane)
                self.permit = await lane.permit(self.runtime, idle, timeout.connect)
            connection: Connection = await original(dial, traces=traces, timeout=self._bounded(timeout))
        finally:
            if self.pending:
                self.pending = False
                lane.limits.end_pending()
            permit, self.permit = self.permit, None
            if permit is not None:
                permit.done()
        self.reused = not self.dialed
        self.sent = True
        self.connection = connection
        protocol: Any = connection.protocol
        loop = asyncio.get_running_loop()

        def released() -> None:
            if lane.ended:
                protocol.force_close()
            if not loop.is_closed():
                loop.call_soon(lane.wake)

        connection.add_callback(released)
        return connection

    async def create(self, connector: Any, original: Any, dial: Any, traces: Any, timeout: Any) -> Any:
        """A new connection. ``original``: aiohttp's own ``_create_connection``."""
        lane = self.lane
        assert lane is not None
        self.dialed = True
        permit, self.permit = self.permit, None
        if permit is None:
            # What looked idle was too old.
            self._begin_pending(lane)
            lane.limits.open_connection(force=True)
            permit = Permit(lane, self.runtime)
        try:
            if lane.endpoint.address.unix:
                protocol = await _connect_unix(connector, dial, lane.endpoint.address.host, timeout)
            else:
                protocol = await original(dial, traces, timeout)
        except BaseException:
            permit.done()
            raise
        _hold(protocol, permit)
        return protocol

    def _begin_pending(self, lane: Lane) -> None:
        if not self.pending and not lane.limits.begin_pending():
            raise Overloaded("max_pending: too many calls wait for a connection already")
        self.pending = True

    def _dial(self, request: Any, lane: Lane) -> Any:
        """The request as the connector reads it: its URL is the endpoint, TLS is as the URL asked and the mesh demands."""
        endpoint, tls = lane.endpoint, lane.tls
        asked = request.url
        secure = tls is not None or asked.scheme in _SECURE
        address = endpoint.address
        dial = copy.copy(request)
        dial.url = URL.build(
            scheme="https" if secure else "http",
            host="localhost" if address.unix else address.host,
            port=address.port or (443 if secure else 80),
        )
        dial.proxy = dial.proxy_auth = None
        if tls is not None:
            dial._ssl = context_for(tls)
            dial.server_hostname = tls.sni or endpoint.hostname or asked.raw_host
        elif secure:
            dial.server_hostname = request.server_hostname or asked.raw_host
        # Read for a proxy's sake only, and part of the key: keeps lanes apart from each other and from direct calls, and
        # names in older versions, whose key does not have them.
        dial.proxy_headers = {"meshlib": f"{lane.number} {dial.server_hostname if secure else ''}"}
        return dial

    def _bounded(self, timeout: Any) -> Any:
        mine, own = self.connect_timeout, timeout.sock_connect
        if mine is None or (own is not None and own <= mine):
            return timeout
        return aiohttp.ClientTimeout(
            total=timeout.total,
            connect=timeout.connect,
            sock_read=timeout.sock_read,
            sock_connect=mine,
            ceil_threshold=timeout.ceil_threshold,
        )


class Lanes:
    """The lanes of one connector."""

    __slots__ = ("_connector", "_lanes", "_view")

    def __init__(self, connector: Any) -> None:
        self._connector = connector
        self._lanes: dict[tuple[LiveEndpoint, Tls | None], Lane] = {}
        self._view: object = None

    def leg(self, runtime: Runtime, effect: Send) -> Leg:
        """Where the attempt ``effect`` goes. Closes what the configuration has no use for any more."""
        if runtime.view is not self._view:
            self._view = runtime.view
            self._sweep()
        endpoint = effect.endpoint
        key = (endpoint, endpoint.tls)
        lane = self._lanes.get(key)
        if lane is None:
            limits: Any = effect.upstream  # a live cluster is both
            lane = self._lanes[key] = Lane(endpoint, limits)
        return Leg(runtime, effect, lane, None)

    def _sweep(self) -> None:
        for key in [key for key, lane in self._lanes.items() if lane.ended]:
            for kept in self._lanes.pop(key).keys:
                for protocol, _ in self._connector._conns.pop(kept, ()):
                    protocol.close()


def lanes_of(connector: Any) -> Lanes:
    """The lanes of ``connector``, which keeps them."""
    found: Lanes | None = getattr(connector, _LANES, None)
    if found is None:
        found = Lanes(connector)
        setattr(connector, _LANES, found)
    return found


def _hold(protocol: Any, permit: Permit) -> None:
    """The permit ends with the connection."""
    lost = protocol.connection_lost

    def connection_lost(error: BaseException | None) -> None:
        del protocol.connection_lost
        lost(error)
        permit.done()

    protocol.connection_lost = connection_lost


async def _connect_unix(connector: Any, dial: Any, path: str, timeout: Any) -> Any:
    context = connector._get_ssl_context(dial)
    try:
        async with asyncio.timeout(timeout.sock_connect):
            _, protocol = await connector._loop.create_unix_connection(
                connector._factory,
                path,
                ssl=context,
                server_hostname=dial.server_hostname if context else None,
            )
    except TimeoutError:
        raise
    except OSError as error:
        failed: Any = UnixClientConnectorError(path, dial.connection_key, error)
        raise failed from error
    return protocol


class _Nowhere(asyncio.Transport):
    """Takes whatever is written."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = False

    def write(self, data: Any) -> None:
        """Nobody reads it."""

    def writelines(self, list_of_data: Any) -> None:
        """Nobody reads it."""

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self._closing = True

    def pause_reading(self) -> None:
        """Nothing comes."""

    def resume_reading(self) -> None:
        """Nothing comes."""


def canned(connector: Any, request: Any, response: Response) -> Connection:
    """A connection on which ``response`` has arrived already, whatever is sent: aiohttp makes its response of it."""
    loop = asyncio.get_running_loop()
    protocol: Any = ResponseHandler(loop)
    protocol.connection_made(_Nowhere())
    protocol.force_close()
    lines = [f"HTTP/1.1 {response.status} {_reason(response.status)}"]
    lines += [f"{name}: {value}" for name, value in response.headers if name.lower() not in _FRAMING]
    if response.status not in (204, 304):
        lines.append(f"content-length: {len(response.body)}")
    body = b"" if request.method == "HEAD" or response.status in (204, 304) else response.body
    # Parsed as soon as aiohttp has set up its parser, as what follows an upgrade is.
    protocol._tail = "\r\n".join((*lines, "", "")).encode("latin-1", "replace") + body
    return Connection(connector, request.connection_key, protocol, loop)


_FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})


def _reason(status: int) -> str:
    from http.client import responses

    return responses.get(status, "")
