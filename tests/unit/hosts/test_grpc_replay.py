"""The messages of a blocking call, read by one attempt after another (gRFC A6)."""

from __future__ import annotations

import queue
import threading

import pytest

from meshlib.hosts.grpc.replay import Messages


def messages(*parts, limit=100):
    return Messages(iter(parts), None, limit)


def test_each_attempt_reads_all():
    kept = messages(b"a", b"b")
    assert list(kept.read()) == [b"a", b"b"]
    assert list(kept.read()) == [b"a", b"b"]


def test_what_the_source_raises_each_attempt_meets():
    def source():
        yield b"a"
        raise KeyError("mine")

    kept = Messages(source(), None)
    for _ in range(2):
        read = kept.read()
        assert next(read) == b"a"
        with pytest.raises(KeyError, match="mine"):
            next(read)


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


def test_beyond_the_limit_only_the_last_one_stays():
    kept = messages(b"x" * 60, b"y" * 60, b"z", limit=100)
    read = kept.read()
    next(read)
    assert kept.kept
    next(read)
    assert not kept.kept
    assert len(kept._waiting) == 1
    assert next(read) == b"z"
    assert kept._waiting == [b"z"]


def test_one_that_is_beyond_the_limit_goes_elsewhere_where_it_could_not_be_sent():
    """An attempt that cannot connect has taken the first message."""
    kept = messages(b"x" * 101, b"y", limit=100)
    assert next(kept.read()) == b"x" * 101
    assert list(kept.read()) == [b"x" * 101, b"y"]
