"""A stream for each type of resource, with the test kit's control planes: both views, a service that is not there, and forks."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

import meshlib
from meshlib.testing import ControlPlane, KatoControlPlane, build
from tests.support.kato_forks import forked
from tests.support.watch import Watch


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
            # Which of its streams ends first is not said, and the last error is that one's; each try begins with the listeners'.
            words = "StreamListeners: UNIMPLEMENTED: unknown service"
            watch.until(lambda: (found := told(mesh)).state == "failed" and words in found.last_error)


def test_a_fork_has_streams_of_its_own(upstream):
    server = upstream("v1")
    with KatoControlPlane() as kato:
        forked(kato, server.address)
        assert (
            kato.opened >= 3 + 3 * 2
        )  # the parent's, and each child's, who ask for endpoints once clusters have come
