"""Waiting in a task of asyncio, with few timers: one is set only where none rings early enough, and one that rings too early is
set anew.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["Wait"]


class Wait:
    """Where one task waits until it is woken, an error is thrown at it, or the time is over."""

    __slots__ = ("_loop", "_rings", "_timer", "_until", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._rings = inf
        self._until = inf
        self.future: asyncio.Future[None] | None = None

    async def wait(self, seconds: float | None) -> None:
        """Raises TimeoutError."""
        if self.future is not None:
            raise RuntimeError("two tasks wait for the same thing of one connection")
        if seconds is not None:
            self._until = until = self._loop.time() + seconds
            if until < self._rings:
                self._set_timer(until)
        self.future = future = self._loop.create_future()
        try:
            await future
        finally:
            self.future = None
            self._until = inf

    def wake(self) -> None:
        future = self.future
        if future is not None and not future.done():
            future.set_result(None)

    def fail(self, error: BaseException) -> None:
        future = self.future
        if future is not None and not future.done():
            future.set_exception(error)

    def time_over(self) -> None:
        self.fail(TimeoutError("not in time"))

    def end(self) -> None:
        """No timer rings any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._rings = inf

    def _set_timer(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = until
        self._timer = self._loop.call_at(until, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._rings = inf
        if self._loop.time() >= self._until:
            self.time_over()
        elif self._until < inf:
            self._set_timer(self._until)
