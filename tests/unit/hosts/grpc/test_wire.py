"""What a wire of blocking channels does in moments that no real RPC can be held in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from meshlib.hosts.grpc.errors import Ended
from meshlib.hosts.grpc.replay import Messages
from meshlib.hosts.grpc.wire import GrpcWire
from meshlib.pools.bounds import HedgedBounds
from meshlib.runtime.clock import MonotonicClock


class Rpc:
    """One that goes on until it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1

    def result(self) -> bytes:
        if not self.cancelled:
            return b"nobody gave it up"
        raise grpc.FutureCancelledError


@pytest.mark.parametrize("when", ["before", "while", "after"])
def test_a_hedge_is_given_up_whenever_that_is(when: str) -> None:
    """And its messages end when it has."""
    attempt: Any = SimpleNamespace(deadline=None, connect_timeout=None, limits=None, try_idle=None)
    bounds, rpc = HedgedBounds(MonotonicClock(), attempt), Rpc()
    messages = Messages([b"a"], None)
    begun = []

    def begin(*arguments: Any) -> Rpc:
        begun.append(arguments)
        if when == "while":
            bounds.stop()
        return rpc

    def result() -> bytes:
        assert bounds in messages._turns, "it reads until it is over"
        if when == "after":
            bounds.stop()
        return Rpc.result(rpc)

    rpc.result = result  # type: ignore[method-assign]
    request: Any = SimpleNamespace(method=None, credentials=None, messages=messages, sending=messages.read)
    request.compression = None
    sub: Any = SimpleNamespace(credentials=lambda _: None, callable=lambda _: SimpleNamespace(future=begin))
    if when == "before":
        bounds.stop()
    with pytest.raises(Ended):
        GrpcWire._made(GrpcWire.__new__(GrpcWire), bounds, request, sub, None, None, None)
    assert len(begun) == (when != "before")
    assert rpc.cancelled == len(begun)
    assert bounds not in messages._turns
