"""The connections to one endpoint, for callers of one event loop.

The twin of ``wire/pool.py`` over the same :class:`~meshlib.transports.wire.shelf.Shelf`: no lock (a loop runs one task at a
time, and nothing here awaits between looking and changing), and waiting callers sleep on events of their own, first come first
served.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from meshlib.errors import Overloaded
from meshlib.runtime.signal import ringing
from meshlib.transports.wire.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.upstream import Connections
    from meshlib.transports.wire.guard import Guard

__all__ = ["AsyncPool"]


class AsyncPool:
    """Hands out httpcore's async connections to tasks of one event loop. Arguments as for ``Shelf``."""

    def __init__(self, connect: Callable[[], Any], limits: Connections | None, **options: Any) -> None:
        self._shelf = Shelf(connect, limits, **options)
        self._waiting: deque[Any] = deque()

    async def acquire(self, guard: Guard) -> Any:
        """As ``Pool.acquire``."""
        shelf = self._shelf
        connection = shelf.take(guard)
        if connection is None:
            connection = await self._wait(guard)
        if shelf.stale:
            try:
                await self._close_stale()
            except BaseException:  # cancelled: the connection goes back as it came
                guard.end_pending()
                self.give_back(connection)
                raise
        return connection

    async def release(self, connection: Any) -> None:
        """As ``Pool.release``."""
        if not self.give_back(connection):
            await connection.aclose()

    def give_back(self, connection: Any) -> bool:
        """``release`` up to its only await; False: the caller closes the connection."""
        kept = self._shelf.put_back(connection)
        if self._waiting:
            self._waiting.popleft().set()
        return kept

    async def aclose(self) -> None:
        """As ``Pool.close``."""
        self._shelf.clear()
        await self._close_stale()

    @property
    def idle(self) -> int:
        """How many connections wait for work."""
        return len(self._shelf.idle)

    @property
    def open(self) -> int:
        """How many connections there are, busy or idle."""
        return self._shelf.open

    async def _close_stale(self) -> None:
        for connection in self._shelf.drain_stale():
            await connection.aclose()

    async def _wait(self, guard: Guard) -> Any:
        import anyio

        try:
            with anyio.fail_after(guard.left(guard.seconds("pool"))), ringing(guard):
                while True:
                    turn = anyio.Event()
                    self._waiting.append(turn)
                    try:
                        await turn.wait()
                    except BaseException:
                        self._pass_on(turn)
                        raise
                    connection = self._shelf.take(guard)
                    if connection is not None:
                        return connection
        except BaseException as error:
            guard.end_pending()
            if not isinstance(error, TimeoutError):
                raise
            guard.note_timeout()
            if guard.expired:
                raise
            raise Overloaded("max_connections: no connection was free in time") from None

    def _pass_on(self, turn: Any) -> None:
        """A caller gives up: if it was its turn already, the next one has it."""
        if not turn.is_set():
            self._waiting.remove(turn)
        elif self._waiting:
            self._waiting.popleft().set()
