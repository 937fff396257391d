"""Heads of HTTP/1.1 responses: from the bytes up to the empty line to a :class:`Head`.

A head goes through two hands. A parser takes it apart: llhttp by its wheel, which is strict about names, colons, status and
lengths, or h11 where no wheel is. This module holds the text to what every parser reads alike: lines that end with CR LF and
with nothing less, no line folded into the next, no control character, a version that is known (RFC 9112, 2.2, 4 and 5). With
either parser the same heads are refused; ``tests/unit/wire/responses.py`` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshlib.wire.errors import RemoteProtocolError
from meshlib.wire.message import Head, Lines

try:
    from meshlib.wire.heads_llhttp import parse_head
except ImportError:  # no wheel of httptools for this interpreter
    from meshlib.wire.heads_h11 import parse_head

__all__ = ["SIZES", "ParseHead", "Sizes", "check_beginning", "parse_head", "read_head", "read_trailers"]

#: Takes a head apart, given with its empty line. Raises RemoteProtocolError.
ParseHead = Callable[[bytes], Head]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of a response is kept or passed over before its body, and beside it. All are inclusive.

    Attributes:
        head: Bytes of a head, and of trailers. Envoy's default for ``max_response_headers_kb``.
        lines: Header lines of a head, and of trailers. Envoy's default for ``max_headers_count``, and http.client's.
        extensions: Bytes of all chunk extensions of one body. Node.js' bound (since CVE-2024-22019).
        interim: Responses of 1xx before the final one. Go's client allowed 5, which was too few for servers that tell of their
            progress (102); these are passed over and cost no memory.
        streams: Of HTTP/2, open at once on a connection, where the peer takes more. Envoy's default for ``max_concurrent_streams``; h2
            takes the longer to open one, the more there are.
    """

    head: int = 60 * 1024
    lines: int = 100
    extensions: int = 16 * 1024
    interim: int = 100
    streams: int = 1024


SIZES = Sizes()

#: What a line may hold: visible characters, space, tab, and bytes beyond ASCII (obs-text; RFC 9110, 5.5).
TEXT = bytes(code for code in range(256) if (code >= 0x20 and code != 0x7F) or code == 0x09)

_STATUS_LINE = b"HTTP/1.1 200 OK\r\n"
_BARE = {b"\r": "a bare CR", b"\n": "a bare LF"}


def read_head(block: bytes, sizes: Sizes, parse: ParseHead) -> Head:
    """The head that ``block`` holds, which ends with its empty line. Raises RemoteProtocolError."""
    if not block.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
        raise RemoteProtocolError(f"not the beginning of a response: {block[:32]!r}")
    try:
        head = parse(block)
    except RemoteProtocolError as error:
        raise RemoteProtocolError(_fault(block) or str(error)) from None
    if head.status < 100:
        raise RemoteProtocolError(f"not a status: {head.status:03}")
    lines = len(head.headers)
    # All that is not text must be the ends of the lines that were found: none folded, none ended by less.
    if block.translate(None, TEXT) != b"\r\n" * (lines + 2):
        raise RemoteProtocolError(_fault(block) or f"lines that are read as {lines}")
    if lines > sizes.lines:
        raise RemoteProtocolError(f"{lines} header lines, where {sizes.lines} are allowed")
    return head


def read_trailers(block: bytes, sizes: Sizes, parse: ParseHead) -> Lines:
    """The lines behind the last chunk. Raises RemoteProtocolError, also for one that would frame the body anew (RFC 9110,
    6.5.1).
    """
    trailers = read_head(_STATUS_LINE + block, sizes, parse).headers
    for name, _ in trailers:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            raise RemoteProtocolError(f"a trailer that says how the body is framed: {name!r}")
    return trailers


def check_beginning(part: bytes | bytearray, checked: int) -> None:
    """Refuse what can be no beginning of a head, before the rest of it is waited for. ``checked``: as many bytes were looked at
    before. Raises RemoteProtocolError.
    """
    if checked < 9 and bytes(part[:9]) not in (b"HTTP/1.1 "[: len(part)], b"HTTP/1.0 "[: len(part)]):
        raise RemoteProtocolError(f"not the beginning of a response: {bytes(part[:32])!r}")
    check_lines(part, checked)


def check_lines(part: bytes | bytearray, checked: int) -> None:
    """The same for lines that have just begun, as trailers."""
    new = part[checked - 1 :] if checked and part[checked - 1] == 0x0D else part[checked:]
    if new.endswith(b"\r"):
        new = new[:-1]
    if len(new.translate(None, TEXT)) != 2 * new.count(b"\r\n"):
        raise RemoteProtocolError(_fault(bytes(part)) or "a line that does not end with CR LF")


def _fault(block: bytes) -> str | None:
    """What is wrong with a block whose text no two parsers need read alike."""
    for number, line in enumerate(block.split(b"\r\n")):
        place = f"line {number + 1} of the head, {line[:64]!r}:"
        if line.startswith((b" ", b"\t")):
            return f"{place} folded into the one before"
        bad = line.translate(None, TEXT)[:1]
        if bad:
            return f"{place} {_BARE.get(bad, 'a control character')}"
    return None
