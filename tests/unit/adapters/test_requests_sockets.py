"""Sockets that wait by themselves do what Python's do with a timeout."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from meshlib.transports.wire.guard import Guard
from meshlib_requests.sockets import Socket, waiting

PLENTY = 8 << 20


@pytest.fixture
def pair() -> Iterator[tuple[Socket, socket.socket]]:
    mine, other = socket.socketpair()
    mine.settimeout(5.0)
    made = waiting(mine)
    assert isinstance(made, Socket)
    with made, other:
        yield made, other


def test_it_takes_the_place_of_the_socket_that_it_was_made_of() -> None:
    mine, other = socket.socketpair()
    mine.settimeout(3.0)
    number = mine.fileno()
    made = waiting(mine)
    with made, other:
        assert made.fileno() == number
        assert mine.fileno() == -1
        assert made.gettimeout() == made.timeout == 3.0
        assert made.getblocking()
        made.setblocking(True)
        assert made.gettimeout() is None
        made.setblocking(False)
        assert made.gettimeout() == 0.0
        assert not made.getblocking()
    assert made.fileno() == -1


def test_a_socket_of_another_kind_stays_what_it_is() -> None:
    class Other(socket.socket):
        pass

    with Other() as other:
        assert waiting(other) is other


def test_it_reads_what_comes_while_it_waits(pair: tuple[Socket, socket.socket]) -> None:
    mine, other = pair
    for read in (mine.recv, lambda _: mine.makefile("rb", buffering=0).read(4)):
        sender = threading.Timer(0.02, other.sendall, (b"late",))
        sender.start()
        assert read(4) == b"late"
        sender.join()
    other.close()
    assert mine.recv(1) == b""


def test_it_sends_more_than_the_system_takes_at_once(pair: tuple[Socket, socket.socket]) -> None:
    mine, other = pair
    data = bytes(range(256)) * (PLENTY // 256)
    got = bytearray()

    def read() -> None:
        while len(got) < len(data):
            got.extend(other.recv(1 << 16))

    reader = threading.Thread(target=read)
    reader.start()
    mine.sendall(memoryview(data))
    reader.join(10)
    assert bytes(got) == data


@pytest.mark.parametrize("seconds", [0.05, 1e-9])
def test_its_timeout_bounds_each_operation(pair: tuple[Socket, socket.socket], seconds: float) -> None:
    mine, _ = pair
    mine.settimeout(seconds)
    for operation in (
        lambda: mine.recv(1),
        lambda: mine.recv_into(bytearray(1)),
        lambda: mine.sendall(bytes(PLENTY)),
    ):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="timed out"):
            operation()
        assert seconds <= time.monotonic() - began < 2


def test_without_a_timeout_it_waits(pair: tuple[Socket, socket.socket]) -> None:
    mine, other = pair
    mine.settimeout(None)
    sender = threading.Timer(0.05, other.sendall, (b"x",))
    sender.start()
    assert mine.recv(1) == b"x"
    sender.join()


def test_a_timeout_of_nothing_does_not_wait(pair: tuple[Socket, socket.socket]) -> None:
    mine, _ = pair
    mine.settimeout(0)
    with pytest.raises(BlockingIOError) as raised:
        mine.recv(1)
    assert raised.value.errno in {errno.EAGAIN, errno.EWOULDBLOCK}


def test_an_attempts_deadline_is_nearer_than_the_timeout(pair: tuple[Socket, socket.socket]) -> None:
    mine, _ = pair
    mine.guard = guard = Guard(time.monotonic, time.monotonic() + 0.05)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        mine.recv(1)
    assert 0.04 < time.monotonic() - began < 2
    with pytest.raises(TimeoutError, match="deadline"):
        mine.sendall(b"x")
    assert guard.expired


def test_a_peer_that_went_away_is_an_error(pair: tuple[Socket, socket.socket]) -> None:
    mine, other = pair
    other.close()
    with pytest.raises(ConnectionError):
        mine.sendall(bytes(PLENTY))
    mine.close()
    with pytest.raises(OSError, match="descriptor"):
        mine.recv(1)
