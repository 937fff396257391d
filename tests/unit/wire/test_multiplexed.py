"""HTTP/2 over a blocking stream: many threads on one connection, over a pair of real sockets. The peer is written by hand."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.testing.clock import VirtualClock
from meshlib.wire.errors import (
    LocalProtocolError,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    StreamRefused,
    WriteError,
    WriteTimeout,
)
from meshlib.wire.http2 import FIRST_STREAMS, STREAM_WINDOW
from meshlib.wire.message import Outgoing
from meshlib.wire.multiplexed import Multiplexed
from meshlib.wire.stream import Stream
from tests.support.http2_frames import Far, frame, request

CLOCK = MonotonicClock()
MINUTE = 60.0
PING = frame("PING", 0, b"pingping")


def bounds(deadline: float | None = None, **timeouts: float | None) -> Bounds:
    return Bounds(
        CLOCK, None if deadline is None else CLOCK.now() + deadline, {"read": 20.0, "write": 20.0} | timeouts
    )


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    connection = Multiplexed(Stream(ours))
    with theirs:
        yield connection, Far(theirs)
        connection.close()
    assert ours.fileno() == -1


@pytest.fixture
def pool():
    with ThreadPoolExecutor(32) as pool:
        yield pool


def call(connection: Multiplexed, *, within: Bounds | None = None, **options) -> tuple[int, bytes]:
    response = connection.send(request(**options), within or bounds())
    return response.status, response.read()


def waits(connection: Multiplexed, count: int = 1) -> None:
    """Until a thread reads for all and ``count - 1`` wait for it."""
    while (
        connection._reader is None or len(connection._readers) < count - 1 or not connection.stream._waiting
    ):
        os.sched_yield()


def works(connection: Multiplexed, far: Far, pool: ThreadPoolExecutor) -> bool:
    """Whether another call passes."""
    far.said.clear()
    later = pool.submit(call, connection)
    far.serve()
    return (
        later.result(20) == (200, b"fine") and connection.free() and connection.idle and not connection.closed
    )


# ------------------------------------------------------------------------------------------------------ calls that pass


def test_the_first_call_greets_and_asks_in_one_segment(pair, pool):
    connection, far = pair
    later = pool.submit(call, connection)
    said = far.read(far.sock.recv(65_536))
    assert [one[0] for one in said] == ["settings", "window", "head"]
    far.say(far.settings())
    far.answer(1)
    assert later.result(20) == (200, b"fine")
    assert far.hear("settings ack")
    assert connection.used


def test_many_threads_share_it_and_are_answered_in_any_order(pair, pool):
    connection, far = pair
    calls = {}

    def one(path: bytes) -> bytes:
        return call(connection, target=path)[1]

    for number in range(20):
        calls[b"/%d" % number] = pool.submit(one, b"/%d" % number)
    heads = [far.hear("head") for _ in range(20)]
    assert connection.streams == FIRST_STREAMS
    for _, number, fields, _ in reversed(heads):
        far.answer(number, dict(fields)[b":path"])
    assert {path: later.result(20) for path, later in calls.items()} == {path: path for path in calls}
    assert connection.idle


def test_a_whole_body_goes_with_the_head_and_in_parts_as_they_come(pair, pool):
    connection, far = pair
    whole = Outgoing(b"POST", b"/", [(b"Host", b"a"), (b"Content-Length", b"4")], b"body")
    later = pool.submit(connection.send, whole, bounds())
    said = far.read(far.sock.recv(65_536))
    assert said[-1] == ("data", 1, b"body", "end")
    far.answer(1)
    assert later.result(20).read() == b"fine"
    parts = Outgoing(
        b"POST", b"/", [(b"Host", b"a"), (b"Transfer-Encoding", b"chunked")], iter([b"a", b"", b"bc"])
    )
    later = pool.submit(connection.send, parts, bounds())
    assert [far.hear("data") for _ in range(3)] == [
        ("data", 3, b"a"),
        ("data", 3, b"bc"),
        ("data", 3, b"", "end"),
    ]
    far.answer(3)
    assert later.result(20).read() == b"fine"
    assert works(connection, far, pool)


def test_a_response_in_all_the_ways_that_it_may_be_read(pair, pool):
    connection, far = pair
    ended = []
    far.say(far.settings())
    for number, read in enumerate((list, lambda r: [r.read()], _into)):
        later = pool.submit(connection.send, request(), bounds())
        far.hear("head")
        stream = 2 * number + 1
        far.say(
            far.head(stream, status=b"103"), far.head(stream, (b"a", b"b")), far.data(stream, b"first" * 200)
        )
        response = later.result(20)
        response.on_end = lambda: ended.append(1)
        assert (response.status, response.version, response.reason) == (200, b"HTTP/2", b"")
        assert response.headers == [(b"a", b"b")]
        reading = pool.submit(read, response)
        far.say(far.data(stream, b"second" * 200), far.trailers(stream, (b"grpc-status", b"0")))
        assert b"".join(reading.result(20)) == b"first" * 200 + b"second" * 200
        assert response.trailers == [(b"grpc-status", b"0")]
        assert len(ended) == number + 1
        assert response.read() == b""
        response.close()
        assert len(ended) == number + 1
    assert response.network_stream.get_extra_info("socket") is connection.stream.get_extra_info("socket")


def _into(response) -> list[bytes]:
    parts, buffer = [], bytearray(7)
    while count := response.readinto(buffer):
        parts.append(bytes(buffer[:count]))
    return parts


@pytest.mark.parametrize("read", [next, lambda response: response.readinto(bytearray(5))])
def test_the_exchange_is_over_with_the_last_byte_of_the_body(read, pair, pool):
    connection, far = pair
    later = pool.submit(connection.send, request(), bounds())
    number = far.hear("head")[1]
    far.say(far.head(number) + far.data(number, b"whole", end=True))
    response = later.result(20)
    ended = []
    response.on_end = lambda: ended.append(1)
    read(response)
    assert ended == [1]


def test_a_trace_is_told_of_each_step(pair, pool):
    connection, far = pair
    told = []
    wanted = Outgoing(
        b"POST", b"/", [(b"Host", b"a")], iter([b"a"]), trace=lambda name, info: told.append(name)
    )
    later = pool.submit(connection.send, wanted, bounds())
    far.hear("head")
    far.answer(1)
    later.result(20).read()
    steps = ("send_request_headers", "send_request_body", "receive_response_headers", "receive_response_body")
    assert told == [
        f"http2.{step}.{state}" for step in (*steps, "response_closed") for state in ("started", "complete")
    ]


# ------------------------------------------------------------------------------------------------- who reads, who gives up


def test_who_reads_hands_it_on_when_it_has_what_it_waited_for(pair, pool):
    connection, far = pair
    first = pool.submit(call, connection, target=b"/1")
    one = far.hear("head")[1]
    waits(connection)
    second = pool.submit(call, connection, target=b"/2")
    other = far.hear("head")[1]
    waits(connection, 2)
    far.answer(one)
    assert first.result(20) == (200, b"fine")
    waits(connection)
    far.answer(other)
    assert second.result(20) == (200, b"fine")


def test_who_reads_hands_it_on_when_its_time_is_over(pair, pool):
    connection, far = pair
    first = pool.submit(call, connection, within=bounds(read=1.0))  # the other one comes before that is over
    one = far.hear("head")[1]
    second = pool.submit(call, connection)
    other = far.hear("head")[1]
    with pytest.raises(ReadTimeout):
        first.result(20)
    assert far.hear("reset") == ("reset", one, "CANCEL")
    waits(connection)
    far.say(far.head(one), far.data(one, b"too late"))
    far.answer(other)
    assert second.result(20) == (200, b"fine")
    assert works(connection, far, pool)


def test_who_waits_may_give_up_while_another_one_reads(pair, pool):
    connection, far = pair
    first = pool.submit(call, connection)
    one = far.hear("head")[1]
    waits(connection)
    second = pool.submit(call, connection, within=bounds(read=0.05))
    other = far.hear("head")[1]
    with pytest.raises(ReadTimeout):
        second.result(20)
    assert far.hear("reset") == ("reset", other, "CANCEL")
    far.answer(one)
    assert first.result(20) == (200, b"fine")
    assert works(connection, far, pool)


def test_bytes_for_others_do_not_prolong_the_time_of_who_reads(pair, pool):
    connection, far = pair
    first = pool.submit(call, connection, within=bounds(read=1.0))  # the other one comes before that is over
    far.hear("head")
    waits(connection)
    second = pool.submit(connection.send, request(), bounds())
    other = far.hear("head")[1]
    far.say(far.head(other), PING)
    response = second.result(20)
    while far.hear("ping ack", "reset")[0] == "ping ack":
        far.say(far.data(other, b"x"), PING)
    with pytest.raises(ReadTimeout):
        first.result(20)
    response.close()


def test_a_deadline_bounds_the_whole(pair, pool):
    connection, far = pair
    within = bounds(0.05)
    later = pool.submit(call, connection, within=within)
    far.hear("head")
    with pytest.raises(ReadTimeout):
        later.result(20)
    assert within.expired
    assert within.sent
    assert works(connection, far, pool)


def test_a_deadline_on_a_virtual_clock_ends_who_reads_and_who_waits(pair, pool):
    connection, far = pair
    clock = VirtualClock()
    reader = Bounds(clock, clock.now() + 5, {})
    waiter = Bounds(clock, clock.now() + 3, {})
    first = pool.submit(call, connection, within=reader)
    far.hear("head")
    waits(connection)
    second = pool.submit(call, connection, within=waiter)
    far.hear("head")
    waits(connection, 2)
    clock.advance(3)
    with pytest.raises(ReadTimeout):
        second.result(20)
    assert waiter.expired
    assert not first.done()
    assert not connection.closed
    clock.advance(2)
    with pytest.raises(ReadTimeout):
        first.result(20)
    assert reader.expired


def test_an_interrupt_of_who_reads_resets_its_stream_and_no_more(pair, pool):
    connection, far = pair
    raised = []

    class Interrupt(BaseException):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        waiting = threading.Event()

        def kill() -> None:
            waits(connection)
            waiting.set()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

        killer = pool.submit(kill)
        try:
            call(connection)
        except Interrupt as error:
            raised.append(error)
        killer.result(20)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert raised
    assert waiting.is_set()
    assert far.hear("reset") == ("reset", 1, "CANCEL")
    assert works(connection, far, pool)


@pytest.mark.parametrize("step", ["open", "send", "feed", "took"])
def test_an_interrupt_in_the_middle_of_computing_ends_the_connection(step, pair, pool, monkeypatch):
    connection, far = pair
    other = pool.submit(call, connection)
    far.hear("head")
    waits(connection)

    class Interrupt(BaseException):
        pass

    def interrupt(*arguments: object, **options: object) -> None:
        raise Interrupt

    response = None
    if step == "took":
        later = pool.submit(connection.send, request(), bounds())
        number = far.hear("head")[1]
        far.say(far.head(number), far.data(number, b"x"))
        response = later.result(20)
    monkeypatch.setattr(type(connection._machine), step, interrupt)
    if step == "feed":
        far.say(far.settings())
    else:
        with pytest.raises(Interrupt):
            response.read() if response is not None else call(connection, method=b"POST", body=b"x")
    with pytest.raises(Interrupt if step == "feed" else ReadError):
        other.result(20)
    monkeypatch.undo()
    assert connection.closed
    assert not connection.free()


# --------------------------------------------------------------------------------------------------- resets and their kinds


def test_a_refused_stream_says_so_and_the_connection_goes_on(pair, pool):
    connection, far = pair
    later = pool.submit(call, connection)
    far.say(far.settings(), far.reset(far.hear("head")[1], 7))
    with pytest.raises(StreamRefused):
        later.result(20)
    assert works(connection, far, pool)


@pytest.mark.parametrize(("code", "kind"), [(8, ReadError), (2, ReadError), (1, RemoteProtocolError)])
def test_a_reset_in_the_body_breaks_it(code, kind, pair, pool):
    connection, far = pair
    later = pool.submit(connection.send, request(), bounds())
    number = far.hear("head")[1]
    far.say(far.settings(), far.head(number), far.data(number, b"half"))
    response = later.result(20)
    ended = []
    response.on_end = lambda: ended.append(1)
    far.say(far.reset(number, code))
    parts = []
    with pytest.raises(kind):
        parts.extend(response)
    assert ended == [1]
    assert response.read() == b""
    assert works(connection, far, pool)


def test_after_a_goaway_what_the_peer_answers_goes_on_and_the_rest_is_refused(pair, pool):
    connection, far = pair
    far.say(far.settings())
    calls = [pool.submit(call, connection, target=b"/%d" % number) for number in range(4)]
    heads = [far.hear("head") for _ in calls]
    by_stream = {number: calls[int(dict(fields)[b":path"][1:])] for _, number, fields, _ in heads}
    far.say(far.goaway(2**31 - 1))
    far.say(far.goaway(3))
    for number in (5, 7):
        with pytest.raises(StreamRefused):
            by_stream[number].result(20)
    assert not connection.free()
    assert connection.streams == 0
    assert not connection.closed
    within = bounds()
    with pytest.raises(StreamRefused):
        connection.send(request(), within)
    assert not within.sent
    far.answer(3)
    far.answer(1)
    assert by_stream[1].result(20) == by_stream[3].result(20) == (200, b"fine")
    assert connection.idle


def test_a_goaway_on_an_idle_connection_is_seen_by_who_asks(pair, pool):
    connection, far = pair
    far.say(far.settings(max_concurrent_streams=7))
    assert connection.free()
    assert connection.streams == 7
    far.say(far.goaway(0))
    assert not connection.free()


def test_a_ping_on_an_idle_connection_is_answered_when_somebody_asks(pair, pool):
    connection, far = pair
    assert works(connection, far, pool)
    far.say(PING)
    assert connection.free()
    assert far.hear("ping ack") == ("ping ack", b"pingping")


def test_a_closed_connection_is_seen_by_who_asks_and_by_who_waits(pair, pool):
    connection, far = pair
    later = pool.submit(call, connection)
    far.hear("head")
    far.sock.close()
    with pytest.raises(ReadError):
        later.result(20)
    assert not connection.free()
    assert connection.closed


def test_what_is_no_http2_says_so(pair, pool):
    connection, far = pair
    later = pool.submit(call, connection)
    far.hear("head")
    far.sock.sendall(b"HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n")
    with pytest.raises(RemoteProtocolError, match="505"):
        later.result(20)
    assert far.all_heard()[-1] == ("goaway", "PROTOCOL_ERROR")


def test_a_connection_that_is_closed_by_another_thread_ends_all_calls(pair, pool):
    connection, far = pair
    calls = [pool.submit(call, connection) for _ in range(3)]
    for _ in calls:
        far.hear("head")
    waits(connection, 3)
    connection.close()
    connection.close()
    for later in calls:
        with pytest.raises(ReadError):
            later.result(20)
    assert far.all_heard()[-1] == ("goaway", "NO_ERROR")
    assert not connection.free()


def test_a_fork_does_not_touch_the_parents_connection(pair, pool):
    connection, far = pair
    assert works(connection, far, pool)
    child = os.fork()
    if not child:
        free = connection.free()
        connection.close()
        os._exit(1 if free else 0)
    assert os.waitpid(child, 0)[1] == 0
    assert works(connection, far, pool)


# -------------------------------------------------------------------------------------------------------- flow control


def test_a_large_upload_goes_through_a_small_window_and_a_download_beside_it(pair, pool):
    connection, far = pair
    far.say(far.settings(initial_window_size=1_000))
    body = os.urandom(100_000)
    later = pool.submit(call, connection, method=b"POST", body=body)
    got = b""
    number = 0
    while len(got) < len(body):
        said = far.hear("data")
        number = said[1]
        got += said[2]
        far.say(far.window(number, len(said[2])), far.window(0, len(said[2])))
    assert got == body
    far.answer(number)
    assert later.result(20) == (200, b"fine")
    assert works(connection, far, pool)


def test_an_upload_waits_for_its_window_while_another_thread_reads(pair, pool):
    connection, far = pair
    far.say(far.settings(initial_window_size=10))
    assert connection.free()  # it has read them
    reading = pool.submit(call, connection)
    one = far.hear("head")[1]
    waits(connection)
    uploading = pool.submit(call, connection, method=b"POST", body=b"x" * 25)
    other = far.hear("head")[1]
    assert far.hear("data") == ("data", other, b"x" * 10)
    waits(connection, 2)
    far.say(far.window(other, 10))
    assert far.hear("data") == ("data", other, b"x" * 10)
    far.say(far.settings(initial_window_size=20))
    assert far.hear("data") == ("data", other, b"x" * 5, "end")
    far.answer(other)
    assert uploading.result(20) == (200, b"fine")
    far.answer(one)
    assert reading.result(20) == (200, b"fine")


def test_a_window_that_never_opens_ends_in_time(pair, pool):
    connection, far = pair
    far.say(far.settings(initial_window_size=0))
    later = pool.submit(call, connection, method=b"POST", body=b"x", within=bounds(read=0.05))
    number = far.hear("head")[1]
    with pytest.raises(ReadTimeout):
        later.result(20)
    assert far.hear("reset") == ("reset", number, "CANCEL")
    far.say(far.settings(initial_window_size=65_535))
    assert works(connection, far, pool)


def test_a_slow_reader_holds_its_peer_and_nobody_else(pair, pool):
    connection, far = pair
    far.say(far.settings())
    later = pool.submit(connection.send, request(), bounds())
    number = far.hear("head")[1]
    far.say(far.head(number))
    response = later.result(20)
    sending = pool.submit(far.say, *[far.data(number, bytes(16_384))] * (STREAM_WINDOW // 16_384))
    for _ in range(3):
        other = pool.submit(call, connection)
        far.serve()
        assert other.result(20) == (200, b"fine")
    while not sending.done():
        connection.free()
    assert not [said for said in far.said if said[0] == "window" and said[1] == number]
    reading = pool.submit(next, response)
    assert far.hear("window")[0] == "window"
    count = len(reading.result(20))
    ending = pool.submit(
        far.say, far.data(number, b"end", end=True)
    )  # what lies in the sockets may fill them
    assert count + len(response.read()) == STREAM_WINDOW + 3
    ending.result(20)


def test_an_early_answer_ends_an_upload_that_waits_for_its_window(pair, pool):
    connection, far = pair
    later = pool.submit(connection.send, request(method=b"POST", body=bytes(100_000)), bounds())
    number = far.hear("head")[1]
    far.say(
        far.settings(),
        far.head(number, status=b"413"),
        far.data(number, b"too much", end=True),
        far.reset(number, 0),
    )
    response = later.result(20)
    assert (response.status, response.read()) == (413, b"too much")
    assert works(connection, far, pool)


def test_an_early_answer_is_seen_though_the_windows_stay_open(pair, pool):
    connection, far = pair
    far.say(far.settings(initial_window_size=2**30), far.window(0, 2**30))
    asked = threading.Event()

    def body():
        yield b"first"
        asked.wait(20)
        while True:
            yield b"more"

    later = pool.submit(connection.send, request(method=b"POST", body=body()), bounds())
    number = far.hear("head")[1]
    far.say(far.head(number, status=b"403"), far.data(number, b"no", end=True))
    asked.set()
    response = later.result(20)
    assert (response.status, response.read()) == (403, b"no")
    assert far.hear("reset") == ("reset", number, "NO_ERROR")
    assert works(connection, far, pool)


def test_an_answer_that_is_whole_ends_an_upload_that_would_never_end(pair, pool):
    connection, far = pair
    far.say(far.settings(initial_window_size=2**30), far.window(0, 2**30))
    asked = threading.Event()

    def body():
        yield b"first"
        asked.wait(20)
        while True:
            yield b"more"

    later = pool.submit(call, connection, method=b"POST", body=body())
    number = far.hear("head")[1]
    far.answer(number)
    asked.set()
    assert later.result(20) == (200, b"fine")
    assert far.hear("reset") == ("reset", number, "NO_ERROR")
    assert works(connection, far, pool)


def test_a_server_that_answers_first_and_reads_on_gets_all(pair, pool):
    connection, far = pair
    later = pool.submit(
        connection.send, request(method=b"POST", body=iter([b"x" * 65_535, b"more"])), bounds()
    )
    number = far.hear("head")[1]
    far.say(far.settings(), far.head(number))
    response = later.result(20)  # while the window is closed
    reading = pool.submit(response.read)
    far.say(far.window(0, 100), far.window(number, 100))
    while far.hear("data")[2:] != (b"more",):
        pass
    assert far.hear("data") == ("data", number, b"", "end")
    far.say(far.data(number, b"echo", end=True))
    assert reading.result(20) == b"echo"
    assert works(connection, far, pool)


@pytest.mark.parametrize("said", ["100", "417", "nothing"])
def test_a_body_waits_for_100_and_not_for_long(said, pair, pool, monkeypatch):
    connection, far = pair
    if said == "nothing":
        monkeypatch.setattr("meshlib.wire.multiplexed.CONTINUE_SECONDS", 0.01)
    else:
        monkeypatch.setattr("meshlib.wire.multiplexed.CONTINUE_SECONDS", MINUTE)
    wanted = request(b"POST", b"/", (b"Expect", b"100-continue"), body=b"body")
    later = pool.submit(connection.send, wanted, bounds())
    heard = far.hear("head", "data")
    number = heard[1]
    waits(connection)
    if said == "417":
        far.answer(number, status=b"417")
        response = later.result(20)
        assert (response.status, response.read()) == (417, b"fine")
        assert far.hear("reset", "data") == ("reset", number, "NO_ERROR")
        return
    if said == "100":
        far.say(far.head(number, status=b"100"))
    assert far.hear("data") == ("data", number, b"body", "end")
    far.answer(number)
    assert later.result(20).read() == b"fine"


# ------------------------------------------------------------------------------------------------------- what is sent


def test_what_an_iterator_raises_resets_the_stream(pair, pool):
    connection, far = pair

    def body():
        yield b"first"
        raise LookupError("the application's")

    later = pool.submit(connection.send, request(method=b"POST", body=body()), bounds())
    number = far.hear("head")[1]
    with pytest.raises(LookupError):
        later.result(20)
    assert far.hear("reset") == ("reset", number, "CANCEL")
    assert works(connection, far, pool)


@pytest.mark.parametrize("body", [[b"abcd"], [b"ab", b"cd"], [b"ab"]])
def test_a_body_that_is_not_as_long_as_announced_is_not_sent(body, pair, pool):
    connection, far = pair
    wanted = request(b"POST", b"/", (b"Content-Length", b"3"), body=iter(body))
    later = pool.submit(connection.send, wanted, bounds())
    number = far.hear("head")[1]
    with pytest.raises(LocalProtocolError):
        later.result(20)
    assert far.hear("reset") == ("reset", number, "CANCEL")
    assert works(connection, far, pool)


def test_a_peer_that_takes_nothing_is_bounded_in_time_and_what_was_begun_goes_out_later(pair, pool):
    connection, far = pair
    connection.stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    far.say(far.settings(initial_window_size=2**30), far.window(0, 2**30))
    assert connection.free()
    body = os.urandom(8_000_000)
    with pytest.raises(WriteTimeout):
        connection.send(request(method=b"POST", body=body), bounds(write=0.05))
    assert not connection.closed
    other = pool.submit(call, connection)
    assert far.hear("reset") == ("reset", 1, "CANCEL")  # behind the frame that was begun
    far.serve()
    assert other.result(20) == (200, b"fine")
    assert works(connection, far, pool)


def test_who_waits_for_the_system_hands_that_on_too(pair, pool):
    connection, far = pair
    far.say(far.settings(initial_window_size=2**30), far.window(0, 2**30))
    assert connection.free()
    first = pool.submit(connection.send, request(method=b"POST", body=bytes(8_000_000)), bounds(write=1.0))
    while connection._writer is None:
        os.sched_yield()
    second = pool.submit(call, connection)
    with pytest.raises(WriteTimeout):
        first.result(20)
    while (head := far.hear("head"))[1] != 3:
        pass
    far.answer(head[1])
    assert second.result(20) == (200, b"fine")


def test_two_uploads_and_two_downloads_do_not_block_each_other(pair, pool):
    """Both sides write more than the system holds: who waits to write reads meanwhile."""
    connection, far = pair
    far.say(far.settings(initial_window_size=2**30), far.window(0, 2**30))
    assert connection.free()
    much = os.urandom(2_000_000)
    down = [pool.submit(connection.send, request(), bounds()) for _ in range(2)]
    numbers = [far.hear("head")[1] for _ in down]
    far.say(*[far.head(number) for number in numbers])
    responses = [later.result(20) for later in down]
    up = [pool.submit(call, connection, method=b"POST", body=much) for _ in range(2)]
    sending = [
        pool.submit(far.say, *[far.data(number, bytes(16_384)) for _ in range(60) for number in numbers])
    ]
    got: dict[int, int] = {}
    ends = 0
    while ends < 2:
        said = far.hear("data")
        got[said[1]] = got.get(said[1], 0) + len(said[2])
        ends += said[-1] == "end"
    assert set(got.values()) == {len(much)}
    sending[0].result(20)
    for number in got:
        far.answer(number)
    assert [later.result(20) for later in up] == [(200, b"fine")] * 2
    far.say(*[far.data(number, b"", end=True) for number in numbers])
    assert [len(response.read()) for response in responses] == [60 * 16_384] * 2


def test_who_waits_to_write_reads_where_nobody_else_does(pair, pool):
    """The peer writes more than the system holds before it reads a byte."""
    connection, far = pair
    far.say(far.settings(initial_window_size=2**30), far.window(0, 2**30))
    later = pool.submit(connection.send, request(), bounds())
    number = far.hear("head")[1]
    far.say(far.head(number))
    response = later.result(20)
    uploading = pool.submit(call, connection, method=b"POST", body=bytes(4_000_000))
    while connection._writer is None:
        os.sched_yield()
    far.say(*[far.data(number, bytes(16_384))] * 60)
    while (said := far.hear("data"))[-1] != "end":
        pass
    far.answer(said[1])
    assert uploading.result(20) == (200, b"fine")
    far.say(far.data(number, b"", end=True))
    assert len(response.read()) == 60 * 16_384


def test_a_write_that_fails_says_whether_anything_left(pair, pool):
    connection, far = pair
    assert works(connection, far, pool)
    far.sock.close()
    within = bounds()
    with pytest.raises(WriteError):
        call(connection, within=within)
    assert not within.sent
    assert connection.closed


def test_what_the_peer_said_before_it_took_no_more_is_heard(pair, pool):
    connection, far = pair
    assert works(connection, far, pool)
    far.say(far.goaway(1))
    far.sock.close()
    with pytest.raises(StreamRefused):
        call(connection)


# --------------------------------------------------------------------------------------------------- what is not read


def test_a_response_that_is_closed_is_reset_and_told_once(pair, pool):
    connection, far = pair
    later = pool.submit(connection.send, request(), bounds())
    number = far.hear("head")[1]
    far.say(far.settings(), far.head(number), far.data(number, b"half"))
    response = later.result(20)
    ended = []
    response.on_end = lambda: ended.append(1)
    response.close()
    response.close()
    assert ended == [1]
    assert far.hear("reset") == ("reset", number, "CANCEL")
    assert works(connection, far, pool)


@pytest.mark.parametrize(
    ("body", "most", "reset"), [(b"small", 5, False), (b"large", 4, True), (None, 5, True)]
)
def test_what_is_small_and_at_hand_is_drained_and_the_rest_given_up(body, most, reset, pair, pool):
    connection, far = pair
    later = pool.submit(connection.send, request(), bounds())
    number = far.hear("head")[1]
    far.say(far.settings(), far.head(number))
    response = later.result(20)
    far.say(*([far.data(number, body)] if body else []))
    if not reset:
        far.say(far.data(number, b"", end=True))
    ended = []
    response.on_end = lambda: ended.append(1)
    assert response.drain(most)
    assert ended == [1]
    if reset:
        assert far.hear("reset") == ("reset", number, "CANCEL")
    assert works(connection, far, pool)
    assert not [said for said in far.said if said[0] == "reset"]


def test_a_response_that_nobody_holds_is_reset_by_the_next_call(pair, pool):
    connection, far = pair
    answering = pool.submit(lambda: far.say(far.settings(), far.head(far.hear("head")[1])))
    response = connection.send(request(), bounds())  # a thread of the pool may hold for a moment what it made
    answering.result(20)
    lost = []
    response.on_lost = lambda: lost.append(1)
    with connection._lock:  # the collector may come at any time
        del response
        gc.collect()
        assert lost == [1]
        assert not connection.idle
    assert connection.free()
    assert connection.idle
    assert far.hear("reset") == ("reset", 1, "CANCEL")


def test_a_thousand_calls_at_once_on_one_connection(pair):
    connection, far = pair
    far.say(far.settings(max_concurrent_streams=1000))
    assert connection.free()
    assert connection.streams == 1000
    with ThreadPoolExecutor(1) as server:
        responses = []
        for _ in range(1000):
            serving = server.submit(lambda: far.say(far.head(far.hear("head")[1])))
            responses.append(connection.send(request(), bounds()))
            serving.result(20)
        assert not connection.free()
        for number in range(1000):
            far.say(far.data(2 * number + 1, b"%d" % number, end=True))
            assert responses[number].read() == b"%d" % number
    assert connection.free()
    assert connection.idle
