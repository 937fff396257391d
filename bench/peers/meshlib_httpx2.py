"""meshlib's clients on httpx2: 100 routes, 50 endpoints, all policies on."""

from __future__ import annotations

from typing import Any

import httpx2

import meshlib.httpx2
from bench import routes
from bench.shapes import AsyncClient, SyncClient
from bench.world import World

_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=60.0)


def _sync(world: World) -> tuple[Any, str]:
    return meshlib.httpx2.Client(mesh=world.mesh, limits=_LIMITS, trust_env=False), f"http://{routes.HOST}"


async def _async(world: World) -> tuple[Any, str]:
    return meshlib.httpx2.AsyncClient(
        mesh=world.mesh, limits=_LIMITS, trust_env=False
    ), f"http://{routes.HOST}"


PEERS = (SyncClient("meshlib.httpx2.Client", _sync), AsyncClient("meshlib.httpx2.AsyncClient", _async))
