"""An identity that comes over the network where gevent has patched everything: it is asked for where grpc is prepared for that, and refused in words
where it is not.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshlib.testing import IstioCa, Upstream, WorkloadApi
from tests.support.identity_servers import configured, reviews

PROGRAM = """
import sys
import gevent.monkey
gevent.monkey.patch_all()
if sys.argv[2] == "prepared":
    import grpc.experimental.gevent
    grpc.experimental.gevent.init_gevent()
import gevent, json, meshlib

others = []
gevent.spawn(others.append, "ran")
with meshlib.Mesh(json.loads(sys.argv[1])) as mesh, meshlib.Client(mesh=mesh) as client:
    try:
        print(client.get("http://reviews/").json()["name"])
    except meshlib.NoHealthyEndpoint as error:
        print(error)
    (status,) = mesh.status().identity
    print(status.state, status.name, bool(others))
"""


@pytest.fixture(params=["istio", "spiffe"])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Upstream, str]]:
    """A configuration, who is called by it, and the identity that it gives."""
    if request.param == "istio":
        with IstioCa(tmp_path, trust_domain="example.org") as ca, reviews(ca.authority, tmp_path) as upstream:
            yield configured({"provider": "istio", **ca.settings}, upstream), upstream, ca.uri
    else:
        with WorkloadApi(tmp_path / "api.sock") as api, reviews(api.authority, tmp_path) as upstream:
            told = {"provider": "spiffe", "socket": f"unix:{tmp_path}/api.sock"}
            yield configured(told, upstream), upstream, api.authority.uri("/app")


def run(config: str, how: str) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, config, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_where_grpc_is_prepared(asked: tuple[str, Upstream, str]) -> None:
    config, upstream, uri = asked
    assert run(config, "prepared") == ["reviews", f"ready {uri} True"]
    assert len(upstream.requests) == 1


def test_where_it_is_not(asked: tuple[str, Upstream, str]) -> None:
    config, upstream, _ = asked
    words, status = run(config, "unprepared")
    assert "secret 'default' cannot be had: meshlib: threading is patched by gevent" in words
    assert "init_gevent()" in words
    assert status.startswith("failed  ")
    assert upstream.requests == ()
