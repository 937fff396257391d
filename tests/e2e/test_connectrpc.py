"""ConnectRPC's clients over pyqwest transports of ours: against its own server by Connect's protocol and gRPC-Web, and by gRPC's
against grpcio's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pyqwest
import pytest
from connectrpc.client import ConnectClient, ConnectClientSync
from connectrpc.code import Code
from connectrpc.codec import Codec
from connectrpc.compat import google_protobuf_codecs
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf.wrappers_pb2 import StringValue

import meshlib
import meshlib_pyqwest
from meshlib.testing import ControlPlane, build
from tests.support.asgi_server import AsgiServer


def method(name: str, kind: StreamType) -> Any:
    return MethodInfo(
        name=name,
        service_name="shop.Stock",
        input=StringValue,
        output=StringValue,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=kind,
    )


class Binary(Codec[Any, Any]):
    """As ConnectRPC's own for google.protobuf, which gives messages a bytearray: protobuf 5.27 takes none."""

    def name(self) -> str:
        return "proto"

    def encode(self, message: Any) -> bytes:
        return message.SerializeToString()

    def decode(self, data: bytes | bytearray, message_class: Any) -> Any:
        return message_class.FromString(bytes(data))


WHO = method("Who", StreamType.UNARY)
WATCH = method("Watch", StreamType.SERVER_STREAM)
GATHER = method("Gather", StreamType.CLIENT_STREAM)


class Stock(ConnectASGIApplication[Any]):
    """One server. ``watch`` gives its second message when the test says so."""

    path = "/shop.Stock"

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[dict[str, str]] = []
        self.failing: Code | None = None
        self.go_on = asyncio.Event()
        self.loop: Any = None
        super().__init__(service=self, endpoints=lambda _: self.endpoints(), codecs=google_protobuf_codecs())

    def endpoints(self) -> dict[str, Endpoint[Any, Any]]:
        return {
            "/shop.Stock/Who": Endpoint.unary(WHO, self.who),
            "/shop.Stock/Watch": Endpoint.server_stream(WATCH, self.watch),
            "/shop.Stock/Gather": Endpoint.client_stream(GATHER, self.gather),
        }

    async def who(self, request: StringValue, ctx: Any) -> StringValue:
        self.calls.append(dict(ctx.request_headers.items()))
        if self.failing is not None:
            raise ConnectError(self.failing, "not now")
        return StringValue(value=f"{self.name}: {request.value}")

    async def watch(self, request: StringValue, _: Any) -> AsyncIterator[StringValue]:
        self.loop = asyncio.get_running_loop()
        yield StringValue(value="first")
        await self.go_on.wait()
        yield StringValue(value="last" * 100)

    async def gather(self, request: AsyncIterator[StringValue], _: Any) -> StringValue:
        return StringValue(value=",".join([one.value async for one in request]))

    def release(self) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.go_on.set)


Both = tuple[Stock, Stock]


@pytest.fixture
def stocks() -> Both:
    return Stock("a"), Stock("b")


@pytest.fixture
def mesh(stocks: Both) -> Iterator[meshlib.Mesh]:
    with AsgiServer(stocks[0]) as one, AsgiServer(stocks[1]) as other:
        service = {
            "endpoints": [one.address, other.address],
            "balancer": "round_robin",
            "retry": {"attempts": 2, "on": ["5xx", "connect-failure"]},
        }
        with meshlib.Mesh({"services": {"stock": service}}) as made:
            yield made
            for stock in stocks:
                stock.release()


@pytest.fixture(params=[ProtocolType.CONNECT, ProtocolType.GRPC_WEB], ids=lambda one: one.name)
def words(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"protocol": request.param, "codec": Binary()}


def blocking(mesh: meshlib.Mesh, words: dict[str, Any]) -> ConnectClientSync:
    http = pyqwest.SyncClient(meshlib_pyqwest.SyncTransport(mesh=mesh))
    return ConnectClientSync("http://stock", http_client=http, **words)


def active(mesh: meshlib.Mesh) -> int:
    return mesh.status().clusters["stock"].active


def who(client: ConnectClientSync, text: str = "hello", **more: Any) -> str:
    answer: str = client.execute_unary(request=StringValue(value=text), method=WHO, **more).value
    return answer


def test_transports_are_pyqwests(mesh: meshlib.Mesh) -> None:
    assert isinstance(meshlib_pyqwest.SyncTransport(mesh=mesh), pyqwest.SyncTransport)
    assert isinstance(meshlib_pyqwest.Transport(mesh=mesh), pyqwest.Transport)


def test_calls_go_to_both_endpoints(mesh: meshlib.Mesh, words: dict[str, Any]) -> None:
    client = blocking(mesh, words)
    assert Counter(who(client) for _ in range(4)) == {"a: hello": 2, "b: hello": 2}
    assert who(client, "long" * 10_000).endswith("longlong")
    assert active(mesh) == 0


def test_a_compressed_answer_is_read(mesh: meshlib.Mesh, words: dict[str, Any]) -> None:
    """The server gzips where the client accepts it, which ConnectRPC's does: what undoes it is the transport's part."""
    answer = who(blocking(mesh, words), "again and " * 1000)
    assert answer.endswith("again and again and ")


def test_an_error_of_the_server_has_its_code(mesh: meshlib.Mesh, stocks: Both, words: dict[str, Any]) -> None:
    for stock in stocks:
        stock.failing = Code.FAILED_PRECONDITION
    with pytest.raises(ConnectError, match="not now") as caught:
        who(blocking(mesh, words))
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert sum(len(stock.calls) for stock in stocks) == 1


