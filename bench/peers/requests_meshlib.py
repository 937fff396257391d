"""meshlib's session: 100 routes, 50 endpoints, all policies on."""

from __future__ import annotations

from typing import Any

from bench import routes
from bench.shapes import SyncClient
from bench.threads import Threads
from bench.world import World


def _sync(world: World) -> tuple[Any, str]:
    import meshlib_requests

    return meshlib_requests.Session(mesh=world.mesh), f"http://{routes.HOST}"


PEERS = (SyncClient("meshlib_requests.Session", _sync), Threads("meshlib_requests.Session × 8", _sync))
