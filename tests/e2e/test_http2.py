"""HTTP/2 connections against real servers: Go's net/http, nghttp2's nghttpd, and an Envoy before Go's."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.wire.dial import Place, connect
from meshlib.wire.dial_async import connect_async
from meshlib.wire.errors import ReadError, RemoteProtocolError, StreamRefused
from meshlib.wire.message import Outgoing
from tests.support.http2_servers import envoy, go_server, nghttpd

CLOCK = MonotonicClock()


def bounds(read: float = 30.0) -> Bounds:
    return Bounds(CLOCK, None, {"read": read, "write": 30.0, "connect": 30.0})


def asked(path: str, method: str = "GET", body: Any = None, *lines: tuple[bytes, bytes]) -> Outgoing:
    return Outgoing(method.encode(), path.encode(), [(b"Host", b"mesh.test"), *lines], body)


class Answer(NamedTuple):
    status: int
    body: bytes
    trailers: list[tuple[bytes, bytes]]


class Sync:
    """Calls by threads."""

    def __init__(self, place: Place) -> None:
        self.connection = connect(place, bounds())
        self._pool = ThreadPoolExecutor(64)

    def call(self, *what: Any) -> Answer:
        return self._call(asked(*what), bounds())

    def many(self, requests: list[Outgoing], read: float = 30.0) -> list[Any]:
        """The answers, or what was raised instead, in order."""
        return [later.exception() or later.result() for later in self.begin(requests, read)]

    def begin(self, requests: list[Outgoing], read: float = 30.0) -> list[Any]:
        return [self._pool.submit(self._call, one, bounds(read)) for one in requests]

    def end(self, begun: list[Any]) -> list[Any]:
        return [later.exception() or later.result() for later in begun]

    def together(self, count: int, path: str) -> list[Answer]:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda _: self.call(path), range(count)))

    def parts(self, *parts: bytes) -> Any:
        return iter(parts)

    def close(self) -> None:
        self.connection.close()
        self._pool.shutdown()

    def _call(self, request: Outgoing, within: Bounds) -> Answer:
        response = self.connection.send(request, within)
        return Answer(response.status, response.read(), response.trailers)


class Async:
    """Calls by tasks."""

    def __init__(self, place: Place) -> None:
        self._runner = asyncio.Runner()
        self.connection = self._runner.run(connect_async(place, bounds()))

    def call(self, *what: Any) -> Answer:
        return self._runner.run(self._call(asked(*what), bounds()))

    def many(self, requests: list[Outgoing], read: float = 30.0) -> list[Any]:
        return self.end(self.begin(requests, read))

    def begin(self, requests: list[Outgoing], read: float = 30.0) -> list[Any]:
        async def start() -> list[Any]:
            tasks = [asyncio.create_task(self._call(one, bounds(read))) for one in requests]
            await asyncio.sleep(0)
            return tasks

        return self._runner.run(start())

    def end(self, begun: list[Any]) -> list[Any]:
        async def gather() -> list[Any]:
            return await asyncio.gather(*begun, return_exceptions=True)

        return self._runner.run(gather())

    def together(self, count: int, path: str) -> list[Answer]:
        return self.many([asked(path)] * count)

    def parts(self, *parts: bytes) -> Any:
        async def given() -> Any:
            for part in parts:
                yield part

        return given()

    def close(self) -> None:
        async def close() -> None:
            self.connection.close()
            await asyncio.sleep(0)

        self._runner.run(close())
        self._runner.close()

    async def _call(self, request: Outgoing, within: Bounds) -> Answer:
        response = await self.connection.send(request, within)
        return Answer(response.status, await response.aread(), response.trailers)


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def caller(request):
    """Makes callers of either kind, and closes them."""
    made = []

    def make(port: int, **options: Any) -> Any:
        place = Place("127.0.0.1", port, http2=True, **({"http1": False} | options))
        made.append(request.param(place))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def go():
    with go_server(streams=1000) as port:
        yield port


@pytest.fixture(scope="module", params=["go", "envoy"])
def port(request, go, tmp_path_factory):
    """Go's server, and an Envoy before it."""
    if request.param == "go":
        yield go
        return
    with envoy(tmp_path_factory.mktemp("envoy"), go) as running:
        yield running.plain


