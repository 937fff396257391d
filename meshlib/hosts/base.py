"""A start for hosts over our own wire whose requests are a method, a URL, header lines and a body.

A library's adapter says what is its own: how a request is read (it makes an :class:`Asked`), how a response is made, and how its
own transport calls a URL as it is. docs/reference/hosts.md shows a whole one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from meshlib.hosts.asking import ask
from meshlib.hosts.endpoints import AsyncEndpoints, Endpoints
from meshlib.hosts.protocol import Arrived
from meshlib.hosts.urls import asked
from meshlib.model.headers import Headers
from meshlib.wire.errors import ReadTimeout
from meshlib.wire.message import Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meshlib.core.attempt import Send
    from meshlib.core.effects import Call, Direct
    from meshlib.core.exchange import Place
    from meshlib.core.resolution import Resolution
    from meshlib.hosts.endpoints import WireSettings
    from meshlib.model.policy import RetryPolicy
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.runtime import Runtime

__all__ = ["Asked", "AsyncBaseWire", "BaseHost", "BaseWire"]

#: What is left of an answer that is not wanted is read up to here, so that its connection can be kept. Bytes.
SMALL = 65_536
_WITH_BODY = frozenset({"PATCH", "POST", "PUT"})


class Asked:
    """A request as a call reads it. Raises ValueError for a URL that is none.

    Args:
        request: The library's; its ``headers`` can be changed like a mapping.
        method, url, headers: As text. The lines that say how the body is framed are added where they are missing.
        body: Bytes, or parts that can be sent once (async where the client is).
        timeouts: As for :func:`meshlib.hosts.asking.ask`.
    """

    __slots__ = ("body", "head", "place", "request", "timeouts", "url")

    def __init__(
        self,
        request: Any,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]],
        body: Any,
        timeouts: Mapping[str, float | None],
    ) -> None:
        lines = list(headers)
        if not any(name.lower() in {"content-length", "transfer-encoding"} for name, _ in lines):
            if not isinstance(body, bytes):
                lines.append(("Transfer-Encoding", "chunked"))
            elif body or method.upper() in _WITH_BODY:
                lines.append(("Content-Length", str(len(body))))
        self.place, self.head = asked(method, url, lines)
        self.request = request
        self.url = url
        self.body = body or None
        self.timeouts = timeouts


class BaseHost:
    """What such hosts have in common (:class:`meshlib.hosts.protocol.Host`)."""

    def place(self, request: Asked) -> Place:
        return request.place

    def read(self, request: Asked, clock: Clock, retry: RetryPolicy | None, resolution: Resolution) -> Call:
        return ask(
            resolution,
            request.head,
            clock,
            timeouts=request.timeouts,
            replayable=(whole := request.body is None or isinstance(request.body, bytes)),
            concurrent=whole,
            default_retry=retry,
            url=request.url,
        )

    def content(self, request: Asked) -> bytes | None:
        body = request.body
        return b"" if body is None else body if isinstance(body, bytes) else None

    def arrived(self, response: Any) -> Arrived:
        if not hasattr(type(response), "awaited"):  # none of the wire's
            return self.arrived_directly(response)
        version = response.version.decode("ascii").removeprefix("HTTP/")
        return Arrived(response.status, Headers(response.headers), version)

    def arrived_directly(self, response: Any) -> Arrived:
        """The head of a response that the library's own transport gave."""
        raise NotImplementedError


class BaseWire:
    """Of one blocking client, in one process (:class:`meshlib.hosts.protocol.Wire`). ``own``: the library's transport."""

    def __init__(self, settings: WireSettings, own: Any, runtime: Runtime) -> None:
        self.own = own
        self._endpoints = Endpoints(runtime, settings)

    def call(self, request: Any, seconds: float | None) -> Any:
        """The library's request by its own means. Raises TimeoutError after ``seconds``; None: there is no bound but its own."""
        raise NotImplementedError

    def send(self, request: Asked, attempt: Send, bounds: Bounds) -> Any:
        return self._endpoints.open(_outgoing(request, attempt), attempt, _name(request), bounds)

    def direct(self, request: Asked, call: Direct, bounds: Bounds) -> Any:
        _change(request, call)
        try:
            seconds = bounds.left("read")
            bounds.sent = True
            return self.call(request.request, seconds)
        except Exception as error:
            if _is_late(error, bounds):
                raise ReadTimeout(str(error)) from error
            raise

    def discard(self, response: Any) -> None:
        response.drain(SMALL)
        response.close()

    def close(self) -> None:
        self._endpoints.close()


class AsyncBaseWire:
    """The same in one event loop (:class:`meshlib.hosts.protocol.AsyncWire`)."""

    def __init__(self, settings: WireSettings, own: Any, runtime: Runtime) -> None:
        self.own = own
        self._endpoints = AsyncEndpoints(runtime, settings)

    async def call(self, request: Any) -> Any:
        """The library's request by its own means; cancelled when its time is over."""
        raise NotImplementedError

    async def send(self, request: Asked, attempt: Send, bounds: Bounds) -> Any:
        return await self._endpoints.open(_outgoing(request, attempt), attempt, _name(request), bounds)

    async def direct(self, request: Asked, call: Direct, bounds: Bounds) -> Any:
        _change(request, call)
        try:
            with anyio.fail_after(bounds.left("read")):
                bounds.sent = True
                return await self.call(request.request)
        except Exception as error:
            if _is_late(error, bounds):
                raise ReadTimeout(str(error)) from error
            raise

    async def discard(self, response: Any) -> None:
        await response.adrain(SMALL)
        await response.aclose()

    async def aclose(self) -> None:
        await self._endpoints.aclose()


def _outgoing(request: Asked, attempt: Send) -> Outgoing:
    head = attempt.head
    lines = [(b"Host", head.authority.encode("latin-1")), *head.headers.raw]
    method, path = head.method.encode("ascii"), head.path.encode("latin-1")
    return Outgoing(method, path, lines, request.body, secure=head.scheme == "https")


def _name(request: Asked) -> str:
    """The name to verify, of an https URL."""
    return request.place[1] if request.place[0] == "https" else ""


def _change(request: Asked, call: Direct) -> None:
    """What observers made of the request's lines."""
    gone, changed = call.changes
    for name in gone:
        request.request.headers.pop(name.decode("latin-1"), None)
    for name, value in changed:
        request.request.headers[name.decode("latin-1")] = value.decode("latin-1")


def _is_late(error: Exception, bounds: Bounds) -> bool:
    """Whether a direct call failed since its deadline was over."""
    if isinstance(error, ConnectionError):
        bounds.sent = False
    if isinstance(error, TimeoutError):
        bounds.timed_out()
    return bounds.expired
