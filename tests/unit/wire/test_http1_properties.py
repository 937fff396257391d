"""HTTP/1.1 as others write it, in any segments: read the same, by both parsers; what we write, read by h11's server."""

from __future__ import annotations

from dataclasses import dataclass

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from meshlib.wire.http1 import END, Http1, Interim
from meshlib.wire.message import Head
from tests.unit.wire.peers import bare, by_h11, by_llhttp
from tests.unit.wire.reading import PARSERS, cut, read
from tests.unit.wire.responses import ROWS, No, Read, Row

FRAMING = {b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"host", b"expect"}

tokens = st.text("!#$%&'*+-.^_`|~0123456789abcXYZ", min_size=1, max_size=12).map(str.encode)
names = tokens.filter(lambda name: name.lower() not in FRAMING)
text = st.binary(max_size=20).map(lambda raw: bytes(code for code in raw if code >= 0x20 and code != 0x7F))
values = text.map(lambda value: value.strip(b" "))
lines = st.lists(st.tuples(names, values), max_size=6)
parts = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b;\\"c"', b";a;b=c"])
places = st.lists(st.integers(0, 400), max_size=12)
parsers = st.sampled_from(sorted(PARSERS)).map(PARSERS.__getitem__)


@dataclass
class Written:
    """A well-formed response, and what is to be read."""

    data: bytes
    closed: bool
    read: Read


def head(status: int, reason: bytes, lines: list[tuple[bytes, bytes]], spaces: bytes = b" ") -> bytes:
    fields = b"".join(name + b":" + spaces + value + spaces + b"\r\n" for name, value in lines)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, fields)


@st.composite
def responses(draw) -> Written:
    interim = draw(st.lists(st.tuples(st.sampled_from([100, 102, 103]), lines), max_size=3))
    data = b"".join(head(status, b"", some) for status, some in interim)
    status = draw(st.sampled_from([200, 201, 204, 304, 404, 503]))
    some, body, trailers = draw(lines), draw(parts), []
    framing = draw(st.sampled_from(["length", "chunks", "end"]))
    if status in (204, 304):
        framing, body = "none", []
    elif framing == "length":
        some = [*some, (b"Content-Length", b"%d" % len(b"".join(body)))]
    elif framing == "chunks":
        some = [(b"transfer-encoding", b"Chunked"), *some]
    data += head(status, draw(values), some, draw(st.sampled_from([b"", b" ", b" \t "])))
    if framing == "chunks":
        trailers = draw(lines)
        for part in body:
            data += b"%X%b\r\n%b\r\n" % (len(part), draw(extensions), part)
        data += b"000\r\n" + b"".join(name + b": " + value + b"\r\n" for name, value in trailers) + b"\r\n"
    else:
        data += b"".join(body)
    closed = framing == "end"
    final = Read(status, b"".join(body), len(interim), not closed, tuple(some), tuple(trailers))
    return Written(data, closed, final)


@given(responses(), places, parsers)
def test_any_segments_of_any_response_read_the_same(response, places, parse):
    assert read(cut(response.data, places), parse=parse, closed=response.closed)[0] == response.read


@given(responses(), parsers)
def test_byte_by_byte(response, parse):
    found, _ = read(cut(response.data, range(len(response.data))), parse=parse, closed=response.closed)
    assert found == response.read


@given(responses(), st.integers(0, 10_000), parsers)
def test_a_response_that_is_cut_off_is_never_whole(response, place, parse):
    short = response.data[: place % len(response.data)]
    if response.closed and short.startswith(response.data[: len(response.data) - len(response.read.body)]):
        return  # it lasts until the connection ends
    assert read([short] if short else [], parse=parse)[0] is No.WAITS
    assert read([short] if short else [], parse=parse, closed=True)[0] is No.CUT


@st.composite
def damaged(draw) -> bytes:
    """A response of the table with some bytes changed, cut out or put in."""
    data = bytearray(draw(st.sampled_from(SHORT)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        new = draw(st.sampled_from(PIECES) | st.binary(max_size=2))
        data[place : place + draw(st.integers(0, 3))] = new
    return bytes(data)


SHORT = [row.data for row in ROWS if len(row.data) < 400]
PIECES = [
    b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b"\0", b"0", b"5", b";", b",", b"\r\n\r\n", b"HTTP/1.1 ", b"100", b"chunked",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"\xff", b'"',
]  # fmt: skip


@given(damaged(), places, st.sampled_from([b"GET", b"HEAD", b"CONNECT"]), st.booleans())
@example(b"HTTP/1.1 200 OK\r\n\r", [17], b"GET", False)
def test_any_bytes_read_the_same_in_any_segments_by_either_parser(data, places, method, closed):
    whole, _ = read([data] if data else [], parse=PARSERS["llhttp"], method=method, closed=closed)
    for parse in PARSERS.values():
        assert read(cut(data, places), parse=parse, method=method, closed=closed)[0] == whole


@given(damaged(), st.booleans())
def test_what_is_read_the_others_read_alike(data, closed):
    """Else a proxy before us might take other bytes for the body than we do."""
    found, _ = read([data] if data else [], parse=PARSERS["llhttp"], closed=closed)
    if not isinstance(found, Read):
        return
    row = Row("damaged", data, found, closed=closed)
    assert by_h11(row) == bare(found)
    # To llhttp a connection may be over with an interim head.
    assert by_llhttp(row) == bare(found) or (found.interim and by_llhttp(row) is No.REFUSED)


# ---------------------------------------------------------------------------------------------- against h11's server

targets = st.text("/abc?=&%20;~", min_size=1, max_size=20).map(lambda text: b"/" + text.encode())
methods = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"X-Own"])