def test_calls_one_after_another_and_many_at_once(port, caller):
    one = caller(port)
    assert one.call("/hello?name=you") == (200, b"hello you", [])
    assert one.call("/hello", "HEAD") == (200, b"", [])
    answers = one.many([asked(f"/hello?name={number}") for number in range(90)])
    assert [answer.body for answer in answers] == [b"hello %d" % number for number in range(90)]
    assert one.connection.free()
    assert one.connection.idle


def test_uploads_and_downloads_larger_than_any_window(port, caller):
    one = caller(port)
    body = os.urandom(3_000_000)
    length = (b"Content-Length", b"3000000")
    assert one.call("/count", "POST", body, length).body == b"3000000"
    assert one.call("/count", "POST", one.parts(body, b"", body)).body == b"6000000"
    assert len(one.call("/bytes?count=20000000").body) == 20_000_000
    answers = one.many([asked("/count", "POST", body, length)] * 4 + [asked("/bytes?count=5000000")] * 4)
    assert [answer.body for answer in answers[:4]] == [b"3000000"] * 4
    assert [len(answer.body) for answer in answers[4:]] == [5_000_000] * 4


def test_an_echo_goes_both_ways_at_once_and_ends_with_trailers(port, caller):
    one = caller(port)
    body = os.urandom(4_000_000)
    answer = one.call("/echo", "POST", body)
    assert answer.body == body
    assert answer.trailers == [(b"x-count", b"4000000")]


def test_interim_heads_are_passed_over(port, caller):
    assert caller(port).call("/hints") == (200, b"hinted", [])


def test_a_body_that_waits_for_100(port, caller):
    one = caller(port)
    expect = (b"Expect", b"100-continue")
    assert one.call("/count", "POST", b"body", expect).body == b"4"


def test_an_early_answer_to_a_large_upload_is_delivered(port, caller):
    one = caller(port)
    for _ in range(5):
        answer = one.call("/early", "POST", os.urandom(5_000_000))
        assert (answer.status, answer.body) == (413, b"too much")
    assert one.call("/hello").status == 200


def test_what_breaks_one_response_breaks_no_other(port, caller):
    one = caller(port)
    wrong = [asked(path) for path in ("/abort", "/lie") for _ in range(20)]
    right = [asked("/bytes?count=100000")] * 40
    mixed = [request for pair in zip(wrong, right, strict=True) for request in pair]
    answers = one.many(mixed)
    assert all(isinstance(answer, ReadError | RemoteProtocolError) for answer in answers[::2])
    assert [len(answer.body) for answer in answers[1::2]] == [100_000] * 40
    assert one.connection.free()


def test_a_call_that_gives_up_is_reset_at_the_server(port, caller):
    one, other = caller(port), caller(port)
    before = int(other.call("/waiting").body.split()[1])
    begun = one.begin([asked("/wait")] * 10, read=0.5)
    answers = one.end(begun)
    assert all(isinstance(answer, ReadError) for answer in answers)
    while other.call("/waiting").body != b"0 %d" % (before + 10):
        pass
    assert one.call("/hello").status == 200


def test_a_thousand_streams_at_once(caller):
    with go_server(streams=1000) as port:
        one = caller(port)
        one.call("/hello")
        assert one.connection.streams == 1000
        answers = one.together(1000, "/together?count=1000")
        assert {answer.body for answer in answers} == {b"together"}
        assert one.connection.free()


def test_a_server_that_shuts_down_ends_what_it_began(caller):
    with go_server() as port:
        one, other = caller(port), caller(port)
        begun = one.begin([asked("/wait")])
        while other.call("/waiting").body != b"1 0":
            pass
        begun += one.begin([asked("/shutdown")])
        assert one.end(begun[1:]) == [(200, b"bye", [])]
        while one.connection.free():
            one.many([])
        assert isinstance(one.many([asked("/hello")])[0], StreamRefused)
        assert one.connection.streams == 0
        assert not begun[0].done()
        one.connection.close()
        assert isinstance(one.end(begun[:1])[0], ReadError)


# ---------------------------------------------------------------------------------------------------------- nghttp2's


