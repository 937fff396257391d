"""Tunnels between grpc and endpoints: who may use one, bytes both ways, what a refusal leaves, and that nothing is left."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import select
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshlib.errors import ConfigError
from meshlib.hosts.grpc import private
from meshlib.hosts.grpc.tunnel import Tunnel, _Wires, tunnel_to
from meshlib.wire.dial import Place, open_stream
from meshlib.wire.stream import Stream
from tests.support.certificates import Authority, Issued
from tests.support.grpc_tls import tunnels

SECONDS = 20.0
MEGABYTE = 1 << 20


class Server:
    """Accepts one connection of TLS at a time, for the test to use."""

    def __init__(self, held: Issued, file: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_alpn_protocols(["h2"])
        file.write_bytes(held.chain_pem + held.key_pem)
        self._context.load_cert_chain(file)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(SECONDS)

    def accept(self) -> ssl.SSLSocket:
        accepted, _ = self.listener.accept()
        accepted.settimeout(SECONDS)
        return self._context.wrap_socket(accepted, server_side=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(AUTHORITY.issue("stock"), tmp_path / "pair.pem")
    with made.listener:
        yield made


AUTHORITY = Authority()
CONTEXT = ssl.create_default_context(cadata=AUTHORITY.pem.decode())


def place(listener: socket.socket, name: str = "stock") -> Place:
    port = listener.getsockname()[1]
    return Place("127.0.0.1", port, context=CONTEXT, server_hostname=name, http1=False, http2=True)


@pytest.fixture
def opened() -> Iterator[Callable[..., Tunnel]]:
    """Opens tunnels that are closed after the test, which must leave nothing."""
    with ExitStack() as stack:

        def make(*arguments: Any) -> Tunnel:
            tunnel = tunnel_to(*arguments)
            stack.callback(tunnel.close)
            return tunnel

        yield make
    nothing_is_left()


def nothing_is_left() -> None:
    tunnels().join()
    assert not tunnels().sockets


def connected(tunnel: Tunnel) -> socket.socket:
    """As grpc connects."""
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(SECONDS)
    try:
        made.connect(tunnel.path)
    except OSError:
        made.close()
        raise
    return made


def whole(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (part := sock.recv(65_536)):
        data += part
    return bytes(data)


def pumped(sock: socket.socket, data: bytes) -> threading.Thread:
    thread = threading.Thread(target=sock.sendall, args=(data,))
    thread.start()
    return thread


def test_bytes_go_both_ways_whole_and_in_order(opened: Any, server: Server) -> None:
    tunnel = opened(place(server.listener), SECONDS)
    sent = os.urandom(4 * MEGABYTE)
    with connected(tunnel) as inner, server.accept() as outer:
        assert outer.selected_alpn_protocol() == "h2"
        ways = [pumped(inner, sent)]
        assert whole(outer, len(sent)) == sent
        ways += [pumped(outer, sent[::-1])]
        assert whole(inner, len(sent)) == sent[::-1]
        for way in ways:
            way.join()
    assert tunnel.error == ""


def test_no_byte_waits_in_openssl(opened: Any, server: Server) -> None:
    """What a read took half of, no poll tells of."""
    tunnel = opened(place(server.listener), SECONDS)
    with connected(tunnel) as inner, server.accept() as outer:
        for size in (10_000, 16_384, 1, 12_345):
            go_on = threading.Event()
            tunnel._switch._wires.post(go_on.wait)
            for _ in range(14):
                outer.send(b"\x01" * size)
            go_on.set()
            assert len(whole(inner, 14 * size)) == 14 * size


def test_who_does_not_read_stops_who_sends_and_not_the_other_way(opened: Any, server: Server) -> None:
    tunnel = opened(place(server.listener), SECONDS)
    with connected(tunnel) as inner, server.accept() as outer:
        held: dict[str, int] = {}
        for name, sender, other in (("up", inner, outer), ("down", outer, inner)):
            sender.settimeout(1.0)
            count = 0
            with suppress(TimeoutError):
                while count < 64 * MEGABYTE:
                    count += sender.send(b"\x01" * 65_536)
            held[name] = count
            assert count < 16 * MEGABYTE, "no more than the buffers of the sockets, and one of ours"
            del other
        inner.settimeout(SECONDS)
        # What was stuck flows again, once it is read.
        assert len(whole(outer, held["up"])) == held["up"]
        assert len(whole(inner, held["down"])) >= held["down"]


def test_what_the_endpoint_said_before_its_end_arrives(opened: Any, server: Server) -> None:
    tunnel = opened(place(server.listener), SECONDS)
    with connected(tunnel) as inner:
        said = os.urandom(MEGABYTE)
        with server.accept() as outer:
            way = pumped(outer, said)
            assert whole(inner, len(said)) == said
            way.join()
            outer.sendall(b"GOAWAY")
        assert whole(inner, 100) == b"GOAWAY"
        assert inner.recv(1) == b""
        inner.send(b"nobody")  # as grpc may: it has not read the end yet
    assert tunnel.error == ""


@pytest.mark.parametrize("sends", [False, True])
def test_what_an_endpoint_said_that_is_lost_arrives(opened: Any, server: Server, sends: bool) -> None:
    """grpc reads late, and sends meanwhile or does not: what came before the reset is its."""
    tunnel = opened(place(server.listener), SECONDS)
    with connected(tunnel) as inner:
        said = b""
        with server.accept() as outer:
            while is_acknowledged(outer):  # until grpc's socket, the pipe and the system hold no more
                more = os.urandom(32_768)
                outer.sendall(more)
                said += more
            said = said[:-32_768]  # of the last, there may be a part
            outer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for _ in range(2):
            if sends:
                inner.send(b"to nobody")
            seen = threading.Event()
            tunnel._switch._wires.post(seen.set)
            assert seen.wait(SECONDS)
        assert whole(inner, len(said) + MEGABYTE).startswith(said)  # to the end
    assert tunnel.error == ""


def is_acknowledged(sock: socket.socket) -> bool:
    """Whether all that was sent is with the other end's system, soon."""
    until = time.monotonic() + 0.5
    while waits := struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]:
        if time.monotonic() > until:
            break
    return not waits


