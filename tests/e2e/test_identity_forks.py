"""An identity that comes over the network, in processes that fork: a child calls with its parent's until it has its own, and asks for that itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from meshlib.testing import IstioCa, Upstream, WorkloadApi
from tests.support.identity_servers import configured, reviews

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")

FORKS = 3

#: Calls, forks, and calls on both sides. What a child cannot do is told by its exit code.
PROGRAM = """
import json, os, sys, threading
import meshlib

mesh = meshlib.Mesh(json.loads(sys.argv[1]))
own = threading.Event()
client = meshlib.Client(mesh=mesh)


def call():
    assert client.get("http://reviews/").json()["name"] == "reviews"


def ready(*_):
    status = mesh.status().identity
    if status and status[0].state == "ready":
        own.set()


call()
children = []
for _ in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            call()
            mesh._observe(ready)
            ready()
            assert own.wait(20), mesh.status().identity
            call()
            code = 0
        finally:
            os._exit(code)
    children.append(pid)
    call()
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children], flush=True)
call()
"""


def run(identity: dict[str, Any], upstream: Upstream, **environ: str) -> None:
    command = [sys.executable, "-c", PROGRAM, configured(identity, upstream), str(FORKS)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=50, check=False, env={**os.environ, **environ}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0] * FORKS, done.stderr


@pytest.fixture(params=["1", "0"], ids=["grpc's-forks", "without"])
def support(request: pytest.FixtureRequest) -> dict[str, str]:
    """grpc's own support for forks, on and off: nothing of it lives at a fork."""
    return {"GRPC_ENABLE_FORK_SUPPORT": request.param}


def test_of_istios_ca(tmp_path: Path, support: dict[str, str]) -> None:
    with (
        IstioCa(tmp_path, trust_domain="example.org") as ca,
        reviews(ca.authority, tmp_path) as upstream,
    ):
        run({"provider": "istio", **ca.settings}, upstream, **support)
        assert len({asked.public for asked in ca.requests}) == len(ca.requests) == 1 + FORKS


def test_of_the_workload_api(tmp_path: Path, support: dict[str, str]) -> None:
    with WorkloadApi(tmp_path / "api.sock") as api, reviews(api.authority, tmp_path) as upstream:
        run({"provider": "spiffe", "socket": f"unix:{tmp_path}/api.sock"}, upstream, **support)
        api.wait_for(lambda: api.streams == 0, what="the end of all streams")
        assert api.opened >= 1 + FORKS
