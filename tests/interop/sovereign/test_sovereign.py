"""Against sovereign, a control plane for Envoys that are polled by REST.

It is no part of the test environment, whose FastAPI is another, and has one of its own, which `make interop-sovereign` makes:

    python -m venv build/interop/sovereign && build/interop/sovereign/bin/pip install sovereign==0.32.12

What it shows: JSON that no protobuf wrote; versions that are hashes of a whole template, whatever names are asked for; 404 for a
type that is empty; 422 for a request that lacks what its model wants. It reads its files when it starts, so that each change is
an outage as well.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from contextlib import suppress

import pytest

import meshlib
from meshlib.testing import Upstream, build
from meshlib.testing.ports import bind
from tests.interop.build import KEPT
from tests.support.asking import asked

REST = {
    "api_config_source": {"api_type": "REST", "transport_api_version": "V3", "cluster_names": ["sovereign"]},
    "resource_api_version": "V3",
}
_KINDS = ("listeners", "clusters", "routes", "endpoints")
_PATIENCE = 30.0  # seconds; it needs some to start


class Sovereign:
    """The program, and the files that are its templates."""

    def __init__(self, command, folder):
        self._command, self._folder = command, folder
        self._process = None
        with bind(0) as held:
            self.port = held.getsockname()[1]
        templates = [
            {
                "type": kind,
                "spec": {"protocol": "file", "serialization": "jinja2", "path": str(folder / kind)},
            }
            for kind in _KINDS
        ]
        (folder / "config.yaml").write_text(json.dumps({"templates": {"default": templates}}))

    def put(self, kind, *resources):
        text = json.dumps({"resources": [build.without_type(each) for each in resources]})
        (self._folder / kind).write_text(text)

    def restart(self):
        """Returns when the new one serves."""
        self.stop()
        own = {"CONFIG": f"file://{self._folder}/config.yaml", "HOST": "127.0.0.1", "PORT": self.port}
        environment = os.environ | {f"SOVEREIGN_{name}": str(value) for name, value in own.items()}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._command], cwd=self._folder, env=environment, stdout=log, stderr=log
            )
        assert asked(self._serves, _PATIENCE), self.log

    def stop(self):
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(_PATIENCE)

    @property
    def log(self):
        return (self._folder / "log").read_text()

    @property
    def polls(self):
        """A line for each of ours."""
        return [line for line in self.log.splitlines() if '"user_agent": "meshlib/' in line]

    def _serves(self):
        assert self._process.poll() is None, self.log
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False


@pytest.fixture
def sovereign(tmp_path):
    command = KEPT / "sovereign" / "bin" / "sovereign"
    if not command.exists():
        pytest.skip("sovereign is not installed: make interop-sovereign installs it")
    program = Sovereign(command, tmp_path)
    yield program
    program.stop()


def listener(name):
    made = build.api_listener(name, "r")
    made["api_listener"]["api_listener"]["rds"]["config_source"] = REST
    return made


def source(mesh):
    return next(each for each in mesh.status().sources if each.kind == "xds")


def test_it_is_polled(sovereign):
    cluster = build.cluster("c", eds_cluster_config={"eds_config": REST})
    sovereign.put("clusters", cluster)
    sovereign.put("routes", build.route_config("r", build.virtual_host("v", build.route("/", cluster="c"))))
    sovereign.put("listeners", listener("reviews"), listener("ratings"))
    with Upstream("a") as a, Upstream("b") as b:
        sovereign.put("endpoints", build.endpoints("c", a.address))
        sovereign.restart()
        xds = {"protocol": "rest", "server": f"http://127.0.0.1:{sovereign.port}", "refresh": 0.2}
        with meshlib.Mesh({"xds": xds}) as mesh, meshlib.Client(mesh=mesh, timeout=20) as client:

            def name(host="reviews"):
                return client.get(f"http://{host}/").json()["name"]

            assert name() == "a"
            assert name("ratings") == "a"  # the version is the same, and the names are not

            sovereign.put("endpoints", build.endpoints("c", b.address))
            sovereign.put("clusters", {**cluster, "lb_policy": "CLUSTER_PROVIDED"})
            sovereign.restart()
            assert asked(lambda: source(mesh).rejected, _PATIENCE)
            assert asked(lambda: name() == "b", _PATIENCE)
            # The polls that tell the refusal have all that its model wants: none is a 422.
            before = len(sovereign.polls)
            assert asked(lambda: len(sovereign.polls) > before + 10, _PATIENCE)
            assert '"status": "422"' not in sovereign.log

            # An empty type is a 404, which says nothing of what there was.
            sovereign.put("clusters", cluster)
            sovereign.put("endpoints")
            sovereign.restart()
            assert asked(lambda: "answered 404" in source(mesh).last_error, _PATIENCE)
            assert (source(mesh).state, name()) == ("stale", "b")

            sovereign.put("endpoints", build.endpoints("c", a.address))
            sovereign.restart()
            assert asked(lambda: name() == "a", 2 * _PATIENCE)
            assert asked(lambda: source(mesh).state == "ready", _PATIENCE)
            assert asked(lambda: not source(mesh).rejected, _PATIENCE)
