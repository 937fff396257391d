"""Control planes that are polled by the unary methods of gRPC (`protocol = "fetch"`): outages while calls go on, and forks."""

from __future__ import annotations

from typing import Any

import pytest

import meshlib
from meshlib.testing import ControlPlane, KatoControlPlane, build
from tests.interop.support.calling import calling
from tests.support.kato_forks import forked
from tests.support.watch import Watch

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


def test_a_fork_polls_by_itself(upstream):
    """By xDS v2, of which each poll is answered."""
    server = upstream("v1")
    with KatoControlPlane() as kato:
        forked(kato, server.address, **FETCH)
        assert {each.protocol for each in kato.requests} == {"fetch"}
