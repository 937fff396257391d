"""meshlib's clients on httpx2: 100 routes, 50 endpoints, all policies on."""

from __future__ import annotations

from typing import Any

import meshlib.httpx2
from bench import routes
from bench.shapes import AsyncClient, SyncClient
from bench.world import World


def _sync(world: World) -> tuple[Any, str]:
    return meshlib.httpx2.Client(mesh=world.mesh, trust_env=False), f"http://{routes.HOST}"


async def _async(world: World) -> tuple[Any, str]:
    return meshlib.httpx2.AsyncClient(mesh=world.mesh, trust_env=False), f"http://{routes.HOST}"


PEERS = (SyncClient("meshlib.httpx2.Client", _sync), AsyncClient("meshlib.httpx2.AsyncClient", _async))
