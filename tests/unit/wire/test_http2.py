"""HTTP/2 as a machine: what frames make of streams, and what is answered. A peer's side is written by hand, frame by frame."""

from __future__ import annotations

import struct
import sys

import pytest
from h2.errors import ErrorCodes
from hypothesis import given
from hypothesis import strategies as st

from meshlib.wire.errors import (
    LocalProtocolError,
    ReadError,
    RemoteProtocolError,
    StreamRefused,
    UnsupportedProtocol,
)
from meshlib.wire.heads import SIZES, Sizes
from meshlib.wire.http2 import CONNECTION_WINDOW, FIRST_STREAMS, STREAM_WINDOW, Http2
from tests.support.http2_frames import ACK, END_HEADERS, Peer, frame, request
from tests.unit.wire.http2_cases import BODY_ERRORS, CLOSED, CONNECTION_ERRORS, PROTOCOL, STREAM_ERRORS


class Pair:
    """A machine and its peer, greeted."""

    def __init__(self, **settings: int) -> None:
        self.machine = Http2()
        self.peer = Peer()
        self.machine.feed(self.peer.settings(**settings))
        self.greeting = self.said()

    def said(self):
        return self.peer.read(self.machine.outgoing())

    def get(self, *, method: bytes = b"GET", ends: bool = True):
        stream = self.machine.open(request(method), 0 if ends else None)
        self.said()
        return stream

    def feed(self, *frames: bytes):
        return self.machine.feed(b"".join(frames))

    def works(self) -> bool:
        """Whether another exchange passes."""
        stream = self.get()
        self.feed(self.peer.head(stream.number), self.peer.data(stream.number, b"fine", end=True))
        return stream.ended and list(stream.parts) == [b"fine"] and stream.error is None


@pytest.fixture
def pair():
    return Pair()


# ---------------------------------------------------------------------------------------------------- a call that passes


def test_the_greeting_allows_no_push_and_opens_the_windows(pair):
    settings, window, ack = pair.greeting
    assert settings[0] == "settings"
    assert settings[1][2] == 0
    assert settings[1][4] == STREAM_WINDOW
    assert 8 not in settings[1]
    assert window == ("window", 0, CONNECTION_WINDOW - 65_535)
    assert ack == ("settings ack",)


def test_a_request_as_http1_writes_it_is_said_in_fields(pair):
    lines = [
        (b"HOST", b"reviews:80"),
        (b"Accept", b" */* "),
        (b"Connection", b"keep-alive, X-Hop, te, host"),
        (b"Keep-Alive", b"5"),
        (b"X-Hop", b"1"),
        (b"Upgrade", b"h2c"),
        (b"Proxy-Connection", b"close"),
        (b"Transfer-Encoding", b"chunked"),
        (b"TE", b"trailers"),
        (b"Te", b"gzip"),
        (b"Authorization", b"Bearer x"),
    ]
    wanted = request(b"POST", b"/a?b=c")
    wanted.headers = lines
    wanted.secure = True
    stream = pair.machine.open(wanted, None)
    assert pair.said() == [
        (
            "head",
            stream.number,
            [
                (b":method", b"POST"),
                (b":scheme", b"https"),
                (b":authority", b"reviews:80"),
                (b":path", b"/a?b=c"),
                (b"accept", b"*/*"),
                (b"te", b"trailers"),
                (b"authorization", b"Bearer x"),
            ],
        )
    ]


