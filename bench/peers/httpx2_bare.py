"""httpx2 alone, as httpx."""

from __future__ import annotations

from typing import Any

import httpx2

from bench.shapes import AsyncClient, SyncClient
from bench.world import World

_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=60.0)


def _sync(world: World) -> tuple[Any, str]:
    return httpx2.Client(limits=_LIMITS, trust_env=False), f"http://{world.addresses[0]}"


async def _async(world: World) -> tuple[Any, str]:
    return httpx2.AsyncClient(limits=_LIMITS, trust_env=False), f"http://{world.addresses[0]}"


PEERS = (SyncClient("httpx2.Client", _sync), AsyncClient("httpx2.AsyncClient", _async))
