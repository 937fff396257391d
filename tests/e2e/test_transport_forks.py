"""Control planes without a stream of gRPC, across a fork: parent and child each go on by themselves."""

from __future__ import annotations

import json
import os

import pytest

import meshlib
from meshlib.testing import ControlPlane, Upstream, build
from tests.support.asking import asked
from tests.support.envoy_dir import EnvoyDir

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_child(call):
    """What `call` gives in a child process."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(theirs, json.dumps(call()).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as told:
        text = told.read()
    os.waitpid(child, 0)
    return json.loads(text)


def test_files(tmp_path, caplog):
    with Upstream("a") as a, Upstream("b") as b:
        files = EnvoyDir(tmp_path)
        files.fill(a.address)
        with (
            meshlib.Mesh({"xds": {"protocol": "files", "path": str(tmp_path)}}) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):

            def name():
                return client.get("http://reviews/").json()["name"]

            def change():
                before = name()
                files.put("eds", build.endpoints("c1", b.address))
                asked(lambda: name() == "b")  # the child's files are told by nobody
                return [before, name()]

            assert name() == "a"
            assert in_child(change) == ["a", "b"]
            assert asked(lambda: name() == "b")
    assert "before fork" not in caplog.text


def test_rest(caplog):
    host = build.virtual_host("v", build.route("/", cluster="c1"))
    with Upstream("a") as a:
        plane = ControlPlane(
            build.api_listener("reviews", build.route_config("r", host)), build.cluster("c1", [a.address])
        )
        with (
            plane.rest() as server,
            meshlib.Mesh({"xds": {"protocol": "rest", "server": server.url}}) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):

            def name():
                return client.get("http://reviews/").json()["name"]

            def state():
                return next(each.state for each in mesh.status().sources if each.kind == "xds")

            def in_force():
                return [name(), asked(lambda: state() == "ready")]

            assert name() == "a"
            seen = plane.seen
            assert in_child(in_force) == ["a", True]
            assert plane.seen > seen  # by its own polls
            assert in_force() == ["a", True]
    assert "before fork" not in caplog.text
