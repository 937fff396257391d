"""gRPC channels of the mesh under real gevent, with grpc prepared for it and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.grpc_channels import told
from tests.support.grpc_tls import world

pytest.importorskip("gevent")

ROOT = Path(__file__).resolve().parents[2]


def run(program: str, config: Any, *, prepared: bool = True) -> Any:
    """What the program found. It ends by itself, and well."""
    argument = json.dumps({"config": config, "prepared": prepared})
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.support.gevent_grpc", program, argument],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(params=["file", "xds", "tls"])
def config(request: pytest.FixtureRequest, meshlib_grpc_upstream: Any) -> Any:
    """Two endpoints, told by the configuration or by a control plane; ``tls``: which demands TLS of the mesh, too."""
    if request.param == "tls":
        with world() as mesh:
            servers = [meshlib_grpc_upstream(name, credentials=mesh.server()) for name in ("a", "b")]
            mesh.say(*(server.address for server in servers))
            yield mesh.config
        return
    with told(request.param, meshlib_grpc_upstream("a"), meshlib_grpc_upstream("b")) as made:
        yield made


def test_greenlets_call_at_once_in_every_way(config: Any) -> None:
    found = run("crowd", config)
    one, many = {"1": 20}, {"3": 20}
    assert found["found"] == {
        "unary": one,
        "future": one,
        "server stream": many,
        "client stream": one,
        "both": many,
    }
    assert found["seconds"] < 10  # one after the other: 20 at least
    assert found["ticks"] > 5
    assert found["active"] == 0


def test_greenlets_that_are_killed_or_late_give_back_what_they_held(config: Any) -> None:
    found = run("killed", config)
    assert found["late"] == {"DeadlineExceeded": 20}
    assert found["after"] == ["1", "1", "3", "1", "3"]
    assert found["ticks"] > 20
    assert found["active"] == 0


def test_without_init_gevent_a_call_fails_at_once_with_the_remedy(config: Any) -> None:
    found = run("refused", config, prepared=False)
    assert set(found["found"]) == {"unary", "future", "server stream", "client stream", "both"}
    for said in found["found"].values():
        assert said.partition(":")[2].startswith(" UNAVAILABLE"), said
        assert "grpc.experimental.gevent.init_gevent() right after gevent.monkey.patch_all()" in said
    assert found["worst"] < 2  # each would wait 30 s
    assert found["active"] == 0
