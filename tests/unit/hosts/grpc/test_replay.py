"""The messages of a call, read by one attempt after another."""

from __future__ import annotations

import os
import queue
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.effects import Call
from meshlib.core.resolution import Resolution
from meshlib.hosts.grpc.replay import Messages, Unserializable, as_is
from meshlib.model.call import Head


def test_each_attempt_reads_all_from_the_first_on() -> None:
    asked = []

    def source():
        for number in range(3):
            asked.append(number)
            yield b"%d" % number

    messages = Messages(source(), None)
    first = messages.read()
    assert next(first) == b"0"
    assert list(messages.read()) == [b"0", b"1", b"2"]
    assert list(first) == [b"1", b"2"]
    assert asked == [0, 1, 2], "the application is asked once for each"


def test_once_committed_nothing_is_kept() -> None:
    messages = Messages((b"x" for _ in range(1000)), None)
    reader = messages.read()
    next(reader)
    messages.commit()
    assert [len(messages._waiting) for _ in reader] == [1] * 999
    assert messages._waiting == []


def test_beyond_the_limit_the_call_cannot_be_made_again() -> None:
    call = Call(Resolution("mesh", ""), Head("POST", "http", "a", "/s/m"))
    messages = Messages([b"x" * 6, b"y" * 6, b"z"], None, limit=10)
    messages.call = call
    reader = messages.read()
    next(reader)
    assert call.replayable
    next(reader)
    assert not call.replayable
    assert list(reader) == [b"z"]


def test_what_the_source_raises_each_attempt_meets_in_its_place() -> None:
    def source():
        yield b"a"
        raise KeyError("no more")

    messages = Messages(source(), None)
    for reader in (messages.read(), messages.read()):
        assert next(reader) == b"a"
        with pytest.raises(KeyError):
            next(reader)


