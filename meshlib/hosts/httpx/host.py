"""What a member of the httpx family brings to the engine: its requests read, its responses made, its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.errors import (
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    NoHealthyEndpoint,
    NotReady,
    Overloaded,
    ProtocolError,
    TransportFailed,
    UnknownService,
)
from meshlib.hosts.asking import ask, options_in
from meshlib.hosts.errors import Errors
from meshlib.hosts.httpx.body import AsyncBody, Body
from meshlib.hosts.httpx.shortcuts import Shortcuts
from meshlib.hosts.protocol import Arrived
from meshlib.interceptors import CallPath
from meshlib.model.call import Head, OutcomeKind
from meshlib.model.headers import Headers
from meshlib.wire import errors as wire

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from meshlib.core.effects import Call
    from meshlib.core.exchange import Place
    from meshlib.core.resolution import Resolution
    from meshlib.hosts.body import OpenCall
    from meshlib.model.call import CallInfo, Response
    from meshlib.model.policy import RetryPolicy
    from meshlib.runtime.clock import Clock

__all__ = ["HostDefault", "HttpxHost"]

_PROTOCOLS = {b"HTTP/1.1": "1.1", b"HTTP/2": "2"}
_NO_TIMEOUTS: Mapping[str, float | None] = {}

_FAILURES = {
    NoHealthyEndpoint: "ConnectError",
    CircuitOpen: "ConnectError",
    UnknownService: "ConnectError",
    NotReady: "ConnectError",
    ConnectFailed: "ConnectError",
    Overloaded: "PoolTimeout",
    DeadlineExceeded: "ReadTimeout",
    "connect timeout": "ConnectTimeout",
    "write timeout": "WriteTimeout",
    TransportFailed: "ReadError",
    ProtocolError: "RemoteProtocolError",
}
_WIRE = {
    wire.ConnectTimeout: "ConnectTimeout",
    wire.ConnectError: "ConnectError",
    wire.ReadTimeout: "ReadTimeout",
    wire.Disconnected: "RemoteProtocolError",
    wire.ReadError: "ReadError",
    wire.WriteTimeout: "WriteTimeout",
    wire.WriteError: "WriteError",
    wire.RemoteProtocolError: "RemoteProtocolError",
    wire.LocalProtocolError: "LocalProtocolError",
    wire.TlsUnusable: "ConnectError",
    wire.UnsupportedProtocol: "UnsupportedProtocol",
}


class HostDefault(dict[str, float | None]):
    """The library's default timeouts, which hold only where neither the application nor the mesh sets any."""


