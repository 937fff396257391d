"""Connections that are handed over, told about and cut: what httpx's extensions show of them, over a mesh call."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import anyio
import httpcore
import httpcore2
import httpx
import httpx2
import pytest

import meshlib
import meshlib.httpx2

LIBRARIES = {"httpx": (httpx, meshlib, httpcore), "httpx2": (httpx2, meshlib.httpx2, httpcore2)}


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that gives each connection to ``serve``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    serve(peer)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def echo(peer: socket.socket) -> None:
    """Upgrades, sends a first line with the head, and says back what it hears until its peer is done."""
    while b"\r\n\r\n" not in peer.recv(65_536, socket.MSG_PEEK):
        pass
    peer.recv(65_536)
    peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
    while said := peer.recv(1024):
        peer.sendall(said.upper())


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> tuple[ModuleType, Any, ModuleType]:
    found: tuple[ModuleType, Any, ModuleType] = LIBRARIES[request.param]
    return found


def service(address: str) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": [address]}}}


def test_an_upgrade_hands_the_stream_over_with_what_came_behind_the_head(
    library: tuple[ModuleType, Any, ModuleType],
) -> None:
    _, ours, core = library
    with serving(echo) as address, meshlib.Mesh(service(address)) as mesh, ours.Client(mesh=mesh) as client:
        headers = {"connection": "upgrade", "upgrade": "echo"}
        with client.stream("GET", "http://reviews/", headers=headers) as response:
            assert response.status_code == 101
            stream = response.extensions["network_stream"]
            assert stream.read(5, timeout=5.0) == b"hello"
            stream.write(b"abc", timeout=5.0)
            assert stream.read(64, timeout=5.0) == b"ABC"
            with pytest.raises(core.ReadTimeout):
                stream.read(64, timeout=0.05)
        with pytest.raises((core.ReadError, core.WriteError)):
            stream.write(b"gone", timeout=1.0)


def test_an_upgrade_of_a_task_likewise(library: tuple[ModuleType, Any, ModuleType]) -> None:
    _, ours, core = library

    async def upgrade(address: str) -> None:
        async with meshlib.Mesh(service(address)) as mesh, ours.AsyncClient(mesh=mesh) as client:
            headers = {"connection": "upgrade", "upgrade": "echo"}
            async with client.stream("GET", "http://reviews/", headers=headers) as response:
                stream = response.extensions["network_stream"]
                assert await stream.read(5, timeout=5.0) == b"hello"
                await stream.write(b"abc", timeout=5.0)
                assert await stream.read(64, timeout=5.0) == b"ABC"
                with pytest.raises(core.ReadTimeout):
                    await stream.read(64, timeout=0.05)

    with serving(
        echo
    ) as address:  # whose end waits for the peer's, which a loop that stands still cannot bring
        asyncio.run(upgrade(address))


def whole(peer: socket.socket) -> None:
    """Answers requests until its peer is done."""
    while peer.recv(65_536):
        peer.sendall(b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok")


def test_a_trace_hears_of_each_step(library: tuple[ModuleType, Any, ModuleType]) -> None:
    _, ours, _ = library
    heard: list[str] = []

    def trace(name: str, info: dict[str, Any]) -> None:
        heard.append(name)

    with serving(whole) as address, meshlib.Mesh(service(address)) as mesh, ours.Client(mesh=mesh) as client:
        response = client.get("http://reviews/", extensions={"trace": trace})
    assert response.extensions["reason_phrase"] == b"Fine"
    assert response.extensions["http_version"] == b"HTTP/1.1"
    assert [name for name in heard if name.endswith(".started")] == [
        "http11.send_request_headers.started",
        "http11.send_request_body.started",
        "http11.receive_response_headers.started",
        "http11.receive_response_body.started",
        "http11.response_closed.started",
    ]
    assert len(heard) == 10


def test_a_body_that_breaks_tells_where_and_keeps_nothing(
    library: tuple[ModuleType, Any, ModuleType],
) -> None:
    httpx_, ours, _ = library

    def cut(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")

    with serving(cut) as address, meshlib.Mesh(service(address)) as mesh, ours.Client(mesh=mesh) as client:
        with pytest.raises(meshlib.TransportFailed) as caught:
            client.get("http://reviews/")
        assert isinstance(caught.value, httpx_.RemoteProtocolError)
        assert caught.value.phase == "body"
        assert caught.value.info is not None
        assert caught.value.info.endpoint == address
        status = mesh.status().clusters["reviews"].endpoints[0]
        assert (status.active, status.failures) == (0, 1)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_trio_works_as_asyncio_does(library: tuple[ModuleType, Any, ModuleType], backend: str) -> None:
    _, ours, _ = library

    async def main(address: str) -> list[str]:
        async with meshlib.Mesh(service(address)) as mesh, ours.AsyncClient(mesh=mesh) as client:
            return [(await client.get("http://reviews/")).text for _ in range(3)]

    with serving(whole) as address:
        assert anyio.run(main, address, backend=backend) == ["ok"] * 3