@pytest.mark.parametrize(
    ("method", "target", "lines", "words"),
    [
        (b"GET", b"/", [(b"X", b"a\r\nb: c")], "control"),
        (b"GET", b"/", [(b"X", b"a\0")], "control"),
        (b"GET", b"/", [(b"X y", b"a")], "no name"),
        (b"GET", b"/", [(b"", b"a")], "without a name"),
        (b"GET", b"/", [(b":path", b"/other")], "no name"),
        (b"GET", b"/a\r\nb", [], "control"),
        (b"GET", b"/a b", [], "path"),
        (b"GET", b"", [], "path"),
        (b"GET", b"*", [], "path"),
        (b"GET", b"http://other/", [], "path"),
        (b"G T", b"/", [], "method"),
        (b"", b"/", [], "method"),
        (b"CONNECT", b"host:443", [], "tunnel"),
        (b"GET", b"/", [(b"Host", b"second")], "Host"),
        (b"POST", b"/", [(b"Content-Length", b"1"), (b"Content-Length", b"2")], "Content-Length"),
        (b"POST", b"/", [(b"Content-Length", b"+1")], "Content-Length"),
        (b"POST", b"/", [(b"Content-Length", b"1")], "Content-Length is 1"),
    ],
)
def test_what_cannot_be_said_is_refused_before_a_byte_leaves(pair, method, target, lines, words):
    with pytest.raises(LocalProtocolError, match=words):
        pair.machine.open(request(method, target, *lines))
    assert pair.said() == []
    assert pair.works()


def test_a_response_with_interim_heads_a_body_and_trailers(pair):
    stream = pair.get()
    pair.feed(pair.peer.head(1, status=b"100"), pair.peer.head(1, (b"link", b"</a>"), status=b"103"))
    assert (stream.interims, stream.head) == (2, None)
    pair.feed(pair.peer.head(1, (b"content-type", b"text/plain"), (b"a", b"1"), (b"a", b"2")))
    assert (stream.head.status, stream.head.version, stream.head.reason) == (200, b"HTTP/2", b"")
    assert stream.head.headers == [(b"content-type", b"text/plain"), (b"a", b"1"), (b"a", b"2")]
    pair.feed(pair.peer.data(1, b"x" * 1000), pair.peer.data(1, b"y" * 1000))
    assert list(stream.parts) == [b"x" * 1000, b"y" * 1000]
    assert not stream.ended
    assert pair.feed(pair.peer.trailers(1, (b"grpc-status", b"0"))) == [stream, stream]
    assert stream.ended
    assert stream.trailers == [(b"grpc-status", b"0")]
    assert pair.machine.streams == {}
    assert pair.works()


@given(data=st.data())
def test_any_split_into_segments_reads_the_same(data):
    pair = Pair()
    first, second = pair.get(), pair.get()
    peer = pair.peer
    rest = Peer().block((b":status", b"200"), (b"a", b"b"))
    whole = (
        peer.head(1, (b"content-length", b"6"))
        + peer.data(1, b"abc", padding=3)
        + frame("HEADERS", 3, rest[:1])
    )
    whole += frame("CONTINUATION", 3, rest[1:]) + frame("CONTINUATION", 3, b"", END_HEADERS)
    whole += frame("PING", 0, b"12345678") + peer.data(1, b"def", end=True) + peer.data(3, b"", end=True)
    at = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    for start, end in zip([0, *at], [*at, len(whole)], strict=True):
        if start < end:
            pair.machine.feed(whole[start:end])
    assert (first.head.status, b"".join(first.parts), first.ended) == (200, b"abcdef", True)
    assert (second.head.status, list(second.parts), second.ended) == (200, [], True)
    assert ("ping ack", b"12345678") in pair.said()


def test_small_parts_are_joined_so_that_a_window_full_of_them_is_no_more_than_the_window(pair):
    stream = pair.get()
    pair.feed(pair.peer.head(1), pair.peer.data(1, b"x") * 20_000)
    assert sum(map(len, stream.parts)) == 20_000
    assert len(stream.parts) <= 5


# ------------------------------------------------------------------------------------- what a peer does wrong, and is told


