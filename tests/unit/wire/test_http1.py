"""The machine of HTTP/1.1: what it sends, what it tells of a response, when its connection may be used again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from meshlib.wire.errors import Disconnected, LocalProtocolError, RemoteProtocolError
from meshlib.wire.heads import parse_head
from meshlib.wire.http1 import END, Http1, Interim, Sizes
from meshlib.wire.message import Head

HOST = [(b"Host", b"shop")]


@pytest.fixture
def wire(parse):
    return Http1(parse=parse)


def ask(wire, method=b"GET", headers=(), body=None):
    return b"".join(wire.request(method, b"/", [*HOST, *headers], body))


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


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "before the response"),
        (b"HTTP/1.1 20", "within the response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "3 bytes before the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "before the last chunk"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "within the response"),
    ],
)
def test_the_peer_closes_too_early(wire, data, says):
    ask(wire)
    if data:
        wire.feed(data)
    events(wire)
    wire.feed(b"")
    for _ in range(2):
        with pytest.raises(Disconnected, match=says):
            wire.next()
    assert not wire.reusable


WITHOUT = """
import sys
sys.modules["httptools"] = None
from meshlib.wire import heads, http1
print(heads.parse_head.__module__, http1.Http1().reusable)
"""


def test_h11_stands_in_where_no_wheel_is():
    said = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert said.stdout == "meshlib.wire.heads_h11 True\n"
    assert parse_head.__module__ == "meshlib.wire.heads_llhttp"


# ---------------------------------------------------------------------------------------------- what is sent


def test_a_body_that_goes_with_the_head(wire):
    sent = ask(wire, b"POST", [(b"Content-Length", b"3")], b"abc")
    assert sent == b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc"
    assert wire.end() == b""
    wire.feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    events(wire)
    assert wire.reusable
    sent = ask(wire, b"POST", [(b"Transfer-Encoding", b"chunked")], b"abc")
    assert sent.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    wire.feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    events(wire)
    assert ask(wire, b"POST", [(b"Transfer-Encoding", b"chunked")], b"").endswith(b"\r\n\r\n0\r\n\r\n")


def test_a_body_in_parts(wire):
    ask(wire, b"PUT", [(b"content-length", b"5")])
    part = memoryview(b"abc")
    [sent] = wire.data(part)
    assert sent is part  # not copied
    assert wire.data(b"") == []
    with pytest.raises(LocalProtocolError, match="shorter than announced, by 2"):
        wire.end()
    with pytest.raises(LocalProtocolError, match="longer than announced, by 1"):
        wire.data(b"def")
    assert wire.data(b"de") == [b"de"]
    assert wire.end() == b""
    with pytest.raises(LocalProtocolError):
        wire.data(b"f")


def test_a_body_in_chunks(wire):
    ask(wire, b"PUT", [(b"Transfer-Encoding", b"Chunked")])
    part = b"x" * 26
    sent = wire.data(part)
    assert sent == [b"1a\r\n", part, b"\r\n"]
    assert sent[1] is part
    assert wire.data(b"") == []  # an empty chunk would end the body
    assert wire.end() == b"0\r\n\r\n"
    assert wire.end() == b""
    with pytest.raises(LocalProtocolError):
        wire.data(b"f")


BAD = {
    "an empty method": {"method": b""},
    "a method with a space": {"method": b"GET /"},
    "a method with CR LF": {"method": b"GET\r\n"},
    "an empty target": {"target": b""},
    "a target with a space": {"target": b"/a b"},
    "a target with a tab": {"target": b"/a\tb"},
    "a target with CR LF": {"target": b"/ HTTP/1.1\r\nX:"},
    "a target with NUL": {"target": b"/\0"},
    "a target with DEL": {"target": b"/\x7f"},
    "a target beyond ASCII": {"target": b"/\xc3\xa9"},
    "an empty name": {"headers": [(b"", b"a")]},
    "a name with a space": {"headers": [(b"X ", b"a")]},
    "a name with a colon": {"headers": [(b"X:", b"a")]},
    "a name with CR LF": {"headers": [(b"X\r\nY", b"a")]},
    "a name beyond ASCII": {"headers": [(b"\xc3\xa9", b"a")]},
    "a value with CR LF": {"headers": [(b"X", b"a\r\nY: b")]},
    "a value with CR": {"headers": [(b"X", b"a\rb")]},
    "a value with LF": {"headers": [(b"X", b"a\nb")]},
    "a value that ends with CR LF": {"headers": [(b"X", b"a\r\n")]},
    "a value that is folded": {"headers": [(b"X", b"a\r\n b")]},
    "a value with NUL": {"headers": [(b"X", b"\0")]},
    "a value with an escape": {"headers": [(b"X", b"\x1b")]},
    "no host": {"host": []},
    "two hosts": {"headers": [(b"HOST", b"shop")]},
    "two lengths": {"headers": [(b"Content-Length", b"0"), (b"content-length", b"0")]},
    "a length and a coding": {"headers": [(b"Content-Length", b"0"), (b"Transfer-Encoding", b"chunked")]},
    "a coding and a length": {"headers": [(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"0")]},
    "two codings": {"headers": [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")]},
    "gzip": {"headers": [(b"Transfer-Encoding", b"gzip, chunked")]},
    "no length": {"headers": [(b"Content-Length", b"-1")]},
    "a length of letters": {"headers": [(b"Content-Length", b"a")]},
    "a length that is another line's value": {"headers": [(b"Content-Length", b"keep-alive")]},
    "a coding that is another line's value": {"headers": [(b"Transfer-Encoding", b"keep-alive")]},
    "a body that is not announced": {"body": b"abc"},
    "a body longer than announced": {"headers": [(b"Content-Length", b"2")], "body": b"abc"},
    "a body shorter than announced": {"headers": [(b"Content-Length", b"4")], "body": b"abc"},
    "a body that would have to wait": {
        "headers": [(b"Content-Length", b"3"), (b"Expect", b"100-continue")],
        "body": b"abc",
    },
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_sent(case):
    bad = {"method": b"GET", "target": b"/", "headers": [], "host": HOST, "body": None} | BAD[case]
    wire = Http1()
    with pytest.raises(LocalProtocolError):
        wire.request(bad["method"], bad["target"], [*bad["host"], *bad["headers"]], bad["body"])
    assert wire.reusable  # nothing has changed
    assert ask(wire) == b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"keep-alive", True),
        (b"close", False),
        (b"Keep-Alive, CLOSE", False),
        (b"x, close ", False),
        (b"closed", True),
    ],
)
def test_the_request_says_how_long_the_connection_lasts(wire, value, kept):
    ask(wire, headers=[(b"CONNECTION", value)])
    wire.feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    events(wire)
    assert wire.reusable is kept


def test_values_as_libraries_send_them():
    sent = ask(Http1(), headers=[(b"X", b""), (b"Y", b" a "), (b"Z", b"\xc3\xa9\t\xff"), (b"Host2", b"a")])
    assert sent.endswith(b"\r\nX: \r\nY:  a \r\nZ: \xc3\xa9\t\xff\r\nHost2: a\r\n\r\n")


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 65_536])
def test_a_body_goes_with_its_head_whole_and_a_long_one_uncopied(size):
    body = bytes(size)
    parts = Http1().request(b"POST", b"/", [*HOST, (b"Content-Length", b"%d" % size)], body)
    assert b"".join(parts).partition(b"\r\n\r\n")[2] == body
    assert (parts[-1] is body) is (size > 16_384)


# ---------------------------------------------------------------------------------------------- the connection


def test_one_request_at_a_time(wire):
    ask(wire)
    with pytest.raises(LocalProtocolError, match="no further request now"):
        ask(wire)
    wire.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
    events(wire)
    with pytest.raises(LocalProtocolError):
        ask(wire)


def test_bytes_that_nobody_asked_for():
    wire = Http1()
    assert wire.reusable
    wire.feed(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    assert wire.next() is None
    assert not wire.reusable
    with pytest.raises(LocalProtocolError):
        ask(wire)


def test_the_peer_closes_between_two_requests(wire):
    ask(wire)
    wire.feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    events(wire)
    assert wire.reusable
    wire.feed(b"")
    assert wire.next() is None
    assert not wire.reusable


@pytest.mark.parametrize("goes_on", [True, False])
def test_an_answer_before_the_request_is_whole(wire, goes_on):
    ask(wire, b"POST", [(b"Content-Length", b"3")])
    wire.data(b"a")
    wire.feed(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    head, end = events(wire)
    assert (head.status, end) == (403, END)
    assert not wire.reusable
    if goes_on:
        wire.data(b"bc")
        wire.end()
    assert wire.reusable is goes_on


def test_a_chunked_request_is_whole_with_its_last_chunk(wire):
    ask(wire, b"POST", [(b"Transfer-Encoding", b"chunked")])
    wire.feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    events(wire)
    assert not wire.reusable
    wire.end()
    assert wire.reusable


EXPECT = [(b"Content-Length", b"3"), (b"Expect", b"100-Continue")]


def test_a_body_that_waits(wire):
    ask(wire, b"POST", EXPECT)
    assert wire.expects_continue
    wire.feed(b"HTTP/1.1 102 Processing\r\n\r\n")
    events(wire)
    assert wire.expects_continue
    wire.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert [event.head.status for event in events(wire)] == [100]
    assert not wire.expects_continue
    wire.data(b"abc")
    wire.feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    events(wire)
    assert wire.reusable


def test_a_body_that_waits_in_vain(wire):
    ask(wire, b"POST", EXPECT)
    wire.feed(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
    events(wire)
    assert not wire.expects_continue
    assert not wire.reusable


def test_nothing_waits_without_a_body(wire):
    ask(wire, headers=[(b"Expect", b"100-continue")])
    assert not wire.expects_continue
    wire = Http1()
    ask(wire, b"POST", [(b"Content-Length", b"3"), (b"Expect", b"200-ok")])
    assert not wire.expects_continue


def test_another_protocol_goes_on(wire):
    ask(wire, headers=[(b"Connection", b"upgrade"), (b"Upgrade", b"websocket")])
    wire.feed(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nab")
    head = wire.next()
    assert head.status == 101
    assert wire.upgraded
    assert wire.next() is END
    assert wire.next() is None
    wire.feed(b"cd")
    assert wire.leftover == b"abcd"
    assert not wire.reusable


def test_another_protocol_before_the_request_is_whole(wire):
    upgrade = [(b"Connection", b"upgrade"), (b"Upgrade", b"websocket"), (b"Content-Length", b"3")]
    ask(wire, b"POST", upgrade)
    wire.feed(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    with pytest.raises(RemoteProtocolError, match="nobody asked"):
        wire.next()
    assert not wire.upgraded


def test_interim_responses_are_counted_for_each_request(parse):
    wire = Http1(Sizes(interim=2), parse)
    for _ in range(2):
        ask(wire)
        wire.feed(b"HTTP/1.1 103 E\r\n\r\n" * 2 + b"HTTP/1.1 204 No Content\r\n\r\n")
        assert len(events(wire)) == 4


# ---------------------------------------------------------------------------------------------- bodies


def test_large_parts_are_not_copied(wire):
    ask(wire)
    wire.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 131072\r\n\r\n")
    events(wire)
    for _ in range(2):
        segment = bytes(65536)
        wire.feed(segment)
        assert wire.next() is segment
    assert wire.next() is END


def test_a_driver_receives_by_itself(wire):
    ask(wire)
    assert wire.remaining == 0
    wire.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
    wire.next()
    assert wire.remaining == 8
    with pytest.raises(LocalProtocolError):
        wire.took(8)  # two bytes before them were not given yet
    assert wire.next() == b"ab"
    assert wire.remaining == 8
    for count in (0, -1, 9):
        with pytest.raises(LocalProtocolError):
            wire.took(count)
    wire.took(3)
    assert wire.remaining == 5
    wire.feed(b"fg")
    assert wire.next() == b"fg"
    wire.took(3)
    assert wire.remaining == 0
    assert wire.next() is END
    assert wire.reusable
    with pytest.raises(LocalProtocolError):
        wire.took(1)


def test_only_bodies_of_a_known_length_are_received_beside_it(wire):
    ask(wire)
    wire.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    events(wire)
    assert wire.remaining == 0
    with pytest.raises(LocalProtocolError):
        wire.took(1)


def test_what_was_fed_in_many_segments_before_it_was_asked_for(wire):
    ask(wire)
    for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n":
        wire.feed(bytes([byte]))
    head, body, end = events(wire)
    assert (head.status, body, end) == (200, b"abc", END)
    assert wire.trailers == [(b"X", b"y")]
    assert wire.reusable
    ask(wire)
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd":
        wire.feed(bytes([byte]))
    head, body, end = events(wire)
    assert (body, end) == (b"abc", END)
    assert not wire.reusable


def test_bounds_of_ones_own(parse):
    sizes = Sizes(head=64, lines=2, extensions=4, interim=1)

    def answered(data):
        wire = Http1(sizes, parse)
        ask(wire)
        wire.feed(data)
        return events(wire)

    two = b"HTTP/1.1 200 OK\r\nA:b\r\nTransfer-Encoding:chunked\r\n\r\n"
    assert answered(two + b"1;abc\r\nx\r\n0\r\nA:b\r\nC:d\r\n\r\n")[-1] is END
    for data in (
        b"HTTP/1.1 200 OK\r\nA:b\r\nC:d\r\nE:f\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA:" + b"x" * 64,
        two + b"1;abc\r\nx\r\n1;a\r\nx\r\n",
        two + b"0\r\nA:b\r\nC:d\r\nE:f\r\n\r\n",
        b"HTTP/1.1 103 E\r\n\r\n" * 2,
    ):
        with pytest.raises(RemoteProtocolError):
            answered(data)


def test_a_fault_comes_behind_the_bytes_before_it(wire):
    ask(wire)
    wire.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx")
    wire.feed(b"\r\n")
    wire.next()
    assert wire.next() == b"abc"
    with pytest.raises(RemoteProtocolError, match="no size of a chunk"):
        wire.next()
