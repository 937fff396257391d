"""Listeners of TCP as places that a URL leads to: an HTTP call to the address of one goes to its cluster (rule 4)."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
import pytest
import trustme

import meshlib
from meshlib.testing import ControlPlane, Upstream, build
from tests.support.libraries import LIBRARIES, call

UpstreamFactory = Any
ADDRESS = "127.0.0.9:9080"


def settings(plane: ControlPlane) -> dict[str, Any]:
    return {"xds": {"server": plane.address, "view": "sidecar", "cold_start": "fail"}}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_call_to_its_address_goes_to_its_cluster(library: str, upstream: UpstreamFactory) -> None:
    ours = upstream("mesh")
    made = [build.tcp_listener("l", "c", address=ADDRESS), build.cluster("c", [ours.address])]
    with ControlPlane(*made) as plane, meshlib.Mesh(settings(plane)) as mesh:
        mesh.wait_ready(ADDRESS, timeout=20)
        _, body, info = call(library, mesh, "GET", f"http://{ADDRESS}/x", headers={"host": "any.test"})
        assert (info.via, info.listener, info.route, info.cluster) == ("mesh", "l", "tcp_proxy", "c")
    (got,) = ours.requests
    assert (got.path, got.header("host")) == ("/x", "any.test")
    assert body


def test_clusters_by_weight_and_no_policy_but_theirs(upstream: UpstreamFactory) -> None:
    one, two = upstream("one"), upstream("two")
    made = [
        build.tcp_listener("l", {"a": 1, "b": 3}, address=ADDRESS),
        build.cluster("a", [one.address]),
        build.cluster("b", [two.address]),
    ]
    with ControlPlane(*made) as plane, meshlib.Mesh(settings(plane)) as mesh:
        mesh.wait_ready(ADDRESS, timeout=20)
        with meshlib.Client(mesh=mesh) as client:
            for _ in range(150):
                assert client.get(f"http://{ADDRESS}/").status_code == 200
        decision = mesh.explain("GET", f"http://{ADDRESS}/")
        assert (decision.timeout, decision.retry, decision.virtual_host) == (None, None, "tcp_proxy")
    assert 0 < len(one.requests) < len(two.requests)
    assert len(one.requests) + len(two.requests) == 150


def test_where_a_listener_takes_no_such_connection(upstream: UpstreamFactory) -> None:
    """An Envoy closes it: an error of the library's that names the listener, and nothing is sent."""
    ours = upstream("mesh")
    listener = build.tcp_listener("l", "c", address=ours.address)
    listener["filter_chains"][0]["filter_chain_match"] = {"transport_protocol": "tls"}
    made = [listener, build.tcp_listener("m", "c", address=ADDRESS), build.cluster("c", [ours.address])]
    with ControlPlane(*made) as plane, meshlib.Mesh(settings(plane)) as mesh:
        mesh.wait_ready(ADDRESS, timeout=20)
        with meshlib.Client(mesh=mesh) as client, pytest.raises(meshlib.NoHealthyEndpoint) as caught:
            client.get(f"http://{ours.address}/")
        assert isinstance(caught.value, httpx.ConnectError)
        assert "none of its filter chains takes the call" in str(caught.value)
        assert "listener l" in mesh.explain("GET", f"http://{ours.address}/").trace()[1]
    assert ours.requests == ()


def test_tls_is_passed_on_by_its_server_name() -> None:
    """Istio's egress: the call is the mesh's, and its TLS the application's own."""
    ca = trustme.CA()
    served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("api.example.test").configure_cert(served)
    ca.configure_trust(trusted)
    with Upstream("mesh", tls=served) as ours:
        listener = build.tcp_listener("egress", "c", address="0.0.0.0:8443")
        names = {"server_names": ["*.example.test"], "transport_protocol": "tls"}
        listener["filter_chains"][0]["filter_chain_match"] = names
        made = [
            listener,
            build.tcp_listener("m", "c", address=ADDRESS),
            build.cluster("c", [ours.address]),
        ]
        with ControlPlane(*made) as plane, meshlib.Mesh(settings(plane)) as mesh:
            mesh.wait_ready(ADDRESS, timeout=20)
            with meshlib.Client(mesh=mesh, verify=trusted) as client:
                response = client.get("https://api.example.test:8443/x")
                info = meshlib.call_info(response)
                assert info is not None
                assert (response.status_code, info.via, info.cluster) == (200, "mesh", "c")
                with pytest.raises(httpx.ConnectError, match="Hostname mismatch"):
                    client.get("https://other.example.test:8443/x")
        (got,) = ours.requests
        assert got.header("host") == "api.example.test:8443"
