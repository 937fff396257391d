"""What belongs to one event loop: connections may not cross from one to another.

Under asyncio it is kept on the loop, so that it goes when the loop goes; ``asyncio.run`` and every other runner that shuts down
asynchronous generators before it closes its loop has it closed first. Under trio a run variable does both.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ["PerLoop"]


class _Closable(Protocol):
    async def aclose(self) -> None: ...


T = TypeVar("T", bound=_Closable)

#: The attribute of a loop under which its own are kept, by owner.
_KEPT = "_meshlib_kept"


class PerLoop(Generic[T]):
    """One value for each event loop that asks. Any number of loops in any number of threads; each sees its own."""

    __slots__ = ("__weakref__", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def get(self) -> T:
        """The running loop's, made on first use."""
        kept = _kept()
        found: T | None = kept.get(self)
        if found is None:
            found = kept[self] = self._make()
        return found

    def take(self) -> T | None:
        """The running loop's, to be closed by the caller; None where it has none."""
        found: T | None = _kept().pop(self, None)
        return found


def _kept() -> Any:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _kept_of_trio()
    kept = getattr(loop, _KEPT, None)
    if kept is None:
        kept = weakref.WeakKeyDictionary[Any, Any]()
        keeper = _keep(kept)
        _begin(keeper)
        setattr(loop, _KEPT, kept)
        # The loop knows the generators that began in it weakly.
        setattr(loop, _KEPT + "_by", keeper)
    return kept


async def _keep(kept: Any) -> AsyncGenerator[None, None]:
    """Closes what is kept when the loop shuts down its generators."""
    try:
        yield
    finally:
        values = list(kept.values())
        kept.clear()
        for value in values:
            await value.aclose()


def _begin(keeper: AsyncGenerator[None, None]) -> None:
    with contextlib.suppress(StopIteration):
        keeper.__anext__().send(None)


_of_trio: Any = None


def _kept_of_trio() -> Any:
    global _of_trio  # noqa: PLW0603 - trio need not be installed
    import trio

    if _of_trio is None:
        _of_trio = trio.lowlevel.RunVar("meshlib")
    try:
        return _of_trio.get()
    except LookupError:
        kept = weakref.WeakKeyDictionary[Any, Any]()
        _of_trio.set(kept)
        return kept