@pytest.mark.parametrize("case", CONNECTION_ERRORS)
def test_what_ends_the_connection(case, pair):
    sent, code = CONNECTION_ERRORS[case]
    streams = pair.get(), pair.get()
    pair.feed(sent)
    assert [said for said in pair.said() if said[0] == "goaway"] == [("goaway", code)]
    assert isinstance(pair.machine.failure, RemoteProtocolError)
    assert pair.machine.room == 0
    assert pair.machine.streams == {}
    errors = [stream.error for stream in streams if not stream.ended]
    assert all(isinstance(error, RemoteProtocolError | ReadError) for error in errors)
    assert len({id(error) for error in errors}) == len(errors)
    assert pair.feed(pair.peer.head(3)) == []  # nothing is read any more
    assert pair.said() == []


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("case", STREAM_ERRORS)
def test_a_malformed_head_ends_its_stream_and_no_other(case, ends, pair):
    lines, code = STREAM_ERRORS[case]
    wrong, other = pair.get(ends=ends), pair.get()
    pair.feed(pair.peer.trailers(1, *lines, end=False))
    assert isinstance(wrong.error, RemoteProtocolError)
    assert wrong.head is None
    assert not wrong.sending
    assert pair.said() == [("reset", 1, code)]
    pair.feed(pair.peer.data(1, b"more"), pair.peer.trailers(1, (b"a", b"b")))  # which was under way
    pair.feed(pair.peer.head(3, status=b"204", end=True))
    assert pair.said() == []
    assert (other.head.status, other.ended) == (204, True)
    assert pair.works()


@pytest.mark.parametrize("case", STREAM_ERRORS)
def test_a_malformed_head_that_ends_the_stream_is_an_error_too(case, pair):
    wrong = pair.get()
    pair.feed(pair.peer.trailers(1, *STREAM_ERRORS[case][0]))
    assert isinstance(wrong.error, RemoteProtocolError)
    assert not wrong.ended
    assert pair.said() == []  # both sides are done with it
    assert pair.works()


@pytest.mark.parametrize("case", BODY_ERRORS)
def test_a_malformed_response_ends_its_stream_and_no_other(case, pair):
    sent, code = BODY_ERRORS[case]
    wrong, other = pair.get(ends=False), pair.get()
    pair.feed(sent)
    assert isinstance(wrong.error, RemoteProtocolError)
    assert not wrong.ended
    assert [said for said in pair.said() if said[0] != "window"] == [("reset", 1, code)]
    pair.feed(Peer().head(3, status=b"204", end=True))
    assert other.ended
    assert pair.works()


@pytest.mark.parametrize(
    "sent",
    [
        Peer().head(1, (b"content-length", b"3"), end=True),
        Peer().head(1, (b"content-length", b"3")) + Peer().trailers(1, (b"a", b"b")),
        Peer().head(1) + Peer().trailers(1, (b":status", b"200")),
        Peer().head(1) + Peer().trailers(1, (b"Upper", b"200")),
        Peer().head(1) + Peer().trailers(1, (b"connection", b"close")),
        Peer().head(1, status=b"103", end=True),
    ],
)
def test_a_malformed_end_is_an_error(sent, pair):
    wrong = pair.get()
    pair.feed(sent)
    assert isinstance(wrong.error, RemoteProtocolError)
    assert not wrong.ended
    assert pair.works()


@pytest.mark.parametrize(
    ("method", "sent"),
    [
        (b"HEAD", Peer().head(1, (b"content-length", b"3"), end=True)),
        (b"HEAD", Peer().head(1, (b"content-length", b"3")) + Peer.data(1, end=True)),
        (b"GET", Peer().head(1, (b"content-length", b"3"), status=b"304", end=True)),
        (b"GET", Peer().head(1, (b"content-length", b"3"), status=b"304") + Peer.data(1, end=True)),
        (b"GET", Peer().head(1, (b"content-length", b"0"), end=True)),
        (
            b"GET",
            Peer().head(1, (b"content-length", b"0"), (b"content-length", b"00")) + Peer.data(1, end=True),
        ),
        (b"GET", Peer().head(1, status=b"204") + Peer().trailers(1, (b"a", b"b"))),
    ],
)
def test_a_response_without_a_body_may_tell_the_length_that_it_would_have(method, sent, pair):
    stream = pair.get(method=method)
    pair.feed(sent)
    assert (stream.ended, stream.error, list(stream.parts)) == (True, None, [])
    assert pair.works()


def test_a_body_behind_the_end_of_a_response_whose_request_goes_on_takes_the_response_back(pair):
    stream = pair.get(ends=False)
    pair.feed(pair.peer.head(1, end=True))
    assert stream.ended
    pair.feed(pair.peer.data(1, b"x"))
    assert pair.said() == [("reset", 1, CLOSED)]
    assert isinstance(stream.error, RemoteProtocolError)
    assert pair.works()


