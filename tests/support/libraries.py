"""One way to call with every HTTP library, as it is and in the mesh: what the two have in common is what is compared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

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

__all__ = ["LIBRARIES", "call"]

Reply = tuple[int, bytes, meshlib.CallInfo | None]


def call(library: str, mesh: meshlib.Mesh | None, method: str, url: Any, **options: Any) -> Reply:
    """Status, body and what became of it: one call of ``library``, plain where there is no mesh."""
    return _CALLS[library](mesh, method, url, options)


def _httpx(mesh: meshlib.Mesh | None, method: str, url: Any, options: dict[str, Any]) -> Reply:
    with httpx.Client() if mesh is None else meshlib.Client(mesh=mesh) as client:
        return _read(client.request(method, url, **options))


def _httpx2(mesh: meshlib.Mesh | None, method: str, url: Any, options: dict[str, Any]) -> Reply:
    with httpx2.Client() if mesh is None else meshlib.httpx2.Client(mesh=mesh) as client:
        return _read(client.request(method, url, **options))


def _httpx_async(mesh: meshlib.Mesh | None, method: str, url: Any, options: dict[str, Any]) -> Reply:
    async def run() -> Reply:
        async with httpx.AsyncClient() if mesh is None else meshlib.AsyncClient(mesh=mesh) as client:
            return _read(await client.request(method, url, **options))

    return asyncio.run(run())


def _httpx2_async(mesh: meshlib.Mesh | None, method: str, url: Any, options: dict[str, Any]) -> Reply:
    async def run() -> Reply:
        made = httpx2.AsyncClient() if mesh is None else meshlib.httpx2.AsyncClient(mesh=mesh)
        async with made as client:
            return _read(await client.request(method, url, **options))

    return asyncio.run(run())


def _requests(mesh: meshlib.Mesh | None, method: str, url: Any, options: dict[str, Any]) -> Reply:
    with requests.Session() if mesh is None else meshlib_requests.Session(mesh=mesh) as session:
        response = session.request(method, url, **options)
        return response.status_code, response.content, meshlib.call_info(response)


def _urllib3(mesh: meshlib.Mesh | None, method: str, url: Any, options: dict[str, Any]) -> Reply:
    manager = urllib3.PoolManager() if mesh is None else meshlib_urllib3.PoolManager(mesh=mesh)
    try:
        response = manager.request(method, url, **options)
        return response.status, response.data, meshlib.call_info(response)
    finally:
        manager.clear()


def _aiohttp(mesh: meshlib.Mesh | None, method: str, url: Any, options: dict[str, Any]) -> Reply:
    made = aiohttp.ClientSession if mesh is None else _session(mesh)
    return asyncio.run(_ask(made, method, url, options))


def _aiohttp_connector(mesh: meshlib.Mesh | None, method: str, url: Any, options: dict[str, Any]) -> Reply:
    def made() -> aiohttp.ClientSession:
        connector = None if mesh is None else meshlib_aiohttp.connector(mesh)
        return aiohttp.ClientSession(connector=connector)

    return asyncio.run(_ask(made, method, url, options))


def _session(mesh: meshlib.Mesh) -> Callable[[], aiohttp.ClientSession]:
    return lambda: meshlib_aiohttp.ClientSession(mesh=mesh)


async def _ask(
    made: Callable[[], aiohttp.ClientSession], method: str, url: Any, options: dict[str, Any]
) -> Reply:
    async with made() as session, session.request(method, url, **options) as response:
        return response.status, await response.read(), meshlib.call_info(response)


def _read(response: Any) -> Reply:
    return response.status_code, response.content, meshlib.call_info(response)


_CALLS: dict[str, Callable[[meshlib.Mesh | None, str, Any, dict[str, Any]], Reply]] = {
    "httpx": _httpx,
    "httpx-async": _httpx_async,
    "httpx2": _httpx2,
    "httpx2-async": _httpx2_async,
    "requests": _requests,
    "urllib3": _urllib3,
    "aiohttp": _aiohttp,
    "aiohttp-connector": _aiohttp_connector,
}
LIBRARIES = tuple(_CALLS)
