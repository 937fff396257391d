"""HTTP/2 as a client speaks it (RFC 9113), without I/O: bytes of the peer in, streams that changed and bytes to send out.

Theory. h2 keeps what both sides must agree on: the states of streams, the windows, the settings, the tables of HPACK. It gets
frames one by one, each after :class:`Http2` looked at it, because h2 leaves this to us:

- *What ends with what.* h2 ends the connection for whatever is wrong in one response, and after a GOAWAY takes no frame any
  more. A shared connection carries other people's calls: here a malformed response ends its stream (RFC 9113, 8.1.1), and
  after a GOAWAY the streams that the peer still answers go on. So h2 never sees a GOAWAY, and of a header block only whether
  it is an interim one; what is wrong otherwise, in the fields or with Content-Length, is found here. A stream that is given up
  is reset in h2 before it gets the frame that was wrong, which it then passes over, as all that is still under way.
- *Bounds.* No frame is waited for that may not come in that size. A header block is bounded before it is decoded and after.
  Frames that move no message are counted as *noise*: every ``feed`` forgives some, so that a peer may ping for hours, and may
  not send floods (RFC 9113, 10.5). Of settings h2 gets those that it knows, and its table for HPACK does not grow because
  the peer allows it.
- *Error codes* are those that RFC 9113 names.

A stream's window is opened as the application reads (:meth:`Http2.took`), and the connection's then, too, and for what nobody
reads any more. The connection's is larger than a stream's, so that a slow reader does not hold up the others.

Not thread-safe. Nothing here raises for what the peer does: a stream has its ``error``, the connection its ``failure``.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from meshlib.extras import needed
from meshlib.wire.errors import (
    LocalProtocolError,
    ReadError,
    RemoteProtocolError,
    StreamRefused,
    UnsupportedProtocol,
    WireError,
)
from meshlib.wire.heads import SIZES, Sizes
from meshlib.wire.http2_stream import Http2Stream
from meshlib.wire.message import Head

try:
    with needed("http2", "HTTP/2"):
        from h2.errors import ErrorCodes
        from h2.events import Event, StreamReset

        from meshlib.wire.http2_fields import read_head, read_trailers, write_head
        from meshlib.wire.http2_frames import (
            ACK,
            CONTINUATION,
            DATA,
            END_HEADERS,
            END_STREAM,
            GOAWAY,
            HEADERS,
            LAST_NUMBER,
            PING,
            PUSH_PROMISE,
            RST_STREAM,
            SETTINGS,
            WINDOW_UPDATE,
            Frames,
            Violation,
            data_of,
            goaway,
            known_settings,
            name_of,
            without_resets,
        )
        from meshlib.wire.http2_library import CONNECTION_WINDOW, STREAM_WINDOW, Library
except ModuleNotFoundError as missing:
    raise UnsupportedProtocol(str(missing)) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.wire.message import Lines, Outgoing

__all__ = ["CONNECTION_WINDOW", "FIRST_STREAMS", "STREAM_WINDOW", "Http2"]

#: Streams at once before the peer says how many: RFC 9113 (6.5.2) recommends to allow no fewer, and nghttp2 and Go assume it.
FIRST_STREAMS = 100
#: What is sent of a body at once at most, so that other streams come in between.
_MOST_SENT = 262_144
#: Noise that ends a connection: as many control frames as Go's server lets wait.
_MOST_NOISE = 10_000
#: What each ``feed`` forgives, and each frame of a body that we sent, which the peer answers with windows: Envoy's
#: ``max_inbound_window_update_frames_per_data_frame_sent``.
_FORGIVEN = 10
#: Streams that were given up and may have frames under way.
_MOST_GIVEN_UP = 1024
#: What a peer says of us with a RST_STREAM; with the other codes it speaks of itself (RFC 9113, 7).
_OUR_FAULTS = frozenset(
    (
        ErrorCodes.PROTOCOL_ERROR,
        ErrorCodes.FLOW_CONTROL_ERROR,
        ErrorCodes.SETTINGS_TIMEOUT,
        ErrorCodes.STREAM_CLOSED,
        ErrorCodes.FRAME_SIZE_ERROR,
        ErrorCodes.COMPRESSION_ERROR,
        ErrorCodes.INADEQUATE_SECURITY,
        ErrorCodes.HTTP_1_1_REQUIRED,
    )
)


class Http2:
    """One connection.

    Attributes:
        failure: What ended it, which the streams that were open have for their error.
        draining: The peer said that it takes no more streams (GOAWAY).
        streams: Those that are open, by number.
    """

    def __init__(self, sizes: Sizes = SIZES, settings: Sequence[tuple[int, int]] = ()) -> None:
        self._sizes = sizes
        header_list = sizes.head + 32 * sizes.lines  # as it is counted (RFC 9113, 6.5.2)
        self._h2 = Library(header_list, settings)
        self._out: list[bytes] = [self._h2.greeting] if settings else []
        self._frames = Frames(header_list)
        self._handlers: dict[int, Callable[[bytes, int, int], None]] = {
            DATA: self._on_data,
            HEADERS: self._on_headers,
            CONTINUATION: self._on_continuation,
            RST_STREAM: self._on_reset,
            SETTINGS: self._on_settings,
            PING: self._on_ping,
            GOAWAY: self._on_goaway,
            WINDOW_UPDATE: self._on_window,
            PUSH_PROMISE: self._on_push,
        }
        self._ends = False  # the header block that is being read does so with the response
        self._noise = 0
        self._highest = -1
        self._said = ""  # what the peer said with its GOAWAY
        self._given_up: deque[int] = deque(maxlen=_MOST_GIVEN_UP)
        self._touched: list[Http2Stream] = []
        self.streams: dict[int, Http2Stream] = {}
        self.draining = False
        self.failure: WireError | None = None

    # ------------------------------------------------------------------------------------------- what the driver asks

    @property
    def limit(self) -> int:
        """Streams at once that the peer takes, and that are to be."""
        if not self._frames.greeted:
            return min(FIRST_STREAMS, self._sizes.streams)
        return min(self._h2.remote_settings.max_concurrent_streams, self._sizes.streams)

    @property
    def room(self) -> int:
        """How many more streams may be opened now."""
        if self.failure is not None or self.draining or self._highest >= LAST_NUMBER - 1:
            return 0
        return max(0, self.limit - len(self.streams))

    def outgoing(self) -> bytes:
        """What is to be sent, in this order, before anything that is returned later."""
        data = self._h2.data_to_send()
        if self._out:
            self._out.append(data)
            data = b"".join(self._out)
            self._out.clear()
        return data

    def open(self, request: Outgoing, size: int | None = 0) -> Http2Stream:
        """Send the head of a request. ``size``: bytes of its body, if they are known; with 0 it ends with the head.

        Raises LocalProtocolError for what cannot be said, and StreamRefused where no stream may be opened.
        """
        if not self.room:
            raise StreamRefused("the connection takes no more streams")
        try:
            fields, length = write_head(request)
        except ValueError as error:
            raise LocalProtocolError(str(error)) from None
        most = self._h2.remote_settings.max_header_list_size
        if most is not None and sum(len(name) + len(value) + 32 for name, value in fields) > most:
            raise LocalProtocolError(f"the peer takes no head of more than {most} bytes")
        if size is not None and length is not None and size != length:
            raise LocalProtocolError(f"Content-Length is {length}, and the body has {size} bytes")
        number = self._h2.get_next_available_stream_id()
        self._h2.send_headers(number, fields, end_stream=size == 0)
        self._highest = number
        stream = Http2Stream(number, length, sending=size != 0, no_body=request.method == b"HEAD")
        self.streams[number] = stream
        return stream

    def send(self, stream: Http2Stream, data: bytes | memoryview, *, end: bool = False) -> int:
        """Send of a body what the windows allow; how many bytes of ``data`` that is. ``end``: nothing comes behind ``data``.

        Raises LocalProtocolError for more or fewer bytes than Content-Length says, and sends nothing then.
        """
        if not stream.sending:
            return 0
        size, lacking = len(data), stream.lacking
        if lacking is not None and (size > lacking or (end and size < lacking)):
            raise LocalProtocolError(f"{size} bytes more of a body, where Content-Length announces {lacking}")
        most = min(size, self._h2.local_flow_control_window(stream.number), _MOST_SENT)
        frame = min(self._h2.max_outbound_frame_size, _MOST_SENT)
        view = memoryview(data)
        sent = 0
        while stream.sending and (sent < most or (end and sent == size)):
            part = view[sent : min(sent + frame, most)]
            sent += len(part)
            last = end and sent == size
            self._h2.send_data(stream.number, part, end_stream=last)
            self._noise = max(0, self._noise - _FORGIVEN)
            if last:
                stream.sending = False
        if lacking is not None:
            stream.lacking = lacking - sent
        if stream.ended and not stream.sending:
            self.streams.pop(stream.number, None)
        return sent

    def took(self, stream: Http2Stream, count: int) -> None:
        """The application has read that many bytes of ``parts``: the peer may send as many more."""
        if self.failure is None and count:
            self._h2.acknowledge_received_data(count, stream.number)

    def give_up(self, stream: Http2Stream) -> None:
        """Nobody wants the rest of it. The peer is told, unless it is done. What was not read makes room for others."""
        stream.sending = False
        unread = sum(map(len, stream.parts))
        stream.parts.clear()
        if self.failure is not None:
            return
        if stream.number in self.streams:
            # A response that is complete, and a request of which the rest is not wanted (RFC 9113, 8.1).
            self._reset(stream, ErrorCodes.NO_ERROR if stream.ended else ErrorCodes.CANCEL)
        self.took(stream, unread)

    def close(self) -> list[Http2Stream]:
        """Say good-bye. Returns as ``feed`` does."""
        if self.failure is None:
            self._goaway(ErrorCodes.NO_ERROR, "")
        return self.broken(ReadError, "the connection was closed")

    def broken(self, kind: type[WireError], text: str) -> list[Http2Stream]:
        """The connection is of no use any more, for a reason of the driver's. Returns as ``feed`` does."""
        if self.failure is None:
            self._fail(kind, text)
        return self._take_touched()

    # ------------------------------------------------------------------------------------------- what the peer sends

    def feed(self, data: bytes) -> list[Http2Stream]:
        """Bytes of the peer; ``b""``: it closed the connection. Returns the streams that changed, some twice."""
        if self.failure is not None:
            return []
        if not data:
            self._fail(ReadError, f"the peer closed the connection{self._said}")
            return self._take_touched()
        self._frames.add(data)
        self._noise = max(0, self._noise - _FORGIVEN)
        try:
            for kind, flags, number, frame in self._frames:
                handler = self._handlers.get(kind)
                if handler is None:
                    self._count_noise()  # PRIORITY, and what nobody knows, is passed over (RFC 9113, 5.3.2 and 5.5)
                else:
                    handler(frame, flags, number)
        except Violation as violation:
            self._goaway(violation.code, str(violation))
            self._fail(RemoteProtocolError, str(violation))
        return self._take_touched()

    def _take_touched(self) -> list[Http2Stream]:
        touched, self._touched = self._touched, []
        return touched

    def _pass(self, frame: bytes, *, quiet: bool = False) -> list[Event]:
        """Have h2 take a frame. ``quiet``: it is of a stream that was given up, and what is still under way of that is not
        answered with RST_STREAM again.
        """
        before = self._h2.data_to_send()
        if before:
            self._out.append(before)
        events = self._h2.take(frame)
        if quiet:
            self._out.append(without_resets(self._h2.data_to_send()))
        return events

    def _check_opened(self, number: int) -> None:
        if number % 2 == 0 or number > self._highest:
            raise Violation(ErrorCodes.PROTOCOL_ERROR, f"a frame of stream {number}, which was never opened")

    def _on_data(self, frame: bytes, flags: int, number: int) -> None:
        self._check_opened(number)
        data, padding = data_of(frame, flags)
        ends = flags & END_STREAM
        stream = self.streams.get(number)
        if stream is not None:
            wrong = _wrong_data(stream, len(data), ends)
            if wrong:
                self._refuse(
                    stream, ErrorCodes.STREAM_CLOSED if stream.ended else ErrorCodes.PROTOCOL_ERROR, wrong
                )
                stream = None
        if not data and not ends:
            self._count_noise()
        self._pass(frame, quiet=stream is None and number in self._given_up)
        if stream is None:
            return
        if padding:
            self._h2.acknowledge_received_data(padding, number)
        if data:
            stream.append(data)
            if stream.expected is not None:
                stream.expected -= len(data)
            self._touch(stream)
        if ends:
            self._ended(stream)

    def _on_headers(self, frame: bytes, flags: int, number: int) -> None:
        self._check_opened(number)
        self._ends = bool(flags & END_STREAM)
        stream = self.streams.get(number)
        if stream is not None:
            if stream.ended:
                self._refuse(stream, ErrorCodes.STREAM_CLOSED, "a head behind the end of the response")
            elif stream.head is not None and not self._ends:
                self._refuse(stream, ErrorCodes.PROTOCOL_ERROR, "a second head")
        self._on_continuation(frame, flags, number)

    def _on_continuation(self, frame: bytes, flags: int, number: int) -> None:
        stream = self.streams.get(number)
        self._h2.decoder.interim_allowed = stream is not None and stream.head is None and not self._ends
        self._pass(frame, quiet=stream is None and number in self._given_up)
        if not flags & END_HEADERS:
            return
        if stream is None:
            self._count_noise()
            return
        try:
            self._take_block(stream, self._h2.decoder.lines)
        except ValueError as error:
            self._refuse(stream, ErrorCodes.PROTOCOL_ERROR, str(error))

    def _take_block(self, stream: Http2Stream, lines: Lines) -> None:
        """A header block is complete. Raises ValueError where the response is malformed."""
        if len(lines) > self._sizes.lines + 1:
            raise ValueError(f"a head of {len(lines)} lines, beyond {self._sizes.lines}")
        if stream.head is not None:
            stream.trailers = read_trailers(lines)
        else:
            status, fields, length = read_head(lines)
            if status < 200:
                self._take_interim(stream, status)
                return
            stream.head = Head(status, b"", fields, b"HTTP/2")
            stream.expected = 0 if stream.no_body or status in (204, 304) else length
        if self._ends:
            if stream.expected:
                raise ValueError("the body is shorter than Content-Length says")
            self._ended(stream)
        self._touch(stream)

    def _take_interim(self, stream: Http2Stream, status: int) -> None:
        if status == 101 or self._ends:
            raise ValueError(
                f"a response that {'ends' if self._ends else 'changes the protocol'} with {status}"
            )
        stream.interims += 1
        if stream.interims > self._sizes.interim:
            raise ValueError(f"more than {self._sizes.interim} interim responses")
        self._touch(stream)

    def _on_reset(self, frame: bytes, _flags: int, number: int) -> None:
        self._check_opened(number)
        self._pass(frame)
        stream = self.streams.pop(number, None)
        if stream is None:
            self._count_noise()
            return
        code = int.from_bytes(frame[9:13])
        kind: type[WireError] = RemoteProtocolError if code in _OUR_FAULTS else ReadError
        if code == ErrorCodes.REFUSED_STREAM:
            kind = StreamRefused
        self._end(stream, kind, f"the peer reset the stream: {name_of(code)}")

    def _on_settings(self, frame: bytes, flags: int, _number: int) -> None:
        self._count_noise()
        self._pass(frame if flags & ACK else known_settings(frame))
        self._windows_changed()

    def _on_ping(self, frame: bytes, _flags: int, _number: int) -> None:
        self._count_noise()
        self._pass(frame)

    def _on_goaway(self, frame: bytes, _flags: int, _number: int) -> None:
        self._count_noise()
        last, code = struct.unpack_from(">LL", frame, 9)
        self.draining = True
        debug = frame[17:117].decode("ascii", "backslashreplace")
        self._said = f" after GOAWAY: {name_of(code)}{debug and f' ({debug})'}"
        for number in [number for number in self.streams if number > last & LAST_NUMBER]:
            stream = self.streams.pop(number)
            self._end(stream, StreamRefused, f"the peer did not look at the request{self._said}")

    def _on_window(self, frame: bytes, _flags: int, number: int) -> None:
        self._count_noise()
        stream: Http2Stream | None = None
        if number:
            self._check_opened(number)
            stream = self.streams.get(number)
        if not int.from_bytes(frame[9:13]) & LAST_NUMBER:
            if not number:
                raise Violation(ErrorCodes.PROTOCOL_ERROR, "a window that grows by nothing")
            if stream is not None:
                self._refuse(stream, ErrorCodes.PROTOCOL_ERROR, "a window that grows by nothing")
            return
        events = self._pass(frame)
        if stream is None:
            self._windows_changed()
        elif any(isinstance(event, StreamReset) for event in events):  # h2 has reset it
            self._given_up.append(number)
            self._end(stream, RemoteProtocolError, "a window beyond what there may be")
        elif stream.sending:
            self._touch(stream)

    def _on_push(self, _frame: bytes, _flags: int, _number: int) -> None:
        raise Violation(ErrorCodes.PROTOCOL_ERROR, "a push, which was not allowed")

    # --------------------------------------------------------------------------------------------------- what follows

    def _count_noise(self) -> None:
        self._noise += 1
        if self._noise > _MOST_NOISE:
            raise Violation(ErrorCodes.ENHANCE_YOUR_CALM, "a flood of frames that move no message")

    def _touch(self, stream: Http2Stream) -> None:
        stream.changed = True
        self._touched.append(stream)

    def _windows_changed(self) -> None:
        for stream in self.streams.values():
            if stream.sending:
                self._touch(stream)

    def _ended(self, stream: Http2Stream) -> None:
        """Its response is complete."""
        stream.ended = True
        if not stream.sending:
            self.streams.pop(stream.number, None)
        self._touch(stream)

    def _end(self, stream: Http2Stream, kind: type[WireError], text: str) -> None:
        """It is over on the connection, and its response, if it is not complete, broken."""
        self.streams.pop(stream.number, None)
        stream.sending = False
        if not stream.ended:
            stream.error = kind(text)  # one for each stream, since it is raised in several threads
        self._touch(stream)

    def _refuse(self, stream: Http2Stream, code: int, text: str) -> None:
        """What the peer sent of it is wrong. The connection goes on."""
        self._reset(stream, code)
        stream.ended = False
        self._end(stream, RemoteProtocolError, text)

    def _reset(self, stream: Http2Stream, code: int) -> None:
        del self.streams[stream.number]
        self._given_up.append(stream.number)
        if not self._h2.streams[
            stream.number
        ].closed:  # else both sides are done with it, and nothing is to be reset
            self._h2.reset_stream(stream.number, code)

    def _goaway(self, code: int, text: str) -> None:
        self._out.append(self._h2.data_to_send())
        self._out.append(goaway(code, text))

    def _fail(self, kind: type[WireError], text: str) -> None:
        self.failure = kind(text)
        self._frames.clear()
        for stream in list(self.streams.values()):
            self._end(stream, kind, text)


def _wrong_data(stream: Http2Stream, size: int, ends: int) -> str:
    """What is wrong about so many bytes more of a body; empty: nothing."""
    if stream.ended:
        return "a body behind the end of the response"
    if stream.head is None:
        return "a body before the head"
    expected = stream.expected
    if expected is not None and (size > expected or (ends and size < expected)):
        return f"the body is {'longer' if size > expected else 'shorter'} than Content-Length says"
    return ""
