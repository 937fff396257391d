"""One way to call through every host library: what its own words for a call are, and nothing else.

A column is a library that an application calls with, by meshlib's own class or (``… run``) by the library's own under
``meshlib.auto``. A new host gets a class here, and every row of the table holds it to what the others do.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import aiohttp
import httpx
import httpx2
import pyqwest
import requests
import urllib3

import meshlib
import meshlib.httpx2
import meshlib_aiohttp
import meshlib_pyqwest
import meshlib_requests
from meshlib.hosts.endpoints import WireSettings
from meshlib.pools import PoolSettings

__all__ = ["COLUMNS", "Answer", "Ask", "Column", "Options", "column_of"]


@dataclass(frozen=True)
class Ask:
    """One call. ``body``: bytes, or chunks that can be sent once."""

    method: str = "GET"
    url: str = "http://reviews/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | tuple[bytes, ...] | None = None
    follow: bool = False


@dataclass(frozen=True)
class Options:
    """What a client is made with; None is the library's own. Seconds. ``connections``: how many an endpoint may have open."""

    connect: float | None = None
    read: float | None = None
    pool: float | None = None
    connections: int | None = None
    keepalive: float | None = None
    proxy: str | None = None


@dataclass(frozen=True)
class Answer:
    """A response that was read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: Any

    @property
    def info(self) -> meshlib.CallInfo | None:
        return meshlib.call_info(self.raw)

    @property
    def said(self) -> dict[str, Any]:
        """What an ``Upstream`` said of the request."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    def sent(self, name: str) -> list[str]:
        """The lines of that name that arrived there."""
        return [value for key, value in self.said["headers"] if key.lower() == name]


class Column:
    """A client of one library. ``errors``: its exception for each kind of failure."""

    is_async: ClassVar[bool] = False
    errors: ClassVar[dict[str, Any]]

    def __init__(self, mesh: meshlib.Mesh, options: Options, *, run: bool) -> None:
        self.mesh = mesh
        self.options = options
        self.run = run
        self.client = self.make()

    def make(self) -> Any:
        raise NotImplementedError

    def begin(self, ask: Ask) -> Any:
        """The library's response, its body unread."""
        raise NotImplementedError

    def finish(self, raw: Any) -> Answer:
        raise NotImplementedError

    def drop(self, raw: Any) -> None:
        """Close a response without reading it."""
        raise NotImplementedError

    def call(self, ask: Ask | None = None, **words: Any) -> Answer:
        return self.finish(self.begin(ask or Ask(**words)))

    def together(self, asks: Iterable[Ask]) -> list[Answer | BaseException]:
        """Calls at once: in threads of their own, or in tasks."""
        asks = list(asks)

        def work(ask: Ask) -> Answer | BaseException:
            try:
                return self.call(ask)
            except Exception as error:  # noqa: BLE001 - an answer like any other
                return error

        with ThreadPoolExecutor(len(asks)) as pool:
            return list(pool.map(work, asks))

    def settle(self) -> None:
        """Let what a collected response left be done."""

    def close(self) -> None:
        self.client.close()


