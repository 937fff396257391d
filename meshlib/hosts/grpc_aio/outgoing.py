"""The messages that a call of an asyncio channel sends: kept for as long as another attempt may have to send them (gRFC A6).

Each attempt is fed by a task of its own, from the first message on. Who writes waits until the attempt under way has sent its
message, so that grpc's flow control is the writer's. Once the call is committed and its attempt has sent all that was kept, messages
go straight to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from grpc.aio import AioRpcError, InternalError

from meshlib.hosts.grpc.replay import LIMIT, serialize

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.hosts.grpc.request import Request

__all__ = ["Outgoing"]


class Outgoing:
    """Belongs to one call and its loop."""

    def __init__(
        self, request: Request, serializer: Callable[[Any], bytes] | None, limit: int = LIMIT
    ) -> None:
        self._request = request
        self._serializer = serializer
        self._limit = limit
        self._kept: list[Any] = []  # from number _base on
        self._base = 0
        self._size = 0
        self._sent = 0  # by the attempt under way
        self._committed = False
        self._half_closed = False
        self._ended = False
        self._attempt: Any = None
        self._feeder: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._direct = False  # its attempt takes messages itself

    @property
    def half_closed(self) -> bool:
        return self._half_closed

    @property
    def whole(self) -> bool:
        """Whether all that was taken to be sent can be sent again."""
        return self._base == 0

    def feed(self, attempt: Any) -> None:
        """Another attempt is under way: it is sent all there is."""
        if self._feeder is not None:
            self._feeder.cancel()
        self._attempt, self._sent, self._direct = attempt, self._base, False
        self._feeder = asyncio.get_running_loop().create_task(self._feed(attempt))

    def commit(self) -> None:
        """No other attempt will be made."""
        self._committed = True
        self._wake()

    def end(self) -> None:
        """The call is over."""
        self._ended = True
        self._wake()

    async def write(self, message: Any) -> None:
        """Send ``message``; until the attempt under way has taken it, or the call is over."""
        data = serialize(message, self._serializer)
        if self._direct:
            await _send(self._attempt, data)
            return
        number = self._base + len(self._kept)
        self._kept.append(data)
        if not self._committed:
            self._size += len(data) if isinstance(data, bytes) else 0
            if self._size > self._limit:
                self._committed = True  # nothing is kept any more
                if self._request.call is not None:
                    self._request.call.replayable = False
        self._wake()
        while self._sent <= number and not self._ended:
            await self._change()

    async def close(self) -> None:
        """Nothing more comes."""
        if self._half_closed:
            return
        self._half_closed = True
        if self._direct:
            await _half_close(self._attempt)
        self._wake()

    async def consume(self, source: Any) -> bool:
        """Send all that the application's iterator gives; False: it raised."""
        try:
            if isinstance(source, AsyncIterable):
                async for message in source:
                    if self._ended:
                        return True
                    await self.write(message)
            else:
                for message in source:
                    if self._ended:
                        return True
                    await self.write(message)
            await self.close()
        except (AioRpcError, asyncio.InvalidStateError):
            return True  # the call is over, and says why
        except Exception:
            import logging

            logging.getLogger("meshlib").debug(
                "meshlib: the iterator of an RPC's requests failed", exc_info=True
            )
            return False
        return True

    async def _feed(self, attempt: Any) -> None:
        with contextlib.suppress(AioRpcError, asyncio.InvalidStateError):
            while not self._ended:
                while self._sent < self._base + len(self._kept):
                    if not await _send(attempt, self._kept[self._sent - self._base]):
                        return
                    self._sent += 1
                    if self._committed:
                        del self._kept[: self._sent - self._base]
                        self._base = self._sent
                    self._wake()
                if self._half_closed:
                    await _half_close(attempt)
                    return
                if self._committed:
                    self._direct = True
                    return
                await self._change()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter


async def _send(attempt: Any, data: Any) -> bool:
    """As ``attempt.write``; False: it is over.

    Where the core does not take a message because the RPC is over, grpc's layer puts INTERNAL in the place of the status that
    the core is about to give, and tells everybody. What is written here goes past it: the status is the core's.
    """
    core, ready = getattr(attempt, "_cython_call", None), getattr(attempt, "_metadata_sent", None)
    if core is None or ready is None or not isinstance(data, bytes):
        await attempt.write(data)
        return True
    await ready.wait()
    if attempt.done():
        return False
    try:
        await core.send_serialized_message(data)
    except InternalError:
        await attempt.code()
        return False
    return True


async def _half_close(attempt: Any) -> None:
    """As ``attempt.done_writing``, which raises where the RPC is over by then."""
    with contextlib.suppress(InternalError):
        await attempt.done_writing()
