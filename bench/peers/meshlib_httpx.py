"""meshlib's clients on httpx: 100 routes, 50 endpoints, all policies on."""

from __future__ import annotations

from typing import Any

import httpx

import meshlib
from bench import routes
from bench.shapes import CALLS, CHUNKS, DOWNLOAD, POST, AsyncClient, SyncClient
from bench.world import World

_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=60.0)


def _sync(world: World) -> tuple[Any, str]:
    return meshlib.Client(mesh=world.mesh, limits=_LIMITS, trust_env=False), f"http://{routes.HOST}"


async def _async(world: World) -> tuple[Any, str]:
    return meshlib.AsyncClient(mesh=world.mesh, limits=_LIMITS, trust_env=False), f"http://{routes.HOST}"


def _tls(world: World) -> tuple[Any, str]:
    client = meshlib.Client(mesh=world.tls_mesh, limits=_LIMITS, trust_env=False, verify=world.trust)
    return client, f"https://{routes.HOST}"


async def _async_tls(world: World) -> tuple[Any, str]:
    client = meshlib.AsyncClient(mesh=world.tls_mesh, limits=_LIMITS, trust_env=False, verify=world.trust)
    return client, f"https://{routes.HOST}"


PEERS = (
    SyncClient("meshlib.Client", _sync),
    SyncClient("meshlib.Client, TLS", _tls),
    SyncClient("meshlib.Client, POST", _sync, work=POST),
    SyncClient("meshlib.Client, download", _sync, calls=3, work=DOWNLOAD),
    SyncClient("meshlib.Client, chunks", _sync, work=CHUNKS),
    AsyncClient("meshlib.AsyncClient", _async),
    AsyncClient("meshlib.AsyncClient, 1 task", _async, tasks=1, calls=CALLS),
    AsyncClient("meshlib.AsyncClient, TLS", _async_tls),
    AsyncClient("meshlib.AsyncClient, POST", _async, work=POST),
    AsyncClient("meshlib.AsyncClient, download", _async, tasks=1, calls=3, work=DOWNLOAD),
    AsyncClient("meshlib.AsyncClient, chunks", _async, work=CHUNKS),
)
