"""One way to call with every HTTP library, as it is and in the mesh: what the two have in common is what is compared."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any, Self

import aiohttp
import httpx
import httpx2
import requests
import urllib3

import meshlib
import meshlib.httpx2
import meshlib_aiohttp
import meshlib_requests
from meshlib_requests import urllib3 as meshlib_urllib3

__all__ = ["LIBRARIES", "Caller", "call"]

LIBRARIES = (
    "httpx", "httpx-async", "httpx2", "httpx2-async", "requests", "urllib3", "aiohttp", "aiohttp-connector"
)  # fmt: skip

Reply = tuple[int, bytes, meshlib.CallInfo | None]


class Caller:
    """A client of one library, plain where there is no mesh. For one thread."""

    def __init__(self, library: str, mesh: meshlib.Mesh | None) -> None:
        self.library = library
        self._mesh = mesh
        is_async = library.startswith("aiohttp") or library.endswith("-async")
        self._runner = asyncio.Runner() if is_async else None
        self._client = self._run(self._open()) if is_async else self._made()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._runner is not None:
            self._runner.run(self._close())
            self._runner.close()
        elif self.library == "urllib3":
            self._client.clear()
        else:
            self._client.close()

    def __call__(self, method: str, url: Any, **options: Any) -> Reply:
        """Status, body and what became of the call."""
        if self.library.startswith("aiohttp"):
            return self._run(self._ask(method, url, options))  # type: ignore[no-any-return]
        response = self._client.request(method, url, **options)
        if self._runner is not None:
            response = self._run(response)
        status = response.status if self.library == "urllib3" else response.status_code
        body = response.data if self.library == "urllib3" else response.content
        return status, body, meshlib.call_info(response)

    def _run(self, work: Any) -> Any:
        # A runner has a context of its own; a call belongs to the caller's.
        assert self._runner is not None
        return self._runner.run(work, context=contextvars.copy_context())

    async def _open(self) -> Any:
        return self._made()

    async def _close(self) -> None:
        await (self._client.close() if self.library.startswith("aiohttp") else self._client.aclose())

    async def _ask(self, method: str, url: Any, options: dict[str, Any]) -> Reply:
        async with self._client.request(method, url, **options) as response:
            return response.status, await response.read(), meshlib.call_info(response)

    def _made(self) -> Any:
        plain: dict[str, Any] = {
            "httpx": httpx.Client,
            "httpx-async": httpx.AsyncClient,
            "httpx2": httpx2.Client,
            "httpx2-async": httpx2.AsyncClient,
            "requests": requests.Session,
            "urllib3": urllib3.PoolManager,
            "aiohttp": aiohttp.ClientSession,
            "aiohttp-connector": aiohttp.ClientSession,
        }
        ours: dict[str, Any] = {
            "httpx": meshlib.Client,
            "httpx-async": meshlib.AsyncClient,
            "httpx2": meshlib.httpx2.Client,
            "httpx2-async": meshlib.httpx2.AsyncClient,
            "requests": meshlib_requests.Session,
            "urllib3": meshlib_urllib3.PoolManager,
            "aiohttp": meshlib_aiohttp.ClientSession,
        }
        if self._mesh is None:
            return plain[self.library]()
        if self.library == "aiohttp-connector":
            return aiohttp.ClientSession(connector=meshlib_aiohttp.connector(self._mesh))
        return ours[self.library](mesh=self._mesh)


def call(library: str, mesh: meshlib.Mesh | None, method: str, url: Any, **options: Any) -> Reply:
    """One call of a client that is made for it."""
    with Caller(library, mesh) as caller:
        return caller(method, url, **options)
