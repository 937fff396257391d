"""Keepalive of HTTP/2 (Envoy ``KeepaliveSettings``) as a machine: when a PING goes out, when its peer is gone."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.cluster import Pings
from meshlib.wire.heads import SIZES
from meshlib.wire.http2 import Http2
from meshlib.wire.http2_pings import Pinged
from tests.support.http2_frames import ACK, Peer, frame, request


class Pair:
    """A machine that is asked of, and its peer, greeted."""

    def __init__(self, pings: Pings, *, rand: float = 0.5) -> None:
        self.machine = Pinged(SIZES, (), pings, lambda: rand)
        self.peer = Peer()
        self.machine.feed(self.peer.settings())
        self.said()

    def said(self) -> list[object]:
        return self.peer.read(self.machine.outgoing())

    def pinged(self) -> bool:
        return [what for what, *_ in self.said()] == ["ping"]

    def answer(self, held: bytes = b"meshlib?") -> None:
        self.machine.feed(frame("PING", 0, held, ACK))


def test_every_interval_with_its_jitter() -> None:
    pair = Pair(Pings(timeout=2.0, interval=10.0, jitter=0.2))
    assert pair.machine.tend(0.0) == 10.0
    assert pair.machine.tend(9.0) == 10.0
    assert not pair.pinged()
    assert pair.machine.tend(10.0) == 12.0  # the end of the wait
    assert pair.pinged()
    pair.answer()
    assert pair.machine.tend(12.0) == 21.0  # half of a jitter of 2 s
    assert not pair.pinged()
    assert pair.machine.tend(21.0) == 23.0
    assert pair.pinged()


def test_a_peer_that_says_nothing_is_gone() -> None:
    pair = Pair(Pings(timeout=2.0, interval=10.0))
    pair.machine.tend(0.0)
    pair.machine.tend(10.0)
    assert pair.machine.tend(11.9) == 12.0
    assert not pair.machine.gone
    assert pair.machine.tend(12.0) == inf
    assert pair.machine.gone


def test_whatever_comes_moves_the_end_on() -> None:
    """As in Envoy: the answer may stand behind a large response."""
    pair = Pair(Pings(timeout=2.0, interval=10.0))
    pair.machine.tend(0.0)
    pair.machine.tend(10.0)
    pair.machine.feed(frame("PING", 0, b"theirown"))
    assert pair.machine.tend(12.0) == 14.0
    assert not pair.machine.gone
    assert pair.machine.tend(14.0) == inf
    assert pair.machine.gone


@pytest.mark.parametrize("held", [b"meshlib?", b"another?"])
def test_only_its_own_answer_counts(held: bytes) -> None:
    pair = Pair(Pings(timeout=2.0, interval=10.0))
    pair.machine.tend(0.0)
    pair.machine.tend(10.0)
    pair.answer(held)
    pair.machine.tend(12.0)
    pair.machine.tend(14.0)
    assert pair.machine.gone is (held != b"meshlib?")


def test_before_a_request_and_once() -> None:
    pair = Pair(Pings(timeout=2.0, idle=30.0))
    assert pair.machine.tend(0.0) == inf
    pair.machine.ask(40.0)
    pair.machine.ask(40.5)
    pair.machine.open(request())
    assert [what for what, *_ in pair.said()] == ["ping", "head"]
    assert pair.machine.tend(41.0) == 42.0
    pair.answer()
    assert pair.machine.tend(42.0) == inf
    assert not pair.machine.gone


def test_one_that_broke_is_tended_no_more() -> None:
    pair = Pair(Pings(timeout=2.0, interval=10.0))
    pair.machine.feed(b"")
    assert pair.machine.tend(10.0) == inf
    pair.machine.ask(10.0)
    assert not pair.pinged()


@given(
    st.floats(0.01, 5.0),
    st.floats(0.01, 5.0),
    st.lists(st.tuples(st.floats(0.0, 4.0), st.booleans()), max_size=30),
)
def test_at_most_one_is_under_way_and_none_lives_without_an_answer(
    interval: float, timeout: float, steps: list[tuple[float, bool]]
) -> None:
    """Whoever comes at the times that are named finds a peer that is silent within the interval and the time for an answer."""
    pair = Pair(Pings(timeout=timeout, interval=interval, jitter=0.0))
    now = heard = 0.0
    due = pair.machine.tend(now)
    for wait, answers in steps:
        now = min(now + wait, due)
        due = pair.machine.tend(now)
        asked = sum(what == "ping" for what, *_ in pair.said())
        assert asked <= 1
        if pair.machine.gone:
            assert now >= heard + min(timeout, interval)
            return
        assert due > now
        assert due <= now + max(interval, timeout)
        if answers:
            pair.answer()
            heard = now
    assert not pair.machine.gone


def test_settings_of_the_cluster_are_in_the_greeting() -> None:
    """Numbers beyond a byte, which hyperframe cuts, among them."""
    machine, peer = Http2(SIZES, ((9, 1), (0x4321, 7), (0xFFFF, 2**32 - 1))), Peer()
    greeting = machine.outgoing()
    [first, *rest] = peer.read(greeting)
    assert first[0] == "settings"
    assert first[1].items() >= {9: 1, 0x4321: 7, 0xFFFF: 2**32 - 1}.items()
    plain = Peer().read(Http2(SIZES).outgoing())
    assert plain[0][1].items() <= first[1].items()
    assert rest == plain[1:]
    assert machine.outgoing() == b""
