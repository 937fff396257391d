"""What a gRPC call passes on and gives back: flow control, compression, credentials, what is counted, what is asked for once."""

from __future__ import annotations

import gc
import itertools
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
import trustme

import meshlib
import meshlib.grpc
from meshlib.model.events import CallEnded
from tests.support.asking import asked
from tests.support.grpc_faces import FACES, KINDS, Face, Stream, make_face
from tests.support.grpc_interop import Interop, Message, pack, unpack
from tests.support.loops import on_both_loops
from tests.support.relay import Relay

LIMIT = 20.0
PIECE = 64 * 1024
PIECES = 1500  # 98 MB
#: Bytes that are under way at most: on loopback grpc's windows grow to some 20 MB.
UNDER_WAY = 48 * 1024 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[Interop]:
    with Interop("a") as running:
        yield running


@pytest.fixture
def mesh(server: Interop) -> Iterator[meshlib.Mesh]:
    with meshlib.Mesh({"services": {"test": {"endpoints": [server.address]}}}) as made:
        yield made


@pytest.fixture
def face(request: pytest.FixtureRequest, server: Interop, mesh: meshlib.Mesh) -> Iterator[Face]:
    whose, kind = request.param.split()
    of_mesh = whose == "mesh"
    with make_face(kind, "test" if of_mesh else server.address, mesh if of_mesh else None) as made:
        yield made


on_every_face = pytest.mark.parametrize("face", FACES, indirect=True)
of_the_mesh = pytest.mark.parametrize("kind", KINDS)


def active(mesh: meshlib.Mesh) -> int:
    return mesh.status().clusters["test"].active


# --- flow control -----------------------------------------------------------------------------------------------------


@on_every_face
def test_who_reads_a_stream_slowly_bounds_what_the_server_sends(face: Face, server: Interop) -> None:
    before = server.given
    stream = face.open("Flood", Message(sizes=(PIECE,), number=PIECES), timeout=60)
    assert stream.read() is not None
    assert not server.idle(1.0)
    assert (server.given - before) * PIECE < UNDER_WAY
    assert [message.number for message in stream] == list(range(1, PIECES))
    assert server.given - before == PIECES


@on_every_face
def test_who_reads_a_stream_of_both_ways_slowly_bounds_what_the_server_sends(
    face: Face, server: Interop
) -> None:
    before = server.given
    stream = face.open("Duplex", timeout=60)
    stream.write(Message(sizes=(PIECE,) * PIECES))
    assert stream.read() is not None
    assert not server.idle(1.0)
    assert (server.given - before) * PIECE < UNDER_WAY
    stream.done_writing()
    assert [message.number for message in stream] == list(range(1, PIECES))


@on_every_face
def test_a_server_that_reads_slowly_bounds_what_is_asked_of_the_application(
    face: Face, server: Interop
) -> None:
    """Its iterator is asked for the next message once there is room for it."""
    asked_for = itertools.count()
    last = 0

    def messages() -> Iterator[Message]:
        nonlocal last
        for last in itertools.islice(asked_for, PIECES):
            yield Message(bytes(PIECE), number=last)

    done: list[Any] = []
    server.read.clear()
    try:
        sender = threading.Thread(target=lambda: done.append(face.send("Input", messages(), timeout=60)))
        sender.start()
        sender.join(1.5)
        assert not done
        assert last * PIECE < UNDER_WAY
    finally:
        server.read.set()
        sender.join()
    assert done[0].value.number == PIECES


# --- compression ------------------------------------------------------------------------------------------------------


@pytest.fixture
def relay(server: Interop) -> Iterator[Relay]:
    made = Relay(server.address)
    yield made
    made.close()