@pytest.mark.parametrize(
    "began",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frame("PING", 0, bytes(8)),
        frame("SETTINGS", 0, b"", ACK),
        frame("GOAWAY", 0, bytes(8)),
    ],
)
def test_a_peer_that_does_not_begin_with_its_settings_speaks_no_http2(began):
    machine = Http2()
    stream = machine.open(request())
    machine.feed(began)
    assert isinstance(stream.error, RemoteProtocolError)
    assert "no HTTP/2" in str(stream.error)
    assert Peer().read(machine.outgoing())[-1] == ("goaway", PROTOCOL)


def test_frames_that_nobody_knows_are_passed_over(pair):
    stream = pair.get()
    pair.feed(
        frame(0x0A, 0, b"\0\0alt"), frame(0xFE, 1, b"x", 0xFF), frame("PRIORITY", 1, struct.pack(">LB", 1, 5))
    )
    pair.feed(frame("SETTINGS", 0, struct.pack(">HL", 0xABCD, 7) * 2))
    assert stream.error is None
    assert pair.works()


def test_noise_is_forgiven_as_time_goes_by(pair):
    stream = pair.get()
    for _ in range(20_000):
        pair.feed(frame("PING", 0, bytes(8)))
        pair.machine.outgoing()
    assert stream.error is None
    assert pair.works()


def test_an_upload_earns_the_windows_that_it_is_answered_with(pair):
    stream = pair.get(ends=False)
    pair.feed(*[pair.peer.window(1, 1)] * 9_000)
    for _ in range(1_000):
        pair.machine.send(stream, b"x")
    pair.feed(*[pair.peer.window(1, 1)] * 9_000)
    assert stream.error is None
    assert pair.works()


def test_settings_of_a_hostile_peer_take_no_memory(pair):
    for first in range(0, 65_536, 2_000):
        pair.feed(
            frame(
                "SETTINGS",
                0,
                b"".join(
                    struct.pack(">HL", code, 1)
                    for code in range(max(first, 16), first + 2_000)
                    if code < 65_536
                ),
            )
        )
    assert len(pair.machine._h2.remote_settings) < 10
    pair.feed(pair.peer.settings(header_table_size=2**32 - 1))
    for number in range(200):
        pair.machine.open(request(b"GET", b"/", (b"x-unique", b"%0100d" % number)))
        pair.feed(pair.peer.reset(1 + 2 * number, 8))
        pair.said()
    assert pair.machine._h2.encoder.header_table_size == 4096


# -------------------------------------------------------------------------------------------- RST_STREAM, GOAWAY, SETTINGS


@pytest.mark.parametrize("code", [*ErrorCodes, 0x77])
def test_what_a_reset_means(code, pair):
    stream, other = pair.get(), pair.get()
    pair.feed(pair.peer.head(1), pair.peer.reset(1, code))
    kind = {
        ErrorCodes.REFUSED_STREAM: StreamRefused,
        ErrorCodes.NO_ERROR: ReadError,
        ErrorCodes.INTERNAL_ERROR: ReadError,
        ErrorCodes.CANCEL: ReadError,
        ErrorCodes.CONNECT_ERROR: ReadError,
        ErrorCodes.ENHANCE_YOUR_CALM: ReadError,
        0x77: ReadError,
    }.get(code, RemoteProtocolError)
    assert type(stream.error) is kind
    assert (code.name if isinstance(code, ErrorCodes) else "0x77") in str(stream.error)
    assert other.error is None
    assert pair.works()


def test_an_early_response_stops_the_upload_and_is_whole(pair):
    stream = pair.get(ends=False)
    pair.feed(pair.peer.head(1, status=b"413"), pair.peer.data(1, b"too much", end=True))
    assert stream.ended
    assert stream.sending
    pair.feed(pair.peer.reset(1, ErrorCodes.NO_ERROR))
    assert not stream.sending
    assert (stream.error, stream.head.status, list(stream.parts)) == (None, 413, [b"too much"])
    assert pair.machine.send(stream, b"more") == 0
    assert pair.said() == []
    assert pair.works()


