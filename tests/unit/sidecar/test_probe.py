"""One question on loopback, to servers that answer well, badly, slowly and without end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

from meshlib.model.address import Address
from meshlib.sidecar.evidence import Answer, Probe
from meshlib.sidecar.probe import Prober
from tests.support.late import within
from tests.support.raw_server import RawServer


def asked(answer, seconds=5.0):
    with RawServer(answer=answer) as server:
        return Prober(seconds).ask(Probe(Address.parse(server.address), "/ready")), server


class Script:
    """A server that does to its first connection what ``act(connection)`` does."""

    def __init__(self, act):
        self._act = act
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.probe = Probe(Address("127.0.0.1", self._listener.getsockname()[1]), "/ready")

    def _serve(self):
        with contextlib.suppress(OSError):  # the prober has gone
            connection, _ = self._listener.accept()
            with connection:
                connection.recv(4096)
                self._act(connection)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._listener.close()
        self._thread.join(10)


class TestAnswers:
    @pytest.mark.parametrize(
        ("answer", "made"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n", Answer("answered", 200, b"ready\n")),
            (b"HTTP/1.1 204 No Content\r\n\r\n", Answer("answered", 204)),
            (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", Answer("answered", 503)),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nLIV\r\n2\r\nE\n\r\n0\r\n\r\n",
                Answer("answered", 200, b"LIVE\n"),
            ),
            (
                b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                Answer("answered", 200),
            ),
        ],
    )
    def test_status_and_body(self, answer, made):
        assert asked(answer)[0] == made

    def test_a_redirect_is_an_answer_and_is_not_followed(self):
        with RawServer() as elsewhere:
            location = (
                f"HTTP/1.1 302 Found\r\nLocation: http://{elsewhere.address}/\r\nContent-Length: 0\r\n\r\n"
            )
            answer, server = asked(location.encode())
            assert (answer.status, answer.ready(Probe.at(1, "/"))) == (302, False)
            assert len(server.heads) == 1
            assert elsewhere.heads == []

    def test_no_proxy_of_the_environment_is_used(self, monkeypatch):
        with RawServer() as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://{proxy.address}")
            answer, _ = asked(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert answer.status == 200
            assert proxy.heads == []

    def test_all_that_is_sent(self):
        with RawServer(answer=b"HTTP/1.1 204 No Content\r\n\r\n") as server:
            address = server.address
            Prober(10.0).ask(Probe(Address.parse(address), "/ready"))
        assert server.heads == [f"GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close".encode()]
        assert server.bodies in ([], [b""])

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            b"\x00\x01\x02\xff" * 100,
            b"HTTP/1.1 two hundred\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000,
        ],
    )
    def test_what_is_no_http(self, answer):
        assert asked(answer)[0] == Answer("silent")

    def test_a_body_without_end_is_cut_off(self):
        def act(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                connection.sendall(b"x" * 65536)

        with Script(act) as server:
            answer = Prober(10.0).ask(server.probe)
        assert (answer.status, len(answer.body)) == (200, 65536)

    def test_a_connection_that_breaks_off(self):
        with Script(
            lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nre")
        ) as server:
            assert Prober(5.0).ask(server.probe) == Answer("silent")


class TestTime:
    def test_nobody_listens(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            probe = Probe(Address("127.0.0.1", listener.getsockname()[1]), "/ready")
        assert Prober().ask(probe) == Answer("refused")

    def test_the_time_is_of_the_whole_question(self):
        done = threading.Event()

        def act(connection):
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":
                connection.sendall(bytes([byte]))
                if done.wait(1.0):  # each is in time
                    return

        began = time.monotonic()
        with Script(act) as server:
            assert Prober(1.5).ask(server.probe) == Answer("silent")
            assert time.monotonic() - began < 5.0
            done.set()

    def test_what_is_left_of_it_is_the_time_of_the_last_step(self):
        def question():
            done = threading.Event()

            def act(connection):
                done.wait(1.0)
                connection.sendall(b"H")
                done.wait(10)

            began = time.monotonic()
            with Script(act) as server:
                assert Prober(1.5).ask(server.probe) == Answer("silent")
                took = time.monotonic() - began
                done.set()
            return took

        within(0.0, 2.4, question)

    def test_no_answer_in_time(self):
        done = threading.Event()
        with Script(lambda connection: done.wait(10)) as server:
            assert Prober(0.2).ask(server.probe) == Answer("silent")
            done.set()

    def test_cancelled_it_ends_at_once(self):
        arrived, done = threading.Event(), threading.Event()

        def act(connection):
            arrived.set()
            done.wait(10)

        prober = Prober(10.0)
        answers = []
        with Script(act) as server:
            asking = threading.Thread(target=lambda: answers.append(prober.ask(server.probe)))
            asking.start()
            assert arrived.wait(10)
            prober.cancel()
            asking.join(5)
            done.set()
        assert answers == [Answer("silent")]
        assert prober.ask(server.probe) == Answer("silent")
        assert prober.again().ask(server.probe) == Answer("refused")


class TestConnecting:
    def test_somebody_accepts(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            probe = Probe(Address("127.0.0.1", listener.getsockname()[1]))
            assert Prober().ask(probe) == Answer("accepted")

    def test_a_unix_socket(self, tmp_path):
        path = tmp_path / "envoy"
        probe = Probe(Address(str(path), 0, unix=True))
        assert Prober().ask(probe) == Answer("refused")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            assert Prober().ask(probe) == Answer("refused")
            listener.listen()
            assert Prober().ask(probe) == Answer("accepted")
