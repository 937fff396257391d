"""An event that any thread may set and a task awaits, under asyncio and trio alike."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Any, Self

from meshlib.runtime.clock import ring_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from meshlib.runtime.clock import Clock

__all__ = ["Alarm", "Signal", "bound", "later", "loop_key", "under_trio"]

_log = logging.getLogger("meshlib")


def under_trio() -> bool:
    """Whether the running task is trio's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def loop_key() -> object:
    """What stands for the running event loop: connections may not cross from one to another."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token()


class Signal:
    """Made in the loop that awaits it. ``set`` may be called from any thread, at any time, more than once."""

    def __init__(self) -> None:
        import anyio

        self._event = anyio.Event()
        self._soon: Callable[[Callable[[], object]], object]
        try:
            self._soon = asyncio.get_running_loop().call_soon_threadsafe
        except RuntimeError:
            import trio

            self._soon = trio.lowlevel.current_trio_token().run_sync_soon

    def set(self) -> None:
        self.soon(self._event.set)

    def soon(self, call: Callable[[], object]) -> None:
        """Have the loop call it, from any thread."""
        try:
            self._soon(call)
        except RuntimeError as error:  # trio's RunFinishedError is one, too
            _log.debug("meshlib: nobody waits any more: %s", error)

    async def wait_long(self) -> None:
        """Until it is set."""
        await self._event.wait()

    async def wait(self, until: float, clock: Clock) -> bool:
        """Until it is set, at most until ``clock`` has come to ``until``; whether it is set. A virtual clock sets it then."""
        import anyio

        if clock.virtual:
            cancel = ring_at(clock, until, self.set)
            try:
                await self._event.wait()
            finally:
                cancel()
            return True
        with anyio.move_on_after(max(0.0, until - clock.now())):
            await self._event.wait()
        return self._event.is_set()


class _Bound:
    """`asyncio.timeout` on a virtual clock."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._over = False

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        soon = Signal().soon
        self._cancel = ring_at(self._clock, self._clock.now() + self._seconds, lambda: soon(self._end))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over = True
        self._cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def _end(self) -> None:
        if not self._over:
            self._timeout.reschedule(self._loop.time())

    def expired(self) -> bool:
        return self._timeout.expired()


def bound(clock: Clock, seconds: float | None) -> asyncio.Timeout | _Bound:
    """``asyncio.timeout(seconds)``, in seconds of ``clock``."""
    return _Bound(clock, seconds) if clock.virtual and seconds is not None else asyncio.timeout(seconds)


def later(clock: Clock, seconds: float, call: Callable[..., object], *arguments: Any) -> Callable[[], object]:
    """``call_later`` of the running loop, in seconds of ``clock``; what is returned prevents it."""
    if clock.virtual:
        soon = Signal().soon
        return ring_at(clock, clock.now() + seconds, lambda: soon(lambda: call(*arguments)))
    return asyncio.get_running_loop().call_later(seconds, call, *arguments).cancel


class Alarm:
    """Calls ``ring`` in the running loop when the time that was set last is over; with few timers: one is set only where none
    runs out before, and one that runs out too early is set anew. Times are absolute, on ``clock``.
    """

    __slots__ = ("_cancel", "_clock", "_ring", "_timed", "_until")

    def __init__(self, clock: Clock, ring: Callable[[], object]) -> None:
        self._clock = clock
        self._ring = ring
        self._until = inf
        self._timed = inf  # when the timer runs out
        self._cancel: Callable[[], object] = bool

    def set(self, until: float) -> None:
        """``inf``: it does not ring."""
        self._until = until
        if until < self._timed:
            self._time(until)

    def end(self) -> None:
        """It does not ring, and holds nothing any more until it is set again."""
        self._until = self._timed = inf
        self._cancel()

    def _time(self, until: float) -> None:
        self._cancel()
        self._timed = until
        self._cancel = later(self._clock, until - self._clock.now(), self._over)

    def _over(self) -> None:
        self._timed = inf
        if self._clock.now() < self._until < inf:
            self._time(self._until)
        elif self._until < inf:
            self._until = inf
            self._ring()
