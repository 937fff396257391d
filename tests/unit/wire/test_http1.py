"""The machine of HTTP/1.1: what it sends, what it tells of a response, when its connection may be used again."""

from __future__ import annotations

import pytest

from meshlib.wire.errors import Disconnected, LocalProtocolError, RemoteProtocolError
from meshlib.wire.http1 import END, Http1, Interim
from meshlib.wire.message import Head

HOST = [(b"Host", b"shop")]


@pytest.fixture
def wire(parse):
    return Http1(parse=parse)


def ask(wire, method=b"GET", headers=(), body=None):
    return wire.request(method, b"/", [*HOST, *headers], body)


def events(wire):
    """All that is at hand."""
    found = []
    while (event := wire.next()) is not None:
        found.append(event)
        if event is END:
            break
    return found


def test_a_get_and_its_answer(wire):
    assert ask(wire, headers=[(b"X-Name", b"a b")]) == b"GET / HTTP/1.1\r\nHost: shop\r\nX-Name: a b\r\n\r\n"
    assert not wire.reusable
    wire.feed(b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX-Of: the Server\r\n\r\nhello")
    head, body, end = events(wire)
    assert (head.status, head.reason, head.version) == (200, b"Fine", b"HTTP/1.1")
    assert head.headers == [(b"Content-Length", b"5"), (b"X-Of", b"the Server")]
    assert body == b"hello"
    assert end is END
    assert wire.next() is None
    assert wire.reusable


def test_the_next_request_on_the_same_connection(wire):
    for body in (b"one", b"three"):
        ask(wire)
        wire.feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert events(wire)[1] == body
        assert wire.reusable


def test_chunks_and_trailers(wire):
    ask(wire)
    wire.feed(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
    )
    head, body, end = events(wire)
    assert isinstance(head, Head)
    assert (body, end) == (b"abcde", END)
    assert wire.trailers == [(b"X-Sum", b"5")]
    assert wire.reusable
    ask(wire)
    assert wire.trailers == []


def test_a_body_until_the_connection_ends(wire):
    ask(wire)
    wire.feed(b"HTTP/1.1 200 OK\r\n\r\nab")
    wire.feed(b"cd")
    assert b"".join(events(wire)[1:]) == b"abcd"
    wire.feed(b"")
    assert events(wire) == [END]
    assert not wire.reusable


def test_an_interim_head(wire):
    ask(wire)
    wire.feed(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    hints, head, end = events(wire)
    assert isinstance(hints, Interim)
    assert hints.head.headers == [(b"Link", b"</a>")]
    assert (head.status, end) == (204, END)


def test_a_fault_stays(wire):
    ask(wire)
    wire.feed(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match=r"line 1 .* a bare LF"):
            wire.next()
    assert not wire.reusable
    with pytest.raises(LocalProtocolError):
        ask(wire)


def test_the_peer_closes_before_it_answers(wire):
    ask(wire)
    wire.feed(b"")
    with pytest.raises(Disconnected, match="before the response"):
        wire.next()