class AsyncColumn(Column):
    """A column whose library is asyncio's. Every call runs on one loop, which stands still in between."""

    is_async = True

    def __init__(self, mesh: meshlib.Mesh, options: Options, *, run: bool) -> None:
        self.runner = asyncio.Runner()
        super().__init__(mesh, options, run=run)

    def do(self, work: Any) -> Any:
        # A runner has a context of its own; a call belongs to the caller's.
        return self.runner.run(work, context=contextvars.copy_context())

    async def begin_async(self, ask: Ask) -> Any:
        raise NotImplementedError

    async def finish_async(self, raw: Any) -> Answer:
        raise NotImplementedError

    def begin(self, ask: Ask) -> Any:
        return self.do(self.begin_async(ask))

    def finish(self, raw: Any) -> Answer:
        answer: Answer = self.do(self.finish_async(raw))
        return answer

    def together(self, asks: Iterable[Ask]) -> list[Answer | BaseException]:
        async def one(ask: Ask) -> Answer:
            return await self.finish_async(await self.begin_async(ask))

        async def all_of_them() -> list[Answer | BaseException]:
            return await asyncio.gather(*(one(ask) for ask in asks), return_exceptions=True)

        found: list[Answer | BaseException] = self.do(all_of_them())
        return found

    def settle(self) -> None:
        self.do(asyncio.sleep(0))

    async def close_async(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.do(self.close_async())
        self.runner.close()


# --- httpx and httpx2 ------------------------------------------------------------------------------------------------------


def _httpx_errors(library: Any) -> dict[str, Any]:
    return {
        "any": library.TransportError,
        "connect": library.ConnectError,
        "read": library.ReadError,
        "protocol": library.RemoteProtocolError,
        "pool": library.PoolTimeout,
        "read timeout": library.ReadTimeout,
        "timeout": library.TimeoutException,
    }


class _Httpx:
    library: ClassVar[Any]
    ours: ClassVar[Any]
    options: Options
    mesh: meshlib.Mesh
    run: bool

    def arguments(self) -> dict[str, Any]:
        options, library = self.options, self.library
        found: dict[str, Any] = {} if self.run else {"mesh": self.mesh}
        if options.proxy is not None:
            found["proxy"] = options.proxy
        if any(one is not None for one in (options.connect, options.read, options.pool)):
            found["timeout"] = library.Timeout(
                connect=options.connect or 5.0, read=options.read or 5.0, write=5.0, pool=options.pool or 5.0
            )
        if options.connections is not None or options.keepalive is not None:
            found["limits"] = library.Limits(
                max_connections=options.connections,
                max_keepalive_connections=20,
                keepalive_expiry=options.keepalive,
            )
        return found

    @staticmethod
    def request(client: Any, ask: Ask, body: Any) -> Any:
        return client.build_request(ask.method, ask.url, headers=list(ask.headers), content=body)

    @staticmethod
    def answer(raw: Any, body: bytes) -> Answer:
        return Answer(raw.status_code, {key.lower(): value for key, value in raw.headers.items()}, body, raw)


class Httpx(_Httpx, Column):
    library, ours = httpx, meshlib
    errors = _httpx_errors(httpx)

    def make(self) -> Any:
        kind = self.library.Client if self.run else self.ours.Client
        return kind(**self.arguments())

    def begin(self, ask: Ask) -> Any:
        body = iter(ask.body) if isinstance(ask.body, tuple) else ask.body
        request = self.request(self.client, ask, body)
        return self.client.send(request, stream=True, follow_redirects=ask.follow)

    def finish(self, raw: Any) -> Answer:
        return self.answer(raw, raw.read())

    def drop(self, raw: Any) -> None:
        raw.close()


class HttpxAsync(_Httpx, AsyncColumn):
    library, ours = httpx, meshlib
    errors = _httpx_errors(httpx)

    def make(self) -> Any:
        kind = self.library.AsyncClient if self.run else self.ours.AsyncClient
        return kind(**self.arguments())

    async def begin_async(self, ask: Ask) -> Any:
        body = _one_by_one(ask.body) if isinstance(ask.body, tuple) else ask.body
        request = self.request(self.client, ask, body)
        return await self.client.send(request, stream=True, follow_redirects=ask.follow)

    async def finish_async(self, raw: Any) -> Answer:
        return self.answer(raw, await raw.aread())

    def drop(self, raw: Any) -> None:
        self.do(raw.aclose())

    async def close_async(self) -> None:
        await self.client.aclose()


class Httpx2(Httpx):
    library, ours = httpx2, meshlib.httpx2
    errors = _httpx_errors(httpx2)


class Httpx2Async(HttpxAsync):
    library, ours = httpx2, meshlib.httpx2
    errors = _httpx_errors(httpx2)


async def _one_by_one(chunks: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


# --- requests and urllib3 -------------------------------------------------------------------------------------------------


class Requests(Column):
    errors: ClassVar[dict[str, Any]] = {
        "any": requests.RequestException,
        "connect": requests.ConnectionError,
        "read": requests.ConnectionError,
        "protocol": requests.ConnectionError,
        "pool": requests.ConnectionError,
        "read timeout": requests.ReadTimeout,
        "timeout": requests.Timeout,
    }

    def make(self) -> Any:
        session = requests.Session() if self.run else meshlib_requests.Session(mesh=self.mesh)
        if self.options.connections is not None:
            words: dict[str, Any] = {"pool_maxsize": self.options.connections, "pool_block": True}
            adapter = (
                requests.adapters.HTTPAdapter(**words)
                if self.run
                else meshlib_requests.MeshAdapter(mesh=self.mesh, **words)
            )
            session.mount("http://", adapter)
        if self.options.proxy is not None:
            session.proxies = {"http": self.options.proxy}
        return session

    def begin(self, ask: Ask) -> Any:
        timeout = None
        if self.options.connect is not None or self.options.read is not None:
            timeout = (self.options.connect, self.options.read)
        body: Any = iter(ask.body) if isinstance(ask.body, tuple) else ask.body
        return self.client.request(
            ask.method, ask.url, headers=dict(ask.headers), data=body, timeout=timeout, stream=True,
            allow_redirects=ask.follow,
        )  # fmt: skip

    def finish(self, raw: Any) -> Answer:
        return Answer(
            raw.status_code, {key.lower(): value for key, value in raw.headers.items()}, raw.content, raw
        )

    def drop(self, raw: Any) -> None:
        raw.close()


class Urllib3(Column):
    errors: ClassVar[dict[str, Any]] = {
        "any": urllib3.exceptions.HTTPError,
        "connect": urllib3.exceptions.HTTPError,
        "read": urllib3.exceptions.ProtocolError,
        "protocol": urllib3.exceptions.ProtocolError,
        "pool": urllib3.exceptions.HTTPError,
        "read timeout": urllib3.exceptions.ReadTimeoutError,
        "timeout": urllib3.exceptions.TimeoutError,
    }

    def make(self) -> Any:
        words: dict[str, Any] = {"retries": False}
        if self.options.connections is not None:
            words |= {"maxsize": self.options.connections, "block": True}
        if self.options.connect is not None or self.options.read is not None:
            words["timeout"] = urllib3.Timeout(connect=self.options.connect, read=self.options.read)
        if self.options.proxy is not None:
            # A proxy is a manager of its own here, which is never of the mesh.
            return urllib3.ProxyManager(self.options.proxy, **words)
        return (
            urllib3.PoolManager(**words)
            if self.run
            else meshlib_requests.PoolManager(mesh=self.mesh, **words)
        )

    def begin(self, ask: Ask) -> Any:
        body: Any = iter(ask.body) if isinstance(ask.body, tuple) else ask.body
        words: dict[str, Any] = {} if self.options.pool is None else {"pool_timeout": self.options.pool}
        return self.client.urlopen(
            ask.method, ask.url, headers=dict(ask.headers), body=body, preload_content=False, redirect=ask.follow,
            retries=5 if ask.follow else False, **words,
        )  # fmt: skip

    def finish(self, raw: Any) -> Answer:
        return Answer(raw.status, {key.lower(): value for key, value in raw.headers.items()}, raw.read(), raw)

    def drop(self, raw: Any) -> None:
        raw.close()

    def close(self) -> None:
        self.client.clear()


# --- aiohttp --------------------------------------------------------------------------------------------------------------


class Aiohttp(AsyncColumn):
    errors: ClassVar[dict[str, Any]] = {
        "any": aiohttp.ClientError,
        "connect": aiohttp.ClientConnectionError,
        "read": aiohttp.ClientError,
        "protocol": aiohttp.ClientError,
        "pool": aiohttp.ServerTimeoutError,
        "read timeout": aiohttp.ServerTimeoutError,
        "timeout": TimeoutError,
    }

    def make(self) -> Any:
        return self.do(self.make_async())

    def connector_words(self) -> dict[str, Any]:
        words: dict[str, Any] = {}
        if self.options.connections is not None:
            words["limit_per_host"] = self.options.connections
        if self.options.keepalive is not None:
            words["keepalive_timeout"] = self.options.keepalive
        return words

    def session_words(self) -> dict[str, Any]:
        options = self.options
        words: dict[str, Any] = {}
        if any(one is not None for one in (options.connect, options.read, options.pool)):
            words["timeout"] = aiohttp.ClientTimeout(
                total=None, sock_connect=options.connect, sock_read=options.read, connect=options.pool
            )
        if options.proxy is not None:
            words["proxy"] = options.proxy
        return words

    async def make_async(self) -> Any:
        connector = aiohttp.TCPConnector(**self.connector_words())
        if self.run:
            return aiohttp.ClientSession(connector=connector, **self.session_words())
        return meshlib_aiohttp.ClientSession(mesh=self.mesh, connector=connector, **self.session_words())

    async def begin_async(self, ask: Ask) -> Any:
        body: Any = _one_by_one(ask.body) if isinstance(ask.body, tuple) else ask.body
        return await self.client.request(
            ask.method, ask.url, headers=dict(ask.headers), data=body, allow_redirects=ask.follow
        )

    async def finish_async(self, raw: Any) -> Answer:
        return Answer(
            raw.status, {key.lower(): value for key, value in raw.headers.items()}, await raw.read(), raw
        )

    def drop(self, raw: Any) -> None:
        async def close() -> None:
            raw.close()

        self.do(close())

    async def close_async(self) -> None:
        await self.client.close()


class AiohttpConnector(Aiohttp):
    async def make_async(self) -> Any:
        connector = meshlib_aiohttp.connector(self.mesh, **self.connector_words())
        return aiohttp.ClientSession(connector=connector, **self.session_words())


# --- pyqwest --------------------------------------------------------------------------------------------------------------


class _PyqwestResponse:
    """A response and what closes it. The library's own carry nothing of others'; their content does."""

    def __init__(self, opened: Any, response: Any) -> None:
        self.opened = opened
        self.response = response
        self._meshlib_info = getattr(response.content, "_meshlib_info", None)


class Pyqwest(Column):
    errors: ClassVar[dict[str, Any]] = {
        "any": (OSError, pyqwest.ReadError, pyqwest.WriteError, pyqwest.RemoteProtocolError),
        "connect": ConnectionError,
        "read": (pyqwest.ReadError, pyqwest.WriteError),
        "protocol": pyqwest.RemoteProtocolError,
        "pool": ConnectionError,
        "read timeout": TimeoutError,
        "timeout": TimeoutError,
    }
    transport: ClassVar[Any] = meshlib_pyqwest.SyncTransport
    own: ClassVar[Any] = pyqwest.SyncHTTPTransport
    library: ClassVar[Any] = pyqwest.SyncClient

    def make(self) -> Any:
        options = self.options
        if options.proxy is not None:
            # A proxy is a transport's own here, which is never of the mesh.
            self.inner = self.own(proxy=options.proxy)
            return self.library(self.inner)
        pool = PoolSettings(
            options.connections, options.connections is not None, keepalive=options.keepalive or 90.0
        )
        self.inner = self.transport(
            mesh=self.mesh,
            settings=WireSettings(lambda _: ssl.create_default_context(), pool),
            timeouts={"connect": options.connect, "pool": options.pool, "read": options.read},
        )
        return self.library(self.inner)

    def words(self, ask: Ask) -> tuple[Any, ...]:
        body: Any = iter(ask.body) if isinstance(ask.body, tuple) else ask.body
        return ask.method, ask.url, list(ask.headers), body

    @staticmethod
    def answer(raw: Any, body: bytes) -> Answer:
        found = raw.response
        headers = {name: ", ".join(found.headers.getall(name)) for name in found.headers}
        return Answer(found.status, headers, body, raw)

    def begin(self, ask: Ask) -> Any:
        opened = self.client.stream(*self.words(ask))
        return _PyqwestResponse(opened, opened.__enter__())

    def finish(self, raw: Any) -> Answer:
        with raw.opened:
            return self.answer(raw, b"".join(bytes(part) for part in raw.response.content))

    def drop(self, raw: Any) -> None:
        raw.response.close()

    def close(self) -> None:
        self.inner.close()


class PyqwestAsync(AsyncColumn):
    errors = Pyqwest.errors
    transport, own, library = meshlib_pyqwest.Transport, pyqwest.HTTPTransport, pyqwest.Client
    answer = staticmethod(Pyqwest.answer)

    def make(self) -> Any:
        return Pyqwest.make(self)  # type: ignore[arg-type]

    async def begin_async(self, ask: Ask) -> Any:
        body: Any = _one_by_one(ask.body) if isinstance(ask.body, tuple) else ask.body
        opened = self.client.stream(ask.method, ask.url, list(ask.headers), body)
        return _PyqwestResponse(opened, await opened.__aenter__())

    async def finish_async(self, raw: Any) -> Answer:
        try:
            return self.answer(raw, b"".join([bytes(part) async for part in raw.response.content]))
        finally:
            await raw.response.aclose()

    def drop(self, raw: Any) -> None:
        async def close() -> None:
            await raw.response.aclose()

        self.do(close())

    async def close_async(self) -> None:
        await self.inner.aclose()


_KINDS: dict[str, type[Column]] = {
    "httpx": Httpx,
    "httpx async": HttpxAsync,
    "httpx2": Httpx2,
    "httpx2 async": Httpx2Async,
    "requests": Requests,
    "urllib3": Urllib3,
    "aiohttp session": Aiohttp,
}

#: What is always the application's own act, so that there is none under ``meshlib run``.
_ACTS: dict[str, type[Column]] = {
    "aiohttp connector": AiohttpConnector,
    "pyqwest": Pyqwest,
    "pyqwest async": PyqwestAsync,
}

#: Every column's name.
COLUMNS: tuple[str, ...] = (*_KINDS, *_ACTS, *(f"{name} run" for name in _KINDS))


#: Those whose calls run in an event loop.
ASYNCHRONOUS: tuple[str, ...] = tuple(
    name for name in COLUMNS if {**_KINDS, **_ACTS}[name.removesuffix(" run")].is_async
)


def column_of(name: str) -> Callable[[meshlib.Mesh, Options], Column]:
    """What makes a client of that column."""
    base = name.removesuffix(" run")
    kind = {**_KINDS, **_ACTS}[base]
    return lambda mesh, options: kind(mesh, options, run=name != base)
