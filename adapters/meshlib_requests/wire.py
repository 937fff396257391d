"""How the calls of one of urllib3's pools leave: over our own wire to endpoints, and by urllib3 to the URL as it is."""

from __future__ import annotations

import http.client
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from urllib3 import exceptions
from urllib3.util import Timeout

from meshlib.hosts.endpoints import Endpoints, WireSettings
from meshlib.pools import PoolSettings
from meshlib.wire.connection import Connection
from meshlib.wire.dial import connect
from meshlib.wire.errors import WireError
from meshlib.wire.http1 import SIZES, Http1
from meshlib_requests.errors import urllib3_error
from meshlib_requests.instrumented import observed
from meshlib_requests.tls import Tls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.core.attempt import Send
    from meshlib.core.effects import Direct
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime
    from meshlib.wire.dial import Place
    from meshlib_requests.request import Request

__all__ = ["UrllibWire"]

#: What is left of an answer that is not wanted is read up to here, so that its connection can be kept. Bytes.
_SMALL = 65_536
#: Seconds after which an idle connection ends where the cluster says nothing: Envoy's default for ``idle_timeout``; urllib3 has
#: none.
_KEEPALIVE = 3600.0
#: urllib3's own, where programs look for its lines.
_log = logging.getLogger("urllib3.connectionpool")


class UrllibWire:
    """Of one pool in one process (:class:`meshlib.hosts.protocol.Wire`). Thread-safe.

    Args:
        runtime: The process's.
        arguments: What the pool was made with, beside its host and port.
        tls: The pool's settings for ``https``; None for ``http``.
        pool: The pool, which counts.
    """

    def __init__(
        self, runtime: Runtime, arguments: Mapping[str, Any], tls: Tls | None, pool: Callable[[], Any]
    ) -> None:
        most = max(1, arguments.get("maxsize") or 1)
        block = bool(arguments.get("block"))
        source = arguments.get("source_address")
        settings = WireSettings(
            ssl=lambda _: Tls.CONTEXT,
            pool=PoolSettings(
                max_connections=most if block else None, chosen=block, max_idle=most, keepalive=_KEEPALIVE
            ),
            local_address=source[0] if source is not None else None,
            socket_options=tuple(arguments.get("socket_options") or ()),
        )
        self._tls = tls
        self._endpoints = Endpoints(runtime, settings, partial(_dial, tls, pool))

    def send(self, request: Request, attempt: Send, bounds: Bounds) -> Any:
        tls, head = self._tls, attempt.head
        request.pool.num_requests += 1
        name = "" if tls is None else tls.server_hostname
        watched = observed(request, head)
        try:
            outgoing = request.outgoing(head, () if watched is None else watched.added)
            incoming = self._endpoints.open(outgoing, attempt, name, bounds)
        except WireError as error:
            address = attempt.endpoint.address
            raise urllib3_error(error, request, address.host, address.port) from error
        if watched is not None:
            watched.answered(incoming)
        if tls is not None and attempt.endpoint.tls is None:
            tls.warn_unverified()
        if _log.isEnabledFor(logging.DEBUG):
            _say(request, attempt, incoming)
        return incoming

    def direct(self, request: Request, call: Direct, bounds: Bounds) -> Any:
        request.direct = True
        timeout = request.timeout
        if bounds.deadline is not None:
            left = bounds.deadline - bounds.clock.now()
            total = Timeout.resolve_default_timeout(timeout.total)
            timeout = Timeout(
                total=left if total is None else min(left, total),
                connect=timeout._connect,
                read=timeout._read,
            )
        try:
            return request.plain(_changed(request.headers, call), timeout, alone=call.handed is not None)
        except exceptions.HTTPError as error:
            bounds.timed_out()
            reason = getattr(error, "reason", error)
            bounds.sent = not isinstance(reason, exceptions.ConnectTimeoutError)
            raise

    def discard(self, response: Any) -> None:
        response.drain(_SMALL)
        response.close()

    def close(self) -> None:
        self._endpoints.close()


def _dial(own: Tls | None, counting: Callable[[], Any], place: Place, bounds: Bounds) -> Any:
    """A connection to an endpoint. Raises as ``dial.connect``, and SettingsError. ``own``: TLS of the application's."""
    pool = counting()
    if pool is not None:
        pool.num_connections += 1
        _log.debug(
            "Starting new %s connection (%d): %s:%s",
            pool.scheme.upper(),
            pool.num_connections,
            pool.host,
            pool.port or ("443" if pool.scheme == "https" else "80"),
        )
    tls = own if place.context is Tls.CONTEXT else None
    connection = connect(place if tls is None else tls.place(place), bounds)
    try:
        if tls is not None:
            tls.verify(connection)
    except BaseException:
        connection.close()
        raise
    most = http.client._MAXHEADERS  # type: ignore[attr-defined]  # a number that applications set
    if most > place.sizes.lines == SIZES.lines and isinstance(connection, Connection):
        connection.machine = Http1(replace(place.sizes, lines=most))
    return connection


def _changed(lines: Any, call: Direct) -> Any:
    """The caller's lines with what observers made of them."""
    gone, changed = call.changes if call.head is not None else ((), ())
    if not gone and not changed:
        return lines
    lines = lines.copy()
    for name in gone:
        del lines[name.decode("latin-1")]
    for name, value in changed:
        lines[name.decode("latin-1")] = value.decode("latin-1")
    return lines


def _say(request: Request, attempt: Send, incoming: Any) -> None:
    """The line that urllib3 logs of each response."""
    pool, head = request.pool, attempt.head
    length = next((value for name, value in incoming.headers if name.lower() == b"content-length"), b"None")
    _log.debug(
        '%s://%s:%s "%s %s %s" %s %s',
        pool.scheme,
        pool.host,
        pool.port,
        head.method,
        request.sent_target(head),
        incoming.version.decode("ascii"),
        incoming.status,
        length.decode("latin-1"),
    )
