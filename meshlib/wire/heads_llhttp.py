"""Heads taken apart by llhttp, Node.js' parser, in its strict mode: the wheel of httptools holds it.

An older wheel than 0.8 is not enough: those before 0.6.3 take a name that is empty or has white space before its colon, and
those before 0.8 refuse a length with a tab behind it.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from meshlib.wire.errors import RemoteProtocolError
from meshlib.wire.message import Head

__all__ = ["parse_head"]


class _Parsed(Head):
    """Filled in as llhttp finds the parts. It leaves the white space behind a value."""

    __slots__ = ()

    def __init__(self, version: bytes) -> None:
        self.version = version
        self.reason = b""
        self.headers = []

    def on_status(self, reason: bytes) -> None:
        self.reason = reason.rstrip()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value.rstrip()))


def parse_head(block: bytes) -> Head:
    """The head, with its empty line. Raises RemoteProtocolError."""
    head = _Parsed(block[:8])
    # A parser of its own for each: one that was told of a body waits for it, and bodies do not come this way.
    parser = HttpResponseParser(head)
    try:
        parser.feed_data(block)
    except HttpParserUpgrade:  # that of a 101: it is whole
        head.status = 101
        return head
    except HttpParserError as error:
        raise RemoteProtocolError(f"{error}, in the head {block[:64]!r}") from None
    head.status = parser.get_status_code()
    return head
