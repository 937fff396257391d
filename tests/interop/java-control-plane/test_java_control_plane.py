"""meshlib against Envoy's java-control-plane, whose cache is written anew and not translated from Go.

What is its own: it looks for the node in each request (ST-02, DV-13); by state of the world it is silent where it has not all that is
named; by delta it takes names of listeners and clusters for everything.
"""

from __future__ import annotations

from collections import Counter

import pytest

import meshlib
from tests.interop.support.calling import PATIENCE, calling, fits, said
from tests.interop.support.meshes import NODE, READY, URL, config, reviews, xds
from tests.interop.support.snapshots import PORT, Service, snapshot
from tests.support.watch import Watch, until


@pytest.fixture(params=["delta", "sotw"])
def protocol(request):
    return request.param


def test_shares_and_versions(view, protocol, plane, make_mesh, upstream):
    v1, v2 = upstream("v1"), upstream("v2")
    plane.put(snapshot(view, NODE, "7", reviews({"v1": 80, "v2": 20}, v1=[v1], v2=[v2])))
    mesh = make_mesh(config(plane, view))
    mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
    with meshlib.Client(mesh=mesh) as client:
        names = Counter(client.get(URL).json()["name"] for _ in range(720))
    assert fits(names, "v2", 0.2), names
    status = until(mesh, lambda: (found := xds(mesh)).state == "ready" and found, PATIENCE)
    assert set(status.versions.values()) == {"7"}
    assert (status.rejected, status.waiting, status.last_error) == ((), (), "")
    assert [stream["delta"] for stream in plane.streams()] == [protocol == "delta"]


@pytest.mark.parametrize("protocol", ["sotw"])
def test_a_second_name_on_the_same_stream(protocol, plane, make_mesh, upstream):
    one, other = upstream("one"), upstream("other")
    services = (reviews({"v1": 1}, v1=[one]), Service("ratings", {"r1": [other]}))
    plane.put(snapshot("target", NODE, "1", *services))
    mesh = make_mesh(config(plane, "target"))
    with meshlib.Client(mesh=mesh) as client:
        assert client.get(URL).json()["name"] == "one"
        assert client.get(f"http://ratings:{PORT}/").json()["name"] == "other"
        with calling(lambda: client.get(URL)) as calls:
            plane.put(snapshot("target", NODE, "2", reviews({"v1": 1}, v1=[other]), services[1]))
            calls.only("other")
        assert calls.failures == []
        assert client.get(f"http://ratings:{PORT}/").json()["name"] == "other"


def test_changes_while_calls_go_on(view, plane, make_mesh, upstream):
    # CA-02, CA-03: weights, endpoints, and a cluster that is new with its route.
    a, b = upstream("a"), upstream("b")
    both = {"v1": [a], "v2": [b]}
    plane.put(snapshot(view, NODE, "1", reviews({"v1": 1, "v2": 0}, **both)))
    mesh = make_mesh(config(plane, view))
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        calls.only("a")
        plane.put(snapshot(view, NODE, "2", reviews({"v1": 1, "v2": 1}, **both)))
        calls.only("a", "b")
        plane.put(snapshot(view, NODE, "3", reviews({"v1": 1}, v1=[b])))
        calls.only("b")
        if view == "sidecar":  # by name the new one is asked for beside the old one, which it has no more
            plane.put(snapshot(view, NODE, "4", reviews({"v3": 1}, v3=[a])))
            calls.only("a")
            until(mesh, lambda: set(mesh.status().clusters) == {"v3"}, PATIENCE)
    assert calls.failures == []


def test_separate_streams(view, protocol, plane, make_mesh, upstream):
    a, b = upstream("a"), upstream("b")
    plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
    mesh = make_mesh(config(plane, view, streams="separate"))
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        calls.only("a")
        assert len(plane.streams()) == 4
        plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
        calls.only("b")
    assert calls.failures == []


def test_a_refusal_and_its_mending(view, plane, make_mesh, upstream):
    good = snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[upstream("a")]))
    plane.put(good)
    mesh = make_mesh(config(plane, view))
    mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        plane.put({**good, "version": "2", "clusters": [{**good["clusters"][0], "connectTimeout": "-5s"}]})
        watch = said(lambda: (found := plane.watch("Cluster"))["nacks"] and found, "a refusal")
        assert "connect_timeout" in watch["error"]
        # By delta what was in force before the refusal would not be sent again.
        plane.put({**good, "version": "3", "clusters": [{**good["clusters"][0], "connectTimeout": "3s"}]})
        Watch(mesh).until(lambda: not xds(mesh).rejected, PATIENCE)  # told with each call
        calls.only("a")
    assert calls.failures == []


@pytest.mark.parametrize("kept", [True, False], ids=["with-what-it-had", "with-nothing"])
def test_restarted_in_the_midst_of_calls(view, kept, plane, make_mesh, upstream):
    # CA-01, ST-04, ST-07, ST-08; with nothing, its versions begin anew at one that we have seen.
    a, b = upstream("a"), upstream("b")
    plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
    mesh = make_mesh(config(plane, view))
    with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
        calls.only("a")
        plane.kill()
        until(mesh, lambda: xds(mesh).state == "stale", PATIENCE)
        if not kept:
            plane.lose()
        plane.start()
        said(lambda: plane.watch("ClusterLoadAssignment")["names"] == ["v1"], "all to be asked for")
        calls.more(100)
        plane.put(snapshot(view, NODE, "2" if kept else "0", reviews({"v1": 1}, v1=[b])))
        calls.only("b")
    assert calls.failures == []
