"""One stream of an HTTP/2 connection, as the machine (:mod:`meshlib.wire.http2`) writes it and a driver reads it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.wire.errors import WireError
    from meshlib.wire.message import Head, Lines

__all__ = ["Http2Stream"]

#: Parts below this are joined, so that a window full of them is no more than the window.
_SMALL, _JOINED = 512, 4096


class Http2Stream:
    """One request and its response. The driver reads it; the machine writes it.

    Attributes:
        number: The stream's identifier.
        head: The final head, once it is there.
        interims: How many heads of 1xx came before it.
        parts: The body as it came, to be taken from the left and given to :meth:`Http2.took`.
        trailers: What came behind the body.
        ended: The response is complete, so that nothing comes behind ``parts``.
        error: What ended it before.
        sending: More of the request may be sent: it is not complete, and the peer still wants it.
        changed: Something of all this is new, or the window is open again. The driver sets it back.
        waiter: The driver's.
    """

    __slots__ = (
        "changed",
        "ended",
        "error",
        "expected",
        "head",
        "interims",
        "lacking",
        "no_body",
        "number",
        "parts",
        "sending",
        "trailers",
        "waiter",
    )

    def __init__(self, number: int, lacking: int | None, *, sending: bool, no_body: bool) -> None:
        self.number = number
        self.lacking = lacking  # bytes of the request that its Content-Length still announces
        self.no_body = no_body  # the response has none, whatever Content-Length says
        self.expected: int | None = None  # bytes of the response that its Content-Length still announces
        self.sending = sending
        self.head: Head | None = None
        self.interims = 0
        self.parts: deque[bytes] = deque()
        self.trailers: Lines = []
        self.ended = False
        self.error: WireError | None = None
        self.changed = False
        self.waiter: Any = None

    def append(self, data: bytes) -> None:
        """More of the body came."""
        parts = self.parts
        if parts and len(data) < _SMALL and len(parts[-1]) < _JOINED:
            parts[-1] += data
        else:
            parts.append(data)

    def __repr__(self) -> str:
        return f"Http2Stream({self.number}, {self.error or self.head})"
