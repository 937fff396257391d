"""meshlib's clients on httpx2: 100 routes, 50 endpoints, all policies on."""

from __future__ import annotations

from typing import Any

import httpx2

import meshlib.httpx2
from bench import routes
from bench.shapes import CALLS, CHUNKS, DOWNLOAD, POST, AsyncClient, SyncClient
from bench.world import World

_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=60.0)


def _sync(world: World) -> tuple[Any, str]:
    return meshlib.httpx2.Client(mesh=world.mesh, limits=_LIMITS, trust_env=False), f"http://{routes.HOST}"


async def _async(world: World) -> tuple[Any, str]:
    return meshlib.httpx2.AsyncClient(
        mesh=world.mesh, limits=_LIMITS, trust_env=False
    ), f"http://{routes.HOST}"


def _tls(world: World) -> tuple[Any, str]:
    client = meshlib.httpx2.Client(mesh=world.tls_mesh, limits=_LIMITS, trust_env=False, verify=world.trust)
    return client, f"https://{routes.HOST}"


async def _async_tls(world: World) -> tuple[Any, str]:
    client = meshlib.httpx2.AsyncClient(
        mesh=world.tls_mesh, limits=_LIMITS, trust_env=False, verify=world.trust
    )
    return client, f"https://{routes.HOST}"


PEERS = (
    SyncClient("meshlib.httpx2.Client", _sync),
    SyncClient("meshlib.httpx2.Client, TLS", _tls),
    SyncClient("meshlib.httpx2.Client, POST", _sync, work=POST),
    SyncClient("meshlib.httpx2.Client, download", _sync, calls=3, work=DOWNLOAD),
    SyncClient("meshlib.httpx2.Client, chunks", _sync, work=CHUNKS),
    AsyncClient("meshlib.httpx2.AsyncClient", _async),
    AsyncClient("meshlib.httpx2.AsyncClient, 1 task", _async, tasks=1, calls=CALLS),
    AsyncClient("meshlib.httpx2.AsyncClient, TLS", _async_tls),
    AsyncClient("meshlib.httpx2.AsyncClient, POST", _async, work=POST),
    AsyncClient("meshlib.httpx2.AsyncClient, download", _async, tasks=1, calls=3, work=DOWNLOAD),
    AsyncClient("meshlib.httpx2.AsyncClient, chunks", _async, work=CHUNKS),
)
