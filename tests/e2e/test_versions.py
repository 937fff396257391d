"""Each call's record names the versions under which the control plane sent what decided it: CallInfo, spans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import meshlib
import meshlib.grpc
from meshlib.testing import ControlPlane, build
from meshlib.testing.grpc_upstream import GrpcUpstream
from meshlib.testing.upstream import Upstream
from tests.support.telemetry import Recorded, sdk
from tests.support.watch import until

UpstreamFactory = Callable[..., Upstream]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with sdk() as found:
        yield found


def target(address: str, *, timeout: float = 5.0) -> list[Any]:
    host = build.virtual_host("reviews", build.route("/", cluster="c"), domains=["reviews"])
    return [
        build.api_listener("reviews", "r"),
        build.route_config("r", host),
        build.cluster("c", connect_timeout=f"{timeout}s"),
        build.endpoints("c", address),
    ]


@contextmanager
def client_of(config: dict[str, Any]) -> Iterator[meshlib.Client]:
    with meshlib.Mesh(config) as mesh, meshlib.Client(mesh=mesh) as client:
        yield client


def settings(control_plane: ControlPlane, protocol: str, **more: Any) -> dict[str, Any]:
    return {"xds": {"server": control_plane.address, "view": "target", "protocol": protocol, **more}}


def state(mesh: meshlib.Mesh, name: str) -> str:
    return next(source.state for source in mesh.status().sources if source.name == name)


def versions(client: meshlib.Client) -> dict[str, str]:
    info = meshlib.call_info(client.get("http://reviews/"))
    assert info is not None
    assert info.to_dict()["versions"] == info.versions
    return dict(info.versions)


@pytest.mark.parametrize("protocol", ["sotw", "delta"])
def test_a_call_names_the_versions_that_decided_it(upstream: UpstreamFactory, protocol: str) -> None:
    server = upstream()
    with ControlPlane() as control_plane:
        control_plane.update(*target(server.address)[:1], version="l1")
        control_plane.update(*target(server.address)[1:2], version="r1")
        control_plane.update(*target(server.address)[2:3], version="c1")
        control_plane.update(*target(server.address)[3:], version="e1")
        with (
            meshlib.Mesh(settings(control_plane, protocol)) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):
            # In delta the kit's resources have versions of their own, which begin with that of the change.
            first = {kind: found.partition("-")[0] for kind, found in versions(client).items()}
            assert first == {"listener": "l1", "route": "r1", "cluster": "c1", "endpoint": "e1"}
            control_plane.update(*target(server.address, timeout=4.0)[2:3], version="c2")
            mesh._runtime().store.wait(lambda view: mesh.snapshot().clusters["c"].connect_timeout == 4.0, 5.0)
            second = {kind: found.partition("-")[0] for kind, found in versions(client).items()}
            assert second == {**first, "cluster": "c2"}


def test_a_version_is_that_with_which_the_content_came(upstream: UpstreamFactory) -> None:
    """State of the world gives all of a type one version; what did not change was decided by an older one."""
    server = upstream()
    with (
        ControlPlane(*target(server.address)) as control_plane,
        client_of(settings(control_plane, "sotw")) as client,
    ):
        first = versions(client)
        control_plane.update(*target(server.address)[2:3], version="again")  # the same bytes
        control_plane.wait_for_ack("cluster", "again")
        assert versions(client) == first


def test_what_comes_from_elsewhere_has_none(upstream: UpstreamFactory) -> None:
    server = upstream()
    with client_of({"services": {"reviews": {"endpoints": [server.address]}}}) as client:
        assert versions(client) == {}
        info = meshlib.call_info(client.get(f"http://{server.address}/"))
        assert info is not None
        assert (info.via, info.versions) == ("direct", {})


def test_routes_inside_a_listener_have_its_version(upstream: UpstreamFactory) -> None:
    server = upstream()
    host = build.virtual_host("reviews", build.route("/", cluster="c"), domains=["reviews"])
    with ControlPlane() as control_plane:
        control_plane.update(build.api_listener("reviews", build.route_config("r", host)), version="l1")
        control_plane.update(build.cluster("c", [server.address]), version="c1")
        with client_of(settings(control_plane, "sotw")) as client:
            assert versions(client) == {"listener": "l1", "cluster": "c1"}


def test_a_call_that_nobody_was_picked_for_names_them_too(upstream: UpstreamFactory) -> None:
    with ControlPlane(*target(upstream().address)) as control_plane:
        control_plane.update(build.endpoints("c"), version="none")
        with client_of(settings(control_plane, "sotw")) as client:
            with pytest.raises(meshlib.NoHealthyEndpoint) as caught:
                client.get("http://reviews/")
            assert caught.value.info is not None
            assert caught.value.info.versions["endpoint"] == "none"


def test_what_an_earlier_process_kept_has_its_version(upstream: UpstreamFactory, tmp_path: Path) -> None:
    server = upstream()
    kept = {"last_good": str(tmp_path / "kept")}
    with (
        ControlPlane(*target(server.address)) as control_plane,
        meshlib.Mesh(settings(control_plane, "delta", **kept)) as mesh,
        meshlib.Client(mesh=mesh) as client,
    ):
        live = versions(client)
        until(mesh, lambda: state(mesh, "last_good") == "ready")
    assert live
    with client_of(settings(control_plane, "delta", **kept)) as client:
        assert versions(client) == live


def test_spans_have_them(recorded: Recorded, upstream: UpstreamFactory) -> None:
    server = upstream()
    with (
        ControlPlane(*target(server.address)) as control_plane,
        client_of(settings(control_plane, "sotw")) as client,
    ):
        found = versions(client)
    span = recorded.spans[-1]
    told = {kind: span.attributes[f"meshlib.{kind}.version"] for kind in found}
    assert told == found == {kind: control_plane.version(kind) for kind in found}


def test_an_rpc_has_them(recorded: Recorded) -> None:
    with (
        GrpcUpstream() as server,
        ControlPlane(*target(server.address)) as control_plane,
        meshlib.Mesh(settings(control_plane, "sotw")) as mesh,
        meshlib.grpc.channel("reviews", mesh=mesh) as channel,
    ):
        _, made = channel.unary_unary("/a.B/C").with_call(b"x")
        info = meshlib.call_info(made)
    assert info is not None
    wanted = {kind: control_plane.version(kind) for kind in ("listener", "route", "cluster", "endpoint")}
    assert info.versions == wanted
    for span in recorded.spans:
        assert {kind: span.attributes[f"meshlib.{kind}.version"] for kind in wanted} == wanted
