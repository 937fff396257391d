"""urllib3 alone and in the mesh, as libraries that are built on it use it."""

from __future__ import annotations

from typing import Any

import urllib3

from bench import routes
from bench.shapes import SyncClient
from bench.world import World


class _Client:
    """A manager in the shape that is measured."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def get(self, url: str) -> Any:
        response = self._manager.request("GET", url)
        response.status_code, response.content = response.status, response.data
        return response

    def close(self) -> None:
        self._manager.clear()


def _bare(world: World) -> tuple[Any, str]:
    return _Client(urllib3.PoolManager()), f"http://{world.addresses[0]}"


def _mesh(world: World) -> tuple[Any, str]:
    from meshlib_requests.urllib3 import PoolManager

    return _Client(PoolManager(mesh=world.mesh)), f"http://{routes.HOST}"


PEERS = (SyncClient("urllib3.PoolManager", _bare), SyncClient("meshlib_requests.PoolManager", _mesh))
