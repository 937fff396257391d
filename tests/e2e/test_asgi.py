"""FastAPI under uvicorn: WebSockets, background work, streams, and an end in order."""

from __future__ import annotations

import contextlib
import json
import socket

import httpx
import pytest
from websockets.sync.client import connect

from meshlib.testing import Upstream
from tests.support.late import again_if_late, soon
from tests.support.web_servers import uvicorn

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SAID = {"x-request-id": "one", "traceparent": PARENT, "x-envoy-expected-rq-timeout-ms": "9000"}


@contextlib.contextmanager
def serving(log):
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
        site = {"mesh": mesh, "calls": "stock", "name": "site"}
        # On uvloop a transport that reads again leaves no context to what comes next; on asyncio it does.
        options = ("--factory", "--loop", "asyncio")
        with uvicorn("tests.support.fastapi_site:create_app", log, *options, **site) as running:
            yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("log") / "log") as running:
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


def test_a_large_body_leaves_nothing_to_the_next_request_of_its_connection(server):
    with httpx.Client(base_url=server.url) as client:
        # Larger than the server takes in at once: it pauses, and reads on inside the application's call.
        body = b"x" * 5_000_000
        assert client.post("/upload", content=body, headers=SAID).json() == [len(body), "one", True]
        assert client.get("/before").json() == ["none", False]


def test_a_pipelined_request_is_not_the_one_before_it(server):
    said = "".join(f"{name}: {value}\r\n" for name, value in SAID.items())
    with socket.create_connection(server.address.split(":"), timeout=10) as connection:
        first = f"POST /upload HTTP/1.1\r\nHost: site\r\nContent-Length: 1\r\n{said}\r\nx"
        last = "GET /before HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n"
        connection.sendall((first + last).encode())
        answers = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert '[1,"one",true]' in answers
    assert answers.endswith('["none",false]')


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


@pytest.mark.timeout(180)
@again_if_late
def test_the_log_and_the_end(tmp_path_factory):
    """Of a server that has served all of the above."""
    with serving(tmp_path_factory.mktemp("log") / "log") as server:
        test_it_is_ready_and_late_requests_are_told(server)
        for path in ("/", "/sync"):
            test_calls_of_async_and_of_threaded_endpoints_carry_on(server, path)
        test_a_stream_is_part_of_serving(server)
        test_background_work_keeps_the_request_and_loses_its_deadline(server)
        test_a_large_body_leaves_nothing_to_the_next_request_of_its_connection(server)
        test_a_pipelined_request_is_not_the_one_before_it(server)
        test_an_exception_leaves_nothing(server)
        test_a_websocket_carries_its_trace_on_for_as_long_as_it_lives(server)
        assert '"GET /stream HTTP/1.1" 200 - 0 12 ' in server.log
        assert '"GET / HTTP/1.1" 504 DT 0 ' in server.log
        ended = server.stop()
        assert "Application shutdown complete" in server.log
        assert '"GET /ws HTTP/1.1" 101 ' in server.log
        soon(ended, 5.0, "the end")
