"""The connections to one endpoint, for blocking callers.

A pool keeps idle connections, youngest first, so that a few stay warm and the rest run out. It opens a new one whenever
none is idle, up to the cluster's ``max_connections``; beyond that a caller waits for one of this pool's own to come back,
counted by the cluster's ``max_pending``. As in Envoy, an endpoint may always have one connection, whatever others hold.

Lock: ``_lock`` guards everything here; ``_changed`` is what waiting callers sleep on. Sockets are closed outside it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from meshlib.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.upstream import Connections
    from meshlib.transports.wire.guard import Guard

__all__ = ["Pool"]


class Pool:
    """Hands out httpcore connections. Thread-safe.

    Args:
        connect: Makes a connection object; it connects when first used.
        limits: The cluster's counters, or None for no limits.
        multiplexed: Connections speak HTTP/2: one is shared as long as it has room.
        max_idle: How many idle connections are kept at most; None: all.
        gone: Whether the endpoint left its cluster; then nothing is kept.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        limits: Connections | None,
        *,
        multiplexed: bool = False,
        max_idle: int | None = None,
        gone: Callable[[], bool] = bool,
    ) -> None:
        self._connect = connect
        self._limits = limits
        self._multiplexed = multiplexed
        self._gone = gone
        self._max_idle = max_idle
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._idle: list[Any] = []
        # Held here, so that a response that is collected unread does not take its socket along before it is closed.
        self._busy: set[Any] = set()
        self._shared: list[Any] = []
        self._open = 0
        self._closed = False

    def acquire(self, guard: Guard) -> Any:
        """A connection that is ready for one request. Give it back with :meth:`release`.

        Raises Overloaded where too many wait already, TimeoutError where none came in the pool's time.
        """
        stale: list[Any] = []
        try:
            with self._lock:
                connection = self._take(stale)
                if connection is None:
                    connection = self._wait(guard, stale)
                self._busy.add(connection)
                return connection
        finally:
            for one in stale:
                one.close()

    def release(self, connection: Any) -> None:
        """Take a connection back: it is kept if it can carry another request, else closed."""
        with self._lock:
            self._busy.discard(connection)
            kept = self._keep(connection)
            if not kept:
                self._uncount()
            if self._waiting:
                self._changed.notify()
        if not kept:
            connection.close()

    def close(self) -> None:
        """Close what is idle; what is in use closes when it comes back."""
        with self._lock:
            self._closed = True
            ended, self._idle = self._idle, []
            if self._multiplexed:
                ended = [one for one in self._shared if one.is_idle()]
                self._shared = [one for one in self._shared if one not in ended]
            for _ in ended:
                self._uncount()
        for connection in ended:
            connection.close()

    @property
    def idle(self) -> int:
        """How many connections wait for work."""
        return len(self._idle)

    @property
    def open(self) -> int:
        """How many connections there are, busy or idle."""
        return self._open

    # --- under the lock -------------------------------------------------------------------------------------------

    def _take(self, stale: list[Any]) -> Any | None:
        """A connection that can be had at once."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_idle() and not connection.has_expired():
                return connection
            stale.append(connection)
            self._uncount()
        for connection in self._shared:
            if connection.is_available() and not connection.has_expired():
                return connection
        if self._limits is not None and not self._limits.open_connection(force=self._open == 0):
            return None
        self._open += 1
        connection = self._connect()
        if self._multiplexed:
            self._shared.append(connection)
        return connection

    def _wait(self, guard: Guard, stale: list[Any]) -> Any:
        limits = self._limits
        assert limits is not None
        if not limits.begin_pending():
            raise Overloaded("max_pending: too many calls wait for a connection already")
        try:
            seconds = guard.left(guard.seconds("pool"))
            end = None if seconds is None else guard.clock() + seconds
            while True:
                left = None if end is None else end - guard.clock()
                if left is not None and left <= 0:
                    guard.note_timeout()
                    raise TimeoutError("no connection became free in time")
                self._waiting += 1
                try:
                    self._changed.wait(left)
                finally:
                    self._waiting -= 1
                connection = self._take(stale)
                if connection is not None:
                    return connection
        finally:
            limits.end_pending()

    def _keep(self, connection: Any) -> bool:
        """Whether the connection stays open. It is done with one request."""
        unwanted = self._closed or self._gone()
        if self._multiplexed:
            ended = connection.is_closed() or (unwanted and connection.is_idle())
            if ended and connection in self._shared:
                self._shared.remove(connection)
                return False
            return True
        full = self._max_idle is not None and len(self._idle) >= self._max_idle
        if unwanted or full or not connection.is_idle():
            return False
        self._idle.append(connection)
        return True

    def _uncount(self) -> None:
        self._open -= 1
        if self._limits is not None:
            self._limits.close_connection()