@of_the_mesh
def test_compression_is_of_a_call_or_of_the_channel(kind: str, relay: Relay) -> None:
    """271,828 zeros: as they are, or less than a hundredth."""
    size = 271828

    def sent(face: Face, **options: Any) -> int:
        before = relay.sent
        done = face.unary("Unary", Message(bytes(size)), timeout=LIMIT, **options)
        assert done.value.number == size
        between = relay.sent
        if kind == "future" and options:
            return between - before  # grpcio 1.85 has no compression of a call for futures of client streams
        done = face.send("Input", iter([Message(bytes(size))]), timeout=LIMIT, **options)
        assert done.value.sizes == (size,)
        return max(between - before, relay.sent - between)

    with meshlib.Mesh({"services": {"test": {"endpoints": [relay.address]}}}) as mesh:
        with make_face(kind, "test", mesh) as face:
            assert sent(face) > size
            assert sent(face, compression=grpc.Compression.Gzip) < size / 100
            assert sent(face, compression=grpc.Compression.NoCompression) > size
        with make_face(kind, "test", mesh, compression=grpc.Compression.Gzip) as face:
            assert sent(face) < size / 100


# --- credentials ------------------------------------------------------------------------------------------------------


class Token(grpc.AuthMetadataPlugin):
    """Gives tokens; blocks until ``free`` is set; raises once ``broken``."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.broken = False
        self.asked = 0

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        self.asked += 1
        self.free.wait()
        if self.broken:
            raise RuntimeError("no token today")
        callback((("x-echo-initial", f"token {self.asked} for {context.service_url}"),), None)


@pytest.fixture(scope="module")
def secure() -> Iterator[tuple[list[Interop], grpc.ChannelCredentials]]:
    authority = trustme.CA()
    issued = authority.issue_cert("test")
    pair = issued.private_key_pem.bytes(), b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    credentials = [grpc.ssl_server_credentials([pair]) for _ in "abc"]
    with (
        Interop("a", credentials=credentials[0]) as a,
        Interop("b", credentials=credentials[1]) as b,
        Interop("c", credentials=credentials[2]) as c,
    ):
        yield [a, b, c], grpc.ssl_channel_credentials(authority.cert_pem.bytes())


@pytest.fixture
def secure_mesh(secure: Any) -> Iterator[meshlib.Mesh]:
    endpoints = [server.address for server in secure[0]]
    with meshlib.Mesh({"services": {"test": {"endpoints": endpoints}}}) as made:
        yield made


@of_the_mesh
def test_tls_and_credentials_of_a_call(kind: str, secure: Any, secure_mesh: meshlib.Mesh) -> None:
    """The certificate is for the target, whichever endpoint shows it."""
    with make_face(kind, "test", secure_mesh, credentials=secure[1]) as face:
        names = set()
        for number in range(1, 7):
            plug_in = Token()
            plug_in.asked = number - 1
            done = face.unary("Empty", timeout=LIMIT, credentials=grpc.metadata_call_credentials(plug_in))
            assert ("x-echo-initial", f"token {number} for https://test/mesh.interop.Test") in done.initial
            names.add(done.value.name)
        assert names == {"a", "b", "c"}
        plain = face.unary("Empty", timeout=LIMIT)
        assert "x-echo-initial" not in dict(plain.initial)


@of_the_mesh
def test_credentials_of_the_channel(kind: str, secure: Any, secure_mesh: meshlib.Mesh) -> None:
    plug_in = Token()
    both = grpc.composite_channel_credentials(secure[1], grpc.metadata_call_credentials(plug_in))
    with make_face(kind, "test", secure_mesh, credentials=both) as face:
        assert "token 1 for" in dict(face.unary("Empty", timeout=LIMIT).initial)["x-echo-initial"]
        stream = face.open("Duplex", timeout=LIMIT)
        assert "token 2 for" in dict(stream.initial())["x-echo-initial"]
        stream.done_writing()
        assert stream.read() is None


@of_the_mesh
def test_a_plug_in_that_raises_fails_its_call(kind: str, secure: Any, secure_mesh: meshlib.Mesh) -> None:
    plug_in = Token()
    plug_in.broken = True
    given = grpc.metadata_call_credentials(plug_in)
    with make_face(kind, "test", secure_mesh, credentials=secure[1]) as face:
        with pytest.raises(grpc.RpcError) as caught:
            face.unary("Empty", timeout=LIMIT, credentials=given)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "no token today" in caught.value.details()
        assert active(secure_mesh) == 0
        assert face.unary("Empty", timeout=LIMIT).value.name


@of_the_mesh
def test_a_plug_in_that_blocks_is_bounded_by_the_calls_time(
    kind: str, secure: Any, secure_mesh: meshlib.Mesh
) -> None:
    plug_in = Token()
    plug_in.free.clear()
    given = grpc.metadata_call_credentials(plug_in)
    with make_face(kind, "test", secure_mesh, credentials=secure[1]) as face:
        try:
            with pytest.raises(grpc.RpcError) as caught:
                face.unary("Empty", timeout=0.2, credentials=given)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert active(secure_mesh) == 0
            # Others go on meanwhile.
            assert face.unary("Empty", timeout=LIMIT).value.name
        finally:
            plug_in.free.set()


@of_the_mesh
def test_a_certificate_for_somebody_else_is_not_accepted(
    kind: str, secure: Any, secure_mesh: meshlib.Mesh
) -> None:
    options = [("grpc.default_authority", "other")]
    with (
        make_face(kind, "test", secure_mesh, credentials=secure[1], options=options) as face,
        pytest.raises(grpc.RpcError) as caught,
    ):
        face.unary("Empty", timeout=LIMIT)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


# --- what is counted --------------------------------------------------------------------------------------------------


def opened(face: Face, name: str, *messages: Message, **options: Any) -> Stream:
    return face.open(name, *messages, timeout=LIMIT, **options)


@of_the_mesh
class TestActive:
    """A call counts on its endpoint until it is over, however that comes."""

    def test_a_stream_that_is_read_to_its_end(self, kind: str, mesh: meshlib.Mesh) -> None:
        with make_face(kind, "test", mesh) as face:
            stream = opened(face, "Duplex")
            stream.write(Message(sizes=(1,)))
            assert stream.read() is not None
            assert active(mesh) == 1
            stream.done_writing()
            assert stream.read() is None
            assert active(mesh) == 0

    def test_a_stream_that_fails(self, kind: str, mesh: meshlib.Mesh) -> None:
        with make_face(kind, "test", mesh) as face:
            stream = opened(face, "Output", Message(sizes=(1,), code=13))
            assert stream.read() is not None
            with pytest.raises(grpc.RpcError):
                stream.read()
            assert active(mesh) == 0

    def test_a_stream_that_is_cancelled(self, kind: str, mesh: meshlib.Mesh, server: Interop) -> None:
        with make_face(kind, "test", mesh) as face:
            stream = opened(face, "Duplex")
            stream.write(Message(sizes=(1,)))
            assert stream.read() is not None
            stream.cancel()
            assert active(mesh) == 0
            assert server.idle()

    def test_a_stream_that_nobody_reads_any_more(
        self, kind: str, mesh: meshlib.Mesh, server: Interop
    ) -> None:
        with make_face(kind, "test", mesh) as face:
            stream = opened(face, "Duplex")
            stream.write(Message(sizes=(1,)))
            assert stream.read() is not None
            stream.call = None
            gc.collect()
            assert server.idle()
            # The collector cancels through another thread.
            assert asked(lambda: active(mesh) == 0)

    def test_a_stream_that_ended_and_is_not_read(
        self, kind: str, mesh: meshlib.Mesh, server: Interop
    ) -> None:
        with make_face(kind, "test", mesh) as face:
            stream = opened(face, "Output", Message(sizes=()))
            assert server.idle()
            assert stream.code() is grpc.StatusCode.OK
            assert active(mesh) == 0

    def test_a_call_that_fails(self, kind: str, mesh: meshlib.Mesh) -> None:
        with make_face(kind, "test", mesh) as face:
            with pytest.raises(grpc.RpcError):
                face.unary("Unary", Message(code=5), timeout=LIMIT)
            assert active(mesh) == 0

    def test_a_channel_that_is_closed(self, kind: str, mesh: meshlib.Mesh, server: Interop) -> None:
        with make_face(kind, "test", mesh) as face:
            stream = opened(face, "Duplex")
            stream.write(Message(sizes=(1,)))
            assert stream.read() is not None
            face.run(face.channel.close)
            assert stream.code() is grpc.StatusCode.CANCELLED
            assert server.idle()
            assert active(mesh) == 0


def refused(call: Any) -> None:
    with pytest.raises(grpc.RpcError):
        list(call)


ENDS: dict[str, tuple[str, Message, Callable[[Any], object]]] = {
    "a future's answer": ("Unary", Message(), lambda call: call.result()),
    "a future's error": ("Unary", Message(code=5), lambda call: call.exception()),
    "a future's code": ("Unary", Message(), lambda call: call.code()),
    "a stream's end": ("Output", Message(sizes=()), list),
    "a stream's error": (
        "Output",
        Message(sizes=(), code=5),
        refused,
    ),
    "a stream's trailing metadata": ("Output", Message(sizes=()), lambda call: call.trailing_metadata()),
}


@pytest.mark.parametrize("what", ENDS)
def test_who_learns_of_the_end_finds_it_told(mesh: meshlib.Mesh, what: str) -> None:
    """grpc's thread ends a call of a blocking channel: its counters, spans and metrics come before its caller learns of it."""
    method, message, learn = ENDS[what]
    ends, go_on = threading.Event(), threading.Event()

    def told(event: object) -> None:
        if isinstance(event, CallEnded):
            ends.set()
            go_on.wait(LIMIT)

    mesh._observe(told)
    with make_face("future", "test", mesh) as face:
        made = face.method(method)

        def call() -> None:
            begun = (made.future if method == "Unary" else made)(message, timeout=LIMIT)
            ends.wait(LIMIT)
            learn(begun)

        caller = threading.Thread(target=call)
        caller.start()
        assert ends.wait(LIMIT)
        waits = not asked(lambda: not caller.is_alive(), 0.3)
        go_on.set()
        caller.join(LIMIT)
        assert (waits, caller.is_alive()) == (True, False)