def test_the_rest_of_an_upload_that_a_response_made_needless_is_taken_back(pair):
    stream = pair.get(ends=False)
    pair.feed(pair.peer.head(1, status=b"413", end=True))
    pair.machine.give_up(stream)
    assert pair.said() == [("reset", 1, "NO_ERROR")]
    assert pair.machine.streams == {}
    assert pair.works()


def test_a_goaway_lets_what_the_peer_answers_go_on_and_refuses_the_rest(pair):
    streams = [pair.get(ends=False) for _ in range(4)]
    pair.feed(pair.peer.goaway(2**31 - 1))  # that it will come (RFC 9113, 6.8)
    assert pair.machine.draining
    assert pair.machine.room == 0
    assert [stream.error for stream in streams] == [None] * 4
    with pytest.raises(StreamRefused):
        pair.machine.open(request())
    touched = pair.feed(pair.peer.goaway(3, 0, b"see you"))
    assert touched == streams[2:]
    assert [type(stream.error) for stream in streams] == [type(None)] * 2 + [StreamRefused] * 2
    assert "see you" in str(streams[2].error)
    assert pair.said() == []
    assert pair.machine.send(streams[0], b"body", end=True) == 4
    pair.feed(pair.peer.head(1), pair.peer.data(1, b"fine", end=True), pair.peer.window(3, 10))
    assert (streams[0].ended, list(streams[0].parts)) == (True, [b"fine"])
    pair.feed(pair.peer.goaway(2**31 - 1))  # takes nothing back
    pair.feed(b"")
    assert type(streams[1].error) is ReadError
    assert "GOAWAY: NO_ERROR" in str(streams[1].error)


def test_the_end_of_the_connection_says_what_the_peer_said_before(pair):
    stream = pair.get()
    pair.feed(pair.peer.goaway(1, ErrorCodes.ENHANCE_YOUR_CALM, b"too_many_pings\x80"))
    pair.feed(b"")
    assert type(stream.error) is ReadError
    assert "ENHANCE_YOUR_CALM (too_many_pings\\x80)" in str(stream.error)


def test_how_many_streams_a_peer_takes_may_change():
    machine, peer = Http2(), Peer()
    assert machine.room == FIRST_STREAMS
    streams = [machine.open(request()) for _ in range(3)]
    machine.feed(peer.settings(max_concurrent_streams=2))
    assert (machine.limit, machine.room) == (2, 0)
    with pytest.raises(StreamRefused):
        machine.open(request())
    assert [stream.error for stream in streams] == [None] * 3
    machine.feed(peer.head(1, end=True) + peer.reset(3, 8))
    assert machine.room == 1
    machine.feed(peer.settings(max_concurrent_streams=0))
    assert machine.room == 0
    machine.feed(peer.settings(max_concurrent_streams=2**32 - 1))
    assert machine.room == SIZES.streams - 1


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_streams_than_are_to_be(most):
    machine, peer = Http2(Sizes(streams=most)), Peer()
    assert machine.limit == most  # before the peer has said how many it takes
    machine.feed(peer.settings(max_concurrent_streams=100))
    for _ in range(most):
        machine.open(request())
    assert machine.room == 0
    with pytest.raises(StreamRefused):
        machine.open(request())
    machine.feed(peer.head(1, end=True))
    assert machine.room == 1


def test_a_peer_that_names_no_number_takes_many(pair):
    assert pair.machine.limit == SIZES.streams


def test_a_connection_whose_identifiers_are_used_up_takes_no_more(pair):
    pair.machine._h2.highest_outbound_stream_id = 2**31 - 5
    for _ in range(2):
        assert pair.machine.room
        pair.machine.open(request())
    assert pair.machine.room == 0
    with pytest.raises(StreamRefused):
        pair.machine.open(request())


def test_a_head_beyond_what_the_peer_takes_is_not_sent():
    pair = Pair(max_header_list_size=200)
    with pytest.raises(LocalProtocolError, match="200"):
        pair.machine.open(request(b"GET", b"/", (b"x", b"y" * 100)))
    assert pair.said() == []
    assert pair.works()


