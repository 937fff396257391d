"""requests alone, calling one address: as it comes, with the environment's proxies looked up at each call."""

from __future__ import annotations

from typing import Any

import requests

from bench.shapes import SyncClient
from bench.threads import Threads
from bench.world import World


def _sync(world: World) -> tuple[Any, str]:
    return requests.Session(), f"http://{world.addresses[0]}"


PEERS = (SyncClient("requests.Session", _sync), Threads("requests.Session × 8", _sync))
