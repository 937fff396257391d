"""Heads taken apart by llhttp, Node.js' parser, in its strict mode: the wheel of httptools holds it."""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from meshlib.wire.errors import RemoteProtocolError
from meshlib.wire.message import Head, Lines

__all__ = ["parse_head"]


class _Parts:
    """What llhttp finds. It leaves the white space behind a value."""

    __slots__ = ("lines", "reason")

    def __init__(self) -> None:
        self.reason = b""
        self.lines: Lines = []

    def on_status(self, reason: bytes) -> None:
        self.reason = reason.rstrip()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name, value.rstrip()))


def parse_head(block: bytes) -> Head:
    """The head, with its empty line. Raises RemoteProtocolError."""
    parts = _Parts()
    # A parser of its own for each: one that was told of a body waits for it, and bodies do not come this way.
    parser = HttpResponseParser(parts)
    try:
        parser.feed_data(block)
    except HttpParserUpgrade:  # that of a 101: it is whole
        return _head(parser, parts, block)
    except HttpParserError as error:
        raise RemoteProtocolError(f"{error}, in the head {block[:64]!r}") from None
    return _head(parser, parts, block)


def _head(parser: HttpResponseParser, parts: _Parts, block: bytes) -> Head:
    return Head(parser.get_status_code(), parts.reason, parts.lines, block[:8])
