"""One library's calls before, under and after one tool that stands in its way; run as a process of its own.

    python tools_program.py WAY LIBRARY TOOL URL

WAY is ``plain`` (no meshlib), ``auto`` (``import meshlib.auto``; the library's own classes), or ``ours`` (meshlib's). The tool
is there when the first call of the process is made, gone for the second, there for the third and gone for the fourth. Prints
what each was answered, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

WAY, LIBRARY, TOOL, URL = sys.argv[1:]
MOCK = b"mock"

if WAY == "auto":
    import meshlib.auto  # noqa: F401


# --- libraries -----------------------------------------------------------------------------------------------------------


def httpx_sync(name: str) -> Callable[[], bytes]:
    if WAY != "ours":
        module = __import__(name)
        return lambda: module.get(URL).read()
    client = _clients(name).Client()
    return lambda: client.get(URL).read()


def httpx_async(name: str) -> Callable[[], bytes]:
    async def call() -> bytes:
        kind = __import__(name).AsyncClient if WAY != "ours" else _clients(name).AsyncClient
        async with kind() as client:
            return (await client.get(URL)).read()

    return lambda: asyncio.run(call())


def _clients(name: str) -> Any:
    import meshlib

    return meshlib if name == "httpx" else meshlib.httpx2


def by_requests() -> Callable[[], bytes]:
    if WAY != "ours":
        import requests
    else:
        import meshlib_requests as requests
    session = requests.Session()
    return lambda: session.get(URL).content


def by_urllib3() -> Callable[[], bytes]:
    if WAY != "ours":
        from urllib3 import PoolManager
    else:
        from meshlib_requests import PoolManager
    manager = PoolManager(retries=False)
    return lambda: manager.request("GET", URL).data


def by_aiohttp(*, connector: bool = False) -> Callable[[], bytes]:
    async def call() -> bytes:
        import aiohttp

        kind, options = aiohttp.ClientSession, {}
        if WAY == "ours":
            import meshlib_aiohttp

            if connector:
                options["connector"] = meshlib_aiohttp.connector()
            else:
                kind = meshlib_aiohttp.ClientSession
        async with kind(**options) as session, session.get(URL) as response:
            return await response.read()

    return lambda: asyncio.run(call())


LIBRARIES: dict[str, Callable[[], Callable[[], bytes]]] = {
    "httpx": lambda: httpx_sync("httpx"),
    "httpx async": lambda: httpx_async("httpx"),
    "httpx2": lambda: httpx_sync("httpx2"),
    "httpx2 async": lambda: httpx_async("httpx2"),
    "requests": by_requests,
    "urllib3": by_urllib3,
    "aiohttp": by_aiohttp,
    "aiohttp connector": lambda: by_aiohttp(connector=True),
}


# --- tools ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def vcrpy() -> Iterator[None]:
    """A cassette is played."""
    import vcr

    text = f"""
interactions:
- request: {{body: null, headers: {{}}, method: GET, uri: "{URL}"}}
  response:
    body: {{string: mock}}
    headers: {{content-type: [text/plain], content-length: ["4"]}}
    status: {{code: 200, message: OK}}
version: 1
"""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "cassette.yaml"
        path.write_text(text)
        with vcr.use_cassette(str(path), record_mode="none", match_on=["method", "host", "path"]):
            yield


@contextlib.contextmanager
def respx() -> Iterator[None]:
    import respx as tool

    with tool.mock:
        tool.get(URL).respond(content=MOCK)
        yield


@contextlib.contextmanager
def pytest_httpx() -> Iterator[None]:
    import pytest
    from pytest_httpx import _httpx_mock, _options

    mocked = _httpx_mock.HTTPXMock(_options._HTTPXMockOptions())
    mocked.add_response(url=URL, content=MOCK)
    import httpx

    def handle(transport: Any, request: Any) -> Any:
        return mocked._handle_request(transport, request)

    async def handle_async(transport: Any, request: Any) -> Any:
        return await mocked._handle_async_request(transport, request)

    with pytest.MonkeyPatch.context() as patch:
        # What its fixture does.
        patch.setattr(httpx.HTTPTransport, "handle_request", handle)
        patch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle_async)
        yield


@contextlib.contextmanager
def responses() -> Iterator[None]:
    import responses as tool

    with tool.RequestsMock() as mocked:
        mocked.get(URL, body=MOCK)
        yield


@contextlib.contextmanager
def requests_mock() -> Iterator[None]:
    import requests_mock as tool

    with tool.Mocker() as mocked:
        mocked.get(URL, content=MOCK)
        yield


@contextlib.contextmanager
def aioresponses() -> Iterator[None]:
    from aioresponses import aioresponses as tool

    with tool() as mocked:
        mocked.get(URL, body=MOCK)
        yield


@contextlib.contextmanager
def pook() -> Iterator[None]:
    import pook as tool

    tool.on()
    tool.get(URL).reply(200).body(MOCK)
    try:
        yield
    finally:
        tool.off()


@contextlib.contextmanager
def httpretty() -> Iterator[None]:
    import httpretty as tool

    with tool.enabled(allow_net_connect=False):
        tool.register_uri(tool.GET, URL, body=MOCK)
        yield


@contextlib.contextmanager
def mocket() -> Iterator[None]:
    from mocket import Mocketizer
    from mocket.mocks.mockhttp import Entry

    Entry.single_register(Entry.GET, URL, body="mock")
    with Mocketizer(strict_mode=True):
        yield


@contextlib.contextmanager
def by_hand(path: str, answer: Any) -> Iterator[None]:
    with mock.patch(path, answer):
        yield


def _urllib3_answer(*_: Any, **options: Any) -> Any:
    import urllib3

    return urllib3.HTTPResponse(
        io.BytesIO(MOCK), status=200, headers={"content-type": "text/plain"},
        preload_content=options.get("preload_content", True),
    )  # fmt: skip


def _httpx_answer(*_: Any, **__: Any) -> Any:
    return __import__(LIBRARY.split()[0]).Response(200, content=MOCK)


async def _httpx_answer_async(*_: Any, **__: Any) -> Any:
    return _httpx_answer()


TOOLS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "vcrpy": vcrpy,
    "respx": respx,
    "pytest-httpx": pytest_httpx,
    "responses": responses,
    "requests-mock": requests_mock,
    "aioresponses": aioresponses,
    "pook": pook,
    "httpretty": httpretty,
    "mocket": mocket,
    "urlopen by hand": lambda: by_hand("urllib3.connectionpool.HTTPConnectionPool.urlopen", _urllib3_answer),
    "transport by hand": lambda: by_hand(f"{LIBRARY}.HTTPTransport.handle_request", _httpx_answer),
    "async transport by hand": lambda: by_hand(
        f"{LIBRARY.split()[0]}.AsyncHTTPTransport.handle_async_request", _httpx_answer_async
    ),
}


def main() -> None:
    call = LIBRARIES[LIBRARY]()
    answers: list[str] = []

    def say() -> None:
        try:
            answers.append(call().decode())
        except Exception as error:  # noqa: BLE001 - told
            answers.append(f"{type(error).__module__}.{type(error).__qualname__}: {error}")

    for _ in range(2):
        with TOOLS[TOOL]():
            say()
        say()
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
