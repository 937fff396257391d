"""Frames of HTTP/2 as a server writes them, right or wrong, and what a client wrote in a form that tests can compare."""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, Any

from h2.errors import ErrorCodes
from hpack import Decoder, Encoder
from hyperframe.frame import Frame

from meshlib.wire.message import Outgoing

if TYPE_CHECKING:
    import socket

__all__ = ["PREFACE", "Far", "Peer", "frame", "request"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KINDS = {
    "DATA": 0,
    "HEADERS": 1,
    "PRIORITY": 2,
    "RST_STREAM": 3,
    "SETTINGS": 4,
    "PUSH_PROMISE": 5,
    "PING": 6,
    "GOAWAY": 7,
    "WINDOW_UPDATE": 8,
    "CONTINUATION": 9,
}
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8


def frame(
    kind: str | int, number: int, body: bytes = b"", flags: int = 0, *, length: int | None = None
) -> bytes:
    """``length``: what the header says, where that is not the body's."""
    size = len(body) if length is None else length
    code = KINDS[kind] if isinstance(kind, str) else kind
    return size.to_bytes(3) + bytes([code, flags]) + struct.pack(">L", number) + body


def request(
    method: bytes = b"GET", target: bytes = b"/", *lines: tuple[bytes, bytes], **options: Any
) -> Outgoing:
    return Outgoing(method, target, [(b"Host", b"reviews"), *lines], **options)


class Peer:
    """A server's side, as bytes: it encodes header blocks, and reads what the client wrote."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._rest = bytearray()
        self._greeted = False

    def block(self, *lines: tuple[bytes, bytes]) -> bytes:
        return self._encoder.encode(lines, huffman=False)

    def head(
        self, number: int, *lines: tuple[bytes, bytes], status: bytes = b"200", end: bool = False
    ) -> bytes:
        block = self.block((b":status", status), *lines)
        return frame("HEADERS", number, block, END_HEADERS | (END_STREAM if end else 0))

    def trailers(self, number: int, *lines: tuple[bytes, bytes], end: bool = True) -> bytes:
        return frame("HEADERS", number, self.block(*lines), END_HEADERS | (END_STREAM if end else 0))

    @staticmethod
    def data(number: int, body: bytes = b"", *, end: bool = False, padding: int | None = None) -> bytes:
        flags = END_STREAM if end else 0
        if padding is not None:
            return frame("DATA", number, bytes([padding]) + body + bytes(padding), flags | PADDED)
        return frame("DATA", number, body, flags)

    @staticmethod
    def settings(**values: int) -> bytes:
        codes = {
            "header_table_size": 1,
            "enable_push": 2,
            "max_concurrent_streams": 3,
            "initial_window_size": 4,
            "max_frame_size": 5,
            "max_header_list_size": 6,
        }
        return frame(
            "SETTINGS", 0, b"".join(struct.pack(">HL", codes[name], value) for name, value in values.items())
        )

    @staticmethod
    def reset(number: int, code: int) -> bytes:
        return frame("RST_STREAM", number, struct.pack(">L", code))

    @staticmethod
    def goaway(last: int, code: int = 0, debug: bytes = b"") -> bytes:
        return frame("GOAWAY", 0, struct.pack(">LL", last, code) + debug)

    @staticmethod
    def window(number: int, increment: int) -> bytes:
        return frame("WINDOW_UPDATE", number, struct.pack(">L", increment))

    def read(self, data: bytes) -> list[tuple[Any, ...]]:
        """What a client wrote, frame by frame; settings and windows of its greeting included."""
        self._rest += data
        if not self._greeted and len(self._rest) >= len(PREFACE):
            assert self._rest.startswith(PREFACE)
            del self._rest[: len(PREFACE)]
            self._greeted = True
        said = []
        while len(self._rest) >= 9:
            parsed, length = Frame.parse_frame_header(memoryview(bytes(self._rest[:9])))
            if len(self._rest) < 9 + length:
                break
            parsed.parse_body(memoryview(bytes(self._rest[9 : 9 + length])))
            del self._rest[: 9 + length]
            said.append(self._tell(parsed))
        return said

    def _tell(self, parsed: Any) -> tuple[Any, ...]:
        kind = type(parsed).__name__.removesuffix("Frame")
        number = parsed.stream_id
        ends = ("end",) if "END_STREAM" in parsed.flags else ()
        if kind == "Headers":
            return (
                "head",
                number,
                [(bytes(n), bytes(v)) for n, v in self._decoder.decode(parsed.data, raw=True)],
                *ends,
            )
        if kind == "Data":
            return ("data", number, parsed.data, *ends)
        if kind == "RstStream":
            return ("reset", number, ErrorCodes(parsed.error_code).name)
        if kind == "GoAway":
            return ("goaway", ErrorCodes(parsed.error_code).name)
        if kind == "WindowUpdate":
            return ("window", number, parsed.window_increment)
        if kind == "Settings":
            return ("settings ack",) if "ACK" in parsed.flags else ("settings", dict(parsed.settings))
        if kind == "Ping":
            return ("ping ack" if "ACK" in parsed.flags else "ping", parsed.opaque_data)
        return (kind, number)


class Far(Peer):
    """The other end of a connection, which a test speaks for."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock
        sock.settimeout(20)
        self.said: list[tuple] = []
        self._polite = False
        self._lock = threading.Lock()  # held for one frame

    def say(self, *frames: bytes) -> None:
        """Its settings go first, default ones where a test says none."""
        if not self._polite:
            self._polite = True
            if frames[0][3] != 4:
                self.sock.sendall(self.settings())
        for frame in frames:
            with self._lock:
                self.sock.sendall(frame)

    def hear(self, *kinds: str) -> tuple:
        """The next that the client says of one of ``kinds``, whatever it says before."""
        while True:
            while self.said:
                said = self.said.pop(0)
                if said[0] in kinds:
                    return said
            data = self.sock.recv(65_536)
            assert data, "the client closed the connection"
            self.said += self.read(data)

    def all_heard(self) -> list[tuple]:
        """All that it says until it closes."""
        while data := self.sock.recv(65_536):
            self.said += self.read(data)
        said, self.said = self.said, []
        return said

    def answer(self, number: int, body: bytes = b"fine", status: bytes = b"200") -> None:
        self.say(self.head(number, status=status), self.data(number, body, end=True))

    def serve(self, count: int = 1, body: bytes = b"fine") -> None:
        """Answer so many requests."""
        for _ in range(count):
            self.answer(self.hear("head")[1], body)
