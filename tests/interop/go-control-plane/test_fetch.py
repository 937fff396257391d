"""Polled by the unary methods of each type's service (``xds.protocol = "fetch"``), which answer from the same snapshot cache."""

from __future__ import annotations

import pytest

import meshlib
from tests.interop.support.calling import calling
from tests.interop.support.meshes import NODE, READY, URL, config, reviews, xds
from tests.interop.support.snapshots import PORT, snapshot
from tests.support.watch import until

FETCH = {"protocol": "fetch", "refresh": 0.1}


def test_changes_while_calls_go_on(view, plane, make_mesh, upstream):
    a, b, c = upstream("a"), upstream("b"), upstream("c")
    plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
    mesh = make_mesh(config(plane, view, **FETCH))
    mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
    assert dict(xds(mesh).versions) == dict.fromkeys(("listener", "route", "cluster", "endpoint"), "1")
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        calls.only("a")
        plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
        calls.only("b")
        plane.put(snapshot(view, NODE, "3", reviews({"v2": 1}, v1=[b], v2=[c])))  # a cluster that is new
        calls.only("c")
    assert calls.failures == []
    assert plane.streams() == []


def test_what_is_up_to_date_is_no_error(view, plane, make_mesh, upstream):
    """It says UNKNOWN then, for each poll after the first ones: none of them changes the state."""
    plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[upstream("v1")])))
    mesh = make_mesh(config(plane, view, protocol="fetch", refresh=0.01))
    mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
    until(mesh, lambda: xds(mesh).state == "ready")
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        calls.only("v1", count=200)
        assert (xds(mesh).state, xds(mesh).last_error) == ("ready", "")
        calls.more(200)
        assert (xds(mesh).state, xds(mesh).last_error) == ("ready", "")
    assert calls.failures == []


@pytest.mark.parametrize("how", ["connections", "killed"])
def test_what_is_cut_begins_again(view, how, plane, make_mesh, upstream):
    a, b = upstream("a"), upstream("b")
    plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
    mesh = make_mesh(config(plane, view, **FETCH))
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        calls.only("a")
        if how == "killed":
            plane.kill()
            until(mesh, lambda: xds(mesh).state == "stale")
            plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
            plane.start()
        else:
            plane.close_connections()
            plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
        calls.only("b")
    assert calls.failures == []
    until(mesh, lambda: xds(mesh).state == "ready")


def test_a_node_that_it_does_not_know(plane, make_mesh):
    mesh = make_mesh({"node": {"id": "nobody"}, "xds": {"server": plane.server, "view": "sidecar", **FETCH}})
    until(mesh, lambda: "FetchListeners: UNKNOWN" in xds(mesh).last_error)
    assert xds(mesh).state == "failed"
