"""What servers of HTTP/2 may do wrong, frame by frame, and what they are told."""

from __future__ import annotations

import struct

from meshlib.wire.http2 import STREAM_WINDOW
from tests.support.http2_frames import ACK, END_HEADERS, END_STREAM, PADDED, Peer, frame

__all__ = ["BODY_ERRORS", "CLOSED", "CONNECTION_ERRORS", "PROTOCOL", "STREAM_ERRORS"]

#: What a peer sends on a connection with the streams 1 and 3 open, for which a GET was sent whole, and what it is told. Only
#: what is wrong as a whole ends the connection.
PROTOCOL, SIZE, FLOW = "PROTOCOL_ERROR", "FRAME_SIZE_ERROR", "FLOW_CONTROL_ERROR"
CALM, CLOSED, COMPRESSION = "ENHANCE_YOUR_CALM", "STREAM_CLOSED", "COMPRESSION_ERROR"
_p = Peer()
CONNECTION_ERRORS = {
    # RFC 9113, 4.1 and 4.2
    "a frame beyond the size that we allow": (frame("DATA", 1, b"", length=16_385), SIZE),
    "an unknown frame beyond that size": (frame(0x77, 1, b"", length=2**24 - 1), SIZE),
    "HEADERS beyond that size": (frame("HEADERS", 1, b"", END_HEADERS, length=20_000), SIZE),
    # 4.3
    "a header block that is none": (
        frame("HEADERS", 1, b"\xff\xff\xff\xff\xff\xff\xff\xff", END_HEADERS),
        COMPRESSION,
    ),
    "an index beyond the table": (frame("HEADERS", 1, b"\xfe", END_HEADERS), COMPRESSION),
    "the index 0": (frame("HEADERS", 1, b"\x80", END_HEADERS), COMPRESSION),
    "a header block cut off": (frame("HEADERS", 1, b"\x00\x05ab", END_HEADERS), COMPRESSION),
    "a broken Huffman code": (
        frame("HEADERS", 1, b"\x00\x01a\x84\xff\xff\xff\xff", END_HEADERS),
        COMPRESSION,
    ),
    "a table beyond what we allow": (frame("HEADERS", 1, b"\x3f\xe2\x1f\x88", END_HEADERS), COMPRESSION),
    "a table update behind a field": (frame("HEADERS", 1, b"\x88\x20", END_HEADERS), COMPRESSION),
    "a broken header block of a stream that is done": (
        _p.reset(1, 8) + frame("HEADERS", 1, b"\x80", END_HEADERS),
        COMPRESSION,
    ),
    # 5.1 and 5.1.1
    "DATA on a stream that was never opened": (_p.data(5, b"x"), PROTOCOL),
    "HEADERS on one": (frame("HEADERS", 5, b"\x88", END_HEADERS), PROTOCOL),
    "HEADERS on a stream of the server's": (frame("HEADERS", 2, b"\x88", END_HEADERS), PROTOCOL),
    "DATA on one of the server's": (_p.data(2, b"x"), PROTOCOL),
    "RST_STREAM on a stream that was never opened": (_p.reset(5, 8), PROTOCOL),
    "WINDOW_UPDATE on one": (_p.window(5, 1), PROTOCOL),
    "HEADERS behind the end of a response": (
        frame("HEADERS", 1, b"\x88", END_HEADERS | END_STREAM)
        + frame("HEADERS", 1, b"\x88", END_HEADERS | END_STREAM),
        CLOSED,
    ),
    # 6.1 to 6.10: each on the stream where it may not be, and in a size that it cannot have
    "DATA on stream 0": (_p.data(0, b"x"), PROTOCOL),
    "DATA with more padding than frame": (frame("DATA", 1, b"\x05abcd", PADDED), PROTOCOL),
    "DATA without its padding": (frame("DATA", 1, b"", PADDED), PROTOCOL),
    "HEADERS on stream 0": (frame("HEADERS", 0, b"\x88", END_HEADERS), PROTOCOL),
    "HEADERS with more padding than frame": (
        frame("HEADERS", 1, b"\x05\x88", END_HEADERS | PADDED),
        PROTOCOL,
    ),
    "PRIORITY on stream 0": (frame("PRIORITY", 0, bytes(5)), PROTOCOL),
    "PRIORITY of 4 bytes": (frame("PRIORITY", 1, bytes(4)), SIZE),
    "RST_STREAM on stream 0": (_p.reset(0, 8), PROTOCOL),
    "RST_STREAM of 3 bytes": (frame("RST_STREAM", 1, bytes(3)), SIZE),
    "SETTINGS on a stream": (frame("SETTINGS", 1), PROTOCOL),
    "SETTINGS of 5 bytes": (frame("SETTINGS", 0, bytes(5)), SIZE),
    "an acknowledgement with settings": (frame("SETTINGS", 0, bytes(6), ACK), SIZE),
    "ENABLE_PUSH of 1": (_p.settings(enable_push=1), PROTOCOL),
    "ENABLE_PUSH of 2": (_p.settings(enable_push=2), PROTOCOL),
    "INITIAL_WINDOW_SIZE of 2³¹": (_p.settings(initial_window_size=2**31), FLOW),
    "MAX_FRAME_SIZE below the least": (_p.settings(max_frame_size=16_383), PROTOCOL),
    "MAX_FRAME_SIZE beyond the most": (_p.settings(max_frame_size=2**24), PROTOCOL),
    "a push": (frame("PUSH_PROMISE", 1, struct.pack(">L", 2) + b"\x88", END_HEADERS), PROTOCOL),
    "a push on stream 0": (frame("PUSH_PROMISE", 0, struct.pack(">L", 2) + b"\x88", END_HEADERS), PROTOCOL),
    "PING on a stream": (frame("PING", 1, bytes(8)), PROTOCOL),
    "PING of 7 bytes": (frame("PING", 0, bytes(7)), SIZE),
    "GOAWAY on a stream": (frame("GOAWAY", 1, bytes(8)), PROTOCOL),
    "GOAWAY of 7 bytes": (frame("GOAWAY", 0, bytes(7)), SIZE),
    "WINDOW_UPDATE of 3 bytes": (frame("WINDOW_UPDATE", 0, bytes(3)), SIZE),
    "a window that grows by 0": (_p.window(0, 0), PROTOCOL),
    "the connection's window beyond 2³¹-1": (_p.window(0, 2**31 - 1), FLOW),
    "a stream's window beyond it by SETTINGS": (
        _p.window(1, 2**31 - 1 - 65_535) + _p.settings(initial_window_size=65_536),
        FLOW,
    ),
    "CONTINUATION of no header block": (frame("CONTINUATION", 1, b"\x88", END_HEADERS), PROTOCOL),
    "CONTINUATION behind a complete one": (
        frame("HEADERS", 1, b"\x88", END_HEADERS) + frame("CONTINUATION", 1, b"", END_HEADERS),
        PROTOCOL,
    ),
    "CONTINUATION of another stream's": (
        frame("HEADERS", 1, b"\x88") + frame("CONTINUATION", 3, b"", END_HEADERS),
        PROTOCOL,
    ),
    "DATA within a header block": (frame("HEADERS", 1, b"\x88") + _p.data(1, b"x"), PROTOCOL),
    "an unknown frame within a header block": (frame("HEADERS", 1, b"\x88") + frame(0x77, 1), PROTOCOL),
    # 6.9.1: more than we allowed
    "DATA beyond the stream's window": (
        _p.head(1) + frame("DATA", 1, bytes(16_384)) * (STREAM_WINDOW // 16_384) + _p.data(1, b"x"),
        FLOW,
    ),
    # 10.5: floods
    "CONTINUATION without end": (frame("HEADERS", 1, b"\x88") + frame("CONTINUATION", 1, b"") * 40, CALM),
    "a header block without end": (
        frame("HEADERS", 1, bytes(16_384)) + frame("CONTINUATION", 1, bytes(16_384)) * 4,
        CALM,
    ),
    "a small block that unpacks to a large list": (
        frame(
            "HEADERS",
            1,
            b"\x88\x40\x01a\x7f\xa1\x1e" + b"x" * 4_000 + b"\xbe" * 20,  # 20 times what stands in the table
            END_HEADERS,
        ),
        CALM,
    ),
    "PING": (frame("PING", 0, bytes(8)) * 10_100, CALM),
    "SETTINGS": (_p.settings(initial_window_size=1) * 10_100, CALM),
    "acknowledgements": (frame("SETTINGS", 0, b"", ACK) * 10_100, CALM),
    "PRIORITY": (frame("PRIORITY", 1, bytes(5)) * 10_100, CALM),
    "empty DATA": (frame("HEADERS", 1, b"\x88", END_HEADERS) + frame("DATA", 1) * 10_100, CALM),
    "RST_STREAM": (_p.reset(1, 8) * 10_100, CALM),
    "windows": (_p.window(0, 1) * 10_100, CALM),
    "unknown frames": (frame(0x77, 1) * 10_100, CALM),
    "GOAWAY": (_p.goaway(3) * 10_100, CALM),
}

#: What a peer sends on stream 1, for which a GET was sent whole, and how the stream is reset. The connection goes on.
STREAM_ERRORS = {
    "no :status": ([(b"a", b"b")], PROTOCOL),
    "an empty head": ([], PROTOCOL),
    ":status twice": ([(b":status", b"200"), (b":status", b"200")], PROTOCOL),
    ":status behind a field": ([(b"a", b"b"), (b":status", b"200")], PROTOCOL),
    ":status of two digits": ([(b":status", b"20")], PROTOCOL),
    ":status of four": ([(b":status", b"2000")], PROTOCOL),
    ":status with a sign": ([(b":status", b"+20")], PROTOCOL),
    ":status with a text": ([(b":status", b"200 OK")], PROTOCOL),
    ":status below 100": ([(b":status", b"099")], PROTOCOL),
    "a field of requests": ([(b":status", b"200"), (b":path", b"/")], PROTOCOL),
    "a field of requests first": ([(b":method", b"GET"), (b":status", b"200")], PROTOCOL),
    "an unknown pseudo field": ([(b":status", b"200"), (b":other", b"x")], PROTOCOL),
    "a pseudo field behind a field": ([(b":status", b"200"), (b"a", b"b"), (b":status", b"200")], PROTOCOL),
    "upper case": ([(b":status", b"200"), (b"Content-Type", b"a")], PROTOCOL),
    "a blank in a name": ([(b":status", b"200"), (b"a b", b"a")], PROTOCOL),
    "a colon in a name": ([(b":status", b"200"), (b"a:b", b"a")], PROTOCOL),
    "bytes beyond ASCII in a name": ([(b":status", b"200"), (b"\xc3\xa4", b"a")], PROTOCOL),
    "an empty name": ([(b":status", b"200"), (b"", b"a")], PROTOCOL),
    "CR and LF in a value": ([(b":status", b"200"), (b"a", b"b\r\nc: d")], PROTOCOL),
    "LF in a value": ([(b":status", b"200"), (b"a", b"b\nc")], PROTOCOL),
    "NUL in a value": ([(b":status", b"200"), (b"a", b"b\0c")], PROTOCOL),
    "a control character in a value": ([(b":status", b"200"), (b"a", b"b\x7fc")], PROTOCOL),
    "a blank before a value": ([(b":status", b"200"), (b"a", b" b")], PROTOCOL),
    "a tab behind one": ([(b":status", b"200"), (b"a", b"b\t")], PROTOCOL),
    "connection": ([(b":status", b"200"), (b"connection", b"close")], PROTOCOL),
    "keep-alive": ([(b":status", b"200"), (b"keep-alive", b"5")], PROTOCOL),
    "proxy-connection": ([(b":status", b"200"), (b"proxy-connection", b"close")], PROTOCOL),
    "transfer-encoding": ([(b":status", b"200"), (b"transfer-encoding", b"chunked")], PROTOCOL),
    "upgrade": ([(b":status", b"200"), (b"upgrade", b"websocket")], PROTOCOL),
    "101": ([(b":status", b"101")], PROTOCOL),
    "Content-Length with a sign": ([(b":status", b"200"), (b"content-length", b"+5")], PROTOCOL),
    "an empty Content-Length": ([(b":status", b"200"), (b"content-length", b"")], PROTOCOL),
    "a list of them": ([(b":status", b"200"), (b"content-length", b"5, 5")], PROTOCOL),
    "a huge one": ([(b":status", b"200"), (b"content-length", b"9" * 5000)], PROTOCOL),
    "two of them": ([(b":status", b"200"), (b"content-length", b"5"), (b"content-length", b"6")], PROTOCOL),
    "101 lines": ([(b":status", b"200"), *[(b"a", b"b")] * 101], PROTOCOL),
}

#: The same of what follows a head, or stands in its place.
BODY_ERRORS = {
    "DATA before the head": (_p.data(1, b"x"), PROTOCOL),
    "DATA before the head, and the end": (_p.data(1, b"x", end=True), PROTOCOL),
    "more than Content-Length": (Peer().head(1, (b"content-length", b"3")) + _p.data(1, b"abcd"), PROTOCOL),
    "more in two parts": (
        Peer().head(1, (b"content-length", b"3")) + _p.data(1, b"ab") + _p.data(1, b"cd", end=True),
        PROTOCOL,
    ),
    "less than Content-Length": (
        Peer().head(1, (b"content-length", b"3")) + _p.data(1, b"ab", end=True),
        PROTOCOL,
    ),
    "none of it": (Peer().head(1, (b"content-length", b"3")) + _p.data(1, b"", end=True), PROTOCOL),
    "padding that would fill it": (
        Peer().head(1, (b"content-length", b"3")) + _p.data(1, b"ab", end=True, padding=1),
        PROTOCOL,
    ),
    "a body behind 204": (Peer().head(1, status=b"204") + _p.data(1, b"x", end=True), PROTOCOL),
    "a body behind 304": (Peer().head(1, status=b"304") + _p.data(1, b"x", end=True), PROTOCOL),
    "a second head": (Peer().head(1) + Peer().head(1), PROTOCOL),
    "an interim head behind the final one": (Peer().head(1) + Peer().head(1, status=b"103"), PROTOCOL),
    "trailers without the end": (Peer().head(1) + Peer().trailers(1, (b"a", b"b"), end=False), PROTOCOL),
    "a window that grows by 0": (Peer().head(1) + _p.window(1, 0), PROTOCOL),
    "a window beyond 2³¹-1": (Peer().head(1) + _p.window(1, 2**31 - 1), FLOW),
    "too many interim heads": (Peer().head(1, status=b"103") * 101, PROTOCOL),
}
