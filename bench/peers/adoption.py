"""requests that is observed beside the mesh, and requests whose calls are handed to an Envoy; and bare requests in the same places."""

from __future__ import annotations

from typing import Any

import requests

from bench import routes
from bench.shapes import SyncClient
from bench.world import ROUTES, World


def _observed(world: World) -> tuple[Any, str]:
    import meshlib_requests

    service = routes.service(world.addresses, ROUTES)
    config = {
        "services": {"127.0.0.1": service, routes.HOST: service},
        "adoption": {"127.0.0.1": "observe"},
        "sidecar": {"mode": "off"},
    }
    return meshlib_requests.Session(mesh=world.made(config)), f"http://{world.addresses[0]}"


def _handed(world: World) -> tuple[Any, str]:
    import meshlib_requests

    config = {"sidecar": {"mode": "envoy", "address": world.sidecar}}
    return meshlib_requests.Session(mesh=world.made(config)), f"http://{routes.HOST}"


def _through(world: World) -> tuple[Any, str]:
    session = requests.Session()
    session.headers["host"] = routes.HOST
    return session, f"http://{world.sidecar}"


PEERS = (
    SyncClient("meshlib_requests.Session, observed", _observed),
    SyncClient("meshlib_requests.Session, handed", _handed),
    SyncClient("requests.Session via Envoy", _through),
)