@pytest.mark.parametrize("method", ["Input", "Duplex"])
def test_who_cancels_a_call_need_not_wait_for_its_end(mesh: meshlib.Mesh, method: str) -> None:
    more, told = threading.Event(), threading.Event()

    def messages() -> Iterator[Message]:
        yield Message(sizes=())
        more.wait(LIMIT)

    with make_face("future", "test", mesh) as face:
        made = face.method(method)
        call = (made.future if method == "Input" else made)(messages(), timeout=LIMIT)
        call.add_done_callback(lambda _: told.set())
        assert call.cancel()
        assert told.is_set()
        assert (call.done(), call.running(), call.cancelled(), call.is_active()) == (True, False, True, False)
        with pytest.raises(grpc.FutureCancelledError):
            call.result(0.0)
        assert active(mesh) == 0
        more.set()


def test_a_client_stream_has_a_future(mesh: meshlib.Mesh) -> None:
    with make_face("blocking", "test", mesh) as face:
        told = threading.Event()
        future = face.method("Input").future(iter([Message(b"ab"), Message(b"c", number=1)]), timeout=LIMIT)
        future.add_done_callback(lambda _: told.set())
        assert future.result().sizes == (3,)
        assert told.wait(LIMIT)
        assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
        assert future.code() is grpc.StatusCode.OK
        assert future.exception() is None