def test_nghttpds_files_trailers_and_small_windows(tmp_path, caller):
    (tmp_path / "file").write_bytes(bytes(range(256)) * 10_000)
    with nghttpd(
        tmp_path, "--trailer", "x-end: here", "-w", "12", "-W", "16", "-m", "7", "--echo-upload"
    ) as port:
        one = caller(port)
        answer = one.call("/file")
        assert (answer.status, answer.body) == (200, bytes(range(256)) * 10_000)
        assert (b"x-end", b"here") in answer.trailers
        assert one.connection.streams == 7
        body = os.urandom(1_000_000)
        assert one.call("/file", "POST", body).body == body
        answers = one.many([asked("/file")] * 7)
        assert [len(answer.body) for answer in answers] == [2_560_000] * 7
        assert one.call("/missing").status == 404


def test_more_calls_than_a_server_takes_are_refused_and_none_other(tmp_path, caller):
    (tmp_path / "file").write_bytes(b"x" * 2_000_000)
    with nghttpd(tmp_path, "-m", "5") as port:
        one = caller(port)
        one.call("/file")
        answers = one.many([asked("/file")] * 50)
        kinds = {type(answer) for answer in answers}
        assert kinds <= {Answer, StreamRefused}
        assert [answer.status for answer in answers if isinstance(answer, Answer)].count(200) >= 5
        assert one.call("/file").status == 200


def test_nghttpd_pushes_nothing(tmp_path, caller):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "pushed").write_bytes(b"y")
    with nghttpd(tmp_path, "--push", "/file=/pushed") as port:
        one = caller(port)
        assert one.call("/file").body == b"x"
        assert one.call("/file").body == b"x"


# ------------------------------------------------------------------------------------------------------------- Envoy's


def test_envoy_over_tls_where_alpn_decides(go, tmp_path, caller):
    with envoy(tmp_path, go) as running:
        context = ssl.create_default_context()
        running.authority.configure_trust(context)
        for http1, version in ((True, b"HTTP/2"), (False, b"HTTP/2")):
            one = caller(running.tls, http1=http1, context=context, server_hostname="mesh.test")
            assert one.connection.version == version
            assert one.connection.stream.protocol == b"h2"
            assert one.call("/here").body == b"from Envoy"
            body = os.urandom(2_000_000)
            assert one.call("/echo", "POST", body).body == body
            answers = one.many([asked("/bytes?count=300000")] * 30 + [asked("/count", "POST", body)] * 5)
            assert [len(answer.body) for answer in answers[:30]] == [300_000] * 30
            assert [answer.body for answer in answers[30:]] == [b"2000000"] * 5


def test_an_envoy_that_drains_says_so_and_ends_what_it_began(go, tmp_path, caller):
    with envoy(tmp_path, go) as running:
        one = caller(running.plain)
        one.call("/here")
        assert one.connection.free()
        running.ask("POST", "/drain_listeners?graceful")
        while one.connection.free():  # Envoy says it with an answer
            answers = one.many([asked("/bytes?count=100000")] * 5)
            assert all(isinstance(answer, Answer | StreamRefused) for answer in answers)
        assert one.connection.streams == 0


def test_envoy_counts_no_error_of_ours(go, tmp_path, caller):
    with envoy(tmp_path, go) as running:
        one = caller(running.plain)
        body = os.urandom(500_000)
        one.many(
            [asked("/echo", "POST", body)] * 20 + [asked("/abort")] * 20 + [asked("/wait")] * 20, read=1.0
        )
        assert one.call("/hello").status == 200
        for name in (
            "rx_messaging_error",
            "tx_flush_timeout",
            "outbound_control_flood",
            "inbound_empty_frames_flood",
        ):
            assert running.stat(f"http2.{name}") == 0
        assert running.stat("http.in.downstream_cx_protocol_error") == 0


def test_greenlets_that_are_killed_or_out_of_time_leave_the_others_alone(go):
    pytest.importorskip("gevent")
    program = Path(__file__).parents[1] / "support" / "gevent_http2.py"
    done = subprocess.run(
        [sys.executable, str(program), str(go)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        cwd=program.parents[2],
    )
    assert done.returncode == 0, done.stderr
    ended = json.loads(done.stdout)
    assert ended["wrong"] == 0
    assert ended["free"]
    assert ended["left"] == 0
    assert ended["timeout"] == 50
    assert ended["killed"] >= 50
    # Who was killed after it was done, or before it began, is in no number.
    assert ended["done"] >= 2 + 10 * (10 + 15)
