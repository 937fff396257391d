"""gRPC's interop cases (grpc: doc/interop-test-descriptions.md), each on channels of the mesh to three servers.

Each is one function over a face; grpc's own channels to one of the servers say beside them that what is expected is grpc's. All of
them run again while the servers, as processes, are killed and started anew one after the other.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import meshlib
from tests.support.grpc_faces import FACES, KINDS, Face, Stream, make_face
from tests.support.grpc_interop import ECHO_INITIAL, ECHO_TRAILING, Interop, InteropProcess, Message
from tests.support.watch import Watch

LIMIT = 10.0  # seconds of a call that is not meant to be late
INPUTS = (27182, 8, 1828, 45904)
OUTPUTS = (31415, 9, 2653, 58979)
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
#: All that a server may be told, and tell: what it is set to here (tests/support/grpc_interop.py).
ROOM = [("grpc.max_metadata_size", 256 * 1024), ("grpc.absolute_max_metadata_size", 256 * 1024)]
RETRY = {"attempts": 5, "on": ["unavailable"], "backoff_base": 0.005, "backoff_max": 0.05}


class Broke(Exception):
    """A stream ended by what happened to its server."""


def ended(stream: Stream) -> tuple[grpc.StatusCode, str]:
    code, details = stream.code(), stream.details()
    if code is grpc.StatusCode.UNAVAILABLE:
        raise Broke
    return code, details


def failed(call: Callable[[], object]) -> Any:
    """What ``call`` raises."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    if caught.value.code() is grpc.StatusCode.UNAVAILABLE:
        raise Broke from caught.value
    return caught.value


# --- the cases --------------------------------------------------------------------------------------------------------


def empty_unary(face: Face) -> None:
    done = face.unary("Empty", timeout=LIMIT)
    assert (done.value.body, done.value.sizes) == (b"", ())


def large_unary(face: Face) -> None:
    done = face.unary("Unary", Message(bytes(271828), sizes=(314159,)), timeout=LIMIT)
    assert (done.value.number, done.value.body) == (271828, bytes(314159))


def client_streaming(face: Face) -> None:
    messages = (Message(bytes(size), number=number) for number, size in enumerate(INPUTS))
    done = face.send("Input", messages, timeout=LIMIT)
    assert (done.value.number, done.value.sizes) == (4, (74922,))


def server_streaming(face: Face) -> None:
    stream = face.open("Output", Message(sizes=OUTPUTS), timeout=LIMIT)
    assert [(m.number, len(m.body)) for m in stream] == list(enumerate(OUTPUTS))
    assert ended(stream)[0] is grpc.StatusCode.OK


def ping_pong(face: Face) -> None:
    """Each message is sent once the answer to the one before it is there."""
    stream = face.open("Duplex", timeout=LIMIT)
    names = set()
    for number, (size, answer) in enumerate(zip(INPUTS, OUTPUTS, strict=True)):
        stream.write(Message(bytes(size), sizes=(answer,), number=number))
        message = stream.read()
        assert message is not None
        assert (message.number, len(message.body)) == (number, answer)
        names.add(message.name)
    stream.done_writing()
    assert stream.read() is None
    assert ended(stream)[0] is grpc.StatusCode.OK
    assert len(names) == 1


def all_at_once(face: Face) -> None:
    """All is sent before anything is read; the order is kept."""
    stream = face.open("Duplex", timeout=LIMIT)
    for number in range(50):
        stream.write(Message(b"x", sizes=(1, 1), number=number))
    stream.done_writing()
    assert [message.number for message in stream] == list(range(100))
    assert ended(stream)[0] is grpc.StatusCode.OK


def empty_stream(face: Face) -> None:
    stream = face.open("Duplex", timeout=LIMIT)
    stream.done_writing()
    assert stream.read() is None
    assert ended(stream)[0] is grpc.StatusCode.OK


def cancel_after_begin(face: Face) -> None:
    stream = face.open("Input", timeout=LIMIT)
    stream.cancel()
    with pytest.raises((grpc.FutureCancelledError, CancelledError)):
        stream.read()
    assert ended(stream)[0] is grpc.StatusCode.CANCELLED


