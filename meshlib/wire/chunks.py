"""The chunked coding of bodies (RFC 9112, 7.1), read strictly.

A reader of its own rather than llhttp's: it says where the body ends, so that no byte behind it is taken for a response; it
counts the extensions, of which llhttp's wheel tells nothing; it is the same with either parser of heads; and it gives all the
chunks of one segment as one piece, so that a body of many small chunks costs few pieces.
"""

from __future__ import annotations

from meshlib.wire.errors import RemoteProtocolError
from meshlib.wire.heads import TEXT

__all__ = ["Chunks", "write_chunk"]

_HEX = b"0123456789abcdefABCDEF"
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: Hexadecimal digits of a size: what fits into 64 bits with a sign, as every reader can count.
_MOST_DIGITS = 15
#: The chunk's data were read, and its CR LF is due.
_DUE = -1


def write_chunk(part: bytes) -> list[bytes]:
    """What to send for a part of a body. Nothing for an empty one, which would end it."""
    return [b"%x\r\n" % len(part), part, b"\r\n"] if part else []


class Chunks:
    """Reads one body.

    Args:
        extensions: Bytes that all extensions may have.

    Attributes:
        ended: The last chunk was read: trailers follow.
    """

    __slots__ = ("_extensions", "_left", "ended")

    def __init__(self, extensions: int) -> None:
        self._extensions = extensions
        self._left = 0
        self.ended = False

    def read(self, data: bytes, at: int) -> tuple[bytes, int]:
        """The bytes of the body in ``data`` from ``at`` on, and the place of what was not read, which is either behind the body
        or a line that is not whole. Raises RemoteProtocolError, once the bytes before the fault are read.
        """
        parts: list[bytes] = []
        size = len(data)
        while at < size and not self.ended:
            if self._left > 0:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left = self._left - len(part) or _DUE
                continue
            try:
                after = self._line(data, at)
            except RemoteProtocolError:
                if parts:
                    break
                raise
            if after == at:
                break
            at = after
        return (parts[0] if len(parts) == 1 else b"".join(parts)), at

    def _line(self, data: bytes, at: int) -> int:
        """Read the line that is due; where the next begins, or ``at`` if it is not whole."""
        if self._left == _DUE:
            due = data[at : at + 2]
            if due == b"\r\n":
                self._left = 0
                return at + 2
            if due == b"\r":
                return at
            raise RemoteProtocolError(f"no CR LF behind the data of a chunk: {data[at : at + 16]!r}")
        end = data.find(b"\r\n", at, at + _MOST_DIGITS + self._extensions + 2)
        if end < 0:
            self._check_beginning(data[at : at + _MOST_DIGITS + self._extensions + 2])
            return at
        line = data[at:end]
        if not line or len(line) > _MOST_DIGITS or line.strip(_HEX):
            line = self._without_extensions(line)
        self._left = int(line, 16)
        self.ended = not self._left
        return end + 2

    def _check_beginning(self, part: bytes) -> None:
        if len(part) > _MOST_DIGITS + self._extensions:
            raise RemoteProtocolError(f"more chunk extensions than are allowed: {part[:64]!r}")
        if part.removesuffix(b"\r").translate(None, TEXT):
            raise RemoteProtocolError(f"a chunk's size with a character that may not be there: {part[:64]!r}")

    def _without_extensions(self, line: bytes) -> bytes:
        """The size, of a line that holds more than it."""
        size = line.partition(b";")[0]
        if not size or len(size) > _MOST_DIGITS or size.strip(_HEX):
            raise RemoteProtocolError(f"no size of a chunk: {line[:64]!r}")
        self._extensions -= len(line) - len(size)
        if self._extensions < 0:
            raise RemoteProtocolError(f"more chunk extensions than are allowed: {line[:64]!r}")
        at = len(size)
        while at < len(line):
            at = _extension(line, at)
        return size


def _extension(line: bytes, at: int) -> int:
    """Pass one extension that begins at ``at``: ``;name``, ``;name=token`` or ``;name="quoted"``; where it ends. White space
    around them, which RFC 9112 calls bad, is not taken.
    """
    end = _token(line, at + 1) if line[at : at + 1] == b";" else at
    if end > at + 1 and line[end : end + 1] == b"=":
        begin = end + 1
        end = _quoted(line, begin) if line[begin : begin + 1] == b'"' else _token(line, begin)
        if end == begin:
            end = at
    if end <= at + 1:
        raise RemoteProtocolError(f"no chunk extension that everybody reads alike: {line[:64]!r}")
    return end


def _token(line: bytes, at: int) -> int:
    return len(line) - len(line[at:].lstrip(_TOKEN))


def _quoted(line: bytes, at: int) -> int:
    """Where the quoted string that begins at ``at`` ends, or ``at`` if it does not."""
    place = at + 1
    while place < len(line):
        code = line[place]
        if code == 0x22:
            return place + 1
        if code not in TEXT or (code == 0x5C and (place + 1 >= len(line) or line[place + 1] not in TEXT)):
            return at
        place += 2 if code == 0x5C else 1
    return at
