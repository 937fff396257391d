"""Whom success rate and failure percentage eject: meshlib and a real Envoy on one control plane (OD-01, OD-02)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

import meshlib
from meshlib.testing import build
from meshlib.testing.control_plane import ControlPlane
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

# Every second call to one of five fails, so that the detectors of failures in a row never see it.
DETECTORS = {
    "success rate": {"success_rate_request_volume": 4, "enforcing_success_rate": 100},
    "failure percentage": {
        "enforcing_success_rate": 0,
        "enforcing_failure_percentage": 100,
        "failure_percentage_threshold": 30,
        "failure_percentage_request_volume": 4,
    },
}
#: Makes a call and says its status; names the addresses that are ejected now.
Side = tuple[Callable[[], int], Callable[[], set[str]]]


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(self.server.status())  # type: ignore[attr-defined]
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Upstream(ThreadingHTTPServer):
    """Answers 200, or if it is ``bad`` 200 and 500 by turns."""

    daemon_threads = True

    def __init__(self, *, bad: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.address = f"127.0.0.1:{self.server_port}"
        self._bad = bad
        self._lock = threading.Lock()
        self._calls = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def status(self) -> int:
        with self._lock:
            self._calls += 1
            return 500 if self._bad and self._calls % 2 else 200

    def close(self) -> None:
        self.shutdown()
        self._thread.join(20)
        self.server_close()


@pytest.fixture
def upstreams() -> Iterator[list[Upstream]]:
    """The third is the bad one."""
    with ExitStack() as stack:
        made = []
        for number in range(5):
            made.append(Upstream(bad=number == 2))
            stack.callback(made[-1].close)
        yield made


@pytest.fixture(params=["envoy", "meshlib"])
def side(request, tmp_path, upstreams) -> Iterator[Callable[..., Side]]:
    with ExitStack() as stack:

        def make(**detection: object) -> Side:
            held = Ports(1)
            stack.callback(held.close)
            port = held.numbers[0]
            to_c = build.route_config("r", build.virtual_host("v", build.route(cluster="c"), domains=["*"]))
            control_plane = stack.enter_context(
                ControlPlane(
                    build.listener("l", to_c, address=f"127.0.0.1:{port}"),
                    build.cluster(
                        "c",
                        [one.address for one in upstreams],
                        lb_policy="ROUND_ROBIN",
                        outlier_detection=detection,
                    ),
                )
            )
            url = f"http://127.0.0.1:{port}/"
            if request.param == "envoy":
                envoy = stack.enter_context(EnvoyProcess(control_plane.address, tmp_path))
                envoy.wait_for_listeners(1)
                client = stack.enter_context(httpx.Client(timeout=20))
                return lambda: client.get(url).status_code, lambda: ejected_by_envoy(envoy)
            mesh = stack.enter_context(
                meshlib.Mesh({"xds": {"server": control_plane.address, "view": "sidecar"}})
            )
            mesh.wait_ready(f"127.0.0.1:{port}", timeout=20)
            client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))
            return lambda: client.get(url).status_code, lambda: ejected_by(mesh)

        yield make


def ejected_by_envoy(envoy: EnvoyProcess) -> set[str]:
    """From lines such as ``c::127.0.0.1:80::health_flags::/failed_outlier_check``."""
    fields = (line.split("::") for line in envoy.admin("/clusters").splitlines())
    return {
        found[1]
        for found in fields
        if found[0] == "c" and found[2:3] == ["health_flags"] and "/failed_outlier_check" in found[3]
    }


def ejected_by(mesh: meshlib.Mesh) -> set[str]:
    endpoints = mesh.status().clusters["c"].endpoints
    return {item.address for item in endpoints if item.health == "ejected"}


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_one_that_fails_more_than_the_others_is_ejected_and_no_other(side, upstreams, detector):
    call, ejected = side(
        interval="0.4s", base_ejection_time="60s", max_ejection_percent=20, **DETECTORS[detector]
    )
    until = time.monotonic() + 30
    while not (found := ejected()):
        assert time.monotonic() < until, "nobody is ejected"
        for _ in range(20):
            call()
    assert found == {upstreams[2].address}
    assert {call() for _ in range(20)} == {200}
    assert ejected() == found
