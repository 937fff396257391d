"""The control plane is restarted in the midst of calls, and comes back with less than it had: no call fails for it (CA-01)."""

from __future__ import annotations

import json

import pytest

import meshlib
from tests.interop.support.calling import PATIENCE, calling, said
from tests.interop.support.meshes import NODE, URL, config, reviews, xds
from tests.interop.support.snapshots import PORT, snapshot
from tests.support.watch import until

BOTH = pytest.mark.parametrize("protocol", ["delta", "sotw"])
#: Kinds that are empty in a snapshot of this node; the routes and endpoints of the one before nobody takes back (SW-11, DL-13).
NOTHING = {"node": NODE, "listeners": [], "routes": [], "clusters": [], "endpoints": []}


@BOTH
class TestRestarts:
    def test_it_knows_nothing_of_us(self, view, plane, make_mesh, upstream):
        # SW-19: silence says nothing of what there was; then versions begin anew, at one that we have seen with other content.
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[upstream("first")])))
        mesh = make_mesh(config(plane, view))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("first")
            plane.put(snapshot(view, NODE, "2", reviews({"v1": 1}, v1=[a])))
            calls.only("a")
            plane.kill()
            plane.lose()
            plane.start()
            said(lambda: plane.watch("ClusterLoadAssignment")["names"] == ["v1"], "all to be asked for")
            calls.more(200)
            plane.put(snapshot(view, NODE, "1", reviews({"v2": 1}, v2=[b])))
            calls.only("b")
        assert calls.failures == []
        assert set(calls.names) == {"first", "a", "b"}
        assert xds(mesh).state == "ready"

    def test_its_snapshot_is_empty_and_deletions_are_ignored(
        self, view, plane, make_mesh, upstream, tmp_path
    ):
        # ER-03: the bootstrap says of this server that what it deletes stays. It comes back with the first version again.
        a, b = upstream("a"), upstream("b")
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[a])))
        mesh = make_mesh(config(plane, view, **keeping(plane, tmp_path)))
        with meshlib.Client(mesh=mesh) as client, calling(lambda: client.get(URL)) as calls:
            calls.only("a")
            plane.kill()
            plane.put({**NOTHING, "version": "0"})
            plane.start()
            said(lambda: plane.watch("Cluster")["acked"] == "0", "emptiness to be acknowledged")
            calls.more(200)
            plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[b])))
            calls.only("b")
        assert calls.failures == []

    def test_its_snapshot_is_empty_and_it_is_believed(self, view, plane, make_mesh, upstream):
        # EX-02, CA-09: what it says is gone is gone, and back when it is back.
        plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[upstream("a")])))
        mesh = make_mesh({**config(plane, view), "unknown_hosts": "refuse"})
        with meshlib.Client(mesh=mesh) as client:
            assert client.get(URL).json()["name"] == "a"
            plane.kill()
            plane.put({**NOTHING, "version": "0"})
            plane.start()
            until(mesh, lambda: mesh.explain("GET", URL, headers={}).cluster != "v1", PATIENCE)
            with pytest.raises(meshlib.MeshError):
                client.get(URL)
            plane.put(snapshot(view, NODE, "1", reviews({"v1": 1}, v1=[upstream("b")])))
            mesh.wait_ready(f"reviews:{PORT}", timeout=PATIENCE)
            assert client.get(URL).json()["name"] == "b"


def keeping(plane, folder):
    """The settings of a mesh of this server that ignores what it deletes."""
    path = folder / "bootstrap.json"
    server = {"server_uri": plane.server, "channel_creds": [{"type": "insecure"}]}
    features = {"server_features": ["xds_v3", "ignore_resource_deletion"]}
    path.write_text(json.dumps({"xds_servers": [{**server, **features}], "node": {"id": NODE}}))
    return {"bootstrap": str(path)}