def test_a_failed_call_is_tried_elsewhere(mesh: meshlib.Mesh, stocks: Both) -> None:
    """Unavailable is status 503 in Connect's protocol, which a retry policy knows."""
    stocks[0].failing = Code.UNAVAILABLE
    client = blocking(mesh, {"codec": Binary()})
    assert {who(client) for _ in range(4)} == {"b: hello"}


def test_what_is_not_there_is_unavailable(words: dict[str, Any]) -> None:
    with meshlib.Mesh({"services": {"stock": {"endpoints": ["127.0.0.1:1"]}}}) as mesh:
        with pytest.raises(ConnectError) as caught:
            who(blocking(mesh, words))
        assert caught.value.code is Code.UNAVAILABLE
        assert isinstance(caught.value.__cause__, meshlib.errors.ConnectFailed)
        assert isinstance(caught.value.__cause__, ConnectionError)
        info = meshlib.call_info(caught.value)
        assert info is not None
        assert info.endpoint == "127.0.0.1:1"


def test_a_stream_is_read_as_it_comes(mesh: meshlib.Mesh, stocks: Both, words: dict[str, Any]) -> None:
    client = blocking(mesh, words)
    messages = client.execute_server_stream(request=StringValue(), method=WATCH)
    assert next(messages).value == "first"
    assert active(mesh) == 1
    for stock in stocks:
        stock.release()
    assert [message.value for message in messages] == ["last" * 100]
    assert active(mesh) == 0


def test_messages_are_sent_as_a_stream(mesh: meshlib.Mesh, words: dict[str, Any]) -> None:
    parts = iter([StringValue(value=each) for each in "abc"])
    answer = blocking(mesh, words).execute_client_stream(request=parts, method=GATHER)
    assert answer.value == "a,b,c"


def test_the_clients_timeout_bounds_all_of_a_call(
    mesh: meshlib.Mesh, stocks: Both, words: dict[str, Any]
) -> None:
    messages = blocking(mesh, words).execute_server_stream(
        request=StringValue(), method=WATCH, timeout_ms=300
    )
    with pytest.raises(ConnectError) as caught:
        list(messages)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert active(mesh) == 0


async def test_the_same_in_a_task(mesh: meshlib.Mesh, stocks: Both, words: dict[str, Any]) -> None:
    transport = meshlib_pyqwest.Transport(mesh=mesh)
    client = ConnectClient("http://stock", http_client=pyqwest.Client(transport), **words)
    asked = [client.execute_unary(request=StringValue(value=str(n)), method=WHO) for n in range(6)]
    assert len({answer.value for answer in await asyncio.gather(*asked)}) == 6
    assert [len(stock.calls) for stock in stocks] == [3, 3]
    messages = client.execute_server_stream(request=StringValue(), method=WATCH)
    assert (await anext(messages)).value == "first"
    for stock in stocks:
        stock.release()
    assert [message.value async for message in messages] == ["last" * 100]
    assert active(mesh) == 0
    await transport.aclose()


async def test_a_cancelled_stream_gives_all_back(
    mesh: meshlib.Mesh, stocks: Both, words: dict[str, Any]
) -> None:
    transport = meshlib_pyqwest.Transport(mesh=mesh)
    client = ConnectClient("http://stock", http_client=pyqwest.Client(transport), **words)
    first = asyncio.Event()

    async def read() -> None:
        async for _ in client.execute_server_stream(request=StringValue(), method=WATCH):
            first.set()

    task = asyncio.ensure_future(read())
    await asyncio.wait_for(first.wait(), 20)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, ConnectError)):  # its client tells it so
        await task
    assert active(mesh) == 0
    await transport.aclose()


# --- gRPC's protocol ----------------------------------------------------------------------------------------------


@pytest.fixture
def grpc_stocks() -> Iterator[list[str]]:
    """Two servers by grpcio, and their addresses."""
    servers, addresses = [], []
    for name in ("a", "b"):
        handlers = {
            "Who": grpc.unary_unary_rpc_method_handler(
                lambda request, _, name=name: StringValue(value=f"{name}: {request.value}"),
                StringValue.FromString,
                StringValue.SerializeToString,
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                lambda request, _: iter([StringValue(value="first"), StringValue(value=request.value)]),
                StringValue.FromString,
                StringValue.SerializeToString,
            ),
            "Fail": grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now"),
                StringValue.FromString,
                StringValue.SerializeToString,
            ),
        }
        server = grpc.server(ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Stock", handlers),))
        addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        servers.append(server)
    yield addresses
    for server in servers:
        server.stop(None).wait(10)


def test_grpc_is_spoken_to_a_cluster_of_http2(
    grpc_stocks: list[str], meshlib_control_plane: ControlPlane
) -> None:
    """A control plane says that the cluster speaks HTTP/2; the status of a call comes in the trailers."""
    routes = build.route_config("stock", build.virtual_host("all", build.route(cluster="stock")))
    meshlib_control_plane.set(
        build.api_listener("stock", routes), build.cluster("stock", grpc_stocks, http2_protocol_options={})
    )
    with meshlib.Mesh({"xds": {"server": meshlib_control_plane.address}}) as mesh:
        words = {"codec": Binary(), "protocol": ProtocolType.GRPC}
        client = blocking(mesh, words)
        # An update in between may begin the round anew.
        assert {who(client) for _ in range(6)} == {"a: hello", "b: hello"}
        messages = client.execute_server_stream(request=StringValue(value="last" * 50_000), method=WATCH)
        assert [len(message.value) for message in messages] == [5, 200_000]
        with pytest.raises(ConnectError, match="not now") as caught:
            client.execute_unary(request=StringValue(), method=method("Fail", StreamType.UNARY))
        assert caught.value.code is Code.FAILED_PRECONDITION
        assert active(mesh) == 0
