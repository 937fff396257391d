"""A deadline for everything inside a block, whoever makes the calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from meshlib.inbound import current, enter
from meshlib.model import arguments

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import _GeneratorContextManager

    from meshlib.runtime.clock import Clock

__all__ = ["current_deadline", "deadline", "outside"]

#: The blocks around us: when each began, in ``time.monotonic()`` seconds, and how long it may take.
_current: ContextVar[tuple[tuple[float, float], ...]] = ContextVar("meshlib_deadline", default=())


def current_deadline(clock: Clock | None = None) -> float | None:
    """The nearest deadline in force here, in seconds of ``clock`` (default: the system's monotonic one), or None: that of a block, or that of the request being
    served as long as it is not answered.
    """
    blocks, request = _current.get(), current()
    if request is None and not blocks:
        return None
    serving = request is not None and request.deadline is not None and not request.answered
    if not blocks and not serving:
        return None
    instant = _system if clock is None else clock.instant
    ends = [instant(began) + seconds for began, seconds in blocks]
    if request is not None and request.deadline is not None and serving:
        now = time.monotonic()
        ends.append(request.deadline + (instant(now) - now))
    return min(ends)


def _system(monotonic: float) -> float:
    return monotonic


def deadline(seconds: float) -> _GeneratorContextManager[None]:
    """Every mesh call inside ends within ``seconds``, retries included, or raises DeadlineExceeded.

    Nested blocks only ever shorten: the nearest deadline holds. It is a context variable: tasks inherit it, as do
    threads that run in a copy of the context (``asyncio.to_thread``, ``contextvars.copy_context().run``).

    Raises TypeError for what is no number and ValueError for a negative one, before the block begins.
    """
    return _within(arguments.seconds(seconds, "deadline"))


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    token = _current.set((*_current.get(), (time.monotonic(), seconds)))
    try:
        yield
    finally:
        _current.reset(token)


def outside(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """For middlewares: ``call``, a server's, under the request and the deadline that are in force here and now.

    A server that goes on with its connection inside such a call hands the context that it runs in to whatever comes on
    that connection next: asyncio keeps the context in which a transport begins to read again, and uvicorn starts a
    pipelined request when the response before it is out.
    """
    request, block = current(), _current.get()

    async def calling(*arguments: Any) -> Any:
        inner_request, inner_block = current(), _current.get()
        enter(request)
        _current.set(block)
        try:
            return await call(*arguments)
        finally:
            enter(inner_request)
            _current.set(inner_block)

    return calling
