"""Calls of requests and urllib3 over our own connections: what both show of them, and what goes wrong beneath."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from urllib3.exceptions import IncompleteRead, ProtocolError, ResponseNotChunked

import meshlib
import meshlib_requests
from meshlib.testing import Upstream
from meshlib_requests.urllib3 import PoolManager
from tests.support.raw_server import RawServer

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def mesh(server: RawServer) -> Iterator[meshlib.Mesh]:
    service = {
        "endpoints": [server.address],
        "breaker": {"consecutive_failures": 1},
        "outlier": {"consecutive_5xx": 1, "max_ejection_percent": 100},
    }
    with meshlib.Mesh({"services": {"reviews": service}}) as made:
        yield made


@pytest.fixture
def pool(mesh: meshlib.Mesh) -> Iterator[Any]:
    with PoolManager(mesh=mesh, retries=False) as manager:
        yield manager.connection_from_url("http://reviews/")


@pytest.fixture
def session(mesh: meshlib.Mesh) -> Iterator[meshlib_requests.Session]:
    with meshlib_requests.Session(mesh=mesh) as made:
        yield made


def is_blameless(mesh: meshlib.Mesh) -> bool:
    status = mesh.status().clusters["reviews"]
    return (status.endpoints[0].health, status.breaker) == ("healthy", "closed")


# --- what a response shows -------------------------------------------------------------------------------------------------


def test_chunks_are_given_as_they_come(server: RawServer, pool: Any) -> None:
    server.answer = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    response = pool.urlopen("GET", "/", preload_content=False)
    assert response.supports_chunked_reads()
    assert b"".join(response.read_chunked(2)) == b"abcdefg"
    response = pool.urlopen("GET", "/", preload_content=False)
    assert [len(part) for part in response.stream(5)] == [5, 2]
    assert pool.num_connections == 1


def test_what_is_not_chunked_is_not_read_as_chunks(pool: Any) -> None:
    response = pool.urlopen("GET", "/", preload_content=False)
    with pytest.raises(ResponseNotChunked):
        next(response.read_chunked())
    response.close()


@pytest.mark.parametrize("amount", [None, 1, 4])
def test_a_body_is_read_in_any_portions(server: RawServer, pool: Any, amount: int | None) -> None:
    server.answer = HEAD + b"Content-Length: 6\r\n\r\nabcdef"
    response = pool.urlopen("GET", "/", preload_content=False)
    assert response.connection.sock.getpeername()[1] == int(server.address.rpartition(":")[2])
    parts = list(iter(lambda: response.read(amount), b""))
    assert b"".join(parts) == b"abcdef"
    assert response.connection is None
    assert (response.tell(), response.length_remaining) == (6, 0)


def test_what_was_read_in_part_is_closed(server: RawServer, pool: Any) -> None:
    server.answer = HEAD + b"Content-Length: 6\r\n\r\nabcdef"
    response = pool.urlopen("GET", "/", preload_content=False)
    assert response.read(2) == b"ab"
    response.close()
    assert response.closed
    assert response.read() == b""


def test_an_encoded_body_is_decoded(server: RawServer, pool: Any) -> None:
    import gzip

    data = gzip.compress(b"x" * 5000)
    server.answer = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(data) + data
    assert pool.urlopen("GET", "/").data == b"x" * 5000
    response = pool.urlopen("GET", "/", preload_content=False)
    assert b"".join(response.stream(700)) == b"x" * 5000
    assert pool.num_connections == 1


def test_a_body_that_is_cut_short_is_told_as_urllib3_does(server: RawServer, pool: Any) -> None:
    server.answer = HEAD + b"Content-Length: 9\r\nConnection: close\r\n\r\nabc"
    response = pool.urlopen("GET", "/", preload_content=False, enforce_content_length=False)
    server._open[-1].shutdown(socket.SHUT_RDWR)
    assert response.read() == b"abc"
    response = pool.urlopen("GET", "/", preload_content=False)
    server._open[-1].shutdown(socket.SHUT_RDWR)
    with pytest.raises(ProtocolError, match="3 bytes read, 6 more expected") as caught:
        response.read(100)
    assert isinstance(caught.value, meshlib.TransportFailed)
    assert isinstance(caught.value.args[1], IncompleteRead)


def test_the_timeout_of_further_reads_can_be_set_as_botocore_does(server: RawServer, pool: Any) -> None:
    server.answer = HEAD + b"Content-Length: 9\r\n\r\nabc"
    response = pool.urlopen("GET", "/", preload_content=False)
    response._fp.fp.raw._sock.settimeout(0.05)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        response.read()


def test_reading_can_be_stopped_from_another_thread(server: RawServer, pool: Any) -> None:
    server.answer = HEAD + b"Content-Length: 9\r\n\r\nabc"
    response = pool.urlopen("GET", "/", preload_content=False)
    assert response.read(3) == b"abc"
    stopping = threading.Thread(target=response.shutdown)
    stopping.start()
    with pytest.raises(ProtocolError):
        response.read(6)
    stopping.join()
    with pytest.raises(ValueError, match="Cannot shutdown"):
        response.shutdown()


def test_cookies_and_repeated_lines_are_seen(server: RawServer, session: meshlib_requests.Session) -> None:
    server.answer = HEAD + b"Set-Cookie: a=1\r\nset-cookie: b=2\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n"
    response = session.get("http://reviews/")
    assert session.cookies.get_dict() == {"a": "1", "b": "2"}
    assert response.raw.headers.getlist("Set-Cookie") == ["a=1", "b=2"]
    assert response.raw._original_response.msg.get_all("x-a") == ["1"]


def test_urllib3s_lines_are_logged(pool: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "urllib3.connectionpool"):
        pool.urlopen("GET", "/a?b=1")
    assert [record.getMessage() for record in caplog.records if record.name.startswith("urllib3")] == [
        "Starting new HTTP connection (1): reviews:80",
        'http://reviews:80 "GET /a?b=1 HTTP/1.1" 200 2',
    ]
    assert pool.num_requests == 1


# --- what goes wrong --------------------------------------------------------------------------------------------------------


def test_lengths_that_contradict_each_other(
    server: RawServer, session: meshlib_requests.Session, mesh: meshlib.Mesh
) -> None:
    server.answer = HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok"
    with pytest.raises(requests.exceptions.InvalidHeader) as caught:
        session.get("http://reviews/")
    assert isinstance(caught.value, meshlib.errors.ProtocolError)
    assert not is_blameless(mesh)


@pytest.mark.parametrize("line", ["bad\nline", "bad\rline"])
def test_a_line_that_may_not_be_there_is_no_endpoints_fault(
    server: RawServer, pool: Any, mesh: meshlib.Mesh, line: str
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is http.client's alone
        pool.urlopen("GET", "/", headers={"X-A": line})
    assert server.heads == []
    assert is_blameless(mesh)
    assert pool.urlopen("GET", "/").status == 200


def test_a_bundle_that_cannot_be_read_is_no_endpoints_fault(
    server: RawServer, mesh: meshlib.Mesh, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("no certificate")
    with meshlib_requests.Session(mesh=mesh) as session:
        with pytest.raises(requests.exceptions.SSLError):
            session.get("https://reviews/", verify=str(bundle))
        assert is_blameless(mesh)
        assert session.get("http://reviews/").text == "ok"


def test_a_body_that_fails_is_the_callers_own_error(pool: Any, mesh: meshlib.Mesh) -> None:
    def broken() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        pool.urlopen("PUT", "/", body=broken())
    assert is_blameless(mesh)
    assert sum(cluster.active for cluster in mesh.status().clusters.values()) == 0
    assert pool.urlopen("GET", "/").status == 200


def test_total_bounds_connecting_and_reading_together(server: RawServer, pool: Any) -> None:
    server.answer = HEAD + b"Content-Length: 9\r\n\r\nabc"
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        pool.urlopen("GET", "/", timeout=urllib3.Timeout(total=1.0))


# --- who looks on -----------------------------------------------------------------------------------------------------------


def test_an_instrumentation_of_http_client_sees_each_attempt(
    server: RawServer, session: meshlib_requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Sentry's: it times from ``putrequest`` to ``getresponse``, and adds lines."""
    seen: list[Any] = []
    putrequest, getresponse = http.client.HTTPConnection.putrequest, http.client.HTTPConnection.getresponse

    def put(self: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
        seen.append((method, self.host, url))
        putrequest(self, method, url, *args, **options)
        self.putheader("x-trace", "1")

    def get(self: Any, *args: Any, **options: Any) -> Any:
        found = getresponse(self, *args, **options)
        seen.append((found.status, found.getheader("content-length")))
        return found

    monkeypatch.setattr(http.client.HTTPConnection, "putrequest", put)
    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", get)
    assert session.get("http://reviews/a").text == "ok"
    assert seen == [("GET", "reviews", "/a"), (200, "2")]
    assert b"x-trace: 1" in server.heads[0]


def test_the_shortcuts_can_be_switched_off(
    session: meshlib_requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    own = requests.PreparedRequest.prepare
    monkeypatch.setattr(
        requests.PreparedRequest, "prepare", lambda self, *a, **o: (asked.append(""), own(self, *a, **o))[1]
    )
    assert session.get("http://reviews/").text == "ok"
    assert asked == []
    session.shortcuts = False
    assert session.get("http://reviews/").text == "ok"
    assert asked == [""]


def test_many_pools_of_one_host_leave_nothing_open() -> None:
    """Managers that are dropped, and not closed, end their connections."""
    with Upstream("a") as one, meshlib.Mesh({"services": {"reviews": {"endpoints": [one.address]}}}) as mesh:
        for _ in range(20):
            PoolManager(mesh=mesh).request("GET", "http://reviews/")
        one.wait_for(lambda: one.connections_open == 0)
        assert mesh.status().clusters["reviews"].active == 0
