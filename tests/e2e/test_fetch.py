"""Control planes that are polled by the unary methods of gRPC (`protocol = "fetch"`): outages while calls go on, and forks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import meshlib
from meshlib.testing import ControlPlane, KatoControlPlane, build
from meshlib.testing.kato import dependency
from tests.interop.support.calling import calling
from tests.support.watch import Watch

ROOT = Path(__file__).resolve().parents[2]
NODE = "demo_plugin_gr000001"
FETCH: dict[str, Any] = {"protocol": "fetch", "refresh": 0.05}


def resources(address: str) -> list[Any]:
    host = build.virtual_host("reviews", build.route(cluster="v1"), domains=["reviews"])
    routes = build.route_config("r", host)
    return [
        build.listener("web", routes, address="127.0.0.1:80"),
        build.api_listener("reviews", "r"),
        routes,
        build.cluster("v1"),
        build.endpoints("v1", address),
    ]


def told(mesh: meshlib.Mesh) -> Any:
    return next(each for each in mesh.status().sources if each.kind == "xds")


@pytest.mark.parametrize("view", ["sidecar", "target", "auto"])
def test_an_outage_after_which_the_configuration_is_another(upstream, meshlib_mesh, view):
    a, b = upstream("a"), upstream("b")
    with ControlPlane(*resources(a.address)) as plane:
        mesh = meshlib_mesh({"xds": {"server": plane.address, "view": view, **FETCH}})
        mesh.wait_ready("reviews", timeout=10)
        watch = Watch(mesh)
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get("http://reviews/")) as calls:
            calls.only("a")
            plane.kill()
            watch.until(lambda: told(mesh).state == "stale")
            calls.only("a")
            plane.set(*resources(b.address))
            plane.start()
            calls.only("b")
            watch.until(lambda: told(mesh).state == "ready")
        assert calls.failures == []
        assert plane.opened == 0  # of streams


def test_one_that_is_dead_at_the_start(upstream, meshlib_mesh):
    a = upstream("a")
    with ControlPlane(*resources(a.address)) as plane:
        plane.kill()
        mesh = meshlib_mesh({"xds": {"server": plane.address, "view": "target", **FETCH}})
        watch = Watch(mesh)
        watch.until(lambda: told(mesh).state == "failed")
        assert f"cannot connect to {plane.address}: UNAVAILABLE: " in told(mesh).last_error
        plane.start()
        mesh.wait_ready("reviews", timeout=20)
        with meshlib.Client(mesh=mesh) as client:
            assert client.get("http://reviews/").json()["name"] == "a"


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


def test_a_fork_polls_by_itself(upstream):
    """By xDS v2, of which each poll is answered."""
    server = upstream("v1")
    with KatoControlPlane() as kato:
        kato.serve("gr2", 5000, server.address)
        kato.configure(NODE, dependency("gr2", 5000, Domains="shop"))
        config = {
            "xds": {"api": "v2", "server": kato.address, **FETCH},
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
        assert {each.protocol for each in kato.requests} == {"fetch"}
