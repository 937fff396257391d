"""meshlib's session and connector for aiohttp: 100 routes, 50 endpoints, all policies on."""

from __future__ import annotations

from typing import Any

import aiohttp

from bench import routes
from bench.peers.aiohttp_bare import Session, pair
from bench.world import World


async def _session(world: World) -> tuple[Any, str]:
    import meshlib_aiohttp

    connector = meshlib_aiohttp.connector(world.mesh, keepalive_timeout=60.0)
    session = meshlib_aiohttp.ClientSession(mesh=world.mesh, connector=connector)
    return Session(session), f"http://{routes.HOST}"


async def _connector(world: World) -> tuple[Any, str]:
    import meshlib_aiohttp

    connector = meshlib_aiohttp.connector(world.mesh, keepalive_timeout=60.0)
    return Session(aiohttp.ClientSession(connector=connector)), f"http://{routes.HOST}"


PEERS = (*pair("meshlib_aiohttp.ClientSession", _session), *pair("meshlib_aiohttp.connector", _connector))
