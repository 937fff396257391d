"""What a cluster's limits let through: meshlib's hosts and a real Envoy on one control plane (CB-01, CB-02)."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import aiohttp
import httpx
import pytest
import requests

import meshlib
import meshlib_aiohttp
import meshlib_requests
from meshlib.testing import build
from meshlib.testing.control_plane import ControlPlane
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

Submit = Callable[..., "Future[int]"]
HOSTS = ("envoy", "httpx", "httpx-async", "requests", "aiohttp")


class Upstream:
    """A server that takes no connection until ``accept``, and answers none until ``answer``. ``held``: requests there."""

    def __init__(self) -> None:
        # A queue of one connection, and one in it: the next is not connected until that is accepted.
        self._server = socket.socket()
        self._server.bind(("127.0.0.1", 0))
        self._server.listen(0)
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._stopper = socket.create_connection(self._server.getsockname())
        self._sockets = [self._stopper]
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._answering = False
        self.held = 0

    def accept(self) -> None:
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def answer(self) -> None:
        with self._changed:
            self._answering = True
            self._changed.notify_all()

    def wait_held(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.held == count, 20)

    def close(self) -> None:
        """Nobody is left in ``accept``: a signal would have the system begin it anew, for whatever has the descriptor then."""
        self.answer()
        with self._server:
            self._server.shutdown(socket.SHUT_RDWR)
            for thread in self._threads[:1]:
                thread.join(20)
        for one in self._sockets:
            with one, suppress(OSError):  # the peer was first
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._sockets.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            try:
                for line in lines:
                    if line != b"\r\n":
                        continue
                    with self._changed:
                        self.held += 1
                        self._changed.notify_all()
                        self._changed.wait_for(lambda: self._answering, 20)
                        self.held -= 1
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            except OSError:
                return


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.close()


@pytest.fixture(params=HOSTS)
def host(request, tmp_path, upstream) -> Iterator[Callable[..., Submit]]:
    """A function from limits to what begins a call under them, in each host in turn; a call gives its status. Calls to ``high`` have
    that priority, and its limits.
    """
    with ExitStack() as stack:

        def make(*, per_host: int | None = None, high: dict[str, int] | None = None, **limits: int) -> Submit:
            thresholds: dict[str, Any] = {"thresholds": [{"priority": "DEFAULT", **limits}]}
            if high is not None:
                thresholds["thresholds"].append({"priority": "HIGH", **high})
            if per_host is not None:
                thresholds["per_host_thresholds"] = [{"max_connections": per_host}]
            held = Ports(1)
            stack.callback(held.close)
            port = held.numbers[0]
            routes = [
                build.route("/high", cluster="c", timeout=20, action={"priority": "HIGH"}),
                build.route(cluster="c", timeout=20),
            ]
            to_c = build.route_config("r", build.virtual_host("v", *routes, domains=["*"]))
            control_plane = stack.enter_context(
                ControlPlane(
                    build.listener("l", to_c, address=f"127.0.0.1:{port}"),
                    build.cluster("c", [upstream.address], connect_timeout=20, circuit_breakers=thresholds),
                )
            )
            url = f"http://127.0.0.1:{port}/"
            if request.param == "envoy":
                envoy = stack.enter_context(EnvoyProcess(control_plane.address, tmp_path))
                envoy.wait_for_listeners(1)
                client = stack.enter_context(
                    httpx.Client(timeout=30, limits=httpx.Limits(max_connections=99))
                )
                return stack.enter_context(in_threads(lambda path: client.get(url + path).status_code))
            config = {"xds": {"server": control_plane.address, "view": "sidecar"}, "failures": "respond"}
            mesh = stack.enter_context(meshlib.Mesh(config))
            mesh.wait_ready(f"127.0.0.1:{port}", timeout=20)
            return stack.enter_context(CALLERS[request.param](mesh, url))

        yield make


@contextmanager
def in_threads(call: Callable[[str], int]) -> Iterator[Submit]:
    with ThreadPoolExecutor(8) as pool:
        yield lambda path="": pool.submit(call, path)


@contextmanager
def in_a_loop(make: Callable[[], object], call: Callable[[object, str], object]) -> Iterator[Submit]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop)

    async def enter():
        return await make().__aenter__()

    client = run(enter()).result(20)
    try:
        yield lambda path="": run(call(client, path))
    finally:
        run(client.__aexit__(None, None, None)).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@contextmanager
def httpx_calls(mesh, url) -> Iterator[Submit]:
    with (
        meshlib.Client(mesh=mesh, timeout=30) as client,
        in_threads(lambda path: client.get(url + path).status_code) as submit,
    ):
        yield submit


def async_httpx_calls(mesh, url):
    async def call(client, path) -> int:
        return (await client.get(url + path)).status_code

    return in_a_loop(lambda: meshlib.AsyncClient(mesh=mesh, timeout=30), call)


@contextmanager
def requests_calls(mesh, url) -> Iterator[Submit]:
    def call(path) -> int:
        with requests.Session() as session:
            session.mount("http://", adapter)
            return session.get(url + path, timeout=30).status_code

    adapter = meshlib_requests.MeshAdapter(mesh=mesh)
    with in_threads(call) as submit:
        yield submit


def aiohttp_calls(mesh, url):
    async def call(session, path) -> int:
        async with session.get(url + path) as response:
            return response.status

    timeout = aiohttp.ClientTimeout(total=30)
    return in_a_loop(lambda: meshlib_aiohttp.ClientSession(mesh=mesh, timeout=timeout), call)


CALLERS = {
    "httpx": httpx_calls,
    "httpx-async": async_httpx_calls,
    "requests": requests_calls,
    "aiohttp": aiohttp_calls,
}


def test_without_pending_calls_only_a_kept_connection_would_do(host, upstream):
    upstream.accept()
    upstream.answer()
    submit = host(max_pending_requests=0)
    assert [submit().result(20) for _ in range(2)] == [503, 503]


def test_a_call_is_pending_until_its_connection_is_there(host, upstream):
    submit = host(max_connections=2, max_pending_requests=1)
    calls = {submit() for _ in range(4)}
    refused: set[Future[int]] = set()
    while len(refused) < 3:
        done, _ = wait(calls - refused, timeout=20, return_when=FIRST_COMPLETED)
        assert done, "three of four are refused while the first connects"
        refused |= done
    assert {call.result() for call in refused} == {503}
    upstream.accept()
    upstream.answer()
    assert {call.result(20) for call in calls - refused} == {200}


@pytest.mark.parametrize(
    "limits", [{"max_connections": 2}, {"per_host": 2}, {"max_connections": 3, "per_host": 2}]
)
def test_a_call_that_is_connected_is_pending_no_more(host, upstream, limits):
    """CB-03: however many connections the cluster or its one endpoint may have, the next call waits, and one more is refused."""
    upstream.accept()
    submit = host(max_pending_requests=1, **limits)
    first = submit()
    upstream.wait_held(1)
    second = submit()
    upstream.wait_held(2)
    others = {submit(), submit()}
    refused, waiting = wait(others, timeout=20, return_when=FIRST_COMPLETED)
    assert [call.result() for call in refused] == [503]
    upstream.answer()
    assert [call.result(20) for call in (first, second, *waiting)] == [200, 200, 200]


def test_calls_of_a_priority_have_limits_of_their_own(host, upstream):
    """CB-01: whatever fills the limits of the one leaves the other's."""
    upstream.accept()
    submit = host(max_requests=1, high={"max_requests": 2})
    held = [submit()]
    upstream.wait_held(1)
    assert submit().result(20) == 503
    for count in (2, 3):
        held.append(submit("high"))
        upstream.wait_held(count)
    assert submit("high").result(20) == 503
    assert submit().result(20) == 503
    upstream.answer()
    assert [call.result(20) for call in held] == [200, 200, 200]


def test_connections_of_a_priority_are_its_own(host, upstream):
    """One that is filled with calls that wait for their turn does not hold up the other."""
    upstream.accept()
    submit = host(max_connections=1, max_pending_requests=1, high={"max_connections": 1})
    held = [submit()]
    upstream.wait_held(1)
    others = {submit(), submit()}
    refused, waiting = wait(others, timeout=20, return_when=FIRST_COMPLETED)
    assert [call.result() for call in refused] == [503]
    held.append(submit("high"))
    upstream.wait_held(2)
    upstream.answer()
    assert [call.result(20) for call in (*held, *waiting)] == [200, 200, 200]
