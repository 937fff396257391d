"""HTTP/2 over a stream of an event loop: many tasks share one connection.

Over asyncio the stream tells of what comes, and it is taken at once: a PING is answered, and a GOAWAY heard, while nobody waits.
Where a stream does not tell (trio), whoever waits first reads for all, as in :mod:`meshlib.wire.multiplexed`, and hands that on
when it has what it waited for or is cancelled; and so with writing, where the peer takes too little.

What is cancelled while it waits has lost nothing of the others': its stream is reset, and the connection goes on.

Not thread-safe: all of it belongs to its stream's event loop.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from meshlib.wire.errors import ReadError, ReadTimeout, WriteError, WriteTimeout
from meshlib.wire.heads import SIZES, Sizes
from meshlib.wire.http2_stream import AsyncUpload
from meshlib.wire.multiplexed_base import LONG, MultiplexedConnection
from meshlib.wire.multiplexed_incoming import AsyncMultiplexedIncoming
from meshlib.wire.trace import traced_async
from meshlib.wire.upload import CONTINUE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.model.cluster import Pings
    from meshlib.pools.bounds import Bounds
    from meshlib.wire.http2_stream import Http2Stream
    from meshlib.wire.message import Outgoing
    from meshlib.wire.stream_async import AsyncStream

__all__ = ["AsyncMultiplexed"]


class AsyncMultiplexed(MultiplexedConnection["AsyncStream"]):
    """One connection."""

    def __init__(
        self,
        stream: AsyncStream,
        sizes: Sizes = SIZES,
        settings: Sequence[tuple[int, int]] = (),
        pings: Pings | None = None,
    ) -> None:
        super().__init__(stream, sizes, settings, pings)
        self._writers: dict[Http2Stream, None] = {}  # whose tasks wait until more is taken
        self._told = stream.listen(self._on_stream)

    def free(self) -> bool:
        """Whether it takes one more request now. What the peer has said meanwhile is read."""
        self._give_up_lost()
        if self._reader is None:
            self._read_now()
        return self._machine.room > 0 and not self.stream.closed

    def close(self) -> None:
        """End it; requests on it fail. Twice is no error."""
        touched = self._machine.close()
        self._flush_now()
        self._wake(touched)
        self._wake_writers()
        self.stream.close()

    def _on_stream(self) -> None:
        """Bytes came, or no more will, or there is room."""
        self._read_now()
        if not self.stream.full:
            self._wake_writers()

    # ------------------------------------------------------------------------------------------------- a request

    async def send(self, request: Outgoing, bounds: Bounds) -> AsyncMultiplexedIncoming:
        """The response to ``request``, once its final head is there. Raises WireError; its stream is reset then, and the connection
        goes on, unless that is what broke.
        """
        trace, info = request.trace, {"request": request}
        upload = AsyncUpload(request)
        open_ = self._open
        stream = await traced_async(trace, "http2.send_request_headers", info, open_, request, upload, bounds)
        try:
            if not upload.done:
                send = self._send_body
                await traced_async(trace, "http2.send_request_body", info, send, stream, upload, bounds)
            wait = self._await_head
            await traced_async(trace, "http2.receive_response_headers", info, wait, stream, upload, bounds)
        except BaseException:
            self.give_up(stream)
            raise
        self.used = True
        return AsyncMultiplexedIncoming(self, stream, upload, bounds, request)

    async def _open(self, request: Outgoing, upload: AsyncUpload, bounds: Bounds) -> Http2Stream:
        """The head is sent, and with it a body that is there and has room."""
        self._give_up_lost()
        stream = self._machine.open(request, upload.size)
        try:
            if upload.rest and not upload.waits:  # a body that is there goes with the head
                upload.sent(self._machine.send(stream, upload.rest, end=upload.last))
            first, last = self._queued, self._flush_now()
            bounds.sent = True
            await self._flush(stream, first, last, bounds)
        except BaseException:
            self.give_up(stream)
            raise
        return stream

    async def _send_body(self, stream: Http2Stream, upload: AsyncUpload, bounds: Bounds) -> None:
        if upload.waits:
            upload.waits = False
            until = monotonic() + CONTINUE_SECONDS
            while not (stream.interims or stream.head or stream.error):
                if not await self._await(stream, bounds, until - monotonic()):
                    break
            upload.done = stream.head is not None  # an answer instead: the body is not wanted
        await self._push(stream, upload, bounds)
        while not (upload.done or stream.head or stream.error):
            await self.go_on(stream, upload, bounds)

    async def _push(self, stream: Http2Stream, upload: AsyncUpload, bounds: Bounds) -> None:
        """Send of the body what the windows allow, as long as it is wanted."""
        while not upload.done:
            if not upload.rest and not upload.last:
                await upload.fetch_async()
            if stream.sending:
                sent = self._machine.send(stream, upload.rest, end=upload.last)
                upload.sent(sent)
                blocked = not sent and not upload.done
            else:  # the peer wants no more of it, or has refused it
                upload.done = blocked = True
            first, last = self._queued, self._flush_now()
            if self._reader is None:
                self._read_now()  # an early answer
            await self._flush(stream, first, last, bounds)
            if blocked or stream.ended or (stream.head is not None and stream.head.status >= 300):
                return

    async def _await_head(self, stream: Http2Stream, upload: AsyncUpload, bounds: Bounds) -> Any:
        """What httpcore returns of it: status and fields."""
        while stream.head is None:
            if stream.error is not None:
                raise stream.error
            await self.go_on(stream, upload, bounds)
        return stream.head.status, stream.head.headers

    async def go_on(self, stream: Http2Stream, upload: AsyncUpload, bounds: Bounds) -> None:
        """Until something of ``stream`` changed, and what is left of its request went as far as it may. Raises WireError."""
        await self._await(stream, bounds)
        await self._push(stream, upload, bounds)

    def give_up(self, stream: Http2Stream) -> None:
        """Nobody wants the rest of it."""
        self._machine.give_up(stream)
        self._flush_now()
        if stream.waiter is not None:
            stream.waiter.end()

    # --------------------------------------------------------------------------------------------------- reading

    def take(self, stream: Http2Stream, most: int | None) -> bytes | None:
        """What is there of the body, at most so many bytes, and the peer may send as many more; None: nothing is yet, ``b""``: it is
        complete. Raises what broke it.
        """
        part = stream.take(most)
        if part:
            self._machine.took(stream, len(part))
            self._flush_now()
        return part

    def look(self) -> None:
        """Read what there is without waiting."""
        if self._reader is None:
            self._read_now()

    async def _await(self, stream: Http2Stream, bounds: Bounds, most: float = LONG) -> bool:
        """Wait until something of ``stream`` changed. False: ``most`` seconds are over. Raises ReadTimeout."""
        limit = most
        try:
            seconds = bounds.left("read")
            limit = most if seconds is None or most < seconds else seconds
            until = monotonic() + limit
            while not self._has_news(stream):
                await self._await_reader(stream, until - monotonic(), bounds)
        except TimeoutError as error:
            if limit == most and not bounds.expired:
                return False
            bounds.timed_out()
            raise ReadTimeout("nothing came in time") from error
        stream.changed = False
        return True

    async def _await_reader(self, stream: Http2Stream, seconds: float, bounds: Bounds) -> None:
        """Until something comes. Raises TimeoutError."""
        if seconds <= 0:
            raise TimeoutError
        try:
            if self._told or self._reader is not None:
                await self._await_wake(stream, self._readers, seconds, bounds)
            else:
                self._reader = stream
                if not await self.stream.await_input(seconds, bounds):
                    raise TimeoutError
                self._read_now(1)
        except ReadTimeout as error:
            raise TimeoutError from error
        except ReadError as error:
            self._break(str(error))
        finally:
            if self._reader is stream:
                self._reader = None
            if (
                self._reader is None and self._readers and not self._told
            ):  # the first of those who wait reads now
                next(iter(self._readers)).waiter.wake()

    async def _await_wake(
        self, stream: Http2Stream, waiting: dict[Http2Stream, None], seconds: float | None, bounds: Bounds
    ) -> None:
        if stream.waiter is None:
            stream.waiter = self.stream.new_wait()
        waiting[stream] = None
        try:
            await self.stream.within(stream.waiter, seconds, bounds)
        finally:
            del waiting[stream]

    def _wake(self, touched: list[Http2Stream]) -> None:
        for stream in touched:
            if stream in self._readers:
                stream.waiter.wake()

    # --------------------------------------------------------------------------------------------------- writing

    def _flush_now(self) -> int:
        data = self._machine.outgoing()
        if data:
            self._queued += len(data)
            try:
                self.stream.write_now(data)
                self._sent += len(data)
            except WriteError as error:
                self._hear_last_words()
                self._break(str(error))
        return self._queued

    def _unsent(self) -> int:
        return self.stream.unsent

    async def _flush(self, stream: Http2Stream, first: int, last: int, bounds: Bounds) -> None:
        """Until the stream has room for more. Raises WriteTimeout, WriteError."""
        while self._machine.failure is None and self.stream.full:
            try:
                if self._told or self._writer is not None:
                    await self._await_wake(stream, self._writers, bounds.left("write"), bounds)
                else:
                    self._writer = stream
                    await self.stream.drained(bounds)
            except TimeoutError as error:
                bounds.timed_out()
                raise WriteTimeout("the peer took nothing in time") from error
            finally:
                if self._writer is stream:
                    self._writer = None
                    self._wake_writers()
        if self._machine.failure is not None and self._sent < last:
            self._not_sent(stream, first, bounds)

    def _wake_writers(self) -> None:
        for stream in self._writers:
            stream.waiter.wake()
