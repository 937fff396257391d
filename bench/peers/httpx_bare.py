"""httpx alone, calling one address. It may keep as many connections as it opens: 50 tasks never reconnect."""

from __future__ import annotations

from typing import Any

import httpx

from bench.shapes import CALLS, CHUNKS, DOWNLOAD, POST, AsyncClient, SyncClient
from bench.world import World

_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=60.0)


def _sync(world: World) -> tuple[Any, str]:
    return httpx.Client(limits=_LIMITS, trust_env=False), f"http://{world.addresses[0]}"


async def _async(world: World) -> tuple[Any, str]:
    return httpx.AsyncClient(limits=_LIMITS, trust_env=False), f"http://{world.addresses[0]}"


def _tls(world: World) -> tuple[Any, str]:
    client = httpx.Client(limits=_LIMITS, trust_env=False, verify=world.trust)
    return client, f"https://{world.tls_addresses[0]}"


async def _async_tls(world: World) -> tuple[Any, str]:
    client = httpx.AsyncClient(limits=_LIMITS, trust_env=False, verify=world.trust)
    return client, f"https://{world.tls_addresses[0]}"


PEERS = (
    SyncClient("httpx.Client", _sync),
    SyncClient("httpx.Client, TLS", _tls),
    SyncClient("httpx.Client, POST", _sync, work=POST),
    SyncClient("httpx.Client, download", _sync, calls=3, work=DOWNLOAD),
    SyncClient("httpx.Client, chunks", _sync, work=CHUNKS),
    AsyncClient("httpx.AsyncClient", _async),
    AsyncClient("httpx.AsyncClient, 1 task", _async, tasks=1, calls=CALLS),
    AsyncClient("httpx.AsyncClient, TLS", _async_tls),
    AsyncClient("httpx.AsyncClient, POST", _async, work=POST),
    AsyncClient("httpx.AsyncClient, download", _async, tasks=1, calls=3, work=DOWNLOAD),
    AsyncClient("httpx.AsyncClient, chunks", _async, work=CHUNKS),
)
