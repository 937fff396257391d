"""What pyqwest brings to the call engine: its requests read, its responses made, its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyqwest

from meshlib.hosts.base import Asked, BaseHost
from meshlib.hosts.content import AsyncContent, Content, decoding
from meshlib.hosts.errors import Errors
from meshlib.hosts.protocol import Arrived
from meshlib.model.headers import Headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.hosts.body import OpenCall
    from meshlib.model.call import CallInfo, Response

__all__ = ["PyqwestHost", "read"]

#: By whether it is async.
_KINDS: tuple[Any, Any] = (pyqwest.SyncResponse, Content), (pyqwest.Response, AsyncContent)
_VERSIONS = pyqwest.HTTPVersion.HTTP1, pyqwest.HTTPVersion.HTTP2


def read(request: Any, timeouts: Mapping[str, float | None]) -> Asked:
    """A request as a call reads it. What is not bytes is sent once."""
    lines = list(request.headers.items())
    if request._json and "content-type" not in request.headers:
        lines.append(("content-type", "application/json"))
    return Asked(request, request.method, request.url, lines, request.content, timeouts)


class PyqwestHost(BaseHost):
    """pyqwest, blocking and async."""

    errors = Errors.of(
        connect=ConnectionError,
        connect_timeout=pyqwest.ConnectTimeout,
        read=pyqwest.ReadError,
        read_timeout=TimeoutError,
        write=pyqwest.WriteError,
        write_timeout=TimeoutError,
        protocol=pyqwest.RemoteProtocolError,
        disconnected=pyqwest.RemoteProtocolError,
        overloaded=ConnectionError,
        request=ValueError,
    )

    def arrived_directly(self, response: Any) -> Arrived:
        return Arrived(response.status, None, str(response.http_version).removeprefix("HTTP/"))

    def deliver(self, _: Asked, response: Any, /, headers: Headers | None, call: OpenCall) -> Any:
        made, content = _KINDS[response.awaited]
        lines, trailers = Headers(response.headers) if headers is None else headers.copy(), pyqwest.Headers()
        decode = decoding(lines)

        def whole() -> None:
            for name, value in Headers(response.trailers):
                trailers.add(name, value)

        return made(
            status=response.status,
            http_version=_VERSIONS[response.version == b"HTTP/2"],
            headers=pyqwest.Headers(lines),
            content=content(response, response, call, call.info, decode=decode, whole=whole),
            trailers=trailers,
        )

    def direct(self, _: Asked, response: Any, /, info: CallInfo | None) -> Any:
        made, content = _KINDS[isinstance(response, pyqwest.Response)]
        return made(
            status=response.status,
            http_version=response.http_version,
            headers=response.headers,
            content=content(response.content, response, info=info),
            trailers=response.trailers,
        )

    def reply(self, request: Asked, response: Response, /, info: CallInfo | None) -> Any:
        made, content = _KINDS[isinstance(request.request, pyqwest.Request)]
        lines = pyqwest.Headers(response.headers)
        return made(status=response.status, headers=lines, content=content([response.body], info=info))