class HttpxHost:
    """httpx or httpx2 (:class:`meshlib.hosts.protocol.Host`). ``core``: its httpcore, which a call of its own comes by."""

    def __init__(self, httpx: ModuleType, core: ModuleType) -> None:
        self.httpx = httpx
        self._response: Any = httpx.Response
        self.shortcuts = Shortcuts(httpx)
        #: A body that is given whole.
        self.whole: type = httpx.ByteStream
        self.errors = Errors(
            httpx,
            _FAILURES,
            _WIRE,
            (
                (httpx.TimeoutException, OutcomeKind.TIMEOUT),
                (httpx.ConnectError, OutcomeKind.CONNECT),
                (httpx.RemoteProtocolError, OutcomeKind.PROTOCOL),
                (httpx.NetworkError, OutcomeKind.RESET),
            ),
        )
        self._core = core
        self.path = CallPath((httpx.HTTPTransport, "handle_request"), (core.ConnectionPool, "handle_request"))
        self.async_path = CallPath(
            (httpx.AsyncHTTPTransport, "handle_async_request"),
            (core.AsyncConnectionPool, "handle_async_request"),
        )
        self._body: Any = type("Body", (Body, httpx.SyncByteStream), {})
        self._async_body: Any = type("AsyncBody", (AsyncBody, httpx.AsyncByteStream), {})

    def place(self, request: Any) -> Place:
        """Scheme, host as it goes out, port as written, and the Host header, which a caller may set."""
        url = request.url
        return url.scheme, url.raw_host.decode("ascii"), url.port, _authority(request)

    def read(self, request: Any, clock: Clock, retry: RetryPolicy | None, resolution: Resolution) -> Call:
        extensions = request.extensions
        timeouts = extensions.get("timeout", _NO_TIMEOUTS)
        return ask(
            resolution,
            self.head(request, _authority(request)),
            clock,
            options=options_in(extensions),
            timeouts=timeouts,
            defaults=type(timeouts) is HostDefault,
            replayable=self._is_replayable(request.stream),
            concurrent=isinstance(request.stream, self.whole),
            default_retry=retry,
            url=lambda: str(request.url),
        )

    def head(self, request: Any, authority: str) -> Head:
        """The head as a plan reads it: Host is the authority and no header line."""
        url, target = request.url, request.extensions.get("target")
        path = url.raw_path if target is None else target
        lines = [
            (written, value.strip(b" \t"))
            for written, name, value in request.headers._list
            if name != b"host"
        ]
        return Head(
            request.method,
            url.scheme,
            authority,
            path if isinstance(path, str) else path.decode("latin-1"),
            Headers(lines),
        )

    def _is_replayable(self, stream: Any) -> bool:
        """Whether ``stream`` gives the same bytes a second time."""
        if isinstance(stream, self.whole):
            return True
        # A multipart body starts over as long as each of its files can.
        fields = getattr(stream, "fields", None)
        if fields is None or not type(stream).__module__.endswith("._multipart"):
            return False
        return all(_seekable(getattr(field, "file", b"")) for field in fields)

    def content(self, request: Any) -> bytes | None:
        stream = request.stream
        return stream._stream if isinstance(stream, self.whole) else None  # type: ignore[attr-defined]

    def arrived(self, response: Any) -> Arrived:
        if isinstance(response, self._response):  # of the library's own transport
            return Arrived(
                response.status_code, None, response.http_version.removeprefix("HTTP/"), _peer(response)
            )
        version = response.version
        protocol = _PROTOCOLS.get(version) or version.decode("ascii").removeprefix("HTTP/")
        return Arrived(response.status, Headers(response.headers), protocol)

    def deliver(self, _request: Any, response: Any, headers: Headers | None, call: OpenCall) -> Any:
        stream = response.network_stream
        stream.translate = self._of_core
        lines = self.httpx.Headers()
        for name, value in response.headers if headers is None else headers.raw:
            lines._list.append((name, name.lower(), value))
        return self._response(
            status_code=response.status,
            headers=lines,
            stream=(self._async_body if response.awaited else self._body)(response, call),
            extensions={
                "http_version": response.version,
                "reason_phrase": response.reason,
                "network_stream": stream,
                "meshlib": call.info,
            },
        )

    def _of_core(self, error: BaseException) -> BaseException:
        """An error of a network stream, which is httpcore's to the library's users."""
        for cls in type(error).__mro__:
            found: type[BaseException] | None = getattr(self._core, cls.__name__, None)
            if found is not None:
                return found(str(error))
        return self._core.ReadError(str(error))  # type: ignore[no-any-return]

    def direct(self, _request: Any, response: Any, info: CallInfo | None) -> Any:
        if info is not None:
            response.extensions["meshlib"] = info
        return response

    def reply(self, _request: Any, response: Response, info: CallInfo | None) -> Any:
        return self._response(
            status_code=response.status,
            headers=list(response.headers),
            content=response.body,
            extensions={"meshlib": info},
        )


def _authority(request: Any) -> str:
    for _, name, value in request.headers._list:
        if name == b"host":
            return str(value, "latin-1") or str(request.url.netloc, "ascii")
    return str(request.url.netloc, "ascii")


def _seekable(file: Any) -> bool:
    if isinstance(file, str | bytes):
        return True
    seekable = getattr(file, "seekable", None)
    return bool(seekable and seekable())


def _peer(response: Any) -> str:
    """The address that answered, where the library's transport tells it."""
    stream = response.extensions.get("network_stream")
    if stream is None:
        return ""
    address = stream.get_extra_info("server_addr")
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[0], address[1]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return ""
