"""A stream for each type of resource, with the test kit's control planes: both views, a service that is not there, and forks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

import meshlib
from meshlib.testing import ControlPlane, KatoControlPlane, build
from meshlib.testing.kato import dependency
from tests.support.watch import Watch

ROOT = Path(__file__).resolve().parents[2]
NODE = "demo_plugin_gr000001"


def resources(address: str, routes: Any) -> list[Any]:
    return [
        build.listener("web", routes, address="127.0.0.1:80"),
        build.api_listener("reviews", routes),
        build.cluster("v1"),
        build.endpoints("v1", address),
    ]


def told(mesh: meshlib.Mesh) -> Any:
    return next(each for each in mesh.status().sources if each.kind == "xds")


@pytest.mark.parametrize("protocol", ["delta", "sotw"])
@pytest.mark.parametrize("view", ["sidecar", "target"])
def test_the_kit_serves_each_type_by_itself(upstream, meshlib_mesh, view, protocol):
    server = upstream("v1")
    routes = build.route_config(
        "r", build.virtual_host("reviews", build.route(cluster="v1"), domains=["reviews"])
    )
    config: Any = {"view": view, "protocol": protocol, "streams": "separate"}
    with ControlPlane(*resources(server.address, "r"), routes) as plane:
        mesh = meshlib_mesh({"xds": {"server": plane.address, **config}})
        with meshlib.Client(mesh=mesh) as client:
            mesh.wait_ready("reviews", timeout=10)
            assert client.get("http://reviews/").json()["name"] == "v1"
            kinds = {
                each.stream: {other.kind for other in plane.requests if other.stream == each.stream}
                for each in plane.requests
            }
            assert sorted(map(sorted, kinds.values())) == [["cluster"], ["endpoint"], ["listener"], ["route"]]
            assert all(each.node is not None for each in plane.requests)


def test_a_server_without_such_services_is_told(upstream):
    with ControlPlane() as plane:
        plane.refuse(grpc.StatusCode.UNIMPLEMENTED, "unknown service")
        config: Any = {"server": plane.address, "view": "sidecar", "protocol": "sotw", "streams": "separate"}
        with meshlib.Mesh({"xds": config}) as mesh:
            watch = Watch(mesh)
            watch.until(lambda: told(mesh).state == "failed")
            assert "StreamListeners: UNIMPLEMENTED: unknown service" in told(mesh).last_error


PROGRAM = """
import json, os, sys
import meshlib
from tests.support.watch import until

mesh = meshlib.Mesh(json.loads(sys.argv[1]))
client = meshlib.Client(mesh=mesh)
mesh.wait_ready("shop", timeout=20)
assert client.get("http://shop/").json()["name"] == "v1"
for _ in range(3):
    child = os.fork()
    if not child:
        same = client.get("http://shop/").json()["name"] == "v1"
        until(mesh, lambda: next(each for each in mesh.status().sources if each.kind == "xds").state == "ready")
        os._exit(0 if same and client.get("http://shop/").is_success else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert client.get("http://shop/").json()["name"] == "v1"
print("done")
"""


def test_a_fork_has_streams_of_its_own(upstream):
    server = upstream("v1")
    with KatoControlPlane() as kato:
        kato.serve("gr2", 5000, server.address)
        kato.configure(NODE, dependency("gr2", 5000, Domains="shop"))
        config = {
            "xds": {"api": "v2", "server": kato.address},
            "node": {"cluster": NODE},
            "sidecar": {"mode": "off"},
        }
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(config)],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            cwd=ROOT,
        )
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
        assert (
            kato.opened >= 3 + 3 * 2
        )  # the parent's, and each child's, who ask for endpoints once clusters have come
