"""One stream of an HTTP/2 connection, as the machine (:mod:`meshlib.wire.http2`) writes it and a driver reads it, and its request's
body.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.wire.errors import WireError
    from meshlib.wire.message import Head, Lines, Outgoing

__all__ = ["AsyncUpload", "Http2Stream", "Upload"]

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

    def take(self, most: int | None) -> bytes | None:
        """What is there of the body, at most so many bytes; None: nothing is yet, ``b""``: it is complete. Raises ``error``."""
        parts = self.parts
        if not parts:
            if self.error is not None:
                raise self.error
            return b"" if self.ended else None
        if most is None:
            part = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            return part
        part = parts.popleft()
        if len(part) > most:
            parts.appendleft(part[most:])
            part = part[:most]
        return part

    def __repr__(self) -> str:
        return f"Http2Stream({self.number}, {self.error or self.head})"


class Upload:
    """The body of a request on its way out. Not thread-safe.

    Attributes:
        rest: What comes next of it.
        last: And nothing comes behind that.
        waits: For 100 Continue.
        done: All of it went, or no more of it is wanted.
        size: How many bytes it has; None: they are not counted yet.
    """

    __slots__ = ("_parts", "done", "last", "rest", "size", "waits")

    def __init__(self, request: Outgoing) -> None:
        body = request.body
        self.rest = memoryview(b"")
        self.last = True
        if body is None or isinstance(body, bytes | bytearray | memoryview):
            self.rest = memoryview(body or b"").cast("B")
        else:
            self.last = False
            self._parts = self._iterate(body)
        self.size = len(self.rest) if self.last else None
        self.done = self.size == 0
        self.waits = not self.done and any(name.lower() == b"expect" for name, _ in request.headers)

    @staticmethod
    def _iterate(body: Any) -> Any:
        return iter(body)

    def fetch(self) -> None:
        """Have the next part, which may take its time. Raises what the application's iterator raises."""
        for part in self._parts:
            if part:
                self.rest = memoryview(part).cast("B")
                return
        self.last = True

    def sent(self, count: int) -> None:
        """So many bytes of ``rest`` went out, with the end behind them if that was all."""
        self.rest = self.rest[count:]
        self.done = self.last and not self.rest


class AsyncUpload(Upload):
    """The same, of parts that are awaited."""

    __slots__ = ()

    @staticmethod
    def _iterate(body: Any) -> Any:
        return aiter(body)

    async def fetch_async(self) -> None:
        """As ``fetch``."""
        async for part in self._parts:
            if part:
                self.rest = memoryview(part).cast("B")
                return
        self.last = True
