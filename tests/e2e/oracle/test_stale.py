"""Endpoints that hold for some time (``endpoint_stale_after``): a real Envoy and meshlib on one control plane that says nothing more."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

import meshlib
from meshlib.testing import ControlPlane, build
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.asking import asked
from tests.support.ports import Ports
from tests.support.raw_server import RawServer

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

SECONDS = 5.0


def test_nobody_is_there_when_their_time_is_over(tmp_path: Path) -> None:
    held = Ports(1)
    address = f"127.0.0.1:{held.numbers[0]}"
    url = f"http://{address}/"
    routes = build.route_config("r", build.virtual_host("v", build.route(cluster="c"), domains=["*"]))
    policy = {"endpoint_stale_after": f"{SECONDS:g}s"}
    with RawServer() as server:
        made = (
            build.listener("l", routes, address=address),
            build.cluster("c"),
            build.endpoints("c", server.address, policy=policy),
        )
        config = {"failures": "respond"}
        with (
            ControlPlane(*made) as plane,
            EnvoyProcess(plane.address, tmp_path) as envoy,
            meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}, **config}) as mesh,
            httpx.Client(timeout=20) as plain,
            meshlib.Client(mesh=mesh, timeout=20) as ours,
        ):
            envoy.wait_for_listeners(1)
            mesh.wait_ready(address, timeout=20)
            for _ in range(2):
                for client in (plain, ours):
                    assert asked(lambda client=client: client.get(url).status_code == 200, 20)
                for client in (plain, ours):
                    assert asked(lambda client=client: client.get(url).status_code == 503, 20)
                    assert client.get(url).text == "no healthy upstream"
                plane.push("endpoint")  # the same again
    held.close()
