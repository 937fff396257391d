"""HTTP/1.1 on the client's side of one connection, as a machine: bytes come in and events out, and the bytes to send.

It does no input and output, knows no time, and waits for nothing: a driver moves the bytes. Request and response go their ways
independently, since a server may answer before it has all of the request:

    request     none → open → complete                    ``request``, ``data``, ``end``
    response    none → head → body → ended                ``next`` gives Interim*, Head, bytes*, END
                       head → switched                    a 101, or 2xx to CONNECT: Head, END, and then another protocol
                any → broken                              what may not be: the same error from then on

The body is one of: none, a length, chunks with trailers, all until the connection ends (``framing.py``). Both must be complete
before the connection may carry the next request, and nothing may have come that belongs to no response.

The machine is strict. What two parsers may read differently is refused (``heads.py``, ``framing.py``, ``chunks.py``), since
one of them may be a proxy before us and what it takes for a body may be for us the response to somebody else's request. It is
bounded: all that it holds is one head, or one line of the chunked coding, or what was fed last.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

from meshlib.wire.chunks import Chunks, write_chunk
from meshlib.wire.errors import Disconnected, LocalProtocolError, RemoteProtocolError
from meshlib.wire.framing import CHUNKED, UNTIL_CLOSE, Asked, check_switch, frame_response, write_head
from meshlib.wire.heads import (
    SIZES,
    ParseHead,
    Sizes,
    check_beginning,
    check_lines,
    parse_head,
    read_head,
    read_trailers,
)
from meshlib.wire.message import Head, Lines

if TYPE_CHECKING:
    from meshlib.wire.spelled import Spelling

__all__ = ["END", "SIZES", "End", "Event", "Http1", "Interim", "Sizes"]


class End(Enum):
    """The response is whole."""

    END = "end"


END: Final = End.END


class Interim:
    """A head of 1xx: the final one comes after it."""

    __slots__ = ("head",)

    def __init__(self, head: Head) -> None:
        self.head = head

    def __repr__(self) -> str:
        return f"Interim({self.head!r})"


#: What ``next`` gives; None: more bytes are needed.
Event = Interim | Head | bytes | End | None

_NOTHING_ASKED = Asked()
#: Up to so many bytes a body is copied behind its head, as one record of TLS may be long (RFC 8446, 5.1): to copy more takes longer than
#: to send it as a part of its own.
_COPIED = 16_384


class Http1:
    """One connection. Not thread-safe.

    Args:
        sizes: The bounds of what is read.
        parse: Takes heads apart.

    Attributes:
        spelling: Of requests; None: as they are.
        trailers: Of the last response, after its END.
        expects_continue: The body waits for an :class:`Interim` of 100 or for the final head; the driver says how long.
        upgraded: Another protocol goes on behind the last response; :attr:`leftover` are its first bytes.
    """

    __slots__ = (
        "_asked",
        "_at",
        "_checked",
        "_chunks",
        "_closed",
        "_data",
        "_fault",
        "_interims",
        "_keep",
        "_left",
        "_method",
        "_parse",
        "_read",
        "_sizes",
        "_unsent",
        "expects_continue",
        "spelling",
        "trailers",
        "upgraded",
    )

    def __init__(
        self, sizes: Sizes = SIZES, parse: ParseHead = parse_head, spelling: Spelling | None = None
    ) -> None:
        self._sizes = sizes
        self.spelling = spelling
        self._parse = parse
        # The request: bytes of its body that were not sent, or CHUNKED.
        self._method = b""
        self._asked = _NOTHING_ASKED
        self._unsent = 0
        self.expects_continue = False
        # The response: what reads on, bytes of its body that were not given, what is known of the connection's future.
        self._read: Callable[[Http1], Event] = Http1._ended
        self._left = 0
        self._chunks: Chunks | None = None
        self._interims = 0
        self._keep = True
        self._fault: tuple[type[Exception], str] | None = None
        self.trailers: Lines = []
        self.upgraded = False
        # What was fed: it is read up to ``_at``; of a head that is not whole, as much as ``_checked`` was looked at.
        self._data: bytes | bytearray = b""
        self._at = 0
        self._checked = 0
        self._closed = False

    # ------------------------------------------------------------------------------------------------ the request

    def request(self, method: bytes, target: bytes, headers: Lines, body: bytes | None = None) -> list[bytes]:
        """Begin a request: what to send for its head, and for ``body`` behind it, if given; it is then the whole body. Where the
        request :attr:`expects_continue`, ``body`` must not be given.

        Raises LocalProtocolError, and nothing has changed then: for bytes that may not be there, for lines that contradict each
        other, or where the connection is not :attr:`reusable`.
        """
        if not self.reusable:
            raise LocalProtocolError("this connection can carry no further request now")
        head, asked = write_head(method, target, headers)
        first = [head]
        if body is not None:
            if asked.length != CHUNKED and len(body) != asked.length:
                raise LocalProtocolError(f"a body of {len(body)} bytes, announced as {asked.length}")
            if asked.expect:
                raise LocalProtocolError("a body that waits for 100 Continue cannot go with the head")
            if asked.length == CHUNKED:
                first = [b"".join((head, *write_chunk(body), b"0\r\n\r\n"))]
            elif body:
                first = [head, body] if len(body) > _COPIED else [head + body]
        self._method = method
        self._asked = asked
        self._unsent = asked.length if body is None else 0
        self.expects_continue = asked.expect
        self._read = Http1._head
        self._interims = 0
        if self.trailers:
            self.trailers = []
        return first

    def data(self, part: bytes) -> list[bytes]:
        """What to send for a part of the body. Raises LocalProtocolError beyond the length that was announced."""
        if self._unsent == CHUNKED:
            return write_chunk(part)
        if len(part) > self._unsent:
            raise LocalProtocolError(
                f"the body is longer than announced, by {len(part) - self._unsent} bytes or more"
            )
        self._unsent -= len(part)
        return [part] if part else []

    def end(self) -> bytes:
        """The body is complete: what to send for that. Raises LocalProtocolError while it is shorter than announced."""
        if self._unsent == CHUNKED:
            self._unsent = 0
            return b"0\r\n\r\n"
        if self._unsent:
            raise LocalProtocolError(f"the body is shorter than announced, by {self._unsent} bytes")
        return b""

    # ------------------------------------------------------------------------------------------------ the response

    def feed(self, data: bytes) -> None:
        """Bytes of the peer; none: it closed its half."""
        if not data:
            self._closed = True
            return
        rest = self._data
        if self._at >= len(rest):
            self._data = data
            self._at = 0
            return
        if not isinstance(rest, bytearray):
            rest = self._data = bytearray(memoryview(rest)[self._at :])
            self._at = 0
        rest += data

    def next(self) -> Event:
        """The next of the response. Raises RemoteProtocolError, or Disconnected where the peer closed before the end; from then
        on it raises the same again.
        """
        try:
            return self._read(self)
        except (RemoteProtocolError, Disconnected) as fault:
            self._read = Http1._broken
            self._fault = (type(fault), str(fault))
            raise

    @property
    def remaining(self) -> int:
        """Bytes that are still to come of a body whose length is known. A driver may receive that many at most into a buffer
        of its own, when ``next`` gave None, and tell of it by :meth:`took`.
        """
        return max(0, self._left - (len(self._data) - self._at)) if self._read is Http1._sized else 0

    def took(self, count: int) -> None:
        """That many bytes of the body were received beside the machine."""
        if self._read is not Http1._sized or self._at < len(self._data) or not 0 < count <= self._left:
            raise LocalProtocolError(f"{count} bytes taken of a body of which {self.remaining} were to come")
        self._left -= count
        if not self._left:
            self._read = Http1._end

    @property
    def reusable(self) -> bool:
        """Request and response are complete, and nothing forbids another request."""
        return (
            self._read is Http1._ended
            and self._keep
            and not self._unsent
            and not self._closed
            and self._at >= len(self._data)
        )

    @property
    def leftover(self) -> bytes:
        """What was fed and belongs to no response: after an upgrade, the first bytes of the new protocol."""
        return bytes(self._data[self._at :])

    # ------------------------------------------------------------------------------------------------ its states

    def _head(self) -> Event:
        block = self._block(check_beginning)
        if block is None:
            return None
        head = read_head(block, self._sizes, self._parse)
        length, keep = frame_response(head, self._method)
        status = head.status
        if status < 200:
            return self._interim(head)
        self.expects_continue = False
        self._keep = keep and not self._asked.close
        if self._method == b"CONNECT" and status < 300:
            self.upgraded = True
            length = 0
        if length > 0:
            self._left = length
            self._read = Http1._sized
        elif length == CHUNKED:
            self._chunks = Chunks(self._sizes.extensions)
            self._read = Http1._chunked
        elif length == UNTIL_CLOSE:
            self._read = Http1._until_close
        else:
            self._read = Http1._end
        return head

    def _interim(self, head: Head) -> Event:
        if head.status == 101:
            if not self._asked.upgrade or head.version != b"HTTP/1.1" or self._unsent:
                raise RemoteProtocolError("101 Switching Protocols, for which nobody asked")
            check_switch(head)
            self.upgraded = True
            self.expects_continue = False
            self._read = Http1._end
            return head
        self._interims += 1
        if self._interims > self._sizes.interim:
            raise RemoteProtocolError(f"more than {self._sizes.interim} interim responses")
        if head.status == 100:
            self.expects_continue = False
        return Interim(head)

    def _sized(self) -> Event:
        data, at = self._data, self._at
        if at >= len(data):
            if self._closed:
                raise Disconnected(
                    f"the peer closed the connection, {self._left} bytes before the end of the body"
                )
            return None
        part = data if not at and len(data) <= self._left else data[at : at + self._left]
        self._at = at + len(part)
        self._left -= len(part)
        if not self._left:
            self._read = Http1._end
        return part if isinstance(part, bytes) else bytes(part)

    def _chunked(self) -> Event:
        chunks = self._chunks
        assert chunks is not None
        data = self._data
        if isinstance(data, bytearray):
            data = self._data = bytes(data)
        part, self._at = chunks.read(data, self._at)
        if chunks.ended:
            self._chunks = None
            self._read = Http1._trailers
        if part:
            return part
        if chunks.ended:
            return self._trailers()
        if self._closed:
            raise Disconnected("the peer closed the connection before the last chunk of the body")
        return None

    def _trailers(self) -> Event:
        if self._data[self._at : self._at + 2] == b"\r\n":
            self._at += 2
            return self._end()
        block = self._block(check_lines)
        if block is None:
            return None
        self.trailers = read_trailers(block, self._sizes, self._parse)
        return self._end()

    def _until_close(self) -> Event:
        data, at = self._data, self._at
        if at < len(data):
            self._at = len(data)
            return bytes(data[at:] if at else data)
        if self._closed:
            return self._end()
        return None

    def _end(self) -> Event:
        if self.upgraded:
            self._keep = False
        self._read = Http1._ended
        return END

    def _ended(self) -> Event:
        return None

    def _broken(self) -> Event:
        assert self._fault is not None
        kind, text = self._fault
        raise kind(text)

    def _block(self, check: Callable[[bytes | bytearray, int], None]) -> bytes | None:
        """The bytes up to the next empty line, with it, once they are there. Raises RemoteProtocolError for more than a head may
        have, and as soon as ``check`` finds that no head begins so.
        """
        data, at = self._data, self._at
        end = data.find(b"\r\n\r\n", at + max(0, self._checked - 3)) + 4
        size = (end if end > 3 else len(data)) - at
        if size > self._sizes.head:
            raise RemoteProtocolError(f"a head of more than {self._sizes.head} bytes")
        if end > 3:
            block = data[at:end]
            self._checked = 0
            if end == len(data):
                self._data = b""
                self._at = 0
            else:
                self._data = bytes(data)
                self._at = end
            return bytes(block)
        check(data[at:] if at else data, self._checked)
        self._checked = size
        if self._closed:
            where = "within" if size or self._read is Http1._trailers else "before"
            raise Disconnected(f"the peer closed the connection {where} the response")
        return None
