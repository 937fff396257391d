"""What aiohttp brings to the call engine: its requests read, its responses made and held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client import DEFAULT_TIMEOUT

from meshlib.errors import DeadlineExceeded
from meshlib.hosts.asking import PATIENCE, ask
from meshlib.hosts.info import attach
from meshlib.hosts.protocol import Arrived
from meshlib.hosts.runtime import later
from meshlib.model.headers import Headers
from meshlib_aiohttp.connections import AcquiredConnection
from meshlib_aiohttp.errors import AiohttpErrors
from meshlib_aiohttp.messages import content_of, edit, head_of, is_replayable, place_of, reply_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.core.effects import Call
    from meshlib.core.exchange import Place
    from meshlib.core.resolution import Resolution
    from meshlib.hosts.body import OpenCall
    from meshlib.model.call import CallInfo, CallOptions, Response
    from meshlib.model.policy import RetryPolicy
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.clock import Clock

__all__ = ["AiohttpHost", "Asked"]


class Asked:
    """One call as it comes to a connector. aiohttp takes it for the connection that it asked for: it learns the parameters
    of the response here, and has the request sent on it.

    Attributes:
        parameters: What ``ResponseHandler.set_response_params`` takes.
        bounds: Those of a direct call.
    """

    __slots__ = ("_connect", "bounds", "options", "parameters", "request", "timeout", "traces")

    def __init__(
        self, request: Any, traces: Any, timeout: Any, connect: Callable[..., Any], options: CallOptions
    ) -> None:
        self.request = request
        self.traces = traces
        self.timeout = timeout
        self.options = options
        self.parameters: Mapping[str, Any] = {}
        self.bounds: Bounds | None = None
        self._connect = connect

    @property
    def protocol(self) -> Asked:
        return self

    def set_response_params(self, **parameters: Any) -> None:
        self.parameters = parameters

    def close(self) -> None:
        """Nothing is open."""

    async def connect(self) -> Any:
        """A connection to the URL as it is, by aiohttp's own means."""
        try:
            return await self._connect(self.request, self.traces, self.timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self.request.url}") from error


class AiohttpHost:
    """aiohttp (:class:`meshlib.hosts.protocol.Host`)."""

    errors = AiohttpErrors()

    def place(self, call: Asked) -> Place:
        return place_of(call.request)

    def read(self, call: Asked, clock: Clock, retry: RetryPolicy | None, resolution: Resolution) -> Call:
        request, timeout = call.request, call.timeout
        timeouts = {"connect": timeout.sock_connect, "read": timeout.sock_read, "pool": timeout.connect}
        asked = ask(
            resolution,
            head_of(request),
            clock,
            options=call.options,
            timeouts=timeouts,
            defaults=timeout is DEFAULT_TIMEOUT,
            replayable=is_replayable(request._body),
            concurrent=request._body is None or isinstance(request._body, aiohttp.BytesPayload),
            default_retry=retry,
            url=lambda: str(request.url),
        )
        asked.wait = _patience(timeout)
        return asked

    def content(self, call: Asked) -> bytes | None:
        return content_of(call.request._body)

    def arrived(self, response: Any) -> Arrived:
        return Arrived(response.status, Headers(response.raw_headers), "1.1", _peer(response.connection))

    def deliver(self, _call: Asked, response: Any, /, headers: Headers | None, held: OpenCall) -> Any:
        if headers is not None:
            edit(response, headers)
        assert held.info is not None
        attach(response, held.info)
        if response.connection is None:
            held.end()
        else:
            response.connection.hold(held, response)
        return response

    def direct(self, call: Asked, response: Any, /, info: CallInfo | None) -> Any:
        if info is None:
            return response
        attach(response, info)
        connection, bounds = response.connection, call.bounds
        if bounds is not None and bounds.deadline is not None and connection and response.status != 101:

            def expire() -> None:
                message = "the deadline is over"
                error = self.errors.made(DeadlineExceeded, message, info=info, sent=True, phase="body")
                response.content.set_exception(error)
                connection.close()

            left = max(0.0, bounds.deadline - bounds.clock.now())
            connection.add_callback(later(bounds.clock, left, expire))
        return response

    def reply(self, call: Asked, reply: Response, /, info: CallInfo | None) -> Any:
        response = reply_of(call.request, reply)
        if info is not None:
            attach(response, info)
        return response


def _patience(timeout: Any) -> float:
    """Seconds for which a call with this timeout may wait for the control plane: what it may take to connect."""
    if timeout is DEFAULT_TIMEOUT:
        return PATIENCE
    given = [one for one in (timeout.sock_connect, timeout.connect, timeout.total) if one is not None]
    return min(given, default=PATIENCE)


def _peer(connection: Any) -> str:
    """Who answered, of a direct call."""
    if connection is None or isinstance(connection, AcquiredConnection):
        return ""
    transport = connection.transport
    address = transport.get_extra_info("peername") if transport is not None else None
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[0], address[1]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return ""
