"""Connections, limits and clocks for pools, which only say what they are."""

from __future__ import annotations

import itertools
from typing import Any

from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock

CLOCK = MonotonicClock()
_numbers = itertools.count(1)


class FakeConnection:
    """``room``: whether it takes a request; ``busy``: it carries one."""

    def __init__(self, streams: int = 1) -> None:
        self.number = next(_numbers)
        self.streams = streams
        self.room = True
        self.closed = False
        self.busy = False
        self.born = self.rested = 0.0
        self.carried = 0

    @property
    def idle(self) -> bool:
        return not self.busy

    def free(self) -> bool:
        return self.room and not self.closed

    def close(self) -> None:
        self.closed = True

    def __repr__(self) -> str:
        return f"<connection {self.number}>"


class FakeLimits:
    """A cluster's counters."""

    def __init__(self, most: int | None = None, most_pending: int = 10_000) -> None:
        self.max_connections = most
        self.most_pending = most_pending
        self.count = 0
        self.pending = 0

    @property
    def limited(self) -> bool:
        return self.max_connections is not None

    def open_connection(self, *, force: bool = False) -> bool:
        if not force and self.max_connections is not None and self.count >= self.max_connections:
            return False
        self.count += 1
        return True

    def close_connection(self) -> None:
        self.count -= 1
        assert self.count >= 0

    def begin_pending(self) -> bool:
        if self.pending >= self.most_pending:
            return False
        self.pending += 1
        return True

    def end_pending(self) -> None:
        self.pending -= 1
        assert self.pending >= 0


def attempt(deadline: float | None = None, clock: Any = CLOCK, **timeouts: float) -> Bounds:
    """The bounds of an attempt. ``deadline`` in seconds from now."""
    return Bounds(clock, None if deadline is None else clock.now() + deadline, timeouts)
