"""aiohttp's requests and responses as a plan reads and writes them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import payload
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from meshlib.model.call import Head
from meshlib.model.headers import Headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshlib.model.call import CallOptions

__all__ = [
    "Reader",
    "attempt_of",
    "edit",
    "edited_message",
    "head_of",
    "headers_of",
    "is_replayable",
    "lines_of",
    "options_type",
    "target_of",
    "watch_body",
    "write",
]

_SCHEMES = {"ws": "http", "wss": "https"}


def target_of(request: Any) -> tuple[str, str, int | None, str]:
    """Scheme, host, port as written, and the authority asked for (the Host header, which a caller may set)."""
    url: URL = request.url
    scheme = _SCHEMES.get(url.scheme, url.scheme)
    port = url.explicit_port
    if port == (443 if scheme == "https" else 80):
        port = None
    return scheme, url.raw_host or "", port, request.headers["Host"]


def head_of(request: Any) -> Head:
    """The head: Host is the authority and no header line."""
    scheme, _, _, authority = target_of(request)
    pairs = ((name, value) for name, value in request.headers.items() if name.lower() != "host")
    headers = Headers.trimmed(headers_of(pairs).raw)
    return Head(request.method, scheme, authority, request.url.raw_path_qs, headers)


def headers_of(pairs: Iterable[tuple[str, str]]) -> Headers:
    """Lines as a plan reads them; aiohttp writes and reads them as UTF-8."""
    return Headers(
        [(name.encode("utf-8"), value.encode("utf-8", "surrogateescape")) for name, value in pairs]
    )


def lines_of(headers: Headers) -> list[tuple[str, str]]:
    """Lines as aiohttp takes them."""
    return [(_text(name), _text(value)) for name, value in headers.raw]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def write(request: Any, head: Head) -> None:
    """Make ``request`` send ``head``."""
    request.method = head.method
    request.headers = CIMultiDict([("Host", head.authority), *lines_of(head.headers)])
    url: URL = request.url
    if head.path != url.raw_path_qs:
        request.url = URL(f"{url.scheme}://{url.raw_authority}{head.path}", encoded=True)


def attempt_of(request: Any, head: Head) -> Any:
    """A copy of ``request`` that sends ``head``: one attempt. The original stays what the caller asked for."""
    attempt = copy.copy(request)
    write(attempt, head)
    if request._continue is not None:
        attempt._continue = request.loop.create_future()
    return attempt


def is_replayable(request: Any) -> bool:
    """Whether the request's body can be sent again."""
    return _again(request._body)


def _again(body: Any) -> bool:
    if body is None:
        return True
    if isinstance(body, aiohttp.MultipartWriter):
        return all(_again(part) for part, _, _ in body._parts)
    if isinstance(body, payload.BytesPayload):
        return True
    if isinstance(body, payload.IOBasePayload):
        seekable = getattr(body._value, "seekable", None)
        return bool(seekable and seekable())
    return False


def edit(response: Any, headers: Headers) -> None:
    """Give ``response`` other header lines; its cookies are taken from these, too."""
    lines = CIMultiDict(lines_of(headers))
    response._headers = CIMultiDictProxy(lines)
    response._raw_headers = tuple(headers.raw)
    for name in ("headers", "raw_headers"):
        response._cache.pop(name, None)
    cookies = tuple(lines.getall("Set-Cookie", ()))
    response._raw_cookie_headers = cookies or None


def edited_message(message: Any, headers: Headers) -> Any:
    """The head of a response with other lines."""
    names = ("should_close", "compression", "upgrade", "chunked")
    return RawResponseMessage(
        message.version,
        message.code,
        message.reason,
        CIMultiDictProxy(CIMultiDict(lines_of(headers))),
        tuple(headers.raw),
        *(getattr(message, name) for name in names),
    )


class Reader(StreamReader):
    """A body that tells its call when it breaks."""

    __slots__ = ()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        broken: Callable[[BaseException], BaseException] | None = getattr(
            self._protocol, "_meshlib_broken", None
        )
        super().set_exception(exc if broken is None else broken(exc), *cause)


def watch_body(body: Any, broken: Callable[[BaseException], BaseException]) -> None:
    """Let ``broken`` say what the reader of ``body`` gets for what broke it."""
    if type(body) is StreamReader:
        body.__class__ = Reader  # the same slots
        body._protocol._meshlib_broken = broken  # type: ignore[attr-defined]


def options_type(options: CallOptions | None) -> CallOptions:
    """The call's own options. Raises TypeError for what is none."""
    from meshlib.model.call import CallOptions

    if options is None:
        return CallOptions()
    if not isinstance(options, CallOptions):
        raise TypeError(f"meshlib=: expected meshlib.CallOptions, not {type(options).__name__}")
    return options
