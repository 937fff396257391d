"""grpcdebug reads the client status service of a process (CS-01, CS-02)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import meshlib
from meshlib.testing import ControlPlane, build
from meshlib.testing.ports import reserve

GRPCDEBUG = os.environ.get("MESHLIB_TEST_GRPCDEBUG") or shutil.which("grpcdebug")

pytestmark = pytest.mark.skipif(
    GRPCDEBUG is None,
    reason="grpcdebug is not here: go install github.com/grpc-ecosystem/grpcdebug@latest, and MESHLIB_TEST_GRPCDEBUG has its path",
)


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "unix":
        with tempfile.TemporaryDirectory() as place:  # a socket's path must not be long
            yield f"unix:{place}/csds.sock"
        return
    with reserve(0) as held:
        port = held.getsockname()[1]
    yield f"127.0.0.1:{port}"


def ask(address: str, way: str) -> str:
    assert GRPCDEBUG is not None
    command = [GRPCDEBUG, address, "xds", way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_reads_states_and_resources(address: str, make_mesh: Callable[[Any], meshlib.Mesh]) -> None:
    host = build.virtual_host("reviews", build.route("/", cluster="c"), domains=["reviews"])
    resources = (
        build.api_listener("reviews", "r"),
        build.route_config("r", host),
        build.cluster("c"),
        build.endpoints("c", "127.0.0.1:9"),
    )
    with ControlPlane(*resources) as plane:
        make_mesh({"xds": {"server": plane.address}, "admin": {"csds": address}}).wait_ready("reviews")
        rows = {tuple(line.split()[:2]) for line in ask(address, "status").splitlines()[1:]}
        assert rows == {("reviews", "ACKED"), ("r", "ACKED"), ("c", "ACKED")}
        [config] = json.loads(ask(address, "config"))["config"]
        assert {each["name"] for each in config["genericXdsConfigs"]} == {"reviews", "r", "c"}
