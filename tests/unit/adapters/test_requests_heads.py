"""Response heads: what is read fast is what ``http.client`` reads."""

from __future__ import annotations

import http.client
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import connection
from urllib3.util import SKIP_HEADER

from meshlib_requests.connections import HTTPConnection
from meshlib_requests.heads import Head


class Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._data))  # type: ignore[arg-type]


def read(kind: type[http.client.HTTPResponse], data: bytes, method: str = "GET") -> Any:
    """All that is known of a response, or the error that it is."""
    response = kind(Socket(data), 0, method)  # type: ignore[arg-type]
    try:
        response.begin()
        return (
            response.version,
            response.status,
            response.reason,
            response.msg.items(),
            response.chunked,
            response.length,
            response.will_close,
            response.read(),
        )
    except http.client.HTTPException as error:
        return type(error), str(error)


PLAIN = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 Not  Found \r\nContent-length:3\r\nconnection: Close\r\n\r\nabc",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-Empty:\r\nX-Space:  a \t b  \r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\n\r\n",
]
ODD = [
    b"",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nX-Long: a\r\n b\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    b"HTTP/1.1 200 OK\r\nX-Name: caf\xe9\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 2x0 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nNo colon here\r\nContent-Length: 2\r\n\r\nhi",
    b"ICY 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(120)) + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("data", PLAIN + ODD)
def test_as_http_client_reads_it(data: bytes, method: str) -> None:
    assert read(Head, data, method) == read(http.client.HTTPResponse, data, method)


NAMES = st.sampled_from(
    ["Content-Length", "Transfer-Encoding", "Connection", "X-A", "Set-Cookie", "x_b!", "A:", ""]
)
VALUES = st.sampled_from(
    ["0", "2", "chunked", "Chunked", "close", "keep-alive", "a, b", " x ", "\t", "é", "\x0b", ""]
)
LINES = st.lists(st.tuples(NAMES, VALUES), max_size=6)


@given(
    LINES,
    st.sampled_from(["200 OK", "304 Not Modified", "200", "2000 X", "199 No"]),
    st.sampled_from(["GET", "HEAD"]),
)
def test_any_lines(lines: list[tuple[str, str]], status: str, method: str) -> None:
    text = "".join(f"{name}: {value}\r\n" for name, value in lines)
    data = f"HTTP/1.1 {status}\r\n{text}\r\n".encode("latin-1") + b"2\r\nhi\r\n0\r\n\r\n"
    assert read(Head, data, method) == read(http.client.HTTPResponse, data, method)


def test_the_message_is_the_same_kind() -> None:
    response = Head(Socket(PLAIN[4]), 0, "GET")  # type: ignore[arg-type]
    response.begin()
    assert response.msg.get_all("set-cookie") == ["a=b", "c=d"]
    assert response.getheader("SET-COOKIE") == "a=b, c=d"
    assert not response.msg.defects


def written(kind: type[connection.HTTPConnection], lines: dict[Any, Any]) -> Any:
    """The head of a request, or the error that it is."""
    sent: list[bytes] = []
    made = kind("reviews", 80)
    made.send = sent.append  # type: ignore[method-assign,assignment]
    try:
        made.request("GET", "/a?b=c", headers=lines)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
        return type(error), str(error)
    return sent


names = st.sampled_from(
    ["Accept", "X-A", "user-agent", "host", b"X-Bytes", "X A", "", "X:A", "X-\xe9", "X-A\r\n"]
)
values = st.one_of(
    st.text(st.characters(max_codepoint=0x100), max_size=8),
    st.sampled_from(
        [SKIP_HEADER, b"bytes", "", " gold\t", "a\r\nB: c", "a\r\n b", "a\nb", "\x00", "\x7f", 7]
    ),
)


@given(st.dictionaries(names, values, max_size=5))
def test_lines_are_written_as_urllib3_writes_them(lines: dict[Any, Any]) -> None:
    assert written(HTTPConnection, lines) == written(connection.HTTPConnection, lines)
