"""One input to the HTTP/2 connection, and what must hold for it whatever its bytes are.

The bytes are a server's, in segments of a length that the first byte says, while two requests are open, one of which still sends.
Nothing is raised; a stream is whole or broken and never both; whatever segments give the same; no more is held than the bounds
allow; and what is answered is frames that the protocol's own reader takes, with one farewell at most.

    python -m tests.fuzz.http2 FILE…     the inputs that these files hold, as a run leaves them where one fails
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from meshlib.wire.http2 import STREAM_WINDOW, Http2
from tests.support.http2_frames import Peer, frame, request
from tests.unit.wire.http2_cases import BODY_ERRORS, CONNECTION_ERRORS, STREAM_ERRORS

__all__ = ["WORDS", "one_input", "seeds"]

#: What a mutation may put in.
WORDS = [
    *(frame(kind, number, b"", flags) for kind in range(11) for number in (0, 1, 3) for flags in (0, 1, 4, 5)),
    b"\x88", b"\x8d", b"\x20", b"\x3f\xe1\x1f", b"\x40\x01a\x01b", b"\x0f\x0d\x013", b"\0\0\0\x01", b"\x7f\xff\xff\xff",
    Peer.settings(), Peer.settings(initial_window_size=0), Peer.goaway(1), Peer.window(0, 1), Peer.reset(1, 7),
]  # fmt: skip


def one_input(data: bytes) -> None:
    if not data:
        return
    size = 1 + data[0] % 64
    whole = _exchange([data[1:]])
    again = _exchange([data[1 + start : 1 + start + size] for start in range(0, len(data) - 1, size)])
    assert whole == again, (whole, again)


def seeds() -> list[bytes]:
    """The tables of what servers do wrong, and a response that is right."""
    peer = Peer()
    right = (
        peer.head(1, status=b"103")
        + peer.head(1, (b"content-length", b"3"))
        + peer.data(1, b"abc", padding=2)
    )
    right += peer.trailers(1, (b"a", b"b")) + peer.head(3, end=True) + peer.goaway(3)
    wrong = [sent for sent, _ in (*CONNECTION_ERRORS.values(), *BODY_ERRORS.values()) if len(sent) < 1024]
    wrong += [Peer().trailers(1, *lines, end=False) for lines, _ in STREAM_ERRORS.values() if len(lines) < 9]
    return [b"\x06" + Peer.settings() + sent for sent in (right, *wrong)] + [b"\x01HTTP/1.1 200 OK\r\n\r\n"]


def _exchange(segments: list[bytes]) -> list[Any]:
    """What became of both requests, and of the connection."""
    machine = Http2()
    streams = [machine.open(request()), machine.open(request(b"POST"), None)]
    machine.send(streams[1], b"x" * 1000)
    said = b""
    for segment in segments:
        for stream in machine.feed(segment) if segment else ():
            assert stream.changed
        said += machine.outgoing()
        for stream in streams:
            assert not (stream.ended and stream.error), stream
            assert sum(map(len, stream.parts)) <= STREAM_WINDOW
            assert stream.number in machine.streams or not stream.sending
    assert (machine.failure is None) or not machine.streams
    farewells = [one for one in Peer().read(said) if one[0] == "goaway"]
    assert len(farewells) == (1 if machine.failure is not None else 0), farewells
    return [_told(stream) for stream in streams] + [type(machine.failure), machine.draining, farewells]


def _told(stream: Any) -> tuple[Any, ...]:
    head = None if stream.head is None else (stream.head.status, stream.head.headers)
    return head, b"".join(stream.parts), stream.trailers, stream.ended, type(stream.error)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        one_input(Path(name).read_bytes())
