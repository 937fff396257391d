"""Connections to an endpoint that fails (Envoy ``close_connections_on_host_health_failure``), by every library."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

import meshlib
from meshlib.testing import build
from tests.support.asking import asked
from tests.support.libraries import LIBRARIES, Caller
from tests.support.scripted import Peer, Scripted

pytestmark = pytest.mark.timeout(60)


class Server:
    """Answers as the test says; ``ended``: a connection of its was closed by its client."""

    def __init__(self) -> None:
        self.status = b"200 OK"
        self.ended = threading.Event()

    def serve(self, peer: Peer) -> None:
        while peer.head():
            peer.say(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nok" % self.status)
        self.ended.set()


def resources(address: str, **fields: object) -> dict[str, object]:
    """No idle connection ends by itself here."""
    cluster = build.cluster(
        "c",
        [address],
        close_connections_on_host_health_failure=True,
        common_http_protocol_options={"idle_timeout": "600s"},
        **fields,
    )
    routes = build.route_config("r", build.virtual_host("v", build.route(cluster="c"), domains=["*"]))
    return {"listeners": [build.listener("l", routes, address="127.0.0.1:9")], "clusters": [cluster]}


def mesh_of(tmp_path: Path, made: dict[str, object]) -> meshlib.Mesh:
    file = tmp_path / "mesh.json"
    file.write_text(json.dumps(made))
    return meshlib.Mesh({"services_file": str(file), "failures": "respond"})


@pytest.mark.parametrize("library", LIBRARIES)
def test_ejected(tmp_path: Path, library: str) -> None:
    """Its call's own connection, too, once the answer is read."""
    server = Server()
    outliers = {"consecutive_5xx": 1, "max_ejection_percent": 100, "base_ejection_time": "300s"}
    with Scripted(server.serve) as running:
        made = resources(f"127.0.0.1:{running.port}", outlier_detection=outliers)
        with mesh_of(tmp_path, made) as mesh, Caller(library, mesh) as caller:
            assert caller("GET", "http://127.0.0.1:9/")[0] == 200
            assert not server.ended.is_set()
            server.status = b"500 Internal Server Error"
            assert caller("GET", "http://127.0.0.1:9/")[0] == 500
            assert asked(lambda: caller("GET", "http://127.0.0.1:9/")[0] and server.ended.is_set(), 20)


@pytest.mark.parametrize("library", LIBRARIES)
def test_failing_its_checks(tmp_path: Path, library: str) -> None:
    """Where its client's loop runs: a call is made for that."""
    server, checked = Server(), Server()
    check = {
        "timeout": "1s",
        "interval": "0.1s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/"},
    }
    with Scripted(server.serve) as running, Scripted(checked.serve) as health:
        made = resources(f"127.0.0.1:{running.port}", health_checks=[check])
        endpoint = made["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        endpoint["health_check_config"] = {"port_value": health.port}
        with mesh_of(tmp_path, made) as mesh, Caller(library, mesh) as caller:
            assert caller("GET", "http://127.0.0.1:9/")[0] == 200
            assert not server.ended.is_set()
            checked.status = b"503 Service Unavailable"
            assert asked(lambda: caller("GET", "http://127.0.0.1:9/")[0] and server.ended.is_set(), 20)
