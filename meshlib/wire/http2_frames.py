"""The frames of HTTP/2 as a client takes them (RFC 9113, 4 and 6): cut out of bytes, bounded, and where they may stand.

What is checked here needs no memory of streams. Whatever breaks a rule ends the connection, as a :class:`Violation`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "GOAWAY",
    "HEADERS",
    "LAST_NUMBER",
    "PADDED",
    "PING",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "WINDOW_UPDATE",
    "Frames",
    "Violation",
    "data_of",
    "goaway",
    "known_settings",
    "name_of",
    "without_resets",
]

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
#: The highest identifier of a stream.
LAST_NUMBER = 2**31 - 1

#: The largest frame that we take: the protocol's default, which ours is.
_MOST_FRAME = 16_384
#: Frames of one header block. 60 KiB fit into four of the default size.
_MOST_BLOCK_FRAMES = 32
#: The table of HPACK that we fill at most, whatever the peer allows: the protocol's default.
_MOST_TABLE = 4096

#: The 24 bits of the length stand in two parts.
_HEADER = struct.Struct(">HBBBL")
_ON_STREAMS = frozenset((DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION))
_ON_CONNECTION = frozenset((SETTINGS, PING, GOAWAY))
_LENGTHS = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_KNOWN_SETTINGS = frozenset(int(code) for code in SettingCodes)


class Violation(Exception):
    """The peer broke the protocol in a way that ends the connection. ``code``: what the peer is told."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Frames:
    """Bytes in, frames out. ``most``: bytes of one header block."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._buffer = bytearray()
        self._block = 0  # the stream whose header block is not complete
        self._block_frames = 0
        self._block_size = 0
        self.greeted = False  # the first frame came, and was SETTINGS

    def add(self, data: bytes) -> None:
        self._buffer += data

    def clear(self) -> None:
        self._buffer.clear()

    def __iter__(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Type, flags and stream of every frame that is complete, and its bytes. Raises Violation."""
        buffer = self._buffer
        while len(buffer) >= 9:
            high, low, kind, flags, number = _HEADER.unpack_from(buffer)
            length = high << 8 | low
            number &= LAST_NUMBER
            # Before the frame is complete: one that may not come is not waited for.
            self._check(kind, flags, length, number)
            if len(buffer) < 9 + length:
                return
            frame = bytes(memoryview(buffer)[: 9 + length])
            del buffer[: 9 + length]
            self.greeted = True
            if kind in (HEADERS, CONTINUATION):
                self._count_block(flags, length, number)
            yield kind, flags, number, frame

    def _check(self, kind: int, flags: int, length: int, number: int) -> None:
        if not self.greeted and (kind != SETTINGS or flags & ACK or number):
            began = bytes(self._buffer[:32])
            raise Violation(ErrorCodes.PROTOCOL_ERROR, f"the peer speaks no HTTP/2: it began with {began!r}")
        if length > _MOST_FRAME:
            raise Violation(ErrorCodes.FRAME_SIZE_ERROR, f"a frame of {length} bytes, beyond {_MOST_FRAME}")
        if self._block and (kind != CONTINUATION or number != self._block):
            raise Violation(ErrorCodes.PROTOCOL_ERROR, "a header block with another frame inside")
        if kind == CONTINUATION and not self._block:
            raise Violation(ErrorCodes.PROTOCOL_ERROR, "CONTINUATION of no header block")
        if (kind in _ON_STREAMS and not number) or (kind in _ON_CONNECTION and number):
            raise Violation(ErrorCodes.PROTOCOL_ERROR, f"a frame of type {kind} on stream {number}")
        wrong = (
            length != _LENGTHS.get(kind, length)
            or (kind == SETTINGS and (length % 6 or (flags & ACK and length)))
            or (kind == GOAWAY and length < 8)
        )
        if wrong:
            raise Violation(ErrorCodes.FRAME_SIZE_ERROR, f"a frame of type {kind} with {length} bytes")

    def _count_block(self, flags: int, length: int, number: int) -> None:
        if not self._block:
            self._block_frames = self._block_size = 0
        self._block = 0 if flags & END_HEADERS else number
        self._block_frames += 1
        self._block_size += length
        if self._block_frames > _MOST_BLOCK_FRAMES or self._block_size > self._most:
            text = f"a header block of {self._block_size} bytes in {self._block_frames} frames"
            raise Violation(ErrorCodes.ENHANCE_YOUR_CALM, text)


def data_of(frame: bytes, flags: int) -> tuple[bytes, int]:
    """What a DATA frame carries, and how many bytes of it are padding. Raises Violation."""
    if not flags & PADDED:
        return frame[9:], 0
    if len(frame) < 10 or frame[9] >= len(frame) - 9:
        raise Violation(ErrorCodes.PROTOCOL_ERROR, "a frame that is shorter than its padding")
    return frame[10 : len(frame) - frame[9]], frame[9] + 1


def known_settings(frame: bytes) -> bytes:
    """A SETTINGS frame with what h2 knows, and with no larger table for HPACK than we would fill. Raises Violation."""
    settings = {}
    for code, value in struct.iter_unpack(">HL", frame[9:]):
        if code in _KNOWN_SETTINGS:
            settings[code] = min(value, _MOST_TABLE) if code == SettingCodes.HEADER_TABLE_SIZE else value
    if settings.get(SettingCodes.ENABLE_PUSH):  # h2 minds since 4.4
        raise Violation(ErrorCodes.PROTOCOL_ERROR, "a server that would be pushed to")
    body = b"".join(struct.pack(">HL", code, value) for code, value in settings.items())
    return _HEADER.pack(0, len(body), SETTINGS, 0, 0) + body


def goaway(code: int, text: str) -> bytes:
    """A GOAWAY of ours."""
    debug = text.encode("ascii", "replace")[:100]
    return _HEADER.pack(0, 8 + len(debug), GOAWAY, 0, 0) + struct.pack(">LL", 0, code) + debug


def without_resets(frames: bytes) -> bytes:
    """Frames of h2's but for RST_STREAM. They answer one frame of the peer, and none is longer than 255 bytes."""
    kept = []
    start = 0
    while start < len(frames):
        end = start + 9 + frames[start + 2]
        if frames[start + 3] != RST_STREAM:
            kept.append(frames[start:end])
        start = end
    return b"".join(kept)


def name_of(code: int) -> str:
    """An error code's."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code:#x}"
