"""One input to the HTTP/1.1 connection, and what must hold for it whatever its bytes are.

An answer: nothing but the wire's own errors is raised; both parsers of heads and any segments give one verdict; no more is held
than the bounds allow; and what is read, h11 and llhttp read alike. A request: it is refused, or h11's server hears just it.

    python -m tests.fuzz.http1 FILE…     the inputs that these files hold, as a run leaves them where one fails
"""

from __future__ import annotations

import sys
from pathlib import Path

import h11

from meshlib.wire.errors import LocalProtocolError
from meshlib.wire.http1 import SIZES, Http1, Sizes
from tests.unit.wire.peers import bare, by_h11, by_llhttp
from tests.unit.wire.reading import HOST, PARSERS, cut, read
from tests.unit.wire.responses import ROWS, No, Read, Row

__all__ = ["WORDS", "one_input", "seeds"]

SMALL = Sizes(head=512, lines=8, extensions=24, interim=2)
UPGRADE = ((b"Connection", b"upgrade"), (b"Upgrade", b"websocket"))
ASKED = ((b"GET", ()), (b"HEAD", ()), (b"CONNECT", ()), (b"GET", UPGRADE))
#: Stands between the pieces of a request.
BETWEEN = b"\xfe"

#: What a mutation may put in.
WORDS = [
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b":", b";", b",", b'"', b"\0", b"\xff", b"HTTP/1.1 ", b"HTTP/1.0 ", b"100", b"101",
    b"200", b"204", b"304", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"chunked", b"0\r\n\r\n", b"3\r\nabc\r\n", b";a=b",
    b"Host", b"Content-Length", b"Transfer-Encoding", b"Expect", b"100-continue",
]  # fmt: skip


def one_input(data: bytes) -> None:
    """Of an answer the first byte says what was asked, the second how long the segments are; of a request, how it is sent."""
    if len(data) < 2:
        return
    if data[0] & 0x80:
        _request(bool(data[0] & 0x40), data[1:])
    else:
        _answer(data[0], 1 + data[1] % 40, data[2:])


def seeds() -> list[bytes]:
    """The table of responses, asked for as its rows say, and some requests."""
    found = []
    for row in ROWS:
        if len(row.data) < 1024:
            asked = ASKED.index((row.method, row.asked)) if (row.method, row.asked) in ASKED else 0
            found.append(bytes([asked | (4 if row.closed else 0), 6]) + row.data)
    requests = (
        (b"GET", b"/", b"", b"X", b"y"),
        (b"POST", b"/a?b", b"abc", b"Content-Length", b"3"),
        (b"PUT", b"*", b"abc", b"Transfer-Encoding", b"chunked"),
        (b"PUT", b"/", b"abc", b"Content-Length", b"3", b"Expect", b"100-continue"),
    )
    return found + [flags + BETWEEN.join(pieces) for pieces in requests for flags in (b"\x80", b"\xc0")]


def _answer(flags: int, size: int, data: bytes) -> None:
    method, asked = ASKED[flags & 3]
    closed, sizes = bool(flags & 4), SMALL if flags & 8 else SIZES
    more = {"method": method, "asked": asked, "closed": closed, "sizes": sizes}
    found, _ = read([data] if data else [], parse=PARSERS["llhttp"], **more)
    segments = cut(data, range(0, len(data), size))
    for name, parse in PARSERS.items():
        again, _ = read(segments, parse=parse, **more)
        assert again == found, (name, again, found)
    if isinstance(found, Read) and method == b"GET":
        row = Row("fuzzed", data, found, asked=asked, closed=closed)
        assert by_h11(row) == bare(found), (by_h11(row), found)
        other = by_llhttp(row)
        # To llhttp a connection may be over with an interim head.
        assert other == bare(found) or (found.interim and other is No.REFUSED), (other, found)


def _request(at_once: bool, data: bytes) -> None:
    method, target, body, *rest = [*data.split(BETWEEN), b"", b""][: max(3, data.count(BETWEEN) + 1)]
    headers = [HOST, *zip(rest[::2], rest[1::2], strict=False)]
    wire = Http1()
    try:
        if at_once and body:
            sent = b"".join(wire.request(method, target, headers, body))
        else:
            sent = b"".join((*wire.request(method, target, headers), *wire.data(body), wire.end()))
    except LocalProtocolError:
        return
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(sent)
    heard = server.next_event()
    assert isinstance(heard, h11.Request), heard
    assert (heard.method, heard.target) == (method, target), heard
    # h11 gives codings in small letters.
    lines = [(name.lower(), value.strip(b" \t")) for name, value in headers]
    assert [(name, value.lower()) for name, value in heard.headers] == [
        (name, value.lower()) for name, value in lines
    ], heard
    parts = []
    while isinstance(event := server.next_event(), h11.Data):
        parts.append(bytes(event.data))
    assert isinstance(event, h11.EndOfMessage), event
    assert b"".join(parts) == body, parts
    assert not server.trailing_data[0], server.trailing_data


if __name__ == "__main__":
    for name in sys.argv[1:]:
        one_input(Path(name).read_bytes())
        print(f"{name}: holds")