@dataclass
class Exchange:
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: list[bytes]
    framing: str
    at_once: bool
    status: int
    answer_headers: list[tuple[bytes, bytes]]
    answer: list[bytes]
    answer_framing: str
    trailers: list[tuple[bytes, bytes]]
    places: list[int]


exchanges = st.builds(
    Exchange,
    methods,
    targets,
    lines,
    parts,
    st.sampled_from(["none", "length", "chunks"]),
    st.booleans(),
    st.sampled_from([200, 204, 304, 404]),
    lines,
    parts,
    st.sampled_from(["length", "chunks", "close"]),
    lines,
    places,
)


@given(st.lists(exchanges, min_size=1, max_size=3), parsers)
def test_exchanges_with_h11s_server(exchanges, parse):
    wire, server = Http1(parse=parse), h11.Connection(h11.SERVER)
    for exchange in exchanges:
        asked, body = hear(server, b"".join(send(wire, exchange)))
        assert (asked.method, asked.target) == (exchange.method, exchange.target)
        assert asked.headers.raw_items()[1 : 1 + len(exchange.headers)] == exchange.headers
        assert body == (b"" if exchange.framing == "none" else b"".join(exchange.body))
        data, expected = answer(server, exchange)
        for segment in cut(data, exchange.places):
            wire.feed(segment)
        if exchange.answer_framing == "close":
            wire.feed(b"")
        assert hear_answer(wire, exchange) == expected
        assert wire.reusable is (server.our_state is h11.DONE)
        if not wire.reusable:
            return
        server.start_next_cycle()


def send(wire, exchange) -> list[bytes]:
    framing = {
        "none": [],
        "length": [(b"Content-Length", b"%d" % sum(map(len, exchange.body)))],
        "chunks": [(b"Transfer-Encoding", b"chunked")],
    }[exchange.framing]
    headers = [(b"Host", b"shop"), *exchange.headers, *framing]
    if exchange.framing == "none":
        return wire.request(exchange.method, exchange.target, headers)
    if exchange.at_once:
        return wire.request(exchange.method, exchange.target, headers, b"".join(exchange.body))
    sent = wire.request(exchange.method, exchange.target, headers)
    for part in exchange.body:
        sent += wire.data(part)
    return [*sent, wire.end()]


def hear(server, data):
    server.receive_data(data)
    asked = server.next_event()
    body = []
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        body.append(bytes(event.data))
    assert not server.trailing_data[0]
    return asked, b"".join(body)


def answer(server, exchange):
    """What h11 sends, and what is to be read: status, lines, body, trailers."""
    bodiless = exchange.status in (204, 304) or exchange.method == b"HEAD"
    body = [] if bodiless else exchange.answer
    framing = {
        "length": [(b"Content-Length", b"%d" % sum(map(len, body)))],
        "chunks": [(b"Transfer-Encoding", b"chunked")],
        "close": [(b"Connection", b"close")],
    }[exchange.answer_framing]
    if exchange.status == 204:
        framing = [line for line in framing if line[0] == b"Connection"]
    chunked = exchange.answer_framing == "chunks" and not bodiless
    trailers = exchange.trailers if chunked else []
    headers = [*exchange.answer_headers, *framing]
    data = server.send(h11.Response(status_code=exchange.status, headers=headers, reason=b"R"))
    for part in body:
        data += server.send(h11.Data(data=part))
    data += server.send(h11.EndOfMessage(headers=trailers))
    return data, (exchange.status, exchange.answer_headers, b"".join(body), trailers)


def hear_answer(wire, exchange):
    final, body = None, []
    while (event := wire.next()) is not END:
        assert event is not None
        assert not isinstance(event, Interim)
        if isinstance(event, Head):
            final = event
        else:
            body.append(event)
    return (
        final.status,
        final.headers[: len(exchange.answer_headers)],
        b"".join(body),
        wire.trailers,
    )
