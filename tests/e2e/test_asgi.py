"""FastAPI under uvicorn: WebSockets, background work, streams, and an end in order."""

from __future__ import annotations

import json

import httpx
import pytest
from websockets.sync.client import connect

from meshlib.testing import Upstream
from tests.support.web_servers import uvicorn

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SAID = {"x-request-id": "one", "traceparent": PARENT, "x-envoy-expected-rq-timeout-ms": "9000"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Upstream("stock") as stock:
        mesh = {
            "services": {"stock": {"endpoints": [stock.address]}},
            "inbound": {
                "ready": "/ready",
                "ready_for": ["stock"],
                "access_log": "envoy",
                "reject_expired": True,
            },
        }
        log = tmp_path_factory.mktemp("log") / "log"
        site = {"mesh": mesh, "calls": "stock", "name": "site"}
        with uvicorn("tests.support.fastapi_site:create_app", log, "--factory", **site) as running:
            yield running


def test_it_is_ready_and_late_requests_are_told(server):
    assert httpx.get(server.url + "/ready").json() == {"ready": True}
    assert httpx.get(server.url, headers={"grpc-timeout": "0n"}).status_code == 504


@pytest.mark.parametrize("path", ["/", "/sync"])
def test_calls_of_async_and_of_threaded_endpoints_carry_on(server, path):
    answer = httpx.get(server.url + path, headers=SAID).json()
    headers = dict(answer.get("next", answer)["headers"])
    assert (headers["traceparent"], headers["x-request-id"]) == (PARENT, "one")
    assert int(headers["x-envoy-expected-rq-timeout-ms"]) <= 9000


def test_a_stream_is_part_of_serving(server):
    assert httpx.get(server.url + "/stream", headers=SAID).text == "one;one;one;"
    assert httpx.get(server.url + "/stream").text == "empty;empty;empty;"


def test_background_work_keeps_the_request_and_loses_its_deadline(server):
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/background", headers=SAID).json() == ["one", True]
        # Another connection: whether a server reads on before the work is done is the server's choice.
        assert httpx.get(server.url + "/later").json() == {"here": ["empty", False], "work": ["one", False]}
        assert client.get("/stream").text == "empty;empty;empty;"


def test_an_exception_leaves_nothing(server):
    for _ in range(5):
        assert httpx.get(server.url + "/boom", headers=SAID).status_code == 500
        assert httpx.get(server.url + "/stream").text == "empty;empty;empty;"


def test_a_websocket_carries_its_trace_on_for_as_long_as_it_lives(server):
    url = server.url.replace("http", "ws") + "/ws"
    late = {**SAID, "x-envoy-expected-rq-timeout-ms": "1"}  # holds for the handshake only
    with connect(url, additional_headers=late) as socket:
        for text in ("a", "b"):
            socket.send(text)
            assert json.loads(socket.recv(timeout=10)) == [text, "one", PARENT]


def test_the_log_and_the_end(server):
    assert '"GET /stream HTTP/1.1" 200 - 0 12 ' in server.log
    assert '"GET / HTTP/1.1" 504 DT 0 ' in server.log
    assert server.stop() < 5
    assert "Application shutdown complete" in server.log
    assert '"GET /ws HTTP/1.1" 101 ' in server.log
