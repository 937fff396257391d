"""A stream for each type of resource (``xds.streams = "separate"``), as an Envoy without aggregated discovery asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import meshlib
from tests.interop.support.calling import calling, said
from tests.interop.support.meshes import NODE, READY, URL, config, reviews, xds
from tests.interop.support.snapshots import PORT, snapshot
from tests.support.watch import until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.interop.support.programs import SnapshotServer


@pytest.fixture(params=["delta", "sotw"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def types(plane: SnapshotServer) -> list[list[str]]:
    """What each open stream has asked for, by the last parts of the names of types."""
    return sorted(_short(stream["types"]) for stream in plane.streams())


def _short(urls: Iterable[str]) -> list[str]:
    return [url.rpartition(".")[2] for url in urls]


def test_each_type_has_its_own(view, plane, make_mesh, upstream):
    plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[upstream("v1")])))
    mesh = make_mesh(config(plane, view, streams="separate"))
    mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
    assert types(plane) == [["Cluster"], ["ClusterLoadAssignment"], ["Listener"], ["RouteConfiguration"]]
    assert {stream["node"] for stream in plane.streams()} == {NODE}  # ST-02: each is told who we are
    assert dict(xds(mesh).versions) == dict.fromkeys(("listener", "route", "cluster", "endpoint"), "1")
    with meshlib.Client(mesh=mesh) as client:
        assert client.get(URL).json()["name"] == "v1"


def test_changes_while_calls_go_on(view, plane, make_mesh, upstream):
    a, b, c = upstream("a"), upstream("b"), upstream("c")
    plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
    mesh = make_mesh(config(plane, view, streams="separate"))
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        calls.only("a")
        plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
        calls.only("b")
        plane.put(snapshot(view, NODE, "3", reviews({"v2": 1}, v1=[b], v2=[c])))  # a cluster that is new
        calls.only("c")
    assert calls.failures == []


@pytest.mark.parametrize("how", ["streams", "connections", "killed"])
def test_what_is_cut_begins_again(view, how, plane, make_mesh, upstream):
    a, b = upstream("a"), upstream("b")
    plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
    mesh = make_mesh(config(plane, view, streams="separate"))
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        calls.only("a")
        if how == "killed":
            plane.restart()
        elif how == "streams":
            plane.close_streams()
        else:
            plane.close_connections()
        plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
        calls.only("b")
        said(lambda: len(plane.streams()) == 4, "four streams")
    assert calls.failures == []
    until(mesh, lambda: xds(mesh).state == "ready")


def test_both_views_have_theirs(plane, make_mesh, upstream):
    plane.put(snapshot("sidecar", NODE, "1", reviews({"v1": 1}, v1=[upstream("v1")])))
    mesh = make_mesh(config(plane, "auto", streams="separate"))
    mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
    said(lambda: types(plane).count(["Listener"]) == 2, "two streams of listeners")
    with meshlib.Client(mesh=mesh) as client:
        assert client.get(URL).json()["name"] == "v1"
