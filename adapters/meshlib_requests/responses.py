"""Responses: urllib3's and requests' own, which end their call when they are read, closed or lost."""

from __future__ import annotations

import http.client
import io
import socket
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import ResponseNotChunked

from meshlib.hosts.info import attach
from meshlib.wire.errors import Disconnected, WireError
from meshlib_requests.errors import body_error, failure_of, join_with

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from meshlib.hosts.body import OpenCall
    from meshlib.model.call import Response as Ordered

__all__ = ["HTTPResponse", "Response", "delivered", "note", "ordered"]

_VERSIONS = {b"HTTP/1.0": 10, b"HTTP/2": 20}


class Body:
    """The body of a response, as a file. Reading it to its end, closing it or losing it ends the call. Not thread-safe.

    ``length``: as it was announced; ``lenient``: a body that ends before it is whole all the same
    (``enforce_content_length=False``).
    """

    __slots__ = ("_call", "_got", "_incoming", "_length", "_lenient", "_request", "_rest")

    def __init__(
        self, incoming: Any, call: OpenCall, request: Any, length: int | None, *, lenient: bool = False
    ) -> None:
        self._incoming = incoming
        self._lenient = lenient
        self._call: OpenCall | None = call
        self._request = request
        self._length = length
        self._got = 0
        self._rest = b""

    @property
    def closed(self) -> bool:
        return self._call is None and not self._rest

    def isclosed(self) -> bool:
        return self.closed

    def read(self, amount: int | None = None) -> bytes:
        """So many bytes, fewer at the end; without ``amount`` all that is still to come."""
        if amount is None and not self._lenient:
            data, self._rest = self._rest, b""
            rest = self._next(whole=True)
            return data + rest if data else rest
        parts, left = [], amount
        while left != 0 and (part := self.read1(left)):
            parts.append(part)
            left = None if left is None else left - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read1(self, amount: int | None = None) -> bytes:
        """What comes next, of ``amount`` bytes at most."""
        part = self._rest or self._next()
        if amount is None or len(part) <= amount:
            self._rest = b""
            return part
        self._rest = part[amount:]
        return part[:amount]

    def _next(self, *, whole: bool = False) -> bytes:
        call = self._call
        if call is None:
            return b""
        incoming = self._incoming
        try:
            part: bytes = incoming.read() if whole else next(incoming, b"")
        except WireError as error:
            if self._lenient and isinstance(error, Disconnected):
                self._end()
                return b""
            broken = body_error(error, self._request.pool, self._got, self._length)
            broken.__cause__ = error
            self._call = None
            raised = call.broken(broken)
            raise raised from raised.__cause__
        except (
            BaseException
        ):  # interrupted, or its greenlet is killed: nobody closes what urllib3 reads whole
            self._end()
            raise
        self._got += len(part)
        if whole or not part or self._got == self._length:
            self._end()
        return part

    def close(self) -> None:
        self._rest = b""
        self._end()

    def _end(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            try:
                self._incoming.close()
            finally:
                call.end()

    def abandon(self) -> None:
        """For a finalizer."""
        call, self._call = self._call, None
        if call is not None:
            self._incoming.abandon()
            call.abandon()

    @property
    def fp(self) -> Body:
        """``botocore.response.StreamingBody.set_socket_timeout`` goes by ``fp.raw._sock``."""
        return self

    raw = _sock = fp

    def settimeout(self, seconds: float | None) -> None:
        """How long each further read may take."""
        self._request.timeouts["read"] = seconds

    @property
    def sock(self) -> Any:
        """The socket, as ``response.connection.sock`` gives it while the body is read."""
        if self._call is None:
            return None
        return self._incoming.network_stream.get_extra_info("socket")


class HTTPResponse(urllib3.HTTPResponse):
    """urllib3's response to a call of the mesh. As thread-safe as urllib3's."""

    _fp: Any
    _decodes = True
    _was_read = False

    def read(
        self, amt: int | None = None, decode_content: bool | None = None, cache_content: bool = False
    ) -> bytes:
        """As urllib3's. Where there is nothing to decode, the body is given as it comes; it tells its errors by itself."""
        self._was_read = True
        if self._decodes or (amt is not None and amt < 0):
            return super().read(amt, decode_content, cache_content)
        data: bytes = self._fp.read(amt)
        self._fp_bytes_read += len(data)
        if self.length_remaining is not None:
            self.length_remaining -= len(data)
        if amt is None and cache_content and self._fp_bytes_read == len(data):
            self._body = data
        return data

    @property
    def connection(self) -> Any:
        """What has the ``sock``, while the body is read."""
        body: Any = self._connection
        return None if body is None or (self._was_read and body.closed) else body

    def stream(self, amt: int | None = 2**16, decode_content: bool | None = None) -> Any:
        """As urllib3's: what is chunked is given as it comes."""
        if self.chunked:
            yield from self.read_chunked(amt, decode_content)
        else:
            yield from super().stream(amt, decode_content)

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        self._was_read = True
        return super().read1(amt, decode_content)

    def read_chunked(self, amt: int | None = None, decode_content: bool | None = None) -> Iterator[bytes]:  # type: ignore[override]
        if not self.chunked:
            raise ResponseNotChunked(
                "Response is not chunked. Header 'transfer-encoding: chunked' is missing."
            )
        while data := self.read1(amt, decode_content):
            yield data

    def supports_chunked_reads(self) -> bool:
        return True

    def shutdown(self) -> None:
        """As urllib3's: whoever reads the body, in another thread, comes to its end. Raises ValueError where it is read."""
        sock = self._fp.sock if isinstance(self._fp, Body) else None
        if sock is None:
            raise ValueError("Cannot shutdown socket: the body is read, or was made locally")
        sock.shutdown(socket.SHUT_RD)

    def release_conn(self) -> None:
        """The connection goes back where the body was read to its end; else it is closed: the rest would be read as the next
        answer.
        """
        self._connection = None
        if isinstance(self._fp, Body):
            self._fp.close()

    def close(self) -> None:
        super().close()
        self.release_conn()

    def __del__(self) -> None:
        """A response that was never closed. The collector may run in a thread that holds the locks which closing needs."""
        body = self.__dict__.get("_fp")
        if isinstance(body, Body):
            body.abandon()


class Response(requests.Response):
    """requests' response to a call of the mesh."""

    def iter_content(self, chunk_size: int | None = 1, decode_unicode: bool = False) -> Iterator[Any]:
        chunks: Iterator[Any] = super().iter_content(chunk_size, decode_unicode)  # type: ignore[call-overload]
        return _joined(chunks)


def note(response: requests.Response, raw: Any) -> None:
    """``response`` was made of ``raw`` by an adapter of requests: it tells what meshlib did, if anything."""
    info = getattr(raw, "_meshlib_info", None)
    if info is not None:
        attach(response, info)
        if type(response) is requests.Response and isinstance(raw, HTTPResponse):
            response.__class__ = Response


def _joined(chunks: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from chunks
    except requests.RequestException as error:
        found = failure_of(error)
        if found is None:
            raise
        both = join_with(error, found)
        raise both from both.__cause__


class _Original:
    """Stands where a response has what ``http.client`` read: for who takes cookies from there. False where there are none, so
    that requests does not look.
    """

    __slots__ = ("_body", "_lines", "_msg")

    def __bool__(self) -> bool:
        return "set-cookie" in [name.lower() for name, _ in self._lines]

    def __init__(self, lines: Iterable[tuple[str, str]], body: Body | None = None) -> None:
        self._lines = lines
        self._msg: http.client.HTTPMessage | None = None
        self._body = body

    @property
    def msg(self) -> http.client.HTTPMessage:
        made = self._msg
        if made is None:
            made = self._msg = http.client.HTTPMessage()
            made._headers = list(self._lines)  # type: ignore[attr-defined]
        return made

    @property
    def headers(self) -> http.client.HTTPMessage:
        return self.msg

    def isclosed(self) -> bool:
        return self._body is None or self._body.closed

    def close(self) -> None:
        if self._body is not None:
            self._body.close()


def delivered(request: Any, incoming: Any, lines: list[tuple[bytes, bytes]], call: OpenCall) -> HTTPResponse:
    """The response for the caller. ``lines``: its header lines, edited if they are to be."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in lines]
    headers = _mapping(pairs)
    length = headers.get("content-length")
    options = request.options
    enforced = options.get("enforce_content_length", True)
    announced = int(length) if length is not None and length.isdecimal() else None
    body = Body(incoming, call, request, announced, lenient=not enforced)
    version = _VERSIONS.get(incoming.version, 11)
    made = HTTPResponse(
        body=body,  # type: ignore[arg-type]
        headers=headers,
        status=incoming.status,
        version=version,
        version_string=incoming.version.decode("ascii"),
        reason=incoming.reason.decode("latin-1"),
        preload_content=False,
        decode_content=options["decode_content"],
        original_response=_Original(pairs, body),  # type: ignore[arg-type]
        pool=request.pool,
        connection=body,  # type: ignore[arg-type]
        enforce_content_length=enforced,
        request_method=request.method,
        request_url=request.target.written,
    )
    made._meshlib_info = call.info  # type: ignore[attr-defined]
    made._decodes = "content-encoding" in headers
    if made.length_remaining == 0:
        body.close()
    return made


def _mapping(pairs: Iterable[tuple[str, str]]) -> HTTPHeaderDict:
    """As urllib3 makes it, line by line, at a fifth of the time."""
    made = HTTPHeaderDict()
    lines = made._container
    for name, value in pairs:
        known = lines.get(key := name.lower())
        if known is None:
            lines[key] = [name, value]
        else:
            known.append(value)
    return made


def ordered(request: Any, response: Ordered) -> HTTPResponse:
    """A reply made locally."""
    return HTTPResponse(
        body=io.BytesIO(b"" if request.method == "HEAD" else response.body),
        headers=HTTPHeaderDict(response.headers),
        status=response.status,
        version=11,
        version_string="HTTP/1.1",
        reason=http.client.responses.get(response.status, ""),
        preload_content=False,
        decode_content=False,
        original_response=_Original(response.headers),  # type: ignore[arg-type]
        request_method=request.method,
        request_url=request.target.path,
    )