def test_the_endpoint_is_told_of_grpc_s_end(opened: Any, server: Server) -> None:
    tunnel = opened(place(server.listener), SECONDS)
    inner = connected(tunnel)
    with server.accept() as outer:
        inner.send(b"last words")
        inner.close()
        assert whole(outer, 100) == b"last words"


def test_an_endpoint_that_is_stuck_keeps_nothing_once_grpc_left(opened: Any, server: Server) -> None:
    tunnel = tunnel_to(place(server.listener), SECONDS)
    with connected(tunnel) as inner, server.accept() as outer:
        inner.settimeout(0.5)
        with suppress(TimeoutError):
            while True:
                inner.send(b"\x01" * 65_536)
        tunnel.close()
        inner.close()
        nothing_is_left()
        del outer


@pytest.mark.parametrize(
    ("name", "words"),
    [("other", "certificate verify failed.*'other'"), ("stock", "it may refuse the certificate")],
)
def test_why_there_is_no_connection_is_kept_until_there_is_one(
    opened: Any, server: Server, name: str, words: str
) -> None:
    tunnel = opened(place(server.listener, name), SECONDS)
    with connected(tunnel) as inner:
        if name == "stock":
            server.accept().close()
        else:
            with pytest.raises(ssl.SSLError):
                server.accept()
        with suppress(ConnectionResetError):
            assert inner.recv(1) == b""
    assert re.search(words, tunnel.error), tunnel.error
    assert tunnel.error.startswith(f"{tunnel.place}: ")
    if name == "stock":
        with connected(tunnel) as inner, server.accept() as outer:
            outer.send(b"settings")
            assert inner.recv(100) == b"settings"
        assert tunnel.error == ""


