"""What a listener and its routes say of a request's size and of a stream's time: every library in the mesh, and a real Envoy."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import ControlPlane, build
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.libraries import LIBRARIES, Caller
from tests.support.ports import Ports
from tests.support.raw_server import RawServer

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

HOSTS = ("envoy", *LIBRARIES)
#: Their connections read as their own timeouts say.
OF_AIOHTTP = ("aiohttp", "aiohttp-connector")
WITHOUT_AIOHTTP = pytest.mark.parametrize(
    "answer", [host for host in HOSTS if host not in OF_AIOHTTP], indirect=True
)
#: What a body is called, where that is not ``content``.
BODY = {"requests": "data", "urllib3": "body"}
Answer = Callable[..., tuple[int, bytes]]


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(params=HOSTS)
def answer(request: Any, tmp_path: Path) -> Iterator[Answer]:
    """Status and body of a call by a listener and a route that say this."""
    with ExitStack() as stack:

        def make(
            upstream: str,
            *,
            path: str = "/",
            headers: dict[str, str] | None = None,
            manager: dict[str, Any] | None = None,
            body: bytes = b"",
            cluster: dict[str, Any] | None = None,
            **action: Any,
        ) -> tuple[int, bytes]:
            held = Ports(1)
            stack.callback(held.close)
            address = f"127.0.0.1:{held.numbers[0]}"
            route = build.route("/", cluster="c")
            route["route"] |= {"timeout": "0s"} | action
            config = build.route_config("r", build.virtual_host("v", route, domains=["*"]))
            made = [
                build.listener("l", config, address=address, manager=manager or {}),
                build.cluster("c", [upstream], **cluster or {}),
            ]
            plane = stack.enter_context(ControlPlane(*made))
            url, headers = f"http://{address}{path}", headers or {}
            if request.param == "envoy":
                envoy = stack.enter_context(EnvoyProcess(plane.address, tmp_path))
                envoy.wait_for_listeners(1)
                method = "POST" if body else "GET"
                response = httpx.request(method, url, headers=headers, content=body or None, timeout=20)
                return response.status_code, response.content
            config = {"xds": {"server": plane.address, "view": "sidecar"}, "failures": "respond"}
            mesh = stack.enter_context(meshlib.Mesh(config))
            mesh.wait_ready(address, timeout=20)
            with Caller(request.param, mesh) as caller:
                if not body:
                    return caller("GET", url, headers=headers)[:2]
                options = {BODY.get(request.param, "content"): body}
                return caller("POST", url, headers=headers, **options)[:2]

        yield make


LARGE = (431, b"Request Header Fields Too Large")
FEW = {"common_http_protocol_options": {"max_headers_count": 20}}


def lines(count: int) -> dict[str, str]:
    return {f"x-{number}": "v" for number in range(count)}


@pytest.mark.parametrize(("count", "large"), [(10, False), (21, True)])
def test_lines_of_a_request(answer: Answer, count: int, large: bool) -> None:
    with RawServer() as server:
        got = answer(server.address, headers=lines(count), manager=FEW)
        assert got == (LARGE if large else (200, b"ok"))
        assert len(server.heads) == (not large)


@pytest.mark.parametrize(
    ("path", "headers", "large"),
    [
        ("/", {"x-a": "v" * 700}, False),
        ("/", {"x-a": "v" * 1100}, True),
        (f"/{'p' * 1100}", {}, True),
        ("/", {"x-a": "v" * 500, "x-b": "v" * 500}, True),
    ],
)
def test_bytes_of_a_request(answer: Answer, path: str, headers: dict[str, str], large: bool) -> None:
    with RawServer() as server:
        got = answer(server.address, path=path, headers=headers, manager={"max_request_headers_kb": 1})
        assert got == (LARGE if large else (200, b"ok"))


@WITHOUT_AIOHTTP
@pytest.mark.parametrize(
    ("manager", "action"),
    [
        ({"stream_idle_timeout": "0.4s"}, {}),
        ({"stream_idle_timeout": "60s"}, {"idle_timeout": "0.4s"}),
        ({}, {"idle_timeout": "0.4s", "retry_policy": {"retry_on": "5xx,reset", "num_retries": 3}}),
    ],
)
def test_a_stream_that_is_idle(
    answer: Answer, silent: str, manager: dict[str, Any], action: dict[str, Any]
) -> None:
    assert answer(silent, manager=manager, **action) == (504, b"stream timeout")


@WITHOUT_AIOHTTP
def test_a_route_switches_its_listeners_idle_timeout_off(answer: Answer, silent: str) -> None:
    manager = {"stream_idle_timeout": "0.2s"}
    got = answer(silent, manager=manager, idle_timeout="0s", timeout="0.6s")
    assert got == (504, b"upstream request timeout")


@pytest.mark.parametrize(
    ("manager", "action"),
    [
        ({"common_http_protocol_options": {"max_stream_duration": "0.4s"}}, {}),
        (
            {"common_http_protocol_options": {"max_stream_duration": "60s"}},
            {"max_stream_duration": {"max_stream_duration": "0.4s"}},
        ),
        ({}, {"max_stream_duration": {"max_stream_duration": "0.4s"}, "timeout": "30s"}),
    ],
)
def test_a_stream_that_takes_too_long(
    answer: Answer, silent: str, manager: dict[str, Any], action: dict[str, Any]
) -> None:
    assert answer(silent, manager=manager, **action) == (504, b"downstream duration timeout")


@WITHOUT_AIOHTTP
def test_an_attempt_that_is_idle_is_made_again(answer: Answer, silent: str) -> None:
    policy = {"retry_on": "5xx,reset", "num_retries": 1, "per_try_idle_timeout": "0.3s"}
    status, _ = answer(silent, retry_policy=policy)
    assert status == 504


@WITHOUT_AIOHTTP
def test_a_request_that_is_not_sent_in_time(answer: Answer, silent: str) -> None:
    """More than all buffers on the way hold."""
    body = bytes(64 * 1024 * 1024)
    got = answer(silent, body=body, manager={"request_timeout": "0.5s"})
    assert got == (408, b"request timeout")


CLUSTER_LIMIT = {"common_http_protocol_options": {"max_stream_duration": "0.4s"}}


@pytest.mark.parametrize(
    "action",
    [
        {},
        {"timeout": "30s"},
        {"retry_policy": {"retry_on": "reset", "num_retries": 1}},
        {"retry_policy": {"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "30s"}},
    ],
)
def test_an_attempt_that_takes_longer_than_its_cluster_allows(
    answer: Answer, silent: str, action: dict[str, Any]
) -> None:
    got = answer(silent, cluster=CLUSTER_LIMIT, **action)
    assert got == (504, b"upstream max stream duration reached")


@pytest.mark.parametrize("answer", [host for host in HOSTS if host != "aiohttp-connector"], indirect=True)
@pytest.mark.parametrize(
    "action", [{"timeout": "0.2s"}, {"retry_policy": {"retry_on": "reset", "per_try_timeout": "0.1s"}}]
)
def test_whichever_is_nearer_holds(answer: Answer, silent: str, action: dict[str, Any]) -> None:
    """A connector makes no call again, so that a try's time is no matter of its."""
    assert answer(silent, cluster=CLUSTER_LIMIT, **action) == (504, b"upstream request timeout")
