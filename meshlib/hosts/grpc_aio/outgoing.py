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


class _Feeder:
    """Of one attempt. ``sent``: so many messages, those that are not kept any more among them; ``direct``: it takes messages itself."""

    __slots__ = ("attempt", "direct", "sent", "task")

    def __init__(self, attempt: Any, sent: int) -> None:
        self.attempt = attempt
        self.sent = sent
        self.direct = False
        self.task: asyncio.Task[None] | None = None


class Outgoing:
    """Belongs to one call and its loop. ``alone``: has one of several attempts go on alone, and gives which."""

    def __init__(
        self, request: Request, serializer: Callable[[Any], bytes] | None, limit: int = LIMIT
    ) -> None:
        self._request = request
        self._serializer = serializer
        self._limit = limit
        self._kept: list[Any] = []  # from number _base on
        self._base = 0
        self._size = 0
        self._committed = False
        self._half_closed = False
        self._ended = False
        self._feeders: dict[Any, _Feeder] = {}  # of each attempt under way; at most one once nothing is kept
        self._waiters: list[asyncio.Future[None]] = []
        self.alone: Callable[[Any], Any] | None = None

    @property
    def half_closed(self) -> bool:
        return self._half_closed

    @property
    def whole(self) -> bool:
        """Whether all that was taken to be sent can be sent again."""
        return self._base == 0

    def feed(self, reader: Any, attempt: Any) -> None:
        """Another attempt is under way: it is sent all there is."""
        feeder = self._feeders[reader] = _Feeder(attempt, self._base)
        feeder.task = asyncio.get_running_loop().create_task(self._feed(feeder))

    def drop(self, reader: Any) -> None:
        """It is over, or given up."""
        feeder = self._feeders.pop(reader, None)
        if feeder is not None and feeder.task is not None:
            feeder.task.cancel()

    def commit(self, reader: Any = None) -> None:  # noqa: ARG002 - the others were dropped
        """No other attempt will be made."""
        self._committed = True
        self._wake()

    def end(self) -> None:
        """The call is over."""
        self._ended = True
        self._wake()

    async def write(self, message: Any) -> None:
        """Send ``message``; until an attempt under way has taken it, or the call is over."""
        data = serialize(message, self._serializer)
        direct = next((feeder.attempt for feeder in self._feeders.values() if feeder.direct), None)
        if direct is not None:
            await _send(direct, data)
            return
        number = self._base + len(self._kept)
        self._kept.append(data)
        if not self._committed:
            self._size += len(data) if isinstance(data, bytes) else 0
            if self._size > self._limit:
                self._fill()
        self._wake()
        while self._sent <= number and not self._ended:
            await self._change()

    def _fill(self) -> None:
        """Nothing is kept any more: the attempt that came furthest goes on, and no other is made."""
        if self._request.call is not None:
            self._request.call.replayable = False
        if self.alone is not None:
            feeders = self._feeders
            self.alone(max(feeders, key=lambda reader: feeders[reader].sent, default=None))
        self._committed = True

    @property
    def _sent(self) -> int:
        return max((feeder.sent for feeder in self._feeders.values()), default=self._base)

    async def close(self) -> None:
        """Nothing more comes."""
        if self._half_closed:
            return
        self._half_closed = True
        for feeder in tuple(self._feeders.values()):
            if feeder.direct:
                await _half_close(feeder.attempt)
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

    async def _feed(self, feeder: _Feeder) -> None:
        attempt = feeder.attempt
        with contextlib.suppress(AioRpcError, asyncio.InvalidStateError):
            while not self._ended:
                while feeder.sent < self._base + len(self._kept):
                    if not await _send(attempt, self._kept[feeder.sent - self._base]):
                        return
                    feeder.sent += 1
                    if self._committed:
                        del self._kept[: feeder.sent - self._base]
                        self._base = feeder.sent
                    self._wake()
                if self._half_closed:
                    await _half_close(attempt)
                    return
                if self._committed:
                    feeder.direct = True
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
