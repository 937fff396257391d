"""aiohttp's requests and responses as a plan reads and writes them."""

from __future__ import annotations

import copy
import inspect
from contextlib import suppress
from http.client import responses
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import payload
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.wire.heads import TEXT

if TYPE_CHECKING:
    from meshlib.core.effects import Direct
    from meshlib.core.exchange import Place
    from meshlib.model.call import Response

__all__ = [
    "apply",
    "attempt_of",
    "content_of",
    "edit",
    "head_of",
    "is_head_alone",
    "is_replayable",
    "place_of",
    "reply_of",
    "response_of",
    "written",
]

_SCHEMES = {"ws": "http", "wss": "https"}


def place_of(request: Any) -> Place:
    """Scheme, host, port as written, and the authority asked for (the Host header, which a caller may set)."""
    url: URL = request.url
    scheme = _SCHEMES.get(url.scheme, url.scheme)
    port = url.explicit_port
    if port == (443 if scheme == "https" else 80):
        port = None
    return scheme, url.raw_host or "", port, request.headers["Host"]


def head_of(request: Any) -> Head:
    """The head: Host is the authority and no header line. White space around a value is not part of it (RFC 9110, 5.5);
    aiohttp writes and reads lines as UTF-8.
    """
    scheme, headers = request.url.scheme, request.headers
    lines = [
        (name.encode(), value.strip(" \t").encode("utf-8", "surrogateescape"))
        for name, value in headers.items()
        if len(name) != 4 or name.lower() != "host"
    ]
    path = request.url.raw_path_qs
    return Head(request.method, _SCHEMES.get(scheme, scheme), headers["Host"], path, Headers(lines))


def _lines_of(headers: Headers) -> list[tuple[str, str]]:
    """Lines as aiohttp takes them."""
    return [(_text(name), _text(value)) for name, value in headers.raw]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def attempt_of(request: Any, head: Head) -> Any:
    """A copy of ``request`` that sends ``head``: one attempt. The original stays what the caller asked for. Raises ValueError as
    ``written``.
    """
    written(head)
    attempt = copy.copy(request)
    attempt.__dict__.pop("send", None)
    attempt.method = head.method
    attempt.headers = CIMultiDict([("Host", head.authority), *_lines_of(head.headers)])
    url: URL = request.url
    if head.path != url.raw_path_qs:
        attempt.url = URL(f"{url.scheme}://{url.raw_authority}{head.path}", encoded=True)
    if request._continue is not None:
        attempt._continue = request.loop.create_future()
    return attempt


def apply(request: Any, call: Direct) -> None:
    """Put into ``request`` what observers made of its lines."""
    gone, changed = call.changes
    for name in gone:
        request.headers.popall(_text(name), None)
    for name, value in changed:
        request.headers[_text(name)] = _text(value)


def content_of(body: Any) -> bytes | None:
    """The whole of a request's body; None: it is not at hand."""
    if body is None:
        return b""
    value = body._value if isinstance(body, payload.BytesPayload) else body
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None


def is_replayable(body: Any) -> bool:
    """Whether a request's body can be sent again."""
    if body is None:
        return True
    if isinstance(body, aiohttp.MultipartWriter):
        return all(is_replayable(part) for part, _, _ in body._parts)
    if isinstance(body, payload.BytesPayload):
        return True
    if isinstance(body, payload.IOBasePayload):
        # Not every file that says so can tell.
        with suppress(AttributeError, OSError, ValueError):
            return bool(body._value.seekable())
    return False


def edit(response: Any, headers: Headers) -> None:
    """Give ``response`` other header lines; its cookies are taken from these, too."""
    lines = CIMultiDict(_lines_of(headers))
    response._headers = CIMultiDictProxy(lines)
    response._raw_headers = tuple(headers.raw)
    for name in ("headers", "raw_headers"):
        response._cache.pop(name, None)
    response._raw_cookie_headers = tuple(lines.getall("Set-Cookie", ())) or None


def is_head_alone(request: Any) -> bool:
    """Whether nothing but a head is sent, and nobody looks at how."""
    return (
        request._body is None
        and request._continue is None
        and request.method in _BODILESS
        and request.chunked is None
        and request.version == aiohttp.HttpVersion11
        and not request.compress
        and not request._traces
        and getattr(request, "_upload_tracker", None) is None
        and type(request).send is aiohttp.ClientRequest.send
    )


def written(head: Head) -> bytes:
    """The head as it is sent. Raises ValueError for what somebody may read as more than one line, or as another target."""
    lines = head.headers.raw
    first = f"{head.method} {head.path} HTTP/1.1\r\nHost: {head.authority}".encode()
    data = b"\r\n".join((first, *map(b": ".join, lines), b"", b""))
    # All that is not text must be the ends of the lines, which were put there.
    if data.translate(None, TEXT) != b"\r\n" * (len(lines) + 3) or " " in head.path:
        raise ValueError("a line break, or another character that may not be there, in the head of a request")
    return data


class _Written:
    """The writer of a request that is sent already."""

    __slots__ = ("output_size",)

    def __init__(self, size: int) -> None:
        self.output_size = size


#: Since 3.14 aiohttp's response takes the writer.
_TAKES_WRITER = "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})


def response_of(request: Any, size: int) -> Any:
    """The response, to be read, of a request that is sent already: ``size`` bytes of it."""
    writer = {"stream_writer": _Written(size)} if _TAKES_WRITER else {}
    return request.response_class(
        request.method,
        request.original_url,
        writer=None,
        continue100=None,
        timer=request._timer,
        request_info=request.request_info,
        traces=request._traces,
        loop=request.loop,
        session=request._session,
        **writer,
    )


def reply_of(request: Any, reply: Response) -> Any:
    """The response for a reply made locally, its body at hand."""
    loop = request.loop
    response = response_of(request, 0)
    response.version, response.status = aiohttp.HttpVersion11, reply.status
    response.reason = responses.get(reply.status, "")
    response.content = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    lines = [(name, value) for name, value in reply.headers if name.lower() not in _FRAMING]
    if reply.status not in (204, 304):
        lines.append(("content-length", str(len(reply.body))))
        if request.method != "HEAD":
            response.content.feed_data(reply.body)
    response.content.feed_eof()
    edit(response, Headers.of(*lines))
    return response
