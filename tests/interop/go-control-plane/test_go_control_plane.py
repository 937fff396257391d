"""meshlib against Envoy's go-control-plane: the snapshot cache that many control planes are made of.

Every scenario runs in both views of the contract: listeners asked for by name (``target``) and listeners made for an
Envoy (``sidecar``). None has a retry policy, so every call that fails shows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import meshlib
from meshlib.runtime.interest import IDLE
from tests.interop.support.calling import PATIENCE, calling, calling_async, fits, said
from tests.interop.support.meshes import NODE, READY, URL, config, reviews, xds
from tests.interop.support.snapshots import PORT, snapshot, tcp_listener
from tests.support.watch import Waiters, Watch, until

BOTH = pytest.mark.parametrize("protocol", ["delta", "sotw"])


class TestSplit:
    def test_shares_are_kept(self, view, plane, make_mesh, upstream):
        v1, v2 = upstream("v1"), upstream("v2")
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 80, "v2": 20}, v1=[v1], v2=[v2])))
        mesh = make_mesh(config(plane, view))
        mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
        with meshlib.Client(mesh=mesh) as client:
            responses = [client.get(URL) for _ in range(1440)]
        names = Counter(response.json()["name"] for response in responses)
        assert set(names) == {"v1", "v2"}
        assert fits(names, "v2", 0.2), names
        info = meshlib.call_info(responses[0])
        assert info.via == "mesh"
        assert info.cluster == responses[0].json()["name"]
        assert info.endpoint == {"v1": v1, "v2": v2}[info.cluster].address
        assert info.listener == (f"reviews:{PORT}" if view == "target" else "outbound")
        assert info.trace()

    async def test_shares_are_kept_by_tasks(self, view, plane, make_mesh, upstream):
        plane.put(
            snapshot(view, NODE, "1", reviews({"v1": 80, "v2": 20}, v1=[upstream("v1")], v2=[upstream("v2")]))
        )
        mesh = make_mesh(config(plane, view))
        async with meshlib.AsyncClient(mesh=mesh) as client:

            async def some(count: int) -> list[str]:
                return [(await client.get(URL)).json()["name"] for _ in range(count)]

            batches = await asyncio.gather(*(some(72) for _ in range(20)))
        names = Counter(name for batch in batches for name in batch)
        assert names.total() == 1440
        assert fits(names, "v2", 0.2), names

    def test_endpoints_of_a_cluster_take_turns(self, view, plane, make_mesh, upstream):
        found = [upstream(name) for name in ("a", "b", "c")]
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=found)))
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client:
            names = Counter(client.get(URL).json()["name"] for _ in range(90))
        assert names == {"a": 30, "b": 30, "c": 30}

    def test_what_would_be_done_is_told_without_doing_it(self, view, plane, make_mesh, upstream):
        v1 = upstream("v1")
        plane.put(snapshot(view, NODE, "7", reviews({"v1": 1}, v1=[v1])))
        mesh = make_mesh(config(plane, view))
        mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
        decision = mesh.explain("GET", URL, headers={})
        assert (decision.via, decision.cluster, decision.endpoint) == ("mesh", "v1", v1.address)
        assert (decision.virtual_host, decision.path) == ("reviews", "/api")
        assert v1.served == 0

    def test_status_tells_versions_and_counts(self, view, plane, make_mesh, upstream):
        plane.put(snapshot(view, NODE, "7", reviews({"v1": 1}, v1=[upstream("v1")])))
        mesh = make_mesh(config(plane, view))
        mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
        status = until(mesh, lambda: (found := xds(mesh)).state == "ready" and found, PATIENCE)
        assert dict(status.versions) == dict.fromkeys(("listener", "route", "cluster", "endpoint"), "7")
        assert dict(status.resources) == dict.fromkeys(("listener", "route", "cluster", "endpoint"), 1)
        assert status.server == plane.server
        assert (status.rejected, status.waiting, status.last_error) == ((), (), "")


class TestDefaultView:
    """Nobody sets ``xds.view``: listeners of either kind are found, whichever the control plane has for us."""

    @pytest.mark.parametrize("made_for", ["target", "sidecar"])
    @pytest.mark.parametrize("options", [(), ("-ads",)], ids=["partial", "superset"])
    def test_either_kind(self, made_for, options, launch, make_mesh, upstream):
        plane = launch(*options)
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot(made_for, NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh({"node": {"id": NODE}, "xds": {"server": plane.server}})
        mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a")
            plane.put(snapshot(made_for, NODE, "2", reviews({"v1": 1}, v1=[b])))
            calls.only("b")
        assert calls.failures == []


class TestFirstCall:
    def test_it_waits_for_the_rest_of_a_first_configuration(self, view, plane, make_mesh, upstream):
        # Istio's first listeners are partly for TCP and need no routes: that something has arrived does not mean that
        # this host is known not to be of the mesh.
        whole = snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[upstream("v1")]))
        tcp = tcp_listener("database", 3306, "v1")
        plane.put({**whole, "version": "1", "listeners": [tcp, *whole["listeners"]], "routes": []})
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client, ThreadPoolExecutor(2) as pool:
            waiters = Waiters(mesh._runtime().store)
            first = pool.submit(client.get, URL)
            said(lambda: plane.watch("RouteConfiguration")["names"], "the routes to be asked for")
            # Acknowledged: the listeners and clusters are with us, and have been taken in.
            said(lambda: plane.watch("Listener")["acked"] == "1", "the listeners to be acknowledged")
            second = pool.submit(client.get, URL)
            waiters.until(2)
            assert not first.done()
            assert not second.done()
            plane.put({**whole, "listeners": [tcp, *whole["listeners"]]})
            responses = [call.result(timeout=READY) for call in (first, second)]
        assert [response.json()["name"] for response in responses] == ["v1", "v1"]
        assert {meshlib.call_info(response).via for response in responses} == {"mesh"}


@BOTH
class TestUse:
    """What no recent call needs is unsubscribed, and comes back with the next call."""

    @pytest.mark.parametrize("options", [(), ("-ads",)], ids=["partial", "superset"])
    @pytest.mark.parametrize("changed", [False, True], ids=["unchanged", "changed"])
    def test_a_name_that_was_let_go_of_comes_back(
        self, changed, options, launch, protocol, make_mesh, upstream
    ):
        plane = launch(*options)
        plane.protocol = protocol
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot("target", NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh(config(plane, "target"))
        with meshlib.Client(mesh=mesh) as client:
            assert client.get(URL).json()["name"] == "a"
            runtime = mesh._runtime()
            runtime.worker.call(lambda: let_go(runtime), PATIENCE)
            said(lambda: not plane.watch("ClusterLoadAssignment")["names"], "the names to be given up")
            # What was given up is taken out of force after that is said.
            runtime.worker.call(lambda: None, PATIENCE)
            if changed:
                plane.put(snapshot("target", NODE, "2", reviews({"v1": 1}, v1=[b])))
            assert client.get(URL).json()["name"] == ("b" if changed else "a")


def let_go(runtime: Any) -> None:
    """As if its names had not been used for long."""
    for wanted in runtime.interest.names():
        wanted.used = wanted.under_way = False
        wanted.last -= IDLE
    runtime._sweep()


@BOTH
class TestChanges:
    """The configuration changes while calls go on."""

    def test_weights(self, view, plane, make_mesh, upstream):
        clusters = {"v1": [upstream("v1")], "v2": [upstream("v2")]}
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 100, "v2": 0}, **clusters)))
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("v1")
            plane.put(snapshot(view, NODE, "2", reviews({"v1": 50, "v2": 50}, **clusters)))
            calls.only("v1", "v2")
            plane.put(snapshot(view, NODE, "3", reviews({"v1": 0, "v2": 100}, **clusters)))
            calls.only("v2")
        assert calls.failures == []

    def test_endpoints(self, view, plane, make_mesh, upstream):
        a, b, c = upstream("a"), upstream("b"), upstream("c")
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a, b])))
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a", "b")
            plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b, c])))
            calls.only("b", "c")
            plane.put(snapshot(view, NODE, "3", reviews({"v1": 1}, v1=[c])))
            calls.only("c")
        assert calls.failures == []
        endpoints = mesh.status().clusters["v1"].endpoints
        assert [(one.address, one.active) for one in endpoints] == [(c.address, 0)]

    async def test_endpoints_under_tasks(self, view, plane, make_mesh, upstream):
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh(config(plane, view))
        async with meshlib.AsyncClient(mesh=mesh) as client, calling_async(lambda: client.get(URL)) as calls:
            await asyncio.to_thread(calls.only, "a")
            await asyncio.to_thread(plane.put, snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
            await asyncio.to_thread(calls.only, "b")
        assert calls.failures == []

    def test_a_route_moves_to_a_cluster_that_is_new(self, view, plane, make_mesh, upstream):
        # CA-02, CA-03: one snapshot brings the cluster, its endpoints and the route; nothing orders them on the way.
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[upstream("v1")])))
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("v1")
            for number in range(2, 7):
                name = f"v{number}"
                plane.put(snapshot(view, NODE, str(number), reviews({name: 1}, **{name: [upstream(name)]})))
                calls.only(name)
        assert calls.failures == []
        until(mesh, lambda: set(mesh.status().clusters) == {"v6"}, PATIENCE)


@BOTH
class TestOutage:
    """The control plane goes and comes back while calls go on (CA-01, ST-04, ST-07, ST-08)."""

    def test_killed_and_restarted(self, view, plane, make_mesh, upstream):
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a")
            plane.kill()
            until(mesh, lambda: xds(mesh).state == "stale", PATIENCE)
            calls.more(200)
            assert set(calls.names) == {"a"}
            plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
            plane.start()
            calls.only("b")
        assert calls.failures == []
        assert xds(mesh).state == "ready"

    def test_restarted_with_what_it_had(self, view, plane, make_mesh, upstream):
        # SW-19, EX-04: the same versions from a server that knows nothing of us; nothing is dropped, all is asked for.
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a")
            for _ in range(3):
                plane.restart()
                said(
                    lambda: plane.watch("ClusterLoadAssignment")["names"] == ["v1"],
                    "the endpoints to be asked for",
                )
                calls.more(50)
            plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
            calls.only("b")
        assert calls.failures == []
        assert plane.watch("ClusterLoadAssignment")["names"] == ["v1"]

    def test_not_there_at_the_start(self, view, plane, make_mesh, upstream):
        # CA-09: recovers without a restart of ours.
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[upstream("v1")])))
        plane.kill()
        mesh = make_mesh(config(plane, view))
        with pytest.raises(meshlib.NotReady):
            mesh.wait_ready(f"reviews:{PORT}", timeout=0.5)
        until(mesh, lambda: xds(mesh).last_error, PATIENCE)
        plane.start()
        mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
        with meshlib.Client(mesh=mesh) as client:
            assert client.get(URL).json()["name"] == "v1"

    @pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "OK"])
    def test_stream_closed(self, view, code, plane, make_mesh, upstream):
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a")
            before = plane.opened()
            assert plane.close_streams(code=code) == 1
            said(lambda: plane.opened() > before and len(plane.streams()) == 1, "a new stream")
            said(
                lambda: plane.watch("ClusterLoadAssignment")["names"] == ["v1"],
                "the endpoints to be asked for",
            )
            assert plane.streams()[0]["delta"] == (plane.protocol == "delta")
            assert plane.streams()[0]["node"] == NODE  # ST-02
            plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
            calls.only("b")
        assert calls.failures == []
        assert plane.opened() == before + 1, "a stream that had answers is reopened once, not in a loop"

    def test_connection_closed(self, view, plane, make_mesh, upstream):
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a")
            before = plane.opened()
            assert plane.close_connections() == 1
            plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b])))
            calls.only("b")
        assert calls.failures == []
        assert plane.opened() > before


@BOTH
class TestRefusal:
    def test_a_wrong_cluster_is_refused_by_name_and_the_rest_serves(self, view, plane, make_mesh, upstream):
        # SW-02, SW-06, ER-01, ER-02: go-control-plane sees the NACK with its reason; the good cluster moves on.
        a, b = upstream("a"), upstream("b")
        good = reviews({"v1": 1}, v1=[a])
        plane.put(snapshot(view, NODE, "1", good))
        mesh = make_mesh(config(plane, view))
        mesh.wait_ready(f"reviews:{PORT}", timeout=READY)
        wrong = snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[b]))
        wrong["clusters"][0]["connectTimeout"] = "-5s"
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a")
            plane.put(wrong)
            watch = said(lambda: (found := plane.watch("Cluster"))["nacks"] and found, "a refusal")
            assert "v1" in watch["error"]
            assert "connect_timeout" in watch["error"]
            assert watch["acked"] == "1"
            calls.only("b")  # the endpoints are a response of their own, and right
            (rejected,) = until(mesh, lambda: xds(mesh).rejected, PATIENCE)
            assert (rejected.type, rejected.resource) == ("cluster", "v1")
            plane.put(snapshot(view, NODE, "3", good))
            Watch(mesh).until(lambda: not xds(mesh).rejected, PATIENCE)  # told with each call
            calls.only("a")
        assert calls.failures == []
        said(lambda: plane.watch("Cluster")["acked"] == "3", "the good cluster to be acknowledged")