def test_what_cannot_be_serialized_is_met_where_grpc_serializes() -> None:
    def serializer(message: int) -> bytes:
        return b"%d" % (1 // message)

    found = list(Messages([1, 0], serializer).read())
    assert found[0] == b"1"
    assert isinstance(found[1], Unserializable)
    with pytest.raises(ZeroDivisionError):
        as_is(found[1])


def test_a_reader_that_is_over_leaves_what_it_waited_for_to_the_next() -> None:
    given_now, waiting = threading.Event(), threading.Event()

    def source():
        waiting.set()
        assert given_now.wait(10)
        yield b"late"

    messages = Messages(source(), None)
    thread = threading.Thread(target=next, args=(messages.read(),))
    thread.start()
    assert waiting.wait(10)
    given_now.set()
    assert list(messages.read()) == [b"late"]
    thread.join(10)


def test_the_reader_of_an_attempt_that_is_over_ends_once_another_is_committed() -> None:
    messages = Messages([b"0", b"1", b"2"], None)
    late, now = messages.read(), messages.read()
    assert next(late) == b"0"
    messages.commit()
    assert list(now) == [b"0", b"1", b"2"]
    assert list(late) == []


def messages(*parts, limit=100):
    return Messages(iter(parts), None, limit)


class TestASourceThatWaits:
    """For an answer, as whoever plays ping-pong does."""

    def setup_method(self):
        self.source = queue.SimpleQueue()
        self.kept = Messages(iter(self.source.get, None), None)
        self.source.put(b"a")
        first = self.kept.read()
        assert next(first) == b"a"
        self.late = queue.SimpleQueue()
        self.waiting = threading.Thread(target=lambda: self.late.put(list(first)), daemon=True)
        self.waiting.start()

    def test_another_attempt_does_not_wait_for_it_to_send_what_is_kept(self):
        second = self.kept.read()
        got = queue.SimpleQueue()
        threading.Thread(target=lambda: got.put(next(second)), daemon=True).start()
        assert got.get(timeout=10) == b"a"
        self.source.put(None)
        self.waiting.join(10)

    def test_what_comes_then_is_the_new_attempts(self):
        second = self.kept.read()
        assert next(second) == b"a"
        self.kept.commit()
        self.source.put(b"b")
        self.source.put(None)
        assert list(second) == [b"b"]
        assert self.late.get(timeout=10) == []


def test_beyond_the_limit_only_the_last_two_stay():
    kept = messages(b"x" * 60, b"y" * 60, b"z", b"w", limit=100)
    read = kept.read()
    next(read)
    assert kept.kept
    next(read)
    assert not kept.kept
    assert len(kept._waiting) == 2
    assert next(read) == b"z"
    assert kept._waiting == [b"y" * 60, b"z"]
    assert list(read) == [b"w"]
    assert kept._waiting == [b"z", b"w"]


@pytest.mark.parametrize("taken", [1, 2])
@pytest.mark.parametrize("parts", [(b"x" * 101,), (b"x" * 101, b"y"), (b"x" * 60, b"y" * 60, b"z")])
def test_one_that_is_beyond_the_limit_goes_elsewhere_where_it_could_not_be_sent(parts, taken):
    """An attempt that cannot connect has taken the first message, and maybe asked for another before it learnt that it is over."""
    kept = messages(*parts, limit=100)
    for _ in range(3):
        read = kept.read()
        found = [next(read, None) for _ in range(taken)]
        assert found == [*parts, None][: len(found)]
        assert kept.whole
    assert list(kept.read()) == list(parts)


def test_where_more_was_taken_it_is_whole_no_more():
    kept = messages(b"x" * 101, b"y", b"z", limit=100)
    read = kept.read()
    next(read), next(read)
    assert kept.whole
    next(read)
    assert not kept.whole


def test_within_the_limit_it_is_whole_however_much_was_taken():
    kept = messages(b"x", b"y", b"z", limit=100)
    assert list(kept.read()) == [b"x", b"y", b"z"]
    assert kept.whole


@given(
    st.lists(st.binary(max_size=4), max_size=8), st.lists(st.integers(0, 3), max_size=30), st.integers(0, 12)
)
def test_whatever_the_order_each_reader_sees_the_same(
    sent: list[bytes], order: list[int], commit: int
) -> None:
    messages = Messages(iter(sent), None)
    readers = [messages.read() for _ in range(3)]
    seen: list[list[bytes]] = [[], [], []]
    for which in order:
        if which < 3 and (message := next(readers[which], None)) is not None:
            seen[which].append(message)
    last = messages.read()
    if commit > 6:
        messages.commit()
    assert list(last) == sent
    assert all(part == sent[: len(part)] for part in seen)


def test_of_two_readers_one_goes_on_alone_and_the_other_ends_only_then() -> None:
    """gRFC A6: of hedges the one that came furthest. A stream that ends before its attempt is given up would be a whole one to its server."""
    call = Call(Resolution("mesh", ""), Head("POST", "http", "a", "/s/m"))
    messages = Messages([b"x" * 6, b"y" * 6, b"z", b"w"], None, limit=10)
    messages.call = call
    asked: list[object] = []

    def alone(reader: object) -> object:
        assert messages.kept, "who reads meanwhile gets what is kept"
        assert not call.replayable
        asked.append(reader)
        return reader

    messages.alone = alone
    first, second = messages.read("first"), messages.read("second")
    assert [next(first), next(second)] == [b"x" * 6, b"x" * 6]
    rest: list[list[bytes]] = []
    taking = threading.Thread(target=lambda: rest.append(list(second)), daemon=True)
    assert next(first) == b"y" * 6
    assert asked == ["first"], "and not the last one to begin"
    taking.start()
    assert list(first) == [b"z", b"w"]
    while not messages._there._waiters:  # type: ignore[attr-defined]
        os.sched_yield()
    assert taking.is_alive(), "its attempt is not over"
    messages.drop("second")
    taking.join(20)
    assert rest == [[]], "it was given up"
    assert asked == ["first"]


def test_where_who_came_to_the_limit_is_over_another_goes_on_with_all() -> None:
    messages = Messages([b"x" * 6, b"y" * 6, b"z"], None, limit=10)

    def alone(_: object) -> object:
        messages.drop("first")
        return "second"

    messages.alone = alone
    first, second = messages.read("first"), messages.read("second")
    assert list(first) == [b"x" * 6]
    assert list(second) == [b"x" * 6, b"y" * 6, b"z"]


def test_once_one_is_the_calls_the_messages_are_its_alone() -> None:
    messages = Messages([b"a", b"b", b"c"], None)
    first, second = messages.read("first"), messages.read("second")
    assert [next(first), next(second), next(second)] == [b"a", b"a", b"b"]
    messages.commit("first")
    messages.drop("second")
    assert list(second) == []
    assert list(first) == [b"b", b"c"]
