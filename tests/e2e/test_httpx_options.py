"""What httpx's transports, clients and request extensions say keeps its meaning in the mesh, or the mesh's word is documented."""

from __future__ import annotations

import asyncio
import inspect
import logging
import queue
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

import meshlib
import meshlib.httpx2
from tests.support.raw_server import RawServer

UpstreamFactory = Any
LIBRARIES: dict[str, tuple[ModuleType, Any]] = {"httpx": (httpx, meshlib), "httpx2": (httpx2, meshlib.httpx2)}


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> tuple[ModuleType, Any]:
    """The host library and what meshlib has for it."""
    return LIBRARIES[request.param]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, library: tuple[ModuleType, Any]) -> Callable[..., Any]:
    """``ask(mesh, method, url, transport={…}, **options)``: one call over ``Transport`` or ``AsyncTransport``; without a mesh
    over the library's own.
    """
    theirs, ours = library

    def call(
        mesh: meshlib.Mesh | None,
        method: str,
        url: str,
        *,
        transport: dict[str, Any],
        look: Callable[[Any], None] = bool,
        **options: Any,
    ) -> Any:
        made = theirs.HTTPTransport(**transport) if mesh is None else ours.Transport(mesh=mesh, **transport)
        with theirs.Client(transport=made, event_hooks={"response": [look]}) as client:
            return client.request(method, url, **options)

    async def call_async(mesh: Any, method: str, url: str, transport: Any, look: Any, options: Any) -> Any:
        async def hook(response: Any) -> None:
            look(response)

        made = theirs.AsyncHTTPTransport if mesh is None else partial(ours.AsyncTransport, mesh=mesh)
        async with theirs.AsyncClient(
            transport=made(**transport), event_hooks={"response": [hook]}
        ) as client:
            return await client.request(method, url, **options)

    if request.param == "sync":
        return call
    return lambda mesh, method, url, *, transport, look=bool, **options: asyncio.run(
        call_async(mesh, method, url, transport, look, options)
    )


def service(*addresses: str, key: str = "reviews", **policies: Any) -> dict[str, Any]:
    return {"services": {key: {"endpoints": list(addresses), **policies}}}


def dead_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"127.0.0.1:{closed.getsockname()[1]}"


# --- extensions={"target": …} -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("OPTIONS", b"*"),
        ("GET", b"/a//b/./c/%7e?x=[1]|2"),
        ("GET", b"http://elsewhere.example/absolute"),
        ("CONNECT", b"elsewhere.example:443"),
    ],
)
def test_a_target_of_the_callers_own_is_sent_as_it_is(
    ask: Callable[..., Any], server: RawServer, method: str, target: bytes
) -> None:
    with meshlib.Mesh(service(server.address, key=server.address)) as mesh:
        for one in (None, mesh):
            response = ask(
                one, method, f"http://{server.address}/other", transport={}, extensions={"target": target}
            )
            assert response.status_code == 200
        assert meshlib.call_info(response).via == "mesh"
    plain, ours = server.heads
    assert ours.split(b"\r\n")[0] == plain.split(b"\r\n")[0] == method.encode() + b" " + target + b" HTTP/1.1"


def test_routes_see_the_target(ask: Callable[..., Any], upstream: UpstreamFactory) -> None:
    one, two = upstream("one"), upstream("two")
    config = service(one.address, routes=[{"match": {"path": "/raw|path"}, "service": "two"}])
    config["services"]["two"] = {"endpoints": [two.address]}
    with meshlib.Mesh(config) as mesh:
        answered = ask(mesh, "GET", "http://reviews/x", transport={}, extensions={"target": b"/raw|path"})
    assert answered.json()["name"] == "two"


def test_a_target_that_cannot_be_sent_is_no_endpoints_fault(
    ask: Callable[..., Any], library: tuple[ModuleType, Any], upstream: UpstreamFactory
) -> None:
    one = upstream()
    with meshlib.Mesh(service(one.address, breaker={"consecutive_failures": 1})) as mesh:
        with pytest.raises(library[0].LocalProtocolError):
            ask(mesh, "GET", "http://reviews/", transport={}, extensions={"target": b"/a b"})
        assert ask(mesh, "GET", "http://reviews/", transport={}).status_code == 200


# --- retries= -----------------------------------------------------------------------------------------------------------


