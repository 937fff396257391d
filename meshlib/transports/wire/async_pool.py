"""The connections to one endpoint, for callers of one event loop.

The twin of ``wire/pool.py``: the same rules, no lock (a loop runs one task at a time, and nothing here awaits between
looking and changing), and waiting callers sleep on events of their own, first come first served.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from meshlib.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.upstream import Connections
    from meshlib.transports.wire.guard import Guard

__all__ = ["AsyncPool"]


class AsyncPool:
    """Hands out httpcore's async connections to tasks of one event loop. Arguments as for ``Pool``."""

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
        self._idle: list[Any] = []
        self._busy: set[Any] = set()  # held for the same reason as there
        self._shared: list[Any] = []
        self._waiting: deque[Any] = deque()
        self._stale: list[Any] = []
        self._open = 0
        self._closed = False

    async def acquire(self, guard: Guard) -> Any:
        """As ``Pool.acquire``."""
        connection = self._take()
        if connection is None:
            connection = await self._wait(guard)
        if self._stale:
            await self._close_stale()
        self._busy.add(connection)
        return connection

    async def release(self, connection: Any) -> None:
        """As ``Pool.release``."""
        if not self.give_back(connection):
            await connection.aclose()

    def give_back(self, connection: Any) -> bool:
        """``release`` up to its only await; False: the caller closes the connection."""
        self._busy.discard(connection)
        kept = self._keep(connection)
        if not kept:
            self._uncount()
        if self._waiting:
            self._waiting.popleft().set()
        return kept

    async def aclose(self) -> None:
        """As ``Pool.close``."""
        self._closed = True
        ended, self._idle = self._idle, []
        if self._multiplexed:
            ended = [one for one in self._shared if one.is_idle()]
            self._shared = [one for one in self._shared if one not in ended]
        for _ in ended:
            self._uncount()
        self._stale.extend(ended)
        await self._close_stale()

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def open(self) -> int:
        return self._open

    def _take(self) -> Any | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_idle() and not connection.has_expired():
                return connection
            self._stale.append(connection)
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

    async def _wait(self, guard: Guard) -> Any:
        import anyio

        limits = self._limits
        assert limits is not None
        if not limits.begin_pending():
            raise Overloaded("max_pending: too many calls wait for a connection already")
        try:
            with anyio.fail_after(guard.left(guard.seconds("pool"))):
                while True:
                    turn = anyio.Event()
                    self._waiting.append(turn)
                    try:
                        await turn.wait()
                    except BaseException:
                        self._pass_on(turn)
                        raise
                    connection = self._take()
                    if connection is not None:
                        return connection
        except TimeoutError:
            guard.note_timeout()
            raise
        finally:
            limits.end_pending()

    def _pass_on(self, turn: Any) -> None:
        """A caller gives up: if it was its turn already, the next one has it."""
        if not turn.is_set():
            self._waiting.remove(turn)
        elif self._waiting:
            self._waiting.popleft().set()

    async def _close_stale(self) -> None:
        stale, self._stale = self._stale, []
        for connection in stale:
            await connection.aclose()

    def _keep(self, connection: Any) -> bool:
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