# ------------------------------------------------------------------------------------------------------ flow control


def test_an_upload_goes_as_the_windows_allow(pair):
    stream = pair.get(ends=False)
    body = bytes(range(256)) * 1024
    assert pair.machine.send(stream, body, end=True) == 65_535
    assert pair.machine.send(stream, body[65_535:], end=True) == 0
    assert [len(said[2]) for said in pair.said()] == [16_384, 16_384, 16_384, 16_383]
    stream.changed = False
    assert stream not in pair.feed(pair.peer.head(1)) or stream.changed
    pair.feed(pair.peer.window(1, 100_000))
    assert pair.machine.send(stream, body[65_535:], end=True) == 0  # the connection's window holds
    touched = pair.feed(pair.peer.window(0, 50_000))
    assert touched == [stream]
    assert pair.machine.send(stream, body[65_535:], end=True) == 50_000
    pair.feed(pair.peer.window(0, 2**30), pair.peer.window(1, 2**30))
    assert pair.machine.send(stream, body[115_535:], end=True) == len(body) - 115_535
    assert pair.said()[-1][-1] == "end"
    assert not stream.sending


def test_a_window_that_settings_make_negative_holds_an_upload(pair):
    stream = pair.get(ends=False)
    pair.machine.send(stream, bytes(60_000))
    pair.feed(pair.peer.settings(initial_window_size=10_000))  # the window is at -50,000
    assert pair.machine.send(stream, b"more") == 0
    pair.feed(pair.peer.window(1, 50_000))
    assert pair.machine.send(stream, b"more") == 0
    pair.feed(pair.peer.window(1, 3))
    assert pair.machine.send(stream, b"more") == 3
    assert pair.feed(pair.peer.settings(initial_window_size=20_000)) == [stream]
    assert pair.machine.send(stream, bytes(60_000)) == 5_532  # of the connection's


def test_a_larger_frame_is_used_where_the_peer_takes_it():
    pair = Pair(max_frame_size=2**20, initial_window_size=2**20)
    pair.feed(pair.peer.window(0, 2**20))
    stream = pair.get(ends=False)
    assert pair.machine.send(stream, bytes(200_000)) == 200_000
    assert [len(said[2]) for said in pair.said()] == [200_000]


def test_an_empty_end_needs_no_window(pair):
    stream = pair.get(ends=False)
    pair.machine.send(stream, bytes(65_535))
    pair.said()
    assert pair.machine.send(stream, b"", end=True) == 0
    assert pair.said() == [("data", 1, b"", "end")]
    assert not stream.sending


@pytest.mark.parametrize(
    ("sent", "end"), [([b"abcd"], False), ([b"ab", b"cd"], False), ([b"ab"], True), ([], True)]
)
def test_a_body_that_is_not_what_content_length_says_is_not_sent(sent, end, pair):
    stream = pair.machine.open(request(b"POST", b"/", (b"Content-Length", b"3")), None)
    pair.said()
    *before, last = sent or [b""]
    for part in before:
        pair.machine.send(stream, part)
    pair.said()
    with pytest.raises(LocalProtocolError, match="Content-Length"):
        pair.machine.send(stream, last, end=end)
    assert pair.said() == []
    pair.machine.give_up(stream)
    assert pair.said() == [("reset", 1, "CANCEL")]


def test_the_window_opens_as_the_application_reads(pair):
    stream = pair.get()
    pair.feed(pair.peer.head(1), *[pair.peer.data(1, bytes(16_384))] * 60)
    assert pair.said() == []  # the window is almost used, and nobody read
    for _ in range(31):
        pair.machine.took(stream, len(stream.parts.popleft()))
    assert pair.said() == []
    pair.machine.took(stream, len(stream.parts.popleft()))
    assert pair.said() == [("window", 1, 32 * 16_384)]
    pair.feed(*[pair.peer.data(1, bytes(16_384))] * 32)
    assert stream.error is None
    for _ in range(60):
        pair.machine.took(stream, len(stream.parts.popleft()))
    assert pair.machine.failure is None