# --- what is asked for once -------------------------------------------------------------------------------------------


@of_the_mesh
def test_every_message_of_an_iterator_arrives(kind: str, mesh: meshlib.Mesh) -> None:
    """None is eaten by who looks whether there is one."""
    with make_face(kind, "test", mesh) as face:
        done = face.send("Input", (Message(b"x", number=number) for number in range(100)), timeout=LIMIT)
        assert (done.value.number, done.value.sizes) == (100, (100,))


@of_the_mesh
def test_a_multicallable_is_not_made_for_each_call(
    kind: str, mesh: meshlib.Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of grpc's own channels; one for the method and the endpoint is made on first use."""
    from grpc import _channel
    from grpc.aio import _channel as aio_channel

    made: list[str] = []
    module = aio_channel if kind == "aio" else _channel
    for name in ("unary_unary", "stream_stream"):
        own = getattr(module.Channel, name)

        def counted(self: Any, method: str, *rest: Any, _own: Any = own, **more: Any) -> Any:
            made.append(method)
            return _own(self, method, *rest, **more)

        monkeypatch.setattr(module.Channel, name, counted)
    with make_face(kind, "test", mesh) as face:
        for _ in range(5):
            face.unary("Empty", timeout=LIMIT)
            stream = face.open("Duplex", timeout=LIMIT)
            stream.done_writing()
            assert stream.read() is None
    assert sorted(made) == ["/mesh.interop.Test/Duplex", "/mesh.interop.Test/Empty"]


# --- wait_for_ready ---------------------------------------------------------------------------------------------------


@of_the_mesh
def test_wait_for_ready_is_passed_on(kind: str) -> None:
    """Without it a call to a place where nobody listens fails at once; with it, it waits until somebody does."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with (
        meshlib.Mesh({"services": {"test": {"endpoints": [f"127.0.0.1:{port}"]}}}) as mesh,
        make_face(kind, "test", mesh) as face,
    ):
        for ready in (None, False):
            with pytest.raises(grpc.RpcError) as caught:
                face.unary("Empty", timeout=LIMIT, wait_for_ready=ready)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        done: list[Any] = []
        waiting = threading.Thread(
            target=lambda: done.append(face.unary("Empty", timeout=LIMIT, wait_for_ready=True))
        )
        waiting.start()
        assert asked(waiting.is_alive)
        with Interop("late", port) as late:
            waiting.join(LIMIT)
            assert done[0].value.name == "late"
            assert late.idle()
        assert active(mesh) == 0


@on_both_loops
async def test_an_asyncio_channel_on_every_loop(server: Interop) -> None:
    """asyncio's own, and uvloop's."""
    async with meshlib.Mesh({"services": {"test": {"endpoints": [server.address]}}}) as mesh:
        async with meshlib.grpc.aio.channel("test", mesh=mesh) as channel:
            assert await channel.unary_unary("/mesh.interop.Test/Empty")(b'[[],0,0,"",""]\n', timeout=LIMIT)
        assert active(mesh) == 0


# --- what is kept to be sent again ------------------------------------------------------------------------------------


@of_the_mesh
def test_a_large_message_goes_elsewhere_where_nobody_listens(kind: str, server: Interop) -> None:
    """It is more than is kept for another attempt, but it was not sent."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        nobody = f"127.0.0.1:{reserved.getsockname()[1]}"
    with (
        meshlib.Mesh({"services": {"test": {"endpoints": [nobody, server.address]}}}) as mesh,
        make_face(kind, "test", mesh) as face,
    ):
        for _ in range(4):
            sent = iter([Message(bytes(300_000)), Message(b"x", number=1)])
            assert face.send("Input", sent, timeout=LIMIT).value.sizes == (300_001,)


async def test_what_an_asyncio_call_sent_is_not_kept_beyond_the_limit(
    server: Interop, mesh: meshlib.Mesh
) -> None:
    """A long upload stays in nobody's memory."""

    async def messages() -> AsyncIterator[bytes]:
        for number in range(200):
            yield pack(Message(bytes(PIECE), number=number))
            held.append(sum(map(len, call._later.messages._kept)))

    held: list[int] = []
    async with meshlib.grpc.aio.channel("test", mesh=mesh) as channel:
        call = channel.stream_unary("/mesh.interop.Test/Input")(messages(), timeout=LIMIT)
        assert unpack(await call).number == 200
    assert len(held) == 200
    assert max(held) < 6 * PIECE
