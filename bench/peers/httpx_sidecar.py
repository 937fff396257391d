"""httpx through an Envoy on this machine, which has the mesh's routes, endpoints and policies."""

from __future__ import annotations

from typing import Any

import httpx

from bench import routes
from bench.shapes import AsyncClient, SyncClient
from bench.world import World

_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=60.0)
_HOST = {"host": routes.HOST}


def _sync(world: World) -> tuple[Any, str]:
    return httpx.Client(limits=_LIMITS, trust_env=False, headers=_HOST), f"http://{world.sidecar}"


async def _async(world: World) -> tuple[Any, str]:
    return httpx.AsyncClient(limits=_LIMITS, trust_env=False, headers=_HOST), f"http://{world.sidecar}"


PEERS = (SyncClient("httpx.Client via Envoy", _sync), AsyncClient("httpx.AsyncClient via Envoy", _async))