def test_a_response_that_fills_the_window_goes_on_once_it_is_read(pair):
    stream = pair.get()
    pair.feed(pair.peer.head(1), *[pair.peer.data(1, bytes(16_384))] * 64)
    assert pair.said() == []
    pair.machine.took(stream, len(stream.parts.popleft()))
    assert pair.said() == [("window", 1, 16_384)]


def test_a_slow_reader_does_not_hold_up_the_others(pair):
    slow = [pair.get() for _ in range(8)]
    for stream in slow:
        pair.feed(pair.peer.head(stream.number), *[pair.peer.data(stream.number, bytes(16_384))] * 64)
    assert pair.works()
    assert all(stream.error is None for stream in slow)


def test_what_is_not_read_makes_room_when_it_is_given_up(pair):
    for _ in range(40):  # two and a half times the connection's window
        stream = pair.get()
        pair.feed(pair.peer.head(stream.number), *[pair.peer.data(stream.number, bytes(16_384))] * 63)
        pair.machine.give_up(stream)
        pair.feed(pair.peer.data(stream.number, bytes(16_384), padding=None))  # which was under way
        assert ("reset", stream.number, "CANCEL") in pair.said()
    assert pair.machine.failure is None
    assert pair.works()


def test_padding_makes_room_at_once(pair):
    stream = pair.get()
    pair.feed(pair.peer.head(1))
    for _ in range(2 * STREAM_WINDOW // 256):
        pair.feed(pair.peer.data(1, b"", padding=255))
    assert stream.error is None
    assert list(stream.parts) == []


def test_a_stream_that_was_given_up_is_reset_once(pair):
    stream, other = pair.get(), pair.get()
    pair.feed(pair.peer.head(1), pair.peer.data(1, b"x"))
    pair.machine.give_up(stream)
    pair.machine.give_up(stream)
    pair.feed(*[pair.peer.data(1, b"y")] * 2_000, pair.peer.trailers(1, (b"a", b"b")))
    pair.feed(pair.peer.window(1, 5), pair.peer.reset(1, 8))
    assert pair.said() == [("reset", 1, "CANCEL")]
    assert other.error is None
    assert pair.works()


def test_a_thousand_streams_at_once(pair):
    streams = [pair.get() for _ in range(1_000)]
    for stream in reversed(streams):
        pair.feed(
            pair.peer.head(stream.number), pair.peer.data(stream.number, b"%d" % stream.number, end=True)
        )
    assert [b"".join(stream.parts) for stream in streams] == [b"%d" % stream.number for stream in streams]
    assert pair.works()


# ---------------------------------------------------------------------------------------------------- its ends, its extra


def test_a_connection_that_is_closed_says_so_and_its_streams_fail(pair):
    stream = pair.get()
    assert pair.machine.close() == [stream]
    assert pair.said() == [("goaway", "NO_ERROR")]
    assert type(stream.error) is ReadError
    assert pair.machine.close() == []
    assert pair.said() == []
    pair.machine.took(stream, 5)
    pair.machine.give_up(stream)
    assert pair.said() == []


def test_without_h2_its_remedy_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] in {"h2", "hpack", "hyperframe"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "h2", None)
    for name in [name for name in sys.modules if name.startswith("meshlib.wire.http2")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UnsupportedProtocol, match=r"meshlib-client\[http2\]"):
        import meshlib.wire.http2  # noqa: F401


@given(
    sent=st.lists(
        st.builds(
            frame,
            st.integers(0, 11),
            st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1]),
            st.binary(max_size=40),
            st.integers(0, 255),
        ),
        max_size=30,
    )
)
def test_whatever_comes_the_machine_does_not_raise_and_says_at_most_one_goodbye(sent):
    pair = Pair()
    streams = [pair.get(), pair.get(ends=False)]
    for part in sent:
        for stream in pair.machine.feed(part):
            assert stream.changed
        if streams[1].sending:
            pair.machine.send(streams[1], b"x" * 1_000)
        pair.machine.outgoing()
    assert len(pair.machine._out) == 0
    for stream in streams:
        assert not (stream.ended and stream.error)
    assert (pair.machine.failure is None) or not pair.machine.streams
