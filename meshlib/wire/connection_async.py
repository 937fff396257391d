"""HTTP/1.1 over an asynchronous stream, of asyncio or trio. The twin of ``connection.py``."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from meshlib.wire.connection_base import Http1Connection, Http1Incoming
from meshlib.wire.errors import WriteError
from meshlib.wire.http1 import END
from meshlib.wire.message import Head
from meshlib.wire.stream_async import AsyncStream
from meshlib.wire.stream_network import AsyncNetworkStream
from meshlib.wire.trace import shown, traced_async
from meshlib.wire.upload import CONTINUE_SECONDS, PATIENCE, READ, Early, begin

if TYPE_CHECKING:
    from meshlib.pools.bounds import Bounds
    from meshlib.wire.message import Outgoing

__all__ = ["AsyncConnection", "AsyncIncoming"]


class AsyncConnection(Http1Connection[AsyncStream]):
    """One request at a time. It belongs to the event loop of its stream."""

    __slots__ = ()

    async def send(self, request: Outgoing, bounds: Bounds) -> AsyncIncoming:
        """The response to ``request``, once its final head is there. Raises WireError; the connection is closed then, except after
        a LocalProtocolError by which nothing was sent.
        """
        if not self.idle:
            raise RuntimeError("the connection is closed or carries a request")
        first, whole = begin(self.machine, request)
        self.idle = False
        early: Early | None = None
        trace = request.trace
        try:
            try:
                info = {"request": request}
                write = self.stream.write
                step = "http11.send_request_headers"
                sent = await traced_async(trace, step, info, write, first, bounds, True)
                if not (sent and whole) or trace is not None:
                    early = Early(self.machine)
                    body = None if whole else request.body
                    step = "http11.send_request_body"
                    await traced_async(trace, step, info, self._send_rest, body, bounds, early)
            except WriteError as error:
                early = self._answered(early, bounds, error)
            if trace is None:
                head = await self._head(bounds, early)
            else:
                head = await self._traced_head(request, bounds, early)
        except BaseException:
            first = []  # who reports an error shows what its frames hold
            self.close()
            raise
        return AsyncIncoming(self, head, early, bounds, request)

    async def _send_rest(self, body: Any, bounds: Bounds, early: Early) -> None:
        """What is left of the first bytes, and the body, or as much of that as is wanted."""
        machine = self.machine
        if not await self._push(b"", bounds, early) or body is None:
            return
        if machine.expects_continue and await self._wait_to_continue(bounds, early):
            return
        if isinstance(body, bytes):
            if not await self._push(machine.data(body), bounds, early):
                return
        else:
            async for part in body:
                if self._hear(early) or not await self._push(machine.data(part), bounds, early):
                    return
        await self._push(machine.end(), bounds, early)

    async def _wait_to_continue(self, bounds: Bounds, early: Early) -> bool:
        """Wait for 100 Continue, not for long; whether a final head came instead."""
        until = monotonic() + CONTINUE_SECONDS
        while self.machine.expects_continue:
            left = until - monotonic()
            if left <= 0 or not await self.stream.await_input(left, bounds):
                break
            self._hear(early)
        return early.head is not None

    async def _push(self, data: bytes | list[bytes], bounds: Bounds, early: Early) -> bool:
        """Send ``data``; False: no more of the body is to be sent."""
        while not await self.stream.write(data, bounds, True, None if early.head is None else PATIENCE):
            if self._hear(early):
                self.cut = True
                return False
            data = b""
        return True

    async def _head(self, bounds: Bounds, early: Early | None) -> Head:
        if early is not None and early.head is not None:
            return early.head
        machine, stream = self.machine, self.stream
        while True:
            machine.feed(await stream.read(READ, bounds))
            while (event := machine.next()) is not None:
                if isinstance(event, Head):
                    return event

    async def _traced_head(self, request: Outgoing, bounds: Bounds, early: Early | None) -> Head:
        heads: list[Head] = []

        async def receive() -> tuple[bytes, int, bytes, list[tuple[bytes, bytes]]]:
            heads.append(await self._head(bounds, early))
            return shown(heads[0])

        step = "http11.receive_response_headers"
        await traced_async(request.trace, step, {"request": request}, receive)
        return heads[0]


class AsyncIncoming(Http1Incoming[AsyncConnection]):
    """A response, of which the body is still to come. An async iterator over the body's parts.

    Whatever it raises ends the exchange: the connection is closed then, and ``on_end`` was told.

    Attributes:
        on_end: Called once, when the body is whole, given up or broken.
        trailers: Once the body is whole.
    """

    __slots__ = ()

    awaited = True

    @property
    def network_stream(self) -> AsyncNetworkStream:
        """The stream as httpcore shows it. After an upgrade it is there to be used; ``aclose`` ends it."""
        if self._network_stream is None:
            self._network_stream = AsyncNetworkStream(self._connection.stream, self._leading())
        made: AsyncNetworkStream = self._network_stream
        return made

    def __aiter__(self) -> AsyncIncoming:
        return self

    async def __anext__(self) -> bytes:
        part = await self._part()
        if not part:
            raise StopAsyncIteration
        return part

    async def aread(self) -> bytes:
        """All that is still to come of the body. Raises WireError."""
        first = await self._part()
        if not first:
            return b""
        parts = [first]
        while part := await self._part():
            parts.append(part)
        return first if len(parts) == 1 else b"".join(parts)

    async def adrain(self, most: int) -> bool:
        """Read what is left if it is at hand and no more than ``most`` bytes, and give it up else; whether the connection may be
        used again. Waits for nothing.
        """
        kept = self._drain(most)
        await self._tell()
        return kept

    async def aclose(self) -> None:
        """Give up what is left of the body. The connection is closed, unless all of it is here."""
        self._give_up()
        await self._tell()

    async def _part(self) -> bytes:
        """The next of the body; b"" once it is whole."""
        if self._over or self._machine.upgraded:
            return b""
        if self._trace is not None and not self._reading:
            self._reading = True
            await self._trace("http11.receive_response_body.started", {"request": self._asked})
        try:
            while True:
                event = self._next()
                if event is None:
                    most = self._machine.remaining
                    data = await self._connection.stream.read(most or READ, self._bounds)
                    if most and data:
                        self._machine.took(len(data))
                        return data
                    self._machine.feed(data)
                elif isinstance(event, bytes):
                    return event
                elif event is END:
                    self._ended()
                    await self._tell()
                    return b""
        except BaseException as error:
            self._end(close=True)
            await self._tell(error)
            raise

    async def _tell(self, error: BaseException | None = None) -> None:
        trace = self._trace
        if trace is not None and self._over:
            self._trace = self._asked = None
            if self._reading and error is None:
                await trace("http11.receive_response_body.complete", {"return_value": None})
            elif self._reading:
                await trace("http11.receive_response_body.failed", {"exception": error})
            await trace("http11.response_closed.started", {})
            await trace("http11.response_closed.complete", {"return_value": None})
