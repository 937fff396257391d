"""What httpx does at each call and need not, for the clients that are of the mesh.

It takes a URL apart character by character that comes out as it went in, lets a call without authentication go by a generator of
authentication steps, makes ``http.cookiejar``'s requests and responses to look for cookies in an answer that sets none, and hands
a body that is not encoded through two chunkers and four generators: together more than all that the mesh does. What is plain is
taken as it is here, everything else goes httpx's own way, and so does each step that somebody put another function in the place
of. The result is the same.

Nothing here is of the mesh, and without it every call is the same but slower: ``Client.shortcuts = False``.
"""

from __future__ import annotations

import datetime as dt
import importlib
import time
import weakref
from operator import attrgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any

from meshlib.hosts.httpx.body import AsyncBody, Body
from meshlib.hosts.urls import PLAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import ModuleType

__all__ = ["Shortcuts"]

#: Methods for which httpx adds no Content-Length where there is no body.
_BODILESS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS"})
#: Methods of a client that are passed over where they are the library's own.
_STEPS = (
    "build_request", "_merge_url", "_merge_headers", "_merge_cookies", "_merge_queryparams",
    "send", "_build_request_auth", "_send_handling_auth", "_send_single_request",
)  # fmt: skip
#: What ``build_request`` and ``send`` may be told beside what every call has.
_ARGUMENTS = frozenset(
    {"content", "cookies", "data", "extensions", "files", "headers", "json", "params", "timeout"}
)
_WISHES = frozenset({"auth", "follow_redirects"})
_LONGEST = 4096  # characters of a URL that is looked at; httpx has a bound of its own
_DEFAULT_PORTS = {"http": 80, "https": 443}
_function_of = attrgetter("__func__")


class _Timed:
    """A body that tells its response how long the call took, once it is closed. Mixed with the library's streams."""

    elapsed: dt.timedelta | None = None

    def __init__(self, stream: Any, response: Any, started: float) -> None:
        self._stream = stream
        # Weak: a response that nobody has any more is let go at once, without the collector.
        self._response = weakref.ref(response)
        self._started = started

    def _stop(self) -> None:
        self.elapsed = dt.timedelta(seconds=time.perf_counter() - self._started)
        response = self._response()
        if response is not None:
            response.elapsed = self.elapsed


class _Blocking(_Timed):
    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def read(self) -> bytes:
        """All of it."""
        stream = self._stream
        return stream.read() if isinstance(stream, Body) else b"".join(stream)

    def close(self) -> None:
        self._stop()
        self._stream.close()


class _Awaited(_Timed):
    def __aiter__(self) -> AsyncIterator[bytes]:
        found: AsyncIterator[bytes] = self._stream.__aiter__()
        return found

    async def aread(self) -> bytes:
        """All of it."""
        stream = self._stream
        if isinstance(stream, AsyncBody):
            return await stream.aread()
        return b"".join([part async for part in stream])

    async def aclose(self) -> None:
        self._stop()
        await self._stream.aclose()


