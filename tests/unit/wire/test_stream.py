"""Blocking streams, over pairs of real sockets."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
import trustme

from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.testing.clock import VirtualClock
from meshlib.wire.errors import ReadError, ReadTimeout, WriteError, WriteTimeout
from meshlib.wire.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLOCK = MonotonicClock()
MUCH = b"0123456789abcdef" * 262_144  # 4 MiB: more than the system holds for a peer that does not read


def bounds(**timeouts: float | None) -> Bounds:
    return Bounds(CLOCK, None, timeouts)


@pytest.fixture
def pair() -> Iterator[tuple[Stream, socket.socket]]:
    ours, theirs = socket.socketpair()
    stream = Stream(ours)
    with theirs:
        yield stream, theirs
        stream.close()
    assert ours.fileno() == -1


def in_thread(work: object) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def until_waiting(stream: Stream) -> None:
    """Another thread waits within the stream."""
    while not stream._waiting:
        os.sched_yield()


def all_of(theirs: socket.socket) -> bytes:
    theirs.settimeout(20)
    got = b""
    while part := theirs.recv(1_000_000):
        got += part
    return got


def test_it_reads_what_comes_and_the_end(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    theirs.send(b"hello")
    assert stream.read(3, bounds()) == b"hel"
    assert stream.read(100, bounds(read=5.0)) == b"lo"
    theirs.shutdown(socket.SHUT_WR)
    assert stream.read(100, bounds()) == b""


def test_it_reads_into_a_buffer(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    theirs.send(b"hello")
    buffer = bytearray(10)
    assert stream.readinto(memoryview(buffer)[2:], bounds()) == 5
    assert buffer == b"\0\0hello\0\0\0"


def test_a_read_waits_no_longer_than_its_bounds(pair: tuple[Stream, socket.socket]) -> None:
    stream, _ = pair
    own = bounds(read=0.01)
    with pytest.raises(ReadTimeout):
        stream.read(1, own)
    assert not own.expired


def test_a_deadline_bounds_a_read_and_is_told_apart(pair: tuple[Stream, socket.socket]) -> None:
    stream, _ = pair
    own = Bounds(CLOCK, CLOCK.now() + 0.02, {"read": 5.0})
    with pytest.raises(ReadTimeout):
        stream.read(1, own)
    assert own.expired
    with pytest.raises(WriteTimeout, match="deadline is over"):
        stream.write(b"x", own)
    assert not own.sent


def test_a_virtual_clock_wakes_who_reads(pair: tuple[Stream, socket.socket]) -> None:
    stream, _ = pair
    clock = VirtualClock()
    own = Bounds(clock, clock.now() + 3.0)
    seen: list[BaseException] = []

    def read() -> None:
        try:
            stream.read(1, own)
        except ReadTimeout as error:
            seen.append(error)

    thread = in_thread(read)
    until_waiting(stream)
    clock.advance(2.9)
    assert not seen
    clock.advance(0.2)
    thread.join(10)
    assert len(seen) == 1
    assert own.expired


def test_a_list_goes_in_one_send(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    assert stream.write([b"head", b"", b"body"], bounds())
    assert theirs.recv(100) == b"headbody"


def test_much_is_written_as_the_peer_takes_it(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    got: list[bytes] = []
    thread = in_thread(lambda: got.append(all_of(theirs)))
    assert stream.write([b"x" * 7, MUCH, b"y" * 9], bounds(write=20.0))
    stream.close()
    thread.join(20)
    assert got == [b"x" * 7 + MUCH + b"y" * 9]


def test_a_write_waits_no_longer_than_its_bounds(pair: tuple[Stream, socket.socket]) -> None:
    stream, _ = pair
    own = bounds(write=0.01)
    with pytest.raises(WriteTimeout):
        stream.write(MUCH, own)
    assert own.sent


def test_who_listens_is_told_of_an_answer_while_nothing_more_is_taken(
    pair: tuple[Stream, socket.socket],
) -> None:
    stream, theirs = pair
    theirs.send(b"enough")
    own = bounds(write=20.0)
    assert not stream.write(MUCH, own, listening=True)
    assert stream.read_now(100) == b"enough"
    assert stream.read_now(100) is None
    got: list[bytes] = []
    thread = in_thread(lambda: got.append(all_of(theirs)))
    assert stream.write(b"the end", own, listening=True)  # what was left goes first
    stream.close()
    thread.join(20)
    assert got == [MUCH + b"the end"]


def test_who_listens_hears_nothing_of_an_answer_while_all_is_taken(
    pair: tuple[Stream, socket.socket],
) -> None:
    stream, theirs = pair
    theirs.send(b"early")
    assert stream.write(b"all of it", bounds(), listening=True)


def test_a_write_that_the_system_refuses_was_not_sent(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    theirs.close()
    own = bounds()
    with pytest.raises(WriteError):
        stream.write(b"GET / HTTP/1.1\r\n\r\n", own)
    assert not own.sent


def test_what_was_sent_stays_sent(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    own = bounds()
    stream.write(b"GET", own)
    assert own.sent
    theirs.close()
    with pytest.raises(WriteError):
        stream.write(b" /", own)
    assert own.sent


def test_a_broken_connection_is_a_read_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = Stream(socket.create_connection(listener.getsockname()))
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()  # with a reset
        with pytest.raises(ReadError, match="reset"):
            stream.read(1, bounds())
        stream.close()


def test_input_is_awaited_for_some_time(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    assert not stream.await_input(0.01, bounds(read=5.0))
    with pytest.raises(ReadTimeout):
        stream.await_input(5.0, bounds(read=0.01))
    theirs.send(b"x")
    assert stream.await_input(5.0, bounds())
    assert stream.read(1, bounds()) == b"x"


def test_an_idle_connection_is_readable_once_the_peer_says_something(
    pair: tuple[Stream, socket.socket],
) -> None:
    stream, theirs = pair
    assert not stream.readable()
    theirs.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert stream.readable()
    stream.read(100, bounds())
    assert not stream.readable()
    theirs.close()
    assert stream.readable()
    stream.close()
    assert stream.readable()
    assert stream.get_extra_info("is_readable")


@pytest.mark.parametrize("writes", [False, True])
def test_another_thread_ends_who_waits(pair: tuple[Stream, socket.socket], writes: bool) -> None:
    stream, _ = pair
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            if writes:
                stream.write(MUCH, bounds())
            else:
                stream.read(1, bounds())
                stream.read(1, bounds())
        except (ReadError, WriteError) as error:
            seen.append(error)

    thread = in_thread(wait)
    until_waiting(stream)
    descriptor = stream._sock.fileno()
    stream.close()
    thread.join(10)
    assert len(seen) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_descriptor_stays_ours_while_another_thread_waits_for_it(
    pair: tuple[Stream, socket.socket],
) -> None:
    stream, _ = pair
    stream._waiting += 1  # one who has looked at the number and not waited yet
    stream.close()
    assert stream._sock.fileno() != -1
    stream._waited()
    assert stream._sock.fileno() == -1


def test_one_thread_reads_while_another_one_writes(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    got: list[bytes] = []
    reader = in_thread(lambda: got.append(stream.read(100, bounds(read=20.0))))
    until_waiting(stream)
    sent: list[bytes] = []
    writer = in_thread(lambda: sent.append(all_of(theirs)))
    stream.write(MUCH, bounds(write=20.0))
    theirs.send(b"answer")
    reader.join(10)
    assert got == [b"answer"]
    stream.close()
    writer.join(10)
    assert sent == [MUCH]


class Prompt:
    """The lock of a stream; each time that its owner's thread lets go of it another thread uses the stream at once."""

    def __init__(self, stream: Stream, use: Callable[[], object]) -> None:
        self._inner, self._use = stream._lock, use
        self._owner, self._depth = threading.get_ident(), 0

    def __enter__(self) -> None:
        self._inner.acquire()
        self._depth += threading.get_ident() == self._owner

    def __exit__(self, *_: object) -> None:
        self._inner.release()
        if threading.get_ident() == self._owner:
            self._depth -= 1
            if not self._depth:
                in_thread(self._use).join()


