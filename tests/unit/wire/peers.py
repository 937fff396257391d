"""h11 and llhttp as they are, reading the same rows."""

from __future__ import annotations

import h11
import httptools

from tests.unit.wire.reading import HOST
from tests.unit.wire.responses import No, Read, Row

__all__ = ["bare", "by_h11", "by_llhttp"]


def bare(verdict: Read | No) -> Read | No:
    """What is compared with other parsers: status, body, and how many heads came before."""
    return Read(verdict.status, verdict.body, verdict.interim) if isinstance(verdict, Read) else verdict


def by_h11(row: Row) -> Read | No:
    """What httpcore's client reads: h11, with its bound."""
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=100 * 1024)
    parser.send(h11.Request(method=row.method, target="/", headers=[HOST, *row.asked]))
    parser.send(h11.EndOfMessage())
    if row.data:
        parser.receive_data(row.data)
    if row.closed:
        parser.receive_data(b"")
    status, parts, interim = 0, [], 0
    try:
        while True:
            event = parser.next_event()
            if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
                interim += 1
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                status = event.status_code
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
                return Read(status, b"".join(parts), interim)
            else:
                return No.CUT if isinstance(event, h11.ConnectionClosed) else No.WAITS
    except h11.RemoteProtocolError as error:
        return No.CUT if "closed connection" in str(error) or "ConnectionClosed" in str(error) else No.REFUSED


class Heard:
    """What llhttp tells of the final response."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.interim = 0
        self.lines: dict[bytes, bytes] = {}
        self.parts: list[bytes] = []
        self.head = self.complete = False
        self.status = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines[name.lower()] = value

    def on_headers_complete(self) -> None:
        if not self.complete:
            self.status = self.parser.get_status_code()
            self.head = not 100 <= self.status < 200 or self.parser.should_upgrade()

    def on_body(self, part: bytes) -> None:
        if not self.complete:
            self.parts.append(part)

    def on_message_complete(self) -> None:
        if self.head:
            self.complete = True
        else:
            self.interim += 1
            self.lines.clear()


def by_llhttp(row: Row) -> Read | No:
    heard = Heard()
    try:
        heard.parser.feed_data(row.data)
    except httptools.HttpParserUpgrade:
        assert heard.complete
    except httptools.HttpParserError:
        if not heard.complete:
            return No.REFUSED
    coding = heard.lines.get(b"transfer-encoding", b"").lower().rpartition(b",")[2].strip()
    framed = b"content-length" in heard.lines or coding == b"chunked"
    # httptools cannot be told that the connection ended.
    if heard.complete or (row.closed and heard.head and not framed):
        return Read(heard.status, b"".join(heard.parts), heard.interim)
    return No.CUT if row.closed else No.WAITS