def cancel_after_first_response(face: Face) -> None:
    stream = face.open("Duplex", timeout=LIMIT)
    stream.write(Message(bytes(27182), sizes=(31415,)))
    message = stream.read()
    assert message is not None
    assert len(message.body) == 31415
    stream.cancel()
    with pytest.raises((grpc.RpcError, CancelledError)):
        stream.read()
    assert ended(stream)[0] is grpc.StatusCode.CANCELLED


def timeout_on_sleeping_server(face: Face) -> None:
    stream = face.open("Duplex", timeout=0.05)

    def call() -> None:  # on a busy machine its time is over before the message is written
        stream.write(Message(bytes(27182)))
        stream.read()

    failed(call)
    assert ended(stream)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    stream.done_writing()


def unary_timeout_on_sleeping_server(face: Face) -> None:
    error = failed(lambda: face.unary("Sleep", timeout=0.05))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def status_code_and_message(face: Face) -> None:
    error = failed(lambda: face.unary("Unary", Message(code=2, words="test status message"), timeout=LIMIT))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "test status message")


def status_code_and_message_of_a_stream(face: Face) -> None:
    stream = face.open("Duplex", timeout=LIMIT)

    def ask() -> None:
        # Whoever writes in an event loop may learn of the end there.
        stream.write(Message(code=2, words="test status message"))
        stream.read()

    error = failed(ask)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "test status message")
    assert ended(stream) == (grpc.StatusCode.UNKNOWN, "test status message")
    stream.done_writing()


def status_after_messages(face: Face) -> None:
    stream = face.open("Output", Message(sizes=(1, 1), code=10, words="half way"), timeout=LIMIT)
    assert [stream.read(), stream.read()] != [None, None]
    error = failed(stream.read)
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "half way")


def special_status_message(face: Face) -> None:
    error = failed(lambda: face.unary("Unary", Message(code=2, words=SPECIAL), timeout=LIMIT))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, SPECIAL)


def unimplemented_method(face: Face) -> None:
    error = failed(lambda: face.unary("Missing", timeout=LIMIT))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def unimplemented_service(face: Face) -> None:
    error = failed(lambda: face.unary("Empty", service="mesh.interop.Nothing", timeout=LIMIT))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


BINARY = bytes(range(256))
METADATA = (
    (ECHO_INITIAL, "test_initial_metadata_value"),
    (f"{ECHO_INITIAL}-bin", BINARY),
    (ECHO_TRAILING, b"\xab\xab\xab"),
)


def custom_metadata(face: Face) -> None:
    done = face.unary("Unary", Message(b"x", sizes=(1,)), metadata=METADATA, timeout=LIMIT)
    assert set(METADATA[:2]) <= set(done.initial)
    assert METADATA[2] in done.trailing


def custom_metadata_of_a_stream(face: Face) -> None:
    stream = face.open("Duplex", metadata=METADATA, timeout=LIMIT)
    stream.write(Message(b"x", sizes=(1,)))
    initial = stream.initial()
    if not initial:
        ended(stream)
    assert set(METADATA[:2]) <= set(initial)
    assert stream.read() is not None
    stream.done_writing()
    assert stream.read() is None
    assert METADATA[2] in stream.trailing()
    assert ended(stream)[0] is grpc.StatusCode.OK


def large_metadata(face: Face) -> None:
    """Beyond the 8 KiB that grpc's channels take unless they are told; the option is passed on."""
    sent = ((ECHO_INITIAL, "i" * 60_000), (ECHO_TRAILING, b"\0\xff" * 10_000))
    done = face.unary("Unary", Message(b"x"), metadata=sent, timeout=LIMIT)
    assert sent[0] in done.initial
    assert sent[1] in done.trailing


#: What a killed server never makes fail: nothing of the answer is there before all of it is. A call that has metadata or a part
#: of its answer is committed, and fails with its server (gRFC A6, RT-05).
NEVER_FAIL = (
    empty_unary,
    client_streaming,
    status_code_and_message,
    special_status_message,
    unimplemented_method,
    unimplemented_service,
)
MAY_BREAK = (
    large_unary,
    server_streaming,
    ping_pong,
    all_at_once,
    empty_stream,
    cancel_after_begin,
    cancel_after_first_response,
    timeout_on_sleeping_server,
    unary_timeout_on_sleeping_server,  # whose time may be too short for another attempt
    status_code_and_message_of_a_stream,
    status_after_messages,
    custom_metadata,
    custom_metadata_of_a_stream,
    large_metadata,
)
CASES = (*NEVER_FAIL, *MAY_BREAK)