def test_retries_connect_again_and_go_to_another_endpoint(
    ask: Callable[..., Any], upstream: UpstreamFactory
) -> None:
    one = upstream()
    with meshlib.Mesh(service(dead_address(), one.address)) as mesh:
        plain = [outcome(lambda: ask(mesh, "GET", "http://reviews/", transport={})) for _ in range(2)]
        again = [
            outcome(lambda: ask(mesh, "POST", "http://reviews/", transport={"retries": 1}, content=b"x"))
            for _ in range(2)
        ]
    assert sorted(plain) == [["connect"], ["ok"]]
    assert [outcomes[-1] for outcomes in again] == ["ok", "ok"]
    assert ["connect", "ok"] in again


def outcome(call: Callable[[], Any]) -> list[str]:
    """How each attempt of a call ended."""
    try:
        info = meshlib.call_info(call())
    except meshlib.MeshError as error:
        info = error.info
    assert info is not None
    return [attempt.outcome for attempt in info.attempts]


def test_retries_are_to_connect_only_and_end(ask: Callable[..., Any], upstream: UpstreamFactory) -> None:
    one = upstream()
    one.fail(503)
    with meshlib.Mesh(service(one.address)) as mesh:
        assert ask(mesh, "GET", "http://reviews/", transport={"retries": 3}).status_code == 503
    assert one.requests_total == 1
    with meshlib.Mesh(service(dead_address())) as mesh, pytest.raises(meshlib.ConnectFailed) as caught:
        ask(mesh, "GET", "http://reviews/", transport={"retries": 2})
    assert len(caught.value.info.attempts) == 3


def test_what_the_mesh_orders_goes_before_retries(ask: Callable[..., Any]) -> None:
    config = service(dead_address(), retry={"attempts": 2, "on": ["connect-failure"]})
    with meshlib.Mesh(config) as mesh:
        with pytest.raises(meshlib.ConnectFailed) as caught:
            ask(mesh, "GET", "http://reviews/", transport={"retries": 5})
        assert len(caught.value.info.attempts) == 2
        options = {"meshlib": meshlib.CallOptions(retry=False)}
        with pytest.raises(meshlib.ConnectFailed) as caught:
            ask(mesh, "GET", "http://reviews/", transport={"retries": 5}, extensions=options)
        assert len(caught.value.info.attempts) == 1


# --- limits= ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["client", "transport"])
def test_max_connections_holds_for_each_endpoint(
    library: tuple[ModuleType, Any], kind: str, upstream: UpstreamFactory
) -> None:
    """16 threads over 2 connections: the others wait, as in httpx."""
    theirs, ours = library
    one = upstream()
    limits = theirs.Limits(max_connections=2, max_keepalive_connections=2)
    with meshlib.Mesh(service(one.address)) as mesh:
        if kind == "client":
            client = ours.Client(mesh=mesh, limits=limits)
        else:
            client = theirs.Client(transport=ours.Transport(mesh=mesh, limits=limits))
        with client:
            statuses = at_once(16, lambda: client.get("http://reviews/").status_code)
    assert statuses == [200] * 16
    assert one.connections_total == 2


async def test_max_connections_holds_for_tasks(
    library: tuple[ModuleType, Any], upstream: UpstreamFactory
) -> None:
    theirs, ours = library
    one = upstream()
    with meshlib.Mesh(service(one.address)) as mesh:
        async with ours.AsyncClient(mesh=mesh, limits=theirs.Limits(max_connections=2)) as client:
            responses = await asyncio.gather(*(client.get("http://reviews/") for _ in range(16)))
    assert [response.status_code for response in responses] == [200] * 16
    assert one.connections_total == 2


def test_no_connection_in_time_is_a_pool_timeout_and_nobodys_fault(
    library: tuple[ModuleType, Any], upstream: UpstreamFactory
) -> None:
    theirs, ours = library
    one = upstream()
    one.order(hold="head", times=1)
    config = service(one.address, breaker={"consecutive_failures": 1}, outlier={"consecutive_5xx": 1})
    with (
        meshlib.Mesh(config) as mesh,
        ours.Client(mesh=mesh, limits=theirs.Limits(max_connections=1)) as client,
    ):
        first = threading.Thread(target=client.get, args=("http://reviews/",))
        first.start()
        one.wait_for(lambda: one.held)
        for _ in range(3):
            with pytest.raises(meshlib.Overloaded, match="no connection was free in time") as caught:
                client.get("http://reviews/", timeout=theirs.Timeout(5, pool=0.01))
            assert isinstance(caught.value, theirs.PoolTimeout)
        one.release()
        first.join()
        assert client.get("http://reviews/").status_code == 200
        assert mesh.status().clusters["reviews"].endpoints[0].health == "healthy"


