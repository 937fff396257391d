"""An event that any thread may set and a task awaits, under asyncio and trio alike."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Signal", "loop_key", "under_trio"]

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
        try:
            self._soon(self._event.set)
        except RuntimeError as error:  # trio's RunFinishedError is one, too
            _log.debug("meshlib: nobody waits any more: %s", error)

    async def wait(self, seconds: float) -> bool:
        """Whether it was set within ``seconds``."""
        import anyio

        with anyio.move_on_after(max(0.0, seconds)):
            await self._event.wait()
        return self._event.is_set()