# --- three servers that stay ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Interop]]:
    with Interop("a") as a, Interop("b") as b, Interop("c") as c:
        yield [a, b, c]


def mesh_of(servers: list[Any], **service: Any) -> meshlib.Mesh:
    return meshlib.Mesh(
        {"services": {"test": {"endpoints": [server.address for server in servers], **service}}}
    )


@pytest.fixture
def face(request: pytest.FixtureRequest, servers: list[Interop]) -> Iterator[Face]:
    """Of the kind that the test's parameter names. When the test is over, nothing is under way anywhere."""
    whose, kind = request.param.split()
    mesh = mesh_of(servers) if whose == "mesh" else None
    made = make_face(kind, "test" if mesh else servers[0].address, mesh, options=ROOM)
    yield made
    if mesh is not None:
        assert mesh.status().clusters["test"].active == 0
    made.close()
    assert all(server.idle() for server in servers)
    if mesh is not None:
        mesh.close()


@pytest.mark.parametrize("face", FACES, indirect=True)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_case(case: Callable[[Face], None], face: Face) -> None:
    case(face)


@pytest.mark.parametrize("kind", KINDS)
def test_the_servers_take_turns(kind: str, servers: list[Interop]) -> None:
    """What the cases show is shown of all three."""
    with mesh_of(servers) as mesh, make_face(kind, "test", mesh) as face:
        assert {face.unary("Empty", timeout=LIMIT).value.name for _ in range(9)} == {"a", "b", "c"}


# --- three servers of which one is always dying -----------------------------------------------------------------------

KILLS = 6
BETWEEN = 60  # cases, before a killed server is started again, and before the next is killed


class Cases:
    """All cases over and over in several threads, until they are stopped or one fails."""

    def __init__(self, face: Face, threads: int = 6) -> None:
        self._face = face
        self._lock = threading.Condition()  # guards what follows
        self.done = self.broken = 0
        self.stopped = False
        self._threads = ThreadPoolExecutor(threads)
        self._running = [self._threads.submit(self._run, number) for number in range(threads)]

    def _run(self, number: int) -> None:
        for case in itertools.islice(itertools.cycle(CASES), number * 3, None):
            if self.stopped:
                return
            broke = 0
            try:
                case(self._face)
            except (Broke, grpc.RpcError) as error:
                lost = isinstance(error, Broke) or error.code() is grpc.StatusCode.UNAVAILABLE
                if case in NEVER_FAIL or not lost:
                    self.stop()
                    raise AssertionError(case.__name__) from error
                broke = 1
            except BaseException:
                self.stop()
                raise
            with self._lock:
                self.done, self.broken = self.done + 1, self.broken + broke
                self._lock.notify_all()

    def more(self, number: int) -> None:
        """Wait for so many more, or for a failure."""
        with self._lock:
            until = self.done + number
            assert self._lock.wait_for(lambda: self.done >= until or self.stopped, 60)

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            self._lock.notify_all()

    def join(self) -> None:
        self.stop()
        self._threads.shutdown()
        for running in self._running:
            running.result()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_the_cases_while_servers_are_killed_and_come_back(kind: str) -> None:
    """No call fails that may be made again; on a stream that did not break nothing is lost, and nothing comes twice."""
    servers = [InteropProcess(name) for name in "abc"]
    try:
        with mesh_of(servers, retry=RETRY) as mesh, make_face(kind, "test", mesh, options=ROOM) as face:
            watch, cases = Watch(mesh), Cases(face)
            try:
                for kills, index in enumerate(itertools.cycle(range(3))):
                    # On, until a stream was under way on one that was killed: it nearly always was by then.
                    if kills >= KILLS and (cases.broken or kills >= 5 * KILLS):
                        break
                    cases.more(BETWEEN)
                    servers[index].kill()
                    cases.more(BETWEEN)
                    servers[index] = servers[index].again()
                    # One is away at a time: gRPC waits for a second before it connects again.
                    names = (face.unary("Empty", timeout=LIMIT).value.name for _ in itertools.count())
                    assert servers[index].name in names
            finally:
                cases.join()
            # What nobody holds any more is given back by the worker.
            watch.until(lambda: mesh.status().clusters["test"].active == 0)
            status = mesh.status().clusters["test"]
        assert status.retries > 0
        assert cases.broken > 0
    finally:
        for server in servers:
            server.kill()
