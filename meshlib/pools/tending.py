"""Connections that are looked after while nobody uses them: their peers are asked whether they are there.

A connection that has ``pings`` says when it wants to be looked at (``tend``), and its pool comes then, by what ends its idle
connections at their time. Not thread-safe beyond what a dict is: who adds and who looks may be two threads.
"""

from __future__ import annotations

from math import inf
from typing import Any, Generic, TypeVar

__all__ = ["Tended"]

P = TypeVar("P")


class Tended(Generic[P]):
    """Those of one pool, each with the time at which it is to be looked at."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due: dict[Any, float] = {}

    @property
    def due(self) -> float:
        """When the first is (``inf``: none)."""
        return min(list(self._due.values()), default=inf)

    def add(self, connection: P, now: float) -> None:
        """Look after it from now on; or at once, where that is done."""
        self._put(connection, now)

    def ask(self, connection: P, now: float) -> bool:
        """``connection`` is to carry a request after a rest; whether its peer is asked before that."""
        held: Any = connection
        idle = None if held.pings is None else held.pings.idle
        if idle is None or not held.idle or now - held.rested < idle:
            return False
        held.ask(now)
        return True

    def look(self, now: float) -> float:
        """Look at those whose time has come; when the next is due."""
        for connection, when in list(self._due.items()):
            if when <= now:
                self._put(connection, now)
        return self.due

    def _put(self, connection: Any, now: float) -> None:
        when = connection.tend(now)
        if when == inf:
            self._due.pop(connection, None)
        else:
            self._due[connection] = when
