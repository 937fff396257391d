"""The connections to one endpoint, for blocking callers.

What there is and who may have it is decided by :class:`~meshlib.transports.wire.shelf.Shelf`. Where the limit of connections
is reached, a caller waits for one of this pool's own to come back.

Lock: ``_lock`` guards the shelf and ``_waiting``; ``_changed`` is what waiting callers sleep on. Sockets are closed outside it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from meshlib.errors import Overloaded
from meshlib.transports.wire.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.upstream import Connections
    from meshlib.transports.wire.guard import Guard

__all__ = ["Pool"]


class Pool:
    """Hands out httpcore connections. Thread-safe. Arguments as for ``Shelf``."""

    def __init__(self, connect: Callable[[], Any], limits: Connections | None, **options: Any) -> None:
        self._shelf = Shelf(connect, limits, **options)
        # Reentrant: asked whether it is held, which a condition does, gevent's plain lock lets other greenlets run.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0

    def acquire(self, guard: Guard) -> Any:
        """A connection that is ready for one request. Give it back with :meth:`release`.

        Raises Overloaded where too many are pending already or none came in the pool's time, TimeoutError where the deadline is
        over.
        """
        shelf = self._shelf
        try:
            with self._lock:
                connection = shelf.take(guard)
                return self._wait(guard) if connection is None else connection
        except BaseException:
            guard.end_pending()
            raise
        finally:
            if shelf.stale:
                self._close_stale()

    def release(self, connection: Any) -> None:
        """Take a connection back: it is kept if it can carry another request, else closed."""
        with self._lock:
            kept = self._shelf.put_back(connection)
            if self._waiting:
                self._changed.notify()
        if not kept:
            connection.close()

    def close(self) -> None:
        """Close what is idle; what is in use closes when it comes back."""
        with self._lock:
            self._shelf.clear()
        self._close_stale()

    @property
    def idle(self) -> int:
        """How many connections wait for work."""
        return len(self._shelf.idle)

    @property
    def open(self) -> int:
        """How many connections there are, busy or idle."""
        return self._shelf.open

    def _close_stale(self) -> None:
        with self._lock:
            stale = self._shelf.drain_stale()
        for connection in stale:
            connection.close()

    def _wait(self, guard: Guard) -> Any:
        """Under the lock."""
        if guard.alarm is not None:
            with guard.ringing(self._wake):
                return self._wait_until(guard)
        return self._wait_until(guard)

    def _wake(self) -> None:
        with self._lock:
            self._changed.notify_all()

    def _wait_until(self, guard: Guard) -> Any:
        seconds = guard.left(guard.seconds("pool"))
        end = None if seconds is None else guard.clock() + seconds
        while True:
            left = None if end is None else end - guard.clock()
            guard.left(None)
            if left is not None and left <= 0:
                guard.note_timeout()
                if guard.expired:
                    raise TimeoutError("the deadline is over")
                raise Overloaded("max_connections: no connection was free in time")
            self._waiting += 1
            try:
                self._changed.wait(left)
            except BaseException:
                # Interrupted, or its greenlet killed: if it had been told of a connection, the next one hears of it.
                self._changed.notify()
                raise
            finally:
                self._waiting -= 1
            connection = self._shelf.take(guard)
            if connection is not None:
                return connection