def test_over_tls_each_thread_waits_for_what_its_own_operation_needs() -> None:
    """A write that waits for the peer to take more, and a read in between that waits for the peer to say something."""
    authority = trustme.CA()
    theirs_context, ours_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs_context)
    authority.configure_trust(ours_context)
    ours, theirs = socket.socketpair()
    sent: list[bytes] = []

    def take() -> None:
        with theirs_context.wrap_socket(theirs, server_side=True) as peer:
            sent.append(all_of(peer))

    reader = in_thread(take)
    stream = Stream(ours_context.wrap_socket(ours, server_hostname="localhost"))
    plain, stream._lock = stream._lock, Prompt(stream, lambda: stream.read_now(100))  # type: ignore[assignment]
    stream.write(MUCH[:500_000], bounds(write=10.0))
    stream._lock = plain
    stream.close()
    reader.join(10)
    assert sent == [MUCH[:500_000]]


def test_a_child_neither_uses_nor_disturbs_its_parents(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    child = os.fork()
    if child == 0:
        try:
            assert stream.readable()
            for use in (
                lambda: stream.read(1, bounds()),
                lambda: stream.write(b"x", bounds()),
                lambda: stream.await_input(1.0, bounds()),
            ):
                with pytest.raises((ReadError, WriteError), match="another process"):
                    use()
            stream.close()
        except BaseException:  # noqa: BLE001 - the child must not run on as a second pytest
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    theirs.send(b"still here")
    assert stream.read(100, bounds()) == b"still here"
    stream.write(b"and so are we", bounds())
    assert theirs.recv(100) == b"and so are we"


def test_it_tells_what_it_is(pair: tuple[Stream, socket.socket]) -> None:
    stream, _ = pair
    assert stream.get_extra_info("socket") is stream._sock
    assert stream.get_extra_info("ssl_object") is None
    assert stream.get_extra_info("client_addr") == ""
    assert stream.get_extra_info("server_addr") == ""
    assert stream.get_extra_info("anything else") is None
    assert stream.protocol is None
