"""httpx's own tests, over our clients and transports of httpx's shape: those for httpx and those for httpx2.

``httpx`` is here what the tests import by that name. A plugin that means httpx2 calls ``httpx2.alias_httpx()`` before it imports
this.

``plain``: the library as it is. ``client``: our clients in the place of its own. ``transport``: its clients, our transports in the
place of theirs. ``auto``: both are the library's own, patched by ``meshlib.auto``. ``…-mesh``: the same, with the endpoints
substituted.
"""

from __future__ import annotations

import fcntl
import os
import socket
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import httpx._api
import httpx._client
import httpx._main
import uvicorn.config
from compat_kit import COUNTS, MODE, configure, count, mesh_for

import meshlib

OURS: Any = meshlib if httpx.__name__ == "httpx" else import_module("meshlib.httpx2")
KIND, _, SUBSTITUTED = MODE.partition("-")
#: The port that httpx's tests expect, while it is free.
USUAL = 8000


#: One process at a time has that port: the suites for httpx and for httpx2 may run at once.
TURN = (Path(os.environ["MESHLIB_COMPAT_COUNTS"]).parents[1] / "port.lock").open("w")
fcntl.flock(TURN, fcntl.LOCK_EX)


def free_port() -> int:
    for port in (USUAL, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise OSError("no port is free")


PORT = free_port()


class Config(uvicorn.config.Config):
    """The test server's, at a port that is free, and with the heads that the tests expect: httptools, where it is installed,
    makes uvicorn write other ones.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"port": PORT, "http": "h11", **options})


uvicorn.config.Config = Config  # type: ignore[misc]


class Transport(OURS.Transport):
    """Ours; with ``-mesh`` each host on loopback has a mesh of its own, and so a transport of its own."""

    def __init__(self, *, mesh: Any = None, **options: Any) -> None:
        super().__init__(mesh=mesh, **options)
        self._options, self._others = options, {}

    def handle_request(self, request: Any) -> Any:
        try:
            response = self._for(request).handle_request(request)
        except httpx.TransportError as error:
            count(error)
            raise
        count(response)
        return response

    def close(self) -> None:
        for other in (super(), *self._others.values()):
            other.close()

    def _for(self, request: Any) -> Any:
        if not SUBSTITUTED:
            return super()
        mesh = mesh_for(str(request.url))
        if mesh not in self._others:
            self._others[mesh] = OURS.Transport(mesh=mesh, **self._options)
        return self._others[mesh]


class AsyncTransport(OURS.AsyncTransport):
    """The same for async calls."""

    def __init__(self, *, mesh: Any = None, **options: Any) -> None:
        super().__init__(mesh=mesh, **options)
        self._options, self._others = options, {}

    async def handle_async_request(self, request: Any) -> Any:
        try:
            response = await self._for(request).handle_async_request(request)
        except httpx.TransportError as error:
            count(error)
            raise
        count(response)
        return response

    async def aclose(self) -> None:
        for other in (super(), *self._others.values()):
            await other.aclose()

    def _for(self, request: Any) -> Any:
        if not SUBSTITUTED:
            return super()
        mesh = mesh_for(str(request.url))
        if mesh not in self._others:
            self._others[mesh] = OURS.AsyncTransport(mesh=mesh, **self._options)
        return self._others[mesh]


class Client(OURS.Client):
    """Ours, over the transport above."""

    transport_class = Transport

    def send(self, *args: Any, **options: Any) -> Any:
        COUNTS["client"] += 1
        return super().send(*args, **options)


class AsyncClient(OURS.AsyncClient):
    """Ours, over the transport above."""

    transport_class = AsyncTransport

    async def send(self, *args: Any, **options: Any) -> Any:
        COUNTS["client"] += 1
        return await super().send(*args, **options)


def put_clients() -> None:
    for module in (httpx, httpx._client, httpx._api, httpx._main):
        for cls in (Client, AsyncClient):
            if hasattr(module, cls.__name__):
                setattr(module, cls.__name__, cls)


def put_transports() -> None:
    """In the place of what a client makes for itself; a proxy's is httpx's own, as everywhere."""

    def make(self: Any, transport: Any = None, **options: Any) -> Any:
        return Transport(**options) if transport is None else transport

    def make_async(self: Any, transport: Any = None, **options: Any) -> Any:
        return AsyncTransport(**options) if transport is None else transport

    httpx.Client._init_transport = make  # type: ignore[method-assign]
    httpx.AsyncClient._init_transport = make_async  # type: ignore[method-assign]


def patch() -> None:
    """``meshlib.auto``, and a count of what comes out of the library's transports."""
    if SUBSTITUTED:
        configure(PORT)
    import_module("meshlib.auto")

    handle, handle_async = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request

    def counted(self: Any, request: Any) -> Any:
        response = handle(self, request)
        count(response)
        return response

    async def counted_async(self: Any, request: Any) -> Any:
        response = await handle_async(self, request)
        count(response)
        return response

    httpx.HTTPTransport.handle_request = counted  # type: ignore[method-assign]
    httpx.AsyncHTTPTransport.handle_async_request = counted_async  # type: ignore[method-assign]


def put_in_place() -> None:
    """What the mode is about."""
    if KIND != "plain":
        {"client": put_clients, "transport": put_transports, "auto": patch}[KIND]()
