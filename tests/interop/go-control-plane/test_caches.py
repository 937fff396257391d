"""The caches of go-control-plane beside the one that answers everything: linear caches, and servers with habits of their own."""

from __future__ import annotations

import time

import pytest

import meshlib
from tests.interop.support.calling import PATIENCE, calling, said
from tests.interop.support.meshes import NODE, READY, URL, config, reviews, xds
from tests.interop.support.snapshots import PORT, Service, assignment, cluster, snapshot
from tests.support.watch import Watch, until

BOTH = pytest.mark.parametrize("protocol", ["delta", "sotw"])
ORDERS = pytest.mark.parametrize("order", [(), ("-ordered",)], ids=["any-order", "ordered"])
#: Each view by one protocol: the two have nothing to do with one another here.
ONE_EACH = pytest.mark.parametrize(("view", "protocol"), [("target", "sotw"), ("sidecar", "delta")])


def hosts(count, upstream):
    return tuple(Service(f"h{number}", {f"c{number}": [upstream]}) for number in range(count))


@BOTH
class TestLinear:
    """A cache for each type, which counts its versions itself and sends of routes and endpoints only what has changed."""

    @pytest.fixture
    def plane(self, launch, protocol):
        running = launch("-linear")
        running.protocol = protocol
        return running

    def test_changes_one_by_one(self, view, plane, make_mesh, upstream):
        # SW-11: of routes and endpoints a response need not have what has not changed.
        a, b, other = upstream("a"), upstream("b"), upstream("other")
        ratings = Service("ratings", {"r1": [other]})
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a]), ratings))
        mesh = make_mesh(config(plane, view))
        mesh.wait_ready(f"reviews:{PORT}", f"ratings:{PORT}", timeout=READY)
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a")
            plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b]), ratings))
            calls.only("b")
            plane.put(snapshot(view, NODE, "3", reviews({"v2": 1}, v1=[b], v2=[a]), ratings))
            calls.only("a")
            plane.put(snapshot(view, NODE, "4", reviews({"v2": 1}, v2=[a]), ratings))
            until(mesh, lambda: set(mesh.status().clusters) == {"v2", "r1"}, PATIENCE)
            assert client.get(f"http://ratings:{PORT}/").json()["name"] == "other"
        assert calls.failures == []
        assert xds(mesh).rejected == ()

    def test_restarted_with_versions_that_begin_anew(self, view, plane, make_mesh, upstream):
        # SW-19, EX-04: the versions are lower than those that we hold, and what they are of is other.
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            for number in range(6):
                calls.only("ab"[number % 2])
                plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[(b, a)[number % 2]])))
            calls.only("a")
            plane.kill()
            plane.put(snapshot(view, NODE, "1", reviews({"v2": 1}, v2=[b])))
            plane.start()
            calls.only("b")
        assert calls.failures == []
        assert xds(mesh).state == "ready"


