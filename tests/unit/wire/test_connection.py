"""HTTP/1.1 connections of every kind against real sockets: blocking ones, and those for asyncio on its own loop and uvloop's."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshlib.wire.dial import Place
from meshlib.wire.errors import (
    Disconnected,
    LocalProtocolError,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    WriteError,
    WriteTimeout,
)
from meshlib.wire.message import Outgoing
from tests.support.asking import asked
from tests.support.late import again_if_late, soon
from tests.support.scripted import Awaited, Blocking, Peer, Scripted, bounds, get, post

if TYPE_CHECKING:
    from collections.abc import Iterator

MUCH = b"0123456789abcdef" * 1_048_576  # 16 MiB: more than the system holds for a peer that does not read
Driver = Blocking | Awaited


def place(server: Scripted) -> Place:
    return Place("127.0.0.1", server.port)


def serve_ok(peer: Peer) -> None:
    while peer.head():
        peer.ok()


def until_it_is_heard(connection: Any) -> None:
    """Until what the server did has come through the kernel, which may take a moment and tells nobody."""
    assert asked(lambda: not connection.free())


class TestOneRequest:
    def test_a_connection_carries_one_after_another(self, driver: Driver) -> None:
        with Scripted(serve_ok) as server:
            connection = driver.connect(place(server))
            for _ in range(3):
                assert connection.free()
                response = driver.send(connection, get())
                assert not connection.idle
                assert not connection.free()
                assert (response.status, response.reason, response.version) == (200, b"OK", b"HTTP/1.1")
                assert response.headers == [(b"Content-Length", b"2")]
                assert driver.read(response) == b"ok"
                assert connection.idle
            connection.close()
            assert connection.closed
            assert server.taken == 1

    def test_a_second_request_at_once_is_refused_and_harms_nothing(self, driver: Driver) -> None:
        with Scripted(serve_ok) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, get())
            with pytest.raises(RuntimeError):
                driver.send(connection, get())
            assert driver.read(response) == b"ok"
            assert connection.idle
            connection.close()

    def test_head_and_small_body_go_in_one_send(self, driver: Driver) -> None:
        seen: list[bytes] = []

        def serve(peer: Peer) -> None:
            seen.append(peer.sock.recv(65_536))
            peer.ok()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            assert driver.read(driver.send(connection, post(b"x" * 1000))) == b"ok"
            connection.close()
        assert seen[0].endswith(b"\r\n\r\n" + b"x" * 1000)

    @pytest.mark.parametrize(
        ("sent", "whole"),
        [(MUCH[:50_000], True), (MUCH, True), (MUCH, False)],
        ids=["beside its head", "large", "in parts"],
    )
    def test_a_large_body_arrives_whole(self, driver: Driver, sent: bytes, whole: bool) -> None:
        seen: list[bytes] = []

        def serve(peer: Peer) -> None:
            peer.head()
            seen.append(peer.take(len(sent)))
            peer.ok()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            body = sent if whole else driver.parts([sent[:10], b"", sent[10:]])
            length = (b"Content-Length", b"%d" % len(sent))
            request = Outgoing(b"POST", b"/", [(b"Host", b"test"), length], body)
            assert driver.read(driver.send(connection, request)) == b"ok"
            assert connection.idle
            connection.close()
        assert seen == [sent]

    def test_a_body_of_unknown_length_goes_in_chunks(self, driver: Driver) -> None:
        seen: list[bytes] = []

        def serve(peer: Peer) -> None:
            peer.head()
            seen.append(peer.take(25))
            peer.ok()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            driver.read(driver.send(connection, post(driver.parts([b"hello", b"", b"world"]))))
            assert connection.idle
            connection.close()
        assert seen == [b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"]

    def test_a_large_response_arrives_whole(self, driver: Driver) -> None:
        with Scripted(lambda peer: [peer.ok(MUCH) for _ in iter(peer.head, b"")]) as server:
            connection = driver.connect(place(server))
            assert driver.read(driver.send(connection, get())) == MUCH
            parts = driver.all_parts(driver.send(connection, get()))
            assert b"".join(parts) == MUCH
            assert len(parts) > 1
            assert connection.idle
            connection.close()

    def test_chunks_and_trailers(self, driver: Driver) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            peer.say(b"0\r\nDigest: x\r\n\r\n")
            peer.rest()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, get())
            assert driver.read(response) == b"hello"
            assert response.trailers == [(b"Digest", b"x")]
            assert connection.idle
            connection.close()

    def test_interim_responses_are_skipped(self, driver: Driver) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
            peer.ok()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, get())
            assert response.status == 200
            driver.read(response)
            connection.close()

    def test_a_body_until_the_end_closes_the_connection(self, driver: Driver) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.0 200 OK\r\n\r\nall of it")

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            assert driver.read(driver.send(connection, get())) == b"all of it"
            assert connection.closed


class TestTheEndOfAResponse:
    def told(self, response: Any) -> list[str]:
        ends: list[str] = []
        response.on_end = lambda: ends.append("over")
        return ends

    def test_it_is_told_once(self, driver: Driver) -> None:
        with Scripted(serve_ok) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, get())
            ends = self.told(response)
            driver.read(response)
            driver.read(response)
            driver.close(response)
            assert ends == ["over"]
            assert connection.idle
            connection.close()

    def test_a_response_that_is_here_may_be_given_up_unread(self, driver: Driver) -> None:
        with Scripted(serve_ok) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, get())
            ends = self.told(response)
            if not response._machine.remaining:  # it came with the head, as a rule
                driver.close(response)
                assert connection.idle
                assert ends == ["over"]
            connection.close()

    def test_one_that_is_not_here_takes_its_connection_along(self, driver: Driver) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
            peer.rest()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, get())
            ends = self.told(response)
            driver.close(response)
            driver.close(response)
            assert ends == ["over"]
            assert connection.closed
            assert not connection.free()

    def test_what_is_at_hand_is_drained(self, driver: Driver) -> None:
        with Scripted(serve_ok) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, get())
            ends = self.told(response)
            assert driver.drain(response, 100)
            assert ends == ["over"]
            assert connection.free()
            connection.close()

    def test_no_more_is_drained_than_was_said(self, driver: Driver) -> None:
        with Scripted(lambda peer: [peer.ok(MUCH) for _ in iter(peer.head, b"")]) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, get())
            assert not driver.drain(response, 200_000)
            assert connection.closed

    def test_draining_waits_for_nothing(self, driver: Driver) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
            peer.rest()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, get())
            assert not driver.drain(response, 100)
            assert connection.closed

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Disconnected),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Disconnected),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", RemoteProtocolError),
        ],
    )
    def test_a_body_that_breaks_is_told_and_ends_the_connection(
        self, driver: Driver, answer: bytes, error: type[Exception]
    ) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(answer)

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, get())
            ends = self.told(response)
            with pytest.raises(error):
                driver.read(response)
            assert ends == ["over"]
            assert connection.closed

    def test_a_body_that_stops_times_out(self, driver: Driver) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
            peer.rest()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            own = bounds(read=20.0)
            response = driver.send(connection, get(), own)
            own._timeouts["read"] = 0.05  # it bounds what is read of the body, and not the wait for the head
            with pytest.raises(ReadTimeout):
                driver.read(response)
            assert connection.closed


class TestFailures:
    def test_a_peer_that_closes_without_an_answer(self, driver: Driver) -> None:
        with Scripted(Peer.head) as server:
            connection = driver.connect(place(server))
            own = bounds(read=20.0)
            with pytest.raises(Disconnected, match="before the response"):
                driver.send(connection, get(), own)
            assert own.sent
            assert connection.closed

    def test_nonsense(self, driver: Driver) -> None:
        with Scripted(lambda peer: (peer.head(), peer.say(b"SSH-2.0-OpenSSH\r\n\r\n"))) as server:
            connection = driver.connect(place(server))
            with pytest.raises(RemoteProtocolError):
                driver.send(connection, get())
            assert connection.closed

    def test_a_request_that_may_not_be_sent_leaves_the_connection_as_it_was(self, driver: Driver) -> None:
        with Scripted(serve_ok) as server:
            connection = driver.connect(place(server))
            own = bounds()
            with pytest.raises(LocalProtocolError):
                driver.send(connection, get(b"/ HTTP/1.1\r\nX: y"), own)
            assert not own.sent
            assert connection.free()
            assert driver.read(driver.send(connection, get())) == b"ok"
            connection.close()

    @pytest.mark.parametrize("parts", [[b"hello"], [b"hello", b"world!"]])
    def test_a_body_that_is_not_as_announced_closes_the_connection(
        self, driver: Driver, parts: list[bytes]
    ) -> None:
        with Scripted(lambda peer: peer.rest()) as server:
            connection = driver.connect(place(server))
            request = Outgoing(
                b"POST", b"/", [(b"Host", b"test"), (b"Content-Length", b"10")], driver.parts(parts)
            )
            with pytest.raises(LocalProtocolError):
                driver.send(connection, request)
            assert connection.closed

    def test_a_body_that_raises_closes_the_connection(self, driver: Driver) -> None:
        def broken() -> Iterator[bytes]:
            yield b"some"
            raise KeyError("of the application")

        with Scripted(lambda peer: peer.rest()) as server:
            connection = driver.connect(place(server))
            with pytest.raises(KeyError):
                driver.send(connection, post(driver.parts(broken())))
            assert connection.closed

    def test_a_kept_connection_that_the_peer_has_closed_is_not_free(self, driver: Driver) -> None:
        closed = threading.Event()

        def serve(peer: Peer) -> None:
            peer.head()
            peer.ok()
            peer.sock.shutdown(socket.SHUT_WR)  # half of it
            closed.set()
            peer.rest()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            driver.read(driver.send(connection, get()))
            assert closed.wait(10)
            until_it_is_heard(connection)
            connection.close()

    def test_a_kept_connection_with_bytes_that_nobody_asked_for_is_not_free(self, driver: Driver) -> None:
        said = threading.Event()

        def serve(peer: Peer) -> None:
            peer.head()
            peer.ok()
            assert go.wait(10)
            peer.say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            said.set()
            peer.rest()

        go = threading.Event()
        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            driver.read(driver.send(connection, get()))
            assert connection.free()
            go.set()
            assert said.wait(10)
            until_it_is_heard(connection)
            connection.close()

    def test_a_peer_that_has_gone_with_a_reset_was_sent_nothing(self, driver: Driver) -> None:
        # A first write that the system takes tells nothing; one that it refuses tells all.
        gone = threading.Event()

        def serve(peer: Peer) -> None:
            peer.head()
            peer.ok()
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.sock.close()
            gone.set()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            driver.read(driver.send(connection, get()))
            assert gone.wait(10)
            until_it_is_heard(connection)
            own = bounds(read=20.0)
            with pytest.raises((WriteError, ReadError)) as caught:
                driver.send(connection, get(), own)
            if isinstance(driver, Blocking):
                assert isinstance(caught.value, WriteError)
            assert own.sent == (not isinstance(caught.value, WriteError))
            assert connection.closed


class TestEarlyAnswers:
    @pytest.mark.parametrize("whole", [True, False])
    def test_an_answer_that_ends_an_upload_is_delivered(self, driver: Driver, whole: bool) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\n\r\nenough!")
            done.wait(20)  # and reads nothing more

        done = threading.Event()
        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            body = MUCH if whole else driver.parts([MUCH[:65_536]] * 256)
            response = driver.send(connection, post(body), bounds(read=20.0))
            assert response.status == 413
            assert driver.read(response) == b"enough!"
            assert connection.closed
            done.set()

    def test_an_answer_and_a_close_in_the_middle_of_an_upload(self, driver: Driver) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.take(100_000)
            peer.say(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
            peer.sock.shutdown(socket.SHUT_WR)
            done.wait(20)  # it takes no more, so that the upload is not over before the answer is there

        done = threading.Event()
        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, post(MUCH), bounds(read=20.0, write=20.0))
            assert response.status == 401
            assert driver.read(response) == b"no"
            assert connection.closed
            done.set()

    def test_a_whole_answer_with_success_ends_an_upload_that_nobody_reads(self, driver: Driver) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.ok(b"I know all I need")
            done.wait(20)

        done = threading.Event()
        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, post(MUCH), bounds())
            assert driver.read(response) == b"I know all I need"
            assert connection.closed
            done.set()

    def test_a_server_that_answers_first_and_reads_on_has_all_of_it(self, driver: Driver) -> None:
        seen: list[bytes] = []

        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            seen.append(peer.take(len(MUCH)))
            peer.say(b"done")
            peer.rest()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, post(MUCH), bounds(read=20.0, write=20.0))
            assert driver.read(response) == b"done"
            assert connection.idle
            connection.close()
        assert seen == [MUCH]

    def test_success_that_reads_no_more_is_delivered_in_time(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("connection", "connection_async"):
            monkeypatch.setattr(f"meshlib.wire.{module}.PATIENCE", 0.1)

        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            assert delivered.wait(20)
            peer.say(b"0\r\n\r\n")

        delivered = threading.Event()
        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, post(MUCH), bounds(read=20.0))
            delivered.set()
            assert response.status == 200
            assert driver.read(response) == b"hello"
            assert connection.closed

    def test_no_more_of_an_early_answer_is_kept_than_a_bound(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("connection", "connection_async"):
            monkeypatch.setattr(f"meshlib.wire.{module}.PATIENCE", 60.0)

        def serve(peer: Peer) -> None:
            peer.head()
            peer.ok(MUCH)  # before it reads, and it never does
            peer.rest()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, post(MUCH), bounds(read=20.0))
            assert sum(map(len, response._early)) < 2_000_000
            assert driver.read(response) == MUCH
            assert connection.closed

    @pytest.mark.parametrize("driver", ["asyncio", "uvloop", "trio"], indirect=True)
    def test_an_answer_that_is_there_when_time_is_over_is_too_late(self, driver: Driver) -> None:
        """Where the time bounds the whole body: a thread waits for room and for an answer at once, and bounds the wait."""

        def serve(peer: Peer) -> None:
            peer.ok()
            told.set()
            done.wait(20)

        told, done = threading.Event(), threading.Event()
        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            assert told.wait(20)
            with pytest.raises(WriteTimeout):
                driver.send(connection, post(MUCH), bounds(read=20.0, write=1e-9))
            assert connection.closed
            done.set()

    def test_a_peer_that_takes_nothing_and_says_nothing_is_a_timeout(self, driver: Driver) -> None:
        done = threading.Event()
        with Scripted(lambda peer: (peer.head(), done.wait(20))) as server:
            connection = driver.connect(place(server))
            with pytest.raises(WriteTimeout):
                driver.send(connection, post(MUCH), bounds(read=20.0, write=0.1))
            assert connection.closed
            done.set()


class TestExpectContinue:
    EXPECT = (b"Expect", b"100-continue")

    @staticmethod
    def wait_at_most(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("connection", "connection_async"):
            monkeypatch.setattr(f"meshlib.wire.{module}.CONTINUE_SECONDS", seconds)

    def test_the_body_waits_for_100(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wait_at_most(20.0, monkeypatch)
        seen: list[bytes] = []

        def serve(peer: Peer) -> None:
            peer.head()
            peer.sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.sock.recv(1)
            peer.sock.settimeout(20)
            peer.say(b"HTTP/1.1 100 Continue\r\n\r\n")
            seen.append(peer.take(5))
            peer.ok()
            peer.rest()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            assert driver.read(driver.send(connection, post(b"hello", self.EXPECT))) == b"ok"
            assert connection.idle
            connection.close()
        assert seen == [b"hello"]

    def test_a_final_head_instead_is_delivered_and_the_body_never_sent(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.wait_at_most(20.0, monkeypatch)
        seen: list[bytes] = []

        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
            seen.append(peer.rest())

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, post(b"hello", self.EXPECT))
            assert response.status == 417
            assert driver.read(response) == b""
            assert connection.closed
        assert seen == [b""]

    def test_it_does_not_wait_for_long(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wait_at_most(0.05, monkeypatch)
        seen: list[bytes] = []

        def serve(peer: Peer) -> None:
            peer.head()
            seen.append(peer.take(5))  # a server that knows nothing of it
            peer.ok()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            assert driver.read(driver.send(connection, post(b"hello", self.EXPECT))) == b"ok"
            connection.close()
        assert seen == [b"hello"]


class TestUpgrades:
    def test_101_hands_the_stream_over_with_what_came_behind_it(self, driver: Driver) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst")
            peer.say(peer.take(5))
            peer.rest()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            request = get(b"/", (b"Connection", b"upgrade"), (b"Upgrade", b"echo"))
            response = driver.send(connection, request)
            assert response.status == 101
            assert driver.read(response) == b""
            assert driver.read(response) == b""
            stream = response.network_stream
            assert response.network_stream is stream
            got = driver.call(stream.read, 3, 10.0)
            while len(got) < 5:
                got += driver.call(stream.read, 100, 10.0)
            assert got == b"first"
            driver.call(stream.write, b"hello")
            assert driver.call(stream.read, 100) == b"hello"
            assert not connection.idle
            driver.close(response)
            assert connection.closed

    def test_connect_makes_a_tunnel(self, driver: Driver) -> None:
        def serve(peer: Peer) -> None:
            assert peer.head().startswith(b"CONNECT far:443 HTTP/1.1")
            peer.say(b"HTTP/1.1 200 OK\r\n\r\n")
            peer.say(peer.take(5))
            peer.rest()

        with Scripted(serve) as server:
            connection = driver.connect(place(server))
            response = driver.send(connection, Outgoing(b"CONNECT", b"far:443", [(b"Host", b"far:443")]))
            stream = response.network_stream
            driver.call(stream.write, b"hello")
            assert driver.call(stream.read, 100) == b"hello"
            assert stream.get_extra_info("server_addr")[1] == server.port
            response.network_stream.translate = lambda error: TimeoutError(str(error))
            with pytest.raises(TimeoutError):
                driver.call(stream.read, 100, 0.01)
            driver.close(response)
            assert connection.closed


class TestTraces:
    def test_each_step_is_told_by_httpcores_names(self, driver: Driver) -> None:
        told: list[tuple[str, dict[str, Any]]] = []

        def trace(name: str, info: dict[str, Any]) -> None:
            told.append((name, info))

        with Scripted(serve_ok) as server:
            connection = driver.connect(place(server), trace=trace)
            request = get(trace=trace)
            driver.read(driver.send(connection, request))
            connection.close()
        assert [name for name, _ in told] == [
            "connection.connect_tcp.started",
            "connection.connect_tcp.complete",
            "http11.send_request_headers.started",
            "http11.send_request_headers.complete",
            "http11.send_request_body.started",
            "http11.send_request_body.complete",
            "http11.receive_response_headers.started",
            "http11.receive_response_headers.complete",
            "http11.receive_response_body.started",
            "http11.receive_response_body.complete",
            "http11.response_closed.started",
            "http11.response_closed.complete",
        ]
        assert told[0][1]["host"] == "127.0.0.1"
        assert told[2][1] == {"request": request}
        shown = (b"HTTP/1.1", 200, b"OK", [(b"Content-Length", b"2")])
        assert told[7][1] == {"return_value": shown}
        assert told[8][1] == {"request": request}

    def test_a_step_that_fails(self, driver: Driver) -> None:
        told: list[str] = []
        with Scripted(Peer.head) as server:
            connection = driver.connect(place(server))
            with pytest.raises(Disconnected):
                driver.send(connection, get(trace=lambda name, _: told.append(name)))
        assert told[-1] == "http11.receive_response_headers.failed"


@again_if_late  # others may open and close some meanwhile
def test_no_descriptor_is_left(driver: Driver) -> None:
    def calls() -> int:
        with Scripted(serve_ok) as server:
            for _ in range(3):
                connection = driver.connect(place(server))
                driver.read(driver.send(connection, get()))
                connection.close()
            driver.settle()
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    soon(abs(calls() - calls()), 1, "descriptors more or less")


class TestReadInto:
    def test_a_body_goes_into_the_callers_buffer(self) -> None:
        with Scripted(lambda peer: [peer.ok(MUCH) for _ in iter(peer.head, b"")]) as server:
            driver = Blocking()
            connection = driver.connect(place(server))
            response = driver.send(connection, get())
            buffer, got = bytearray(300_000), bytearray()
            while count := response.readinto(buffer):
                got += buffer[:count]
            assert got == MUCH
            assert response.readinto(buffer) == 0
            assert connection.idle
            connection.close()

    def test_nothing_beyond_the_body_is_read(self) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
            assert begun.wait(20)
            peer.say(b"56789HTTP/1.1 200 OK\r\n")
            peer.rest()

        begun = threading.Event()
        with Scripted(serve) as server:
            connection = Blocking().connect(place(server))
            response = connection.send(get(), bounds(read=20.0))
            buffer, got = bytearray(100), b""
            while count := response.readinto(buffer):
                got += bytes(buffer[:count])
                begun.set()
            assert got == b"0123456789"
            assert not connection.free()  # what nobody asked for waits in the socket
            connection.close()

    def test_small_buffers_and_chunks(self) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"
            )
            peer.rest()

        with Scripted(serve) as server:
            connection = Blocking().connect(place(server))
            response = connection.send(get(), bounds(read=20.0))
            buffer, got = bytearray(3), b""
            while count := response.readinto(buffer):
                got += bytes(buffer[:count])
            assert got == b"helloworld"
            assert connection.idle
            connection.close()

    def test_a_body_that_breaks(self) -> None:
        def serve(peer: Peer) -> None:
            peer.head()
            peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")

        with Scripted(serve) as server:
            connection = Blocking().connect(place(server))
            response = connection.send(get(), bounds(read=20.0))
            ends: list[str] = []
            response.on_end = lambda: ends.append("over")
            buffer = bytearray(100)
            assert response.readinto(buffer) == 5
            with pytest.raises(Disconnected):
                response.readinto(buffer)
            assert ends == ["over"]
            assert connection.closed
