"""Which connections to one endpoint there are, and which of them a request may have. No I/O, no waiting, no lock.

Idle connections are taken youngest first, so that a few stay warm and the rest run out. A new one is opened whenever none
is idle, up to the cluster's ``max_connections``; as in Envoy, an endpoint may always have one, whatever others hold. A
connection that speaks HTTP/2 is shared as long as it has room. Who gets one that is not connected yet, or none, is pending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.upstream import Connections
    from meshlib.transports.wire.guard import Guard

__all__ = ["Shelf"]


class Shelf:
    """The bookkeeping of a pool, which guards it and closes what it hands out as ended.

    Args:
        connect: Makes a connection object of httpcore's; it connects when first used.
        limits: The cluster's counters, or None for no limits.
        multiplexed: Connections speak HTTP/2.
        max_idle: How many idle connections are kept at most; None: all.
        gone: Whether the endpoint left its cluster; then nothing is kept.

    Attributes:
        stale: Connections that are counted no more, and are to be closed.
        open: How many connections there are, busy or idle.
        closed: Nothing is kept any more.
    """

    __slots__ = (
        "_busy",
        "_connect",
        "_gone",
        "_max_idle",
        "_multiplexed",
        "_shared",
        "closed",
        "idle",
        "limits",
        "open",
        "stale",
    )

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
        self._multiplexed = multiplexed
        self._gone = gone
        self._max_idle = max_idle
        # Held here, so that a response that is collected unread does not take its socket along before it is closed.
        self._busy: set[Any] = set()
        self._shared: list[Any] = []
        self.idle: list[Any] = []
        self.limits = limits
        self.stale: list[Any] = []
        self.open = 0
        self.closed = False

    def take(self, guard: Guard) -> Any | None:
        """A connection that can be had at once, or None where the limit is reached. Raises Overloaded where too many are
        pending already.
        """
        connection = self._found()
        limits = self.limits
        if limits is not None and (connection is None or self._is_connecting(connection)):
            guard.begin_pending(limits)
        else:
            guard.end_pending()
        if connection is None:
            if limits is not None and not limits.open_connection(force=self.open == 0):
                return None
            self.open += 1
            connection = self._connect()
            if self._multiplexed:
                self._shared.append(connection)
        self._busy.add(connection)
        return connection

    def _is_connecting(self, connection: Any) -> bool:
        """Only one that is shared is found before it is connected."""
        return self._multiplexed and connection.info() == "CONNECTING"

    def put_back(self, connection: Any) -> bool:
        """It is done with one request. Whether it stays open; else it is counted no more, and the caller closes it."""
        self._busy.discard(connection)
        kept = self._keep_shared(connection) if self._multiplexed else self._keep(connection)
        if not kept:
            self._uncount()
        return kept

    def clear(self) -> None:
        """Keep nothing from now on: what is idle becomes stale; what is in use ends when it comes back."""
        self.closed = True
        ended, self.idle = self.idle, []
        if self._multiplexed:
            ended = [one for one in self._shared if one.is_idle()]
            self._shared = [one for one in self._shared if one not in ended]
        for connection in ended:
            self._end(connection)

    def drain_stale(self) -> list[Any]:
        """What is to be closed; it is handed over."""
        stale, self.stale = self.stale, []
        return stale

    def _found(self) -> Any | None:
        while self.idle:
            connection = self.idle.pop()
            if connection.is_idle() and not connection.has_expired():
                return connection
            self._end(connection)
        for connection in self._shared:
            if connection.is_available() and not connection.has_expired():
                return connection
        return None

    def _keep(self, connection: Any) -> bool:
        full = self._max_idle is not None and len(self.idle) >= self._max_idle
        if full or self.closed or self._gone() or not connection.is_idle():
            return False
        self.idle.append(connection)
        return True

    def _keep_shared(self, connection: Any) -> bool:
        ended = connection.is_closed() or ((self.closed or self._gone()) and connection.is_idle())
        if not ended or connection not in self._shared:
            return True  # not over, or another of its requests has ended it already
        self._shared.remove(connection)
        return False

    def _end(self, connection: Any) -> None:
        self.stale.append(connection)
        self._uncount()

    def _uncount(self) -> None:
        self.open -= 1
        if self.limits is not None:
            self.limits.close_connection()
