"""httpx alone, calling one address. It may keep as many connections as it opens: 50 tasks never reconnect."""

from __future__ import annotations

from typing import Any

import httpx

from bench.shapes import AsyncClient, SyncClient
from bench.world import World

_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=60.0)


def _sync(world: World) -> tuple[Any, str]:
    return httpx.Client(limits=_LIMITS, trust_env=False), f"http://{world.addresses[0]}"


async def _async(world: World) -> tuple[Any, str]:
    return httpx.AsyncClient(limits=_LIMITS, trust_env=False), f"http://{world.addresses[0]}"


PEERS = (SyncClient("httpx.Client", _sync), AsyncClient("httpx.AsyncClient", _async))