class Shortcuts:
    """Those of one library. Stateless.

    Attributes:
        timed, async_timed: Its streams that tell the time.
        error: What has a ``request``.
    """

    def __init__(self, httpx: ModuleType) -> None:
        name = httpx.__name__
        client = importlib.import_module(f"{name}._client")
        #: The library's own; those that a tool has replaced by now are not among them.
        self._steps = frozenset(
            found
            for kind in (httpx.Client, httpx.AsyncClient)
            for step in _STEPS
            if type(found := getattr(kind, step)) is FunctionType and found.__globals__ is vars(client)
        )
        self._library = httpx
        made: Any = httpx.Request.__init__
        models = importlib.import_module(f"{name}._models")
        self._made = made if getattr(made, "__globals__", None) is vars(models) else None
        self._opened = client.ClientState.OPENED
        self._log = client.logger
        self._default = httpx.USE_CLIENT_DEFAULT
        self._url: Any = httpx.URL
        self._parsed = importlib.import_module(f"{name}._urlparse").ParseResult
        self._streams = httpx.SyncByteStream, httpx.AsyncByteStream
        self.timed: Any = type("Timed", (_Blocking, httpx.SyncByteStream), {})
        self.async_timed: Any = type("AsyncTimed", (_Awaited, httpx.AsyncByteStream), {})
        self.error: type[Exception] = httpx.RequestError

    def url(self, text: str) -> Any:
        """The URL that ``text`` is, if it is plain; else None."""
        found = PLAIN.fullmatch(text) if len(text) <= _LONGEST else None
        if found is None:
            return None
        scheme, host, written, path, query = found.groups()
        if host.replace(".", "").isdigit():  # an IPv4 address, or none, which the library refuses
            return None
        port = None if written is None else int(written)
        made = self._url.__new__(self._url)
        made._uri_reference = self._parsed(
            scheme, "", host, None if port == _DEFAULT_PORTS[scheme] else port, path, query, None
        )
        return made

    def is_bodiless(self, client: Any, method: str, options: Any) -> bool:
        """Whether a request for a URL is the method, the URL and header lines, and nothing else."""
        get = options.get
        return (
            method in _BODILESS
            and get("content") is None
            and get("data") is None
            and get("files") is None
            and get("json") is None
            and get("params") is None
            and get("cookies") is None
            and get("extensions") is None
            and not client.params
            and not client.cookies
            and options.keys() <= _ARGUMENTS
            and self.are_own(client._merge_headers, client._merge_cookies, client._merge_queryparams)
        )

    def request(self, client: Any, method: str, url: Any, options: Any) -> Any:
        """The request that ``build_request`` makes of these."""
        library = self._library
        own = options.get("headers")
        headers = library.Headers(client.headers) if own is None else client._merge_headers(own)
        lines = headers._list
        if b"host" not in [name for _, name, _ in lines]:
            lines.insert(0, (b"Host", b"host", url.netloc))
        timeout = options.get("timeout", self._default)
        timeout = client.timeout if timeout is self._default else library.Timeout(timeout)
        stream, extensions = library.ByteStream(b""), {"timeout": timeout.as_dict()}
        kind = library.Request
        if kind.__init__ is not self._made:
            request = kind(method, url, headers=headers, stream=stream, extensions=extensions)
        else:  # which copies all of these
            request = kind.__new__(kind)
            request.method = method.upper()
            request.url = url
            request.headers = headers
            request.extensions = extensions
            request.stream = stream
        request._content = b""
        return request

    def is_plain(self, client: Any, request: Any, options: Any, usual: Any) -> bool:
        """Whether the steps around a call, authentication among them, change nothing in it. ``usual``: the library's method."""
        default = self._default
        return (
            client._state is self._opened
            and options.get("auth", default) is default
            and client._auth is None
            and not request.url.userinfo
            and options.keys() <= _WISHES
            and self.are_own(usual, client._send_handling_auth, client._build_request_auth)
        )

    def may_send(self, request: Any, usual: Any, *, awaited: bool = False) -> bool:
        """Whether a single request can be made in the place of ``usual``, the library's own step."""
        return isinstance(request.stream, self._streams[awaited]) and self.are_own(usual)

    def are_own(self, *methods: Any) -> bool:
        """Whether these are the library's own: nobody looks on there, neither a tool nor a class derived from ours."""
        try:
            return self._steps.issuperset(map(_function_of, methods))
        except AttributeError:  # what stands there is no method
            return False

    def follows(self, client: Any, options: Any) -> bool:
        """Whether redirects are followed."""
        asked = options.get("follow_redirects", self._default)
        return bool(client.follow_redirects if asked is self._default else asked)

    def arrived(self, client: Any, request: Any, response: Any, stream: Any) -> Any:
        """The response as the client hands it on, with ``stream`` as its body."""
        response.request = request
        response.stream = stream
        if [name for _, name, _ in response.headers._list if name.startswith(b"set-cookie")]:
            client.cookies.extract_cookies(response)
        response.default_encoding = client._default_encoding
        if self._log.isEnabledFor(20):  # logging.INFO
            self._log.info(
                'HTTP Request: %s %s "%s %d %s"',
                request.method,
                request.url,
                response.http_version,
                response.status_code,
                response.reason_phrase,
            )
        return response

    def is_whole(self, response: Any, timed: type) -> bool:
        """Whether the bytes of the body are the content, and nothing of it was read."""
        return (
            type(response.stream) is timed
            and not response.is_stream_consumed
            and not response.is_closed
            and b"content-encoding" not in [name for _, name, _ in response.headers._list]
        )