def test_httpxs_own_limit_of_100_gives_way_to_what_the_mesh_orders(
    library: tuple[ModuleType, Any], upstream: UpstreamFactory
) -> None:
    _, ours = library
    for limits, most in (({}, 100), ({"max_connections": 103}, 103)):
        one = upstream()
        one.order(hold="head")
        with meshlib.Mesh(service(one.address, limits=limits)) as mesh, ours.Client(mesh=mesh) as client:
            threads = [
                threading.Thread(target=client.get, args=("http://reviews/",), kwargs={"timeout": 30})
                for _ in range(104)
            ]
            for thread in threads:
                thread.start()
            one.wait_for(lambda one=one, most=most: one.held == most)
            one.behave()
            for thread in threads:
                thread.join()
        assert one.connections_total == most
        assert one.requests_total == 104


def at_once(count: int, call: Callable[[], Any]) -> list[Any]:
    """What ``count`` threads get that begin together."""
    begin, results = threading.Barrier(count), queue.SimpleQueue[Any]()

    def run() -> None:
        begin.wait()
        try:
            results.put(call())
        except Exception as error:  # noqa: BLE001 - looked at by the test
            results.put(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results.get() for _ in threads]


# --- proxy=, uds=, and what is no option --------------------------------------------------------------------------------


def test_a_transports_proxy_wins_over_the_mesh(
    ask: Callable[..., Any], upstream: UpstreamFactory, server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    with meshlib.Mesh(service(upstream().address)) as mesh, caplog.at_level(logging.WARNING, "meshlib"):
        response = ask(mesh, "GET", "http://reviews/a", transport={"proxy": f"http://{server.address}"})
    assert response.content == b"ok"
    assert server.heads[0].startswith(b"GET http://reviews/a HTTP/1.1\r\n")
    assert "reviews is of the mesh, but a proxy is set for it" in caplog.text


def test_a_transports_unix_socket_wins_over_the_mesh(
    ask: Callable[..., Any], upstream: UpstreamFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "s")
    with (
        RawServer(path) as server,
        meshlib.Mesh(service(upstream().address)) as mesh,
        caplog.at_level(logging.WARNING, "meshlib"),
    ):
        response = ask(mesh, "GET", "http://reviews/a", transport={"uds": path})
    assert response.content == b"ok"
    assert server.heads[0].startswith(b"GET /a HTTP/1.1\r\n")
    assert "uds=" in caplog.text


@pytest.mark.parametrize("name", ["Transport", "AsyncTransport"])
def test_what_is_no_option_is_refused_at_once(library: tuple[ModuleType, Any], name: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'tiemout'"):
        getattr(library[1], name)(tiemout=3)


def test_every_option_of_httpxs_transport_has_a_test_or_a_reason(library: tuple[ModuleType, Any]) -> None:
    """A new one must not be accepted and ignored."""
    shown = {
        "limits", "proxy", "uds", "retries",  # here
        "verify", "cert", "trust_env", "http1", "http2",  # test_tls_and_proxies.py
        "local_address", "socket_options",  # below
    }  # fmt: skip
    for name in ("HTTPTransport", "AsyncHTTPTransport"):
        assert set(inspect.signature(getattr(library[0], name)).parameters) == shown


def test_local_address_and_socket_options_are_of_the_connections_to_endpoints(
    ask: Callable[..., Any], server: RawServer
) -> None:
    options = {
        "local_address": "127.0.0.9",
        "socket_options": [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
    }
    seen: list[tuple[str, int]] = []

    def look(response: Any) -> None:
        sock = response.extensions["network_stream"].get_extra_info("socket")
        seen.append((sock.getsockname()[0], sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)))

    with meshlib.Mesh(service(server.address)) as mesh:
        ask(mesh, "GET", "http://reviews/", transport=options, look=look)
    assert seen == [("127.0.0.9", 1)]


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_a_client_that_nobody_gave_a_timeout_has_the_librarys_default(
    library: tuple[ModuleType, Any], kind: str
) -> None:
    """Libraries above ask so whether it was chosen, and take a default of their own where it was not."""
    theirs, ours = library
    with meshlib.Mesh(meshlib.Config.from_mapping({})) as mesh:
        found = getattr(ours, kind)(mesh=mesh).timeout
        plain = getattr(theirs, kind)().timeout
        assert found == plain
        assert plain == found
        assert found == plain
        assert plain == found
        assert getattr(ours, kind)(mesh=mesh).timeout == found
        for other in (theirs.Timeout(4.0), theirs.Timeout(5.0, read=None), 5.0, None):
            assert found != other
            assert other != found
