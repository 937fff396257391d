"""The connections to one endpoint, for the tasks of one event loop: asyncio's, or trio's.

The twin of ``pools/endpoint.py`` over the same :class:`~meshlib.pools.state.PoolState`. There is no lock: a loop runs one task
at a time, and nothing here awaits between looking and changing. Only ``abandon`` may be called from elsewhere.

Idle connections end by the loop's own ``call_later``. Where the loop has none (trio), or its seconds are not those of the mesh
(a virtual clock), the worker's timer tells the loop when.
"""

from __future__ import annotations

import asyncio
import logging
import time
from math import inf
from os import getpid
from typing import TYPE_CHECKING, Any, TypeVar

from meshlib.pools.bounds import Bounds
from meshlib.pools.endpoint import AHEAD_SECONDS, time_left
from meshlib.pools.reaper import reaper_of
from meshlib.pools.state import Counted, Pooled, PoolSettings, PoolState, Waiter, is_usable
from meshlib.pools.tending import Tended
from meshlib.runtime.signal import loop_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshlib.core.upstream import Connections
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.worker import Worker

__all__ = ["AsyncEndpointPool"]

P = TypeVar("P", bound=Pooled)

_log = logging.getLogger("meshlib")


class _FutureTurn(Waiter[P]):
    """What a task of asyncio awaits until its turn has come."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def sleep(self, seconds: float | None) -> None:
        """Until it is woken, at most so long."""
        if self._future.done():
            self._future = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(max(0.0, seconds), self.wake)
        try:
            await self._future
        finally:
            if timer is not None:
                timer.cancel()


class _EventTurn(Waiter[P]):
    """The same for a task of trio."""

    __slots__ = ("_event",)

    def __init__(self, _loop: Any) -> None:
        import anyio

        super().__init__()
        self._event = anyio.Event()

    def wake(self) -> None:
        self._event.set()

    async def sleep(self, seconds: float | None) -> None:
        """Until it is woken, at most so long."""
        import anyio

        if self._event.is_set():
            self._event = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._event.wait()


class AsyncEndpointPool(Counted[P]):
    """Connections to one endpoint, for the event loop in which it is made. Arguments, errors and rules as of ``EndpointPool``;
    ``dial`` is awaited.
    """

    def __init__(
        self,
        dial: Callable[[Bounds], Awaitable[P]],
        limits: Connections | None,
        settings: PoolSettings,
        clock: Clock,
        *,
        multiplexed: bool = False,
        gone: Callable[[], bool] = bool,
        worker: Worker | None = None,
    ) -> None:
        self._dial = dial
        self._clock = clock
        self._now = clock.now
        self._state: PoolState[P] = PoolState(limits, settings, multiplexed=multiplexed, gone=gone)
        self._loop: Any = loop_key()
        self._call_soon = hasattr(self._loop, "call_soon_threadsafe")  # asyncio's, or trio's token
        self._new_turn: Any = _FutureTurn if self._call_soon else _EventTurn
        self._call_later = None if clock.virtual else getattr(self._loop, "call_later", None)
        self._reaper = None if worker is None or self._call_later is not None else reaper_of(worker)
        self._timer: asyncio.TimerHandle | None = None
        self._watched = False
        self._tended: Tended[P] | None = None
        self._ahead = settings.ahead > 1.0 and self._call_soon
        self._more = self._ahead  # whether a connection that is taken is to be looked after
        self._dials: set[asyncio.Task[None]] = set()
        self._pid = getpid()
        self.used = self._now()

    async def acquire(self, bounds: Bounds) -> P:
        """As ``EndpointPool.acquire``. Cancelled, it leaves nothing behind."""
        state = self._state
        try:
            while True:
                connection = state.take(self._now())
                if connection is None:
                    return await self._acquire_next(bounds)
                if connection.free():
                    if self._more:
                        self._look_after(connection)
                    return connection
                state.refuse(connection, self._now())
        finally:
            if state.ended:
                self._close_ended()

    def release(self, connection: P) -> None:
        """As ``EndpointPool.release``."""
        self.used = now = self._now()
        if not self._state.put_back(connection, now, usable=is_usable(connection)):
            connection.close()
        elif not self._watched:
            self._watch()

    def abandon(self, connection: P) -> None:
        """As ``EndpointPool.abandon``, from any thread: the loop closes the connection."""
        self._soon(lambda: self._take_in(connection))

    def forget(self) -> None:
        """As ``EndpointPool.forget``, from any thread."""
        self._soon(self.close)

    def retire(self) -> None:
        """The worker is stopped: the loop closes what is idle."""
        self._soon(self._retire)

    def close(self) -> None:
        """As ``EndpointPool.close``."""
        self._state.clear(self._now())
        self._close_ended()

    def configure(self, settings: PoolSettings) -> None:
        """As ``EndpointPool.configure``."""
        self._state.configure(settings)
        self._ahead = settings.ahead > 1.0 and self._call_soon
        self._more = self._ahead or self._tended is not None
        self._state.serve(self._now())
        self._watched = False
        self._reap()

    def reap(self) -> float:
        """The reaper's round, on another thread: the loop does it, and says when the next is to be."""
        self._soon(self._reap)
        return inf

    async def _acquire_next(self, bounds: Bounds) -> P:
        """Nothing is ready: through the queue."""
        state = self._state
        seconds = bounds.left("pool")
        until = None if seconds is None else time.monotonic() + seconds
        if state.limits is not None:
            bounds.begin_pending(state.limits)
        try:
            connection = await self._turn(bounds, until)
            while connection is not None and not connection.free():
                connection = await self._turn(bounds, until, connection)
            return await self._connect(bounds) if connection is None else connection
        finally:
            bounds.end_pending()

    async def _turn(self, bounds: Bounds, until: float | None, refused: P | None = None) -> P | None:
        """What the caller's turn gives it, in the place of what it ``refused``. Raises as ``acquire``."""
        state = self._state
        turn = self._new_turn(self._loop)
        try:
            if refused is None:
                state.wait(turn, self._now())
            else:
                state.refuse(refused, self._now(), turn)
            if not turn.served:
                with bounds.ringing(lambda: self._soon(turn.wake)):
                    await self._sleep(turn, bounds, until)
        except BaseException:
            # Cancelled, or out of time: if its turn has come, it is the next one's.
            state.leave(turn, self._now())
            raise
        found: P | None = turn.connection
        return found

    async def _sleep(self, turn: Any, bounds: Bounds, until: float | None) -> None:
        while not turn.served:
            await turn.sleep(time_left(bounds, until))

    async def _connect(self, bounds: Bounds) -> P:
        """Use leave to dial."""
        try:
            connection = await self._dial(bounds)
        except BaseException as error:
            # Cancelled or out of its own time it says nothing of the endpoint.
            failed = isinstance(error, Exception) and not bounds.expired
            self._state.not_dialed(self._now(), failed=failed)
            raise
        self._state.dialed(connection, self._now())
        if getattr(connection, "pings", None) is not None:
            self._tended, self._more = self._tended or Tended(), True
            self._tend(connection)
        if self._ahead:
            self._dial_ahead()
        return connection

    def _look_after(self, connection: P) -> None:
        """As of ``EndpointPool``."""
        if self._ahead:
            self._dial_ahead()
        if self._tended is not None and self._tended.ask(connection, self._now()):
            self._tend(connection)

    def _dial_ahead(self) -> None:
        """As of ``EndpointPool``: a task does it."""
        if self._state.begin_ahead():
            task = self._loop.create_task(self._dial_one())
            self._dials.add(task)
            task.add_done_callback(self._dials.discard)

    async def _dial_one(self) -> None:
        connection: P | None = None
        try:
            connection = await self._dial(Bounds(self._clock, connect=AHEAD_SECONDS))
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            _log.debug("meshlib: a connection that nobody waits for: %s", error)
        finally:
            if connection is None:
                self._state.not_dialed(self._now())
        if connection is not None:
            self._state.dialed(connection, self._now())
            if getattr(connection, "pings", None) is not None and self._tended is not None:
                self._tend(connection)
            self.release(connection)

    def _tend(self, connection: P) -> None:
        """See that it is looked after at its time."""
        if self._tended is not None:
            self._tended.add(connection, self._now())
            self._watch()

    def _take_in(self, connection: P) -> None:
        try:
            self._state.refuse(connection, self._now())
        except RuntimeError as error:
            _log.warning("meshlib: %s", error)
        self._close_ended()

    def _reap(self) -> None:
        self._state.expire(self._now())
        if self._tended is not None:
            self._tended.look(self._now())
        self._watched = False
        self._close_ended()
        self._watch()

    def _retire(self) -> None:
        self._state.empty()
        self._watched = False
        self._close_ended()

    def _soon(self, call: Callable[[], object]) -> None:
        """Have the loop call it; without a lock, and not in a child of its process."""
        if self._pid != getpid():
            return
        loop = self._loop
        try:
            (loop.call_soon_threadsafe if self._call_soon else loop.run_sync_soon)(call)
        except RuntimeError as error:  # trio's RunFinishedError is one, too
            _log.debug("meshlib: the event loop is over: %s", error)

    def _watch(self) -> None:
        """See that ``_reap`` is called when the first of the idle ones is to end."""
        due = self._state.due()
        if self._tended is not None:
            due = min(due, self._tended.due)
        if due == inf:
            return
        self._watched = True
        if self._call_later is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._call_later(max(0.0, due - self._now()), self._reap)
        elif self._reaper is not None:
            self._reaper.watch(self, due)

    def _close_ended(self) -> None:
        for connection in self._state.drain_ended():
            connection.close()
