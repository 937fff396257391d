"""Filters whose configuration comes by itself, over real streams: closed until it is known that they guard nothing."""

from __future__ import annotations

from typing import Any

import pytest

import meshlib
from meshlib.testing import ControlPlane, build

UpstreamFactory = Any
FILTERS = "type.googleapis.com/envoy.extensions.filters.http."
RBAC, CORS = f"{FILTERS}rbac.v3.RBAC", f"{FILTERS}cors.v3.Cors"
ADDRESS = "127.0.0.9:9080"


def extension(kind: str) -> dict[str, Any]:
    held = build.any_of("udpa.type.v1.TypedStruct", {"type_url": kind, "value": {}})
    return build.any_of("envoy.config.core.v3.TypedExtensionConfig", {"name": "f", "typed_config": held})


def resources(upstream: str) -> list[dict[str, Any]]:
    discovery = {"config_source": {"ads": {}}, "type_urls": [RBAC, CORS]}
    host = build.virtual_host("v", build.route("/", cluster="c"), domains=["*"])
    filters = [{"name": "f", "config_discovery": discovery}]
    return [
        build.listener("l", build.route_config("r", host), address=ADDRESS, filters=filters),
        build.cluster("c", [upstream]),
    ]


@pytest.mark.parametrize("protocol", ["sotw", "delta"])
def test_closed_until_it_is_known(upstream: UpstreamFactory, protocol: str) -> None:
    ours = upstream("mesh")
    with ControlPlane(*resources(ours.address)) as plane:
        settings = {"xds": {"server": plane.address, "view": "sidecar", "protocol": protocol}}
        with meshlib.Mesh(settings) as mesh, meshlib.Client(mesh=mesh) as client:
            mesh.wait_ready(ADDRESS, timeout=20)
            assert client.get(f"http://{ADDRESS}/").status_code == 403
            for kind, status in ((CORS, 200), (RBAC, 403)):
                seen = plane.seen
                plane.update(extension(kind))
                plane.wait_for_ack("extension", after=seen, timeout=20)
                assert client.get(f"http://{ADDRESS}/").status_code == status
            (source,) = [each for each in mesh.status().sources if each.kind == "xds"]
            told = {(each.type, each.resource, each.field) for each in source.ignored}
            assert ("extension", "f", "typed_config") in told
    assert len(ours.requests) == 1
