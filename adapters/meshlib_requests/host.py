"""What urllib3, and requests on it, brings to the call engine: its requests read, its responses made, its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.hosts.asking import ask
from meshlib.hosts.protocol import Arrived
from meshlib.model.headers import Headers
from meshlib_requests.errors import ERRORS
from meshlib_requests.options import current_options
from meshlib_requests.responses import delivered, ordered

if TYPE_CHECKING:
    from meshlib.core.effects import Call
    from meshlib.core.exchange import Place
    from meshlib.core.resolution import Resolution
    from meshlib.hosts.body import OpenCall
    from meshlib.model.call import CallInfo, Response
    from meshlib.model.policy import RetryPolicy
    from meshlib.runtime.clock import Clock
    from meshlib_requests.request import Request

__all__ = ["HOST"]

_PROTOCOLS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0", b"HTTP/2": "2"}


class UrllibHost:
    """urllib3 (:class:`meshlib.hosts.protocol.Host`)."""

    errors = ERRORS

    def place(self, request: Request) -> Place:
        pool = request.pool
        return pool.scheme, pool.host, pool.written_port, request.authority

    def read(
        self, request: Request, clock: Clock, _retry: RetryPolicy | None, resolution: Resolution
    ) -> Call:
        if resolution.via != "direct":  # else urllib3 does so by itself
            request.locate()
        call = ask(
            resolution,
            request.head(),
            clock,
            options=current_options(),
            timeouts=request.timeouts,
            replayable=request.replayable,
            concurrent=request.body is None or isinstance(request.body, bytes | str),
            tried=request.tried,
            url=request.url,
        )
        if request.deadline is not None:  # of the first turn, which holds for all
            call.deadline, call.limit = request.deadline, "the deadline"
        return call

    def content(self, request: Request) -> bytes | None:
        body = request.body
        if isinstance(body, str):
            return body.encode()
        return b"" if body is None else body if isinstance(body, bytes) else None

    def arrived(self, response: Any) -> Arrived:
        version = response.version
        if not isinstance(version, bytes):  # urllib3's own, or of a tool that stands in its place
            return Arrived(response.status, None, "1.0" if version == 10 else "1.1", _peer(response))
        return Arrived(response.status, Headers(response.headers), _PROTOCOLS[version])

    def deliver(self, request: Request, response: Any, headers: Headers | None, call: OpenCall) -> Any:
        return delivered(request, response, response.headers if headers is None else headers.raw, call)

    def direct(self, _request: Request, response: Any, info: CallInfo | None) -> Any:
        if info is not None:
            response._meshlib_info = info
        return response

    def reply(self, request: Request, response: Response, info: CallInfo | None) -> Any:
        made = ordered(request, response)
        made._meshlib_info = info  # type: ignore[attr-defined]
        return made


HOST = UrllibHost()


def _peer(response: Any) -> str:
    """The address that answered, where the connection still tells it."""
    sock = getattr(getattr(response, "_connection", None), "sock", None)
    try:
        address = sock.getpeername() if sock is not None else None
    except (OSError, AttributeError):  # a tool's stand-in for a socket
        address = None
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[0], address[1]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return ""