def test_an_endpoint_that_nobody_listens_at(opened: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        where = place(gone)
    tunnel = opened(where, SECONDS)
    with connected(tunnel) as inner, suppress(ConnectionResetError):
        assert inner.recv(1) == b""
    assert "Connection refused" in tunnel.error


def test_one_that_does_not_shake_hands_is_given_up_in_time(opened: Any, server: Server) -> None:
    tunnel = opened(place(server.listener), 1.0)  # the connection stands before that is over
    with connected(tunnel) as inner:
        inner.send(b"preface")
        with suppress(ConnectionResetError):
            assert inner.recv(1) == b""
    assert "not over in time" in tunnel.error


def test_dialling_is_stopped_where_nobody_wants_it_any_more(server: Server) -> None:
    tunnel = tunnel_to(place(server.listener), 3600.0)
    inner = connected(tunnel)
    accepted, _ = server.listener.accept()  # it stands, and waits for the handshake
    tunnel.close()
    inner.close()
    nothing_is_left()
    accepted.close()


def test_what_was_dialled_once_nobody_wanted_it_is_closed(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    go_on = threading.Event()

    def late(*arguments: Any) -> Stream:
        stream = open_stream(*arguments)
        assert go_on.wait(SECONDS)
        return stream

    monkeypatch.setattr("meshlib.hosts.grpc.tunnel.open_stream", late)
    server._context.num_tickets = 0  # who closes with tickets unread resets the connection
    tunnel = tunnel_to(place(server.listener), SECONDS)
    with connected(tunnel) as inner, server.accept() as outer:
        wires, gone = tunnel._switch._wires, threading.Event()
        tunnel.close()
        wires.post(gone.set)
        assert gone.wait(SECONDS)
        go_on.set()
        assert (inner.recv(1), outer.recv(1)) == (b"", b"")
        nothing_is_left()


def test_handshakes_that_break_leave_nothing(server: Server) -> None:
    """At every point of them: the server reads so many bytes, says some nonsense or nothing, and leaves."""
    tunnel = tunnel_to(place(server.listener), SECONDS)
    for number in range(200):
        inner = connected(tunnel)
        inner.send(b"preface")
        accepted, _ = server.listener.accept()
        if number % 50:
            accepted.recv(number % 50 * 10)
        if number % 3 == 0:
            accepted.send(b"\x16\x03\x03\x00\x05" + bytes(number % 7))
        accepted.close()
        with suppress(ConnectionResetError):
            assert inner.recv(1) == b""
        inner.close()
    assert tunnel.error
    tunnel.close()
    nothing_is_left()


def test_an_endpoint_at_a_Unix_socket(opened: Any, server: Server, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(SECONDS)
        where = Place("", 0, uds=str(tmp_path / "s"), context=CONTEXT, server_hostname="stock", http2=True)
        tunnel = opened(where, SECONDS)
        server.listener.close()
        server.listener = listener
        with connected(tunnel) as inner, server.accept() as outer:
            outer.send(b"settings")
            assert inner.recv(100) == b"settings"


# --- who shares one, and who may use it ----------------------------------------------------------------------------------


def test_who_goes_to_the_same_place_shares_one(server: Server) -> None:
    one, two = tunnel_to(place(server.listener), 5.0), tunnel_to(place(server.listener), 5.0)
    assert one is two
    others = [tunnel_to(place(server.listener), 6.0), tunnel_to(place(server.listener, "x"), 5.0)]
    others.append(tunnel_to(place(server.listener), 5.0, 1))
    assert len({tunnel.uri for tunnel in (one, *others)}) == 4
    one.close()
    connected(two).close()
    server.accept().close()
    for tunnel in (two, *others):
        tunnel.close()
        with pytest.raises(OSError, match=r"No such file|refused"):
            connected(tunnel)
    nothing_is_left()


def test_nobody_but_this_process_may_connect(opened: Any, server: Server) -> None:
    tunnel = opened(place(server.listener), SECONDS)
    folder = Path(tunnel.path).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    program = (
        f"import socket; s = socket.socket(1); s.settimeout(9); s.connect({tunnel.path!r}); print(s.recv(9))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "b''" in done.stdout or "ConnectionResetError" in done.stderr
    assert not select.select([server.listener], [], [], 0)[0], "it was dialled for a stranger"


def test_a_system_that_does_not_tell_who_connects_has_none(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setattr("meshlib.hosts.grpc.tunnel.TELLS", False)
    with pytest.raises(ConfigError, match="does not tell who connects"):
        tunnel_to(place(server.listener), SECONDS)
    nothing_is_left()


def test_a_process_without_threads_says_so(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("meshlib.runtime.threads.start", refuse)
    with pytest.raises(ConfigError, match="can't start new thread"):
        tunnel_to(place(server.listener), SECONDS)
    monkeypatch.undo()
    tunnel = tunnel_to(place(server.listener), SECONDS)
    monkeypatch.setattr("meshlib.runtime.threads.start", refuse)
    with connected(tunnel) as inner, suppress(ConnectionResetError):
        assert inner.recv(1) == b""
    assert tunnel.error.endswith("can't start new thread")
    monkeypatch.undo()
    with connected(tunnel) as inner, server.accept() as outer:
        outer.send(b"settings")
        assert inner.recv(100) == b"settings"
    tunnel.close()
    nothing_is_left()


def test_threads_that_come_at_once_share_one_thread(server: Server) -> None:
    def first() -> list[Tunnel]:
        ready = threading.Barrier(20)
        found: list[Tunnel] = []

        def get() -> None:
            ready.wait()
            found.append(tunnel_to(place(server.listener), SECONDS))

        threads = [threading.Thread(target=get) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    for _ in range(10):
        found = first()
        assert len(set(found)) == 1
        assert len(tunnels().threads) == 1
        for tunnel in found:
            tunnel.close()
        nothing_is_left()


# --- where the sockets are -----------------------------------------------------------------------------------------------


def test_what_a_killed_process_left_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server
) -> None:
    with_age = {"left": 3600, "young": 0, "used": 3600}
    parent = Path(tempfile.mkdtemp(prefix="m-"))
    monkeypatch.setattr("tempfile.tempdir", str(parent))
    used = private.Folder()
    made = {name: Path(tempfile.mkdtemp(prefix="meshlib-grpc-")) for name in ("left", "young")}
    made["used"] = Path(used.path()).parent
    for name, age in with_age.items():
        (made[name] / "1").touch()
        past = time.time() - age
        os.utime(made[name], (past, past))
    (parent / "meshlib-grpc-link").symlink_to(tmp_path)
    tunnel = tunnel_to(place(server.listener), SECONDS)
    assert Path(tunnel.path).parent.parent == parent
    tunnel.close()
    assert {name for name, path in made.items() if path.exists()} == {"young", "used"}
    assert tmp_path.exists()
    nothing_is_left()
    assert not Path(tunnel.path).parent.exists()
    used.remove()
    assert not made["used"].exists()


def test_a_process_that_ends_removes_its_own(server: Server) -> None:
    program = """
import ssl
from pathlib import Path
from meshlib.hosts.grpc.tunnel import tunnel_to
from meshlib.wire.dial import Place

context = ssl.create_default_context()
path = Path(tunnel_to(Place("127.0.0.1", 1, context=context, http2=True), 5.0).path)
assert path.is_socket()
print(path.parent)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("/")
    assert not Path(done.stdout.strip()).exists()


def test_grpc_finds_it_whatever_the_place_is_called(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    with tempfile.TemporaryDirectory(prefix="50% a?b#c ") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        tunnel = tunnel_to(place(server.listener), SECONDS)
        assert Path(tunnel.path).is_relative_to(folder)
        with grpc.insecure_channel(tunnel.uri) as channel:
            call = channel.unary_unary("/s/m").future(b"")
            with server.accept() as outer:
                assert whole(outer, 3).startswith(b"PRI")
            call.cancel()
        tunnel.close()
        nothing_is_left()


def test_where_nothing_can_be_written_another_place_is_used(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    for missing in ("/no/such/place", "/" + "x" * 200):
        monkeypatch.setattr("tempfile.tempdir", missing)
        tunnel = tunnel_to(place(server.listener), SECONDS)
        assert tunnel.path.startswith(("/tmp/", "/dev/shm/"))
        tunnel.close()
        nothing_is_left()
    monkeypatch.setattr(private, "_PARENTS", ())
    with pytest.raises(ConfigError, match="no Unix socket can be made: no directory for it"):
        tunnel_to(place(server.listener), SECONDS)


def test_a_process_without_descriptors_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, opened: Any, server: Server
) -> None:
    refused = threading.Event()
    rest = _Wires.rest
    monkeypatch.setattr(_Wires, "rest", lambda *arguments: (rest(*arguments), refused.set()))
    tunnel = opened(place(server.listener), SECONDS)
    with connected(tunnel) as warm, server.accept() as outer:  # what is imported on first use is
        outer.send(b"1")
        assert warm.recv(1) == b"1"
        warm.close()
        assert outer.recv(1) == b"", "now the pipe is gone"
    inner = socket.socket(socket.AF_UNIX)
    inner.settimeout(SECONDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir()) + 1
    spare: list[socket.socket] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        with suppress(OSError):
            while True:
                spare.append(socket.socket())
        inner.connect(tunnel.path)
        assert refused.wait(SECONDS)
        assert tunnel.error.endswith("Too many open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in spare:
            each.close()
    with inner, server.accept() as outer:
        outer.send(b"2")
        assert inner.recv(1) == b"2"
    assert tunnel.error == ""