class TestSuperset:
    """CP-02: by state of the world ads=true answers a request that names resources only if it names all that the snapshot
    has of the type.
    """

    @BOTH
    @ORDERS
    def test_all_that_is_made_for_an_envoy_is_asked_for(self, launch, order, protocol, make_mesh, upstream):
        # Envoy asks for the endpoints of every EDS cluster that it is given, whether a route names it or not. Who
        # asks only for those that routes name gets no endpoints at all from such a server.
        plane = launch("-ads", *order)
        plane.protocol = protocol
        v1 = upstream("v1")
        body = snapshot("sidecar", NODE, "1", reviews({"v1": 1}, v1=[v1]))
        body["clusters"].append(cluster("unreferenced"))
        body["endpoints"].append(assignment("unreferenced", [v1]))
        plane.put(body)
        mesh = make_mesh(config(plane, "sidecar"))
        mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
        with meshlib.Client(mesh=mesh) as client:
            assert client.get(URL).json()["name"] == "v1"
        assert sorted(plane.watch("ClusterLoadAssignment")["names"]) == ["unreferenced", "v1"]

    @BOTH
    @ORDERS
    def test_changes_arrive(self, launch, order, protocol, make_mesh, upstream):
        plane = launch("-ads", *order)
        plane.protocol = protocol
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot("sidecar", NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh(config(plane, "sidecar"))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a")
            plane.put(snapshot("sidecar", NODE, "2", reviews({"v1": 1}, v1=[b])))
            calls.only("b")
            plane.put(snapshot("sidecar", NODE, "3", reviews({"v2": 1}, v1=[b], v2=[a])))
            calls.only("a")
        assert calls.failures == []

    def test_by_delta_a_name_alone_is_answered(self, launch, make_mesh, upstream):
        plane = launch("-ads")
        plane.put(snapshot("target", NODE, "1", *hosts(2, upstream("a"))))
        mesh = make_mesh(config(plane, "target"))
        mesh.wait_ready(f"h0:{PORT}", timeout=READY)
        with meshlib.Client(mesh=mesh) as client:
            assert client.get(f"http://h0:{PORT}/").json()["name"] == "a"
        assert [stream["delta"] for stream in plane.streams()] == [True]
        assert plane.watch("Listener")["names"] == [f"h0:{PORT}"]

    def test_a_name_alone_is_not_answered_and_that_is_told(self, launch, make_mesh, upstream):
        plane = launch("-ads")
        plane.protocol = "sotw"
        plane.put(snapshot("target", NODE, "1", *hosts(2, upstream("a"))))
        mesh = make_mesh(config(plane, "target"))
        with pytest.raises(meshlib.NotReady, match="h0"):
            mesh.wait_ready(f"h0:{PORT}", timeout=1)
        assert f"h0:{PORT}" in xds(mesh).waiting
        mesh.wait_ready(f"h0:{PORT}", f"h1:{PORT}", timeout=READY)
        with meshlib.Client(mesh=mesh) as client:
            assert client.get(f"http://h0:{PORT}/").json()["name"] == "a"
            assert client.get(f"http://h1:{PORT}/").json()["name"] == "a"
        assert xds(mesh).waiting == ()


class TestHabits:
    """CP-03, CP-07: what servers do that costs a client its updates, or keeps both busy for ever."""

    @BOTH
    @ORDERS
    def test_requests_with_an_old_nonce_are_dropped_and_nothing_is_missed(
        self, launch, order, protocol, make_mesh, upstream
    ):
        # CP-03: names are added while snapshots come as fast as the server takes them: the two cross on the way.
        plane = launch(*order)
        plane.protocol = protocol
        a, b = upstream("a"), upstream("b")
        count = 12
        plane.put(snapshot("target", NODE, "0", *hosts(count, a)))
        mesh = make_mesh(config(plane, "target"))
        for number in range(count):
            mesh._runtime().want(f"h{number}:{PORT}")
            for part in range(4):
                plane.put(snapshot("target", NODE, f"{number}.{part}", *hosts(count, (a, b)[part % 2])))
        plane.put(snapshot("target", NODE, "last", *hosts(count, b)))

        def endpoints():
            urls = [f"http://h{number}:{PORT}/" for number in range(count)]
            return {mesh.explain("GET", url, headers={}).endpoint for url in urls}

        until(mesh, lambda: endpoints() == {b.address}, PATIENCE)

        def settled(kind, names):
            watch = plane.watch(kind)
            return watch["acked"] == watch["sent"] and set(watch["names"]) == names

        said(lambda: settled("Listener", {f"h{number}:{PORT}" for number in range(count)}), "the listeners")
        said(lambda: settled("ClusterLoadAssignment", {f"c{number}" for number in range(count)}), "endpoints")

    @ONE_EACH
    def test_streams_are_closed_when_they_are_old(self, launch, view, protocol, make_mesh, upstream):
        plane = launch("-max-age", "100ms")
        plane.protocol = protocol
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a")
            begun, before = time.monotonic(), plane.opened()
            said(lambda: plane.opened() >= before + 2, "two more streams")
            assert time.monotonic() - begun > 0.7, "each next try waits for a while (ST-04)"
            plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
            calls.only("b")
        assert calls.failures == []

    def test_every_acknowledgement_is_answered_with_the_same(self, launch, make_mesh, upstream):
        plane = launch("-resend")
        plane.protocol = "sotw"
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot("sidecar", NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh(config(plane, "sidecar"))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a")
            begun = time.monotonic()
            said(lambda: plane.watch("Cluster")["requests"] >= 6, "five acknowledgements of the same")
            assert time.monotonic() - begun > 0.5, "each waits longer than the one before"
            plane.put(snapshot("sidecar", NODE, "2", reviews({"v2": 1}, v2=[b])))
            calls.only("b")
        assert calls.failures == []

    @ONE_EACH
    def test_a_refusal_is_seen_by_its_version_alone(self, launch, view, protocol, make_mesh, upstream):
        # A request for another version than the newest is answered at once, whatever else it says.
        plane = launch()
        plane.protocol = protocol
        a = upstream("a")
        good = snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a]))
        plane.put(good)
        mesh = make_mesh(config(plane, view))
        mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
        begun = time.monotonic()
        plane.put({**good, "version": "2", "clusters": [{**good["clusters"][0], "connectTimeout": "-5s"}]})
        if protocol == "sotw":
            said(lambda: plane.watch("Cluster")["nacks"] >= 4, "the same refusal four times")
            assert time.monotonic() - begun > 0.5, "each waits longer than the one before"
        else:
            said(lambda: plane.watch("Cluster")["nacks"] >= 1, "the refusal")
        plane.put({**good, "version": "3"})
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            Watch(mesh).until(lambda: not xds(mesh).rejected, PATIENCE)  # told with each call
            calls.only("a")
        assert calls.failures == []
