"""aiohttp alone, calling one address. It may keep as many connections as it opens: 50 tasks never reconnect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.shapes import CALLS, AsyncClient
from bench.world import World


@dataclass(slots=True)
class Answer:
    """What a peer's ``get`` gives."""

    status_code: int
    content: bytes


class Session:
    """An aiohttp session in httpx's shape."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, url: str) -> Answer:
        async with self._session.get(url) as response:
            return Answer(response.status, await response.read())

    async def aclose(self) -> None:
        await self._session.close()


def pair(name: str, make: Any) -> tuple[AsyncClient, AsyncClient]:
    """One task, and 50 of them."""
    return AsyncClient(name, make, tasks=1, calls=CALLS), AsyncClient(f"{name} × 50", make)


async def _bare(world: World) -> tuple[Any, str]:
    connector = aiohttp.TCPConnector(keepalive_timeout=60.0)
    return Session(aiohttp.ClientSession(connector=connector)), f"http://{world.addresses[0]}"


PEERS = pair("aiohttp.ClientSession", _bare)
