"""The connections to one endpoint, for threads, and for gevent's greenlets.

Who gets what is decided in :mod:`meshlib.pools.state`. A caller that has leave to dial does so in its own thread.

Lock: ``_lock`` guards the state, for microseconds: nobody dials, closes or asks a socket under it. It is reentrant, since a
finalizer of the application's that makes a call may run wherever the collector does. Each waiter sleeps on a lock of its own,
which whoever gives it its turn releases; under gevent neither that nor ``_lock`` lets other greenlets run in between, so that
one that is killed loses nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from math import inf
from os import getpid
from typing import TYPE_CHECKING, TypeVar

from meshlib.errors import Overloaded
from meshlib.pools.bounds import Bounds
from meshlib.pools.reaper import reaper_of
from meshlib.pools.state import Counted, Pooled, PoolSettings, PoolState, Waiter, is_usable
from meshlib.pools.tending import Tended
from meshlib.runtime import threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.upstream import Connections
    from meshlib.pools.reaper import Reaper
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.worker import Worker

__all__ = ["EndpointPool", "time_left"]

P = TypeVar("P", bound=Pooled)

_log = logging.getLogger("meshlib")

#: Seconds for which a connection is dialed that nobody waits for: Envoy's default of ``connect_timeout``.
AHEAD_SECONDS = 5.0
#: Said of a caller whose time was over before its turn came.
NO_TIME = "max_connections: no connection was free in time"


def time_left(bounds: Bounds, until: float | None) -> float | None:
    """Seconds for which a caller may go on waiting for its turn; ``until``: when the pool's time is over, on the system's clock.
    Raises Overloaded and TimeoutError where there are none.
    """
    left = None if until is None else until - time.monotonic()
    if left is not None and left <= 0:
        bounds.timed_out()
        if bounds.expired:
            raise TimeoutError("the deadline is over")
        raise Overloaded(NO_TIME)
    bounds.left("pool")
    return left


class _Turn(Waiter[P]):
    """What a thread sleeps on until its turn has come."""

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        super().__init__()
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is awake already
            self._asleep.release()

    def sleep(self, seconds: float | None) -> None:
        """Until it is woken, at most so long."""
        self._asleep.acquire(timeout=-1 if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX))


class EndpointPool(Counted[P]):
    """Connections to one endpoint. Thread-safe.

    A connection that is handed over to another protocol (an upgrade, CONNECT, bare TCP) stays its holder's and counted until
    it is closed and released.

    Args:
        dial: Makes a connection, within the attempt's bounds. What it raises goes to the caller whose dial it was.
        limits: The cluster's counters, or None for no limits.
        settings: See there; :meth:`configure` puts others in their place.
        clock: The mesh's time.
        multiplexed: Connections may turn out to carry several requests (HTTP/2, also where ALPN decides).
        gone: Whether the endpoint left its cluster, or connections to it are to be others.
        worker: The runtime's. Its timer ends what is idle at its time, and it takes in what was abandoned; None: the next
            caller does.
    """

    def __init__(
        self,
        dial: Callable[[Bounds], P],
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
        self._lock = threading.RLock()
        self._reaper = None if worker is None else reaper_of(worker)
        self._pid = getpid()
        self._watched = False  # the reaper will come; False may be late, and then it comes twice
        self._abandoned: deque[P] = deque()
        self._tended: Tended[P] | None = None  # once a connection is to be tended
        self._ahead = settings.ahead > 1.0
        self._more = self._ahead  # whether a connection that is taken is to be looked after
        self.used = self._now()

    def acquire(self, bounds: Bounds) -> P:
        """A connection for one request. Give it back with :meth:`release`, in any case.

        Raises Overloaded where too many wait already or its turn did not come within the pool's time, TimeoutError where the
        deadline is over (``bounds.expired``), and what ``dial`` raises.
        """
        state = self._state
        if self._abandoned:
            self.take_in()
        try:
            while True:
                with self._lock:
                    connection = state.take(self._now())
                if connection is None:
                    return self._acquire_next(bounds)
                if connection.free():
                    if self._more:
                        self._look_after(connection)
                    return connection
                self._refuse(connection)
        finally:
            if state.ended:
                self._close_ended()

    def release(self, connection: P) -> None:
        """Take a connection back: it goes to who waits longest, or is kept, or closed.

        Raises RuntimeError for one that was put back already, which harms nothing. One that is shared is to be put back as
        often as it was acquired.
        """
        usable = is_usable(connection)
        now = self._now()
        state = self._state
        with self._lock:
            kept = state.put_back(connection, now, usable=usable)
            self.used = now
        if not kept:
            connection.close()
        elif self._reaper is not None and not self._watched:
            self._watch(self._reaper)

    def abandon(self, connection: P) -> None:
        """``release`` for a finalizer, whose request was not read to its end: takes no lock. The worker closes the connection,
        or the next caller; one that is shared takes nobody new, and ends with its last request. In a child of the process that
        dialed it nothing happens: the connection is the parent's.
        """
        if self._pid != getpid():
            return
        self._abandoned.append(connection)
        if self._is_tended():
            self._reaper.worker.post(self.take_in)  # type: ignore[union-attr]
        elif connection.streams <= 1:
            connection.close()

    def close(self) -> None:
        """Close what is idle, and keep nothing any more; what is in use closes when it comes back. Calls may go on."""
        with self._lock:
            self._state.clear(self._now())
        self._close_ended()

    def retire(self) -> None:
        """Close what is idle: the worker that would do so at its time is stopped."""
        with self._lock:
            self._state.empty()
            self._watched = False
        self._close_ended()

    def forget(self) -> None:
        """``close`` for a finalizer: takes no lock that others may hold. Nothing happens in a child, as with ``abandon``."""
        if self._pid != getpid():
            return
        if self._is_tended():
            self._reaper.worker.post(self.close)  # type: ignore[union-attr]
        else:
            self.close()

    def configure(self, settings: PoolSettings) -> None:
        """Other settings hold from now on, and limits may have changed: whoever waits looks again."""
        with self._lock:
            self._state.configure(settings)
            self._ahead = settings.ahead > 1.0
            self._more = self._ahead or self._tended is not None
            self._state.expire(self._now())
            self._state.serve(self._now())
            self._watched = False
        self._close_ended()
        if self._reaper is not None:
            self._watch(self._reaper)

    def reap(self) -> float:
        """Close what has been idle for too long; when there will be something to do next (``inf``: when somebody releases)."""
        tended = inf if self._tended is None else self._tended.look(self._now())
        with self._lock:
            due = min(self._state.expire(self._now()), tended)
            self._watched = due != inf
        self._close_ended()
        return due

    def take_in(self) -> None:
        """Close what was abandoned."""
        while self._abandoned:
            try:
                connection = self._abandoned.popleft()
            except IndexError:  # another thread has it
                break
            try:
                self._refuse(connection)
            except RuntimeError as error:
                _log.warning("meshlib: %s", error)
        self._close_ended()

    def _acquire_next(self, bounds: Bounds) -> P:
        """Nothing is ready: through the queue."""
        state = self._state
        seconds = bounds.left("pool")
        until = None if seconds is None else time.monotonic() + seconds
        if state.limits is not None:
            bounds.begin_pending(state.limits)
        try:
            connection = self._turn(bounds, until)
            while connection is not None and not connection.free():
                connection = self._turn(bounds, until, connection)
            return self._connect(bounds) if connection is None else connection
        finally:
            bounds.end_pending()

    def _turn(self, bounds: Bounds, until: float | None, refused: P | None = None) -> P | None:
        """What the caller's turn gives it, in the place of what it ``refused``. Raises as ``acquire``."""
        state = self._state
        turn: _Turn[P] = _Turn()
        try:
            with self._lock:
                if refused is None:
                    state.wait(turn, self._now())
                else:
                    state.refuse(refused, self._now(), turn)
            if not turn.served:
                with bounds.ringing(turn.wake):
                    self._sleep(turn, bounds, until)
        except BaseException:
            # Interrupted, killed, or out of time: if its turn has come, it is the next one's.
            with self._lock:
                state.leave(turn, self._now())
            raise
        return turn.connection

    def _sleep(self, turn: _Turn[P], bounds: Bounds, until: float | None) -> None:
        while not turn.served:
            turn.sleep(time_left(bounds, until))

    def _refuse(self, connection: P) -> None:
        with self._lock:
            self._state.refuse(connection, self._now())

    def _connect(self, bounds: Bounds) -> P:
        """Use leave to dial."""
        state = self._state
        failed = False
        connection: P | None = None
        try:
            connection = self._dial(bounds)
            with self._lock:
                state.dialed(connection, self._now())
                pings = getattr(connection, "pings", None)
                if pings is not None and self._tended is None:
                    self._tended, self._more = Tended(), True
            if pings is not None:
                self._tend(connection)
            if self._ahead:
                self._dial_ahead()
            return connection
        except BaseException as error:
            # Interrupted, killed or out of its own time it says nothing of the endpoint.
            failed = isinstance(error, Exception) and not bounds.expired
            if connection is not None:
                connection.close()
            with self._lock:
                state.not_dialed(self._now(), failed=failed)
            raise

    def _look_after(self, connection: P) -> None:
        """It was idle, perhaps for so long that its peer may be gone; and others may be needed soon."""
        if self._ahead:
            self._dial_ahead()
        tended = self._tended
        if tended is not None and tended.ask(connection, self._now()):
            self._tend(connection)

    def _dial_ahead(self) -> None:
        """Have a thread dial one more, where so many are to be: one at a time, which no caller waits for."""
        with self._lock:
            wanted = self._state.begin_ahead()
        if not wanted:
            return
        try:
            threads.start(threading.Thread(target=self._dial_one, name="meshlib-ahead", daemon=True))
        except RuntimeError:  # no thread can be had now
            with self._lock:
                self._state.not_dialed(self._now())

    def _dial_one(self) -> None:
        """In a thread of its own. That it failed is the next caller's to find out."""
        connection: P | None = None
        try:
            connection = self._dial(Bounds(self._clock, connect=AHEAD_SECONDS))
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            _log.debug("meshlib: a connection that nobody waits for: %s", error)
        with self._lock:
            if connection is None:
                self._state.not_dialed(self._now())
            else:
                self._state.dialed(connection, self._now())
        if connection is not None:
            if getattr(connection, "pings", None) is not None and self._tended is not None:
                self._tend(connection)
            self.release(connection)

    def _tend(self, connection: P) -> None:
        """See that somebody looks after it at its time."""
        if self._reaper is None or self._tended is None or self._reaper.worker.stopped:
            return
        self._tended.add(connection, self._now())
        with self._lock:
            due = min(self._state.due(), self._tended.due)
            self._watched = due != inf
        if due != inf:
            self._reaper.watch(self, due)

    def _is_tended(self) -> bool:
        return self._reaper is not None and not self._reaper.worker.stopped

    def _watch(self, reaper: Reaper) -> None:
        """See that somebody comes when the first of the idle ones is to end."""
        if reaper.worker.stopped:
            self.retire()
            return
        with self._lock:
            due = self._state.due()
            if self._tended is not None:
                due = min(due, self._tended.due)
            watch, self._watched = not self._watched and due != inf, True
        if watch:
            reaper.watch(self, due)

    def _close_ended(self) -> None:
        with self._lock:
            ended = self._state.drain_ended()
        for connection in ended:
            connection.close()
