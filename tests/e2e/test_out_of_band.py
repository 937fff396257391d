"""ORCA out of band over real connections: OR-02."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

import meshlib
import meshlib.grpc
from meshlib.testing.grpc_upstream import GrpcUpstream
from meshlib.xds import schema

REQUEST = schema.message("xds.service.orca.v3.OrcaLoadReportRequest")
REPORT = schema.message("xds.data.orca.v3.OrcaLoadReport")


class Service:
    """OpenRcaService of a server: reports as often as a test says, on whatever streams there are."""

    def __init__(self) -> None:
        self.requests: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        self.refuse: grpc.StatusCode | None = None
        self.asked = 0
        self._said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def install(self, server: grpc.Server) -> None:
        handler = grpc.unary_stream_rpc_method_handler(self._stream)
        service, _, method = schema.ORCA.removeprefix("/").partition("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))

    def say(self, **metrics: float) -> None:
        self._said.put(REPORT(named_metrics=metrics).SerializeToString())

    def end(self) -> None:
        """Ends a stream."""
        self._said.put(None)

    def _stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.asked += 1
        every = REQUEST.FromString(request).report_interval.ToNanoseconds() / 1e9
        refuse = self.refuse  # whoever hears of the request may change it at once
        self.requests.put((every, context.peer()))
        if refuse is not None:
            context.abort(refuse, "told so by the test")
        context.add_callback(lambda: self._said.put(None))
        yield from iter(self._said.get, None)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def server(service: Service) -> Iterator[GrpcUpstream]:
    with GrpcUpstream(setup=service.install) as running:
        yield running


class Channel:
    """A channel of either kind to ``reviews``, and its live cluster."""

    def __init__(self, mesh: meshlib.Mesh, call: Any) -> None:
        self.call = call
        self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        clusters = mesh._runtime().clusters
        [self.live] = list(clusters._known[0].values())

    def hear(self, every: float) -> Any:
        return self.live.loads.hear(lambda endpoint, metrics: self.heard.put((endpoint.name, metrics)), every)


@pytest.fixture(params=["blocking", "asyncio"])
def channel(request: pytest.FixtureRequest, server: GrpcUpstream) -> Iterator[Channel]:
    config = {"services": {"reviews": {"endpoints": [server.address]}}}
    opened = _blocking if request.param == "blocking" else _asyncio
    with meshlib.Mesh(config) as mesh, opened(mesh) as call:
        yield Channel(mesh, call)


@contextmanager
def _blocking(mesh: meshlib.Mesh) -> Iterator[Any]:
    with meshlib.grpc.channel("reviews:80", mesh=mesh) as channel:
        yield lambda: channel.unary_unary("/a.B/C")(b"x")


@contextmanager
def _asyncio(mesh: meshlib.Mesh) -> Iterator[Any]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    async def make() -> Any:
        return meshlib.grpc.aio.channel("reviews:80", mesh=mesh)

    async def call(channel: Any) -> Any:
        return await channel.unary_unary("/a.B/C")(b"x")

    channel = run(make())
    try:
        yield lambda: run(call(channel))
    finally:
        run(channel.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_reports_come_over_the_connection_of_the_calls(
    channel: Channel, service: Service, server: GrpcUpstream
) -> None:
    channel.call()
    assert service.asked == 0
    cancel = channel.hear(10.0)
    every, peer = service.requests.get(timeout=10)
    assert every == 10.0
    assert peer in server._peers
    assert server.connections_total == 1
    service.say(q=2.5)
    name, metrics = channel.heard.get(timeout=10)
    assert (name, dict(metrics.named_metrics)) == (server.address, {"q": 2.5})
    channel.hear(5.0)
    assert service.requests.get(timeout=10)[0] == 5.0
    cancel()
    channel.call()


def test_a_stream_that_ends_is_begun_anew(channel: Channel, service: Service) -> None:
    channel.hear(10.0)
    channel.call()
    service.requests.get(timeout=10)
    service.end()
    assert service.requests.get(timeout=10)[0] == 10.0


def test_a_server_without_the_service_is_asked_once(channel: Channel, service: Service) -> None:
    service.refuse = grpc.StatusCode.UNIMPLEMENTED
    channel.hear(10.0)
    channel.call()
    service.requests.get(timeout=10)
    service.refuse = None
    with pytest.raises(queue.Empty):
        service.requests.get(timeout=2.0)  # the first try after another error would have come after 1.2 s
    channel.call()
    assert service.asked == 1


def test_it_ends_with_the_channel(service: Service, server: GrpcUpstream) -> None:
    with meshlib.Mesh({"services": {"reviews": {"endpoints": [server.address]}}}) as mesh:
        with _blocking(mesh) as call:
            call()
            held = Channel(mesh, call)
            held.hear(10.0)
            service.requests.get(timeout=10)
        assert held.live.loads._followers == ()
    assert [
        thread.name for thread in threading.enumerate() if thread.name == "meshlib-orca" and _lives(thread)
    ] == []


def _lives(thread: threading.Thread) -> bool:
    thread.join(5)
    return thread.is_alive()
