"""HTTP/2 over a blocking stream: many threads share one connection.

There is no thread of its own that reads. Who waits for something of a stream first reads for all: each chunk goes to the machine,
and those whose streams changed are woken. When that thread has what it waited for, or gives up (its time is over, a signal, a
killed greenlet), it hands the reading on to one of those who still wait.

Lock. ``_lock`` guards the machine and all that is below it: the queue of bytes to send, who reads, who waits. It is held for
computing and for system calls that do not wait, and never while somebody waits: so whoever holds it is not stopped by another
greenlet, and bytes leave in the order in which the machine made them. Bytes that the system does not take stay in the queue,
whoever made them; a call goes on once its own have left.

So a call that is interrupted wherever it waits has lost nothing of the others': its stream is reset, and the connection goes on.
An interrupt in the middle of computing (a signal) ends the connection, since nobody knows what is half done.

While nobody waits nothing is read: a peer's PING is answered at the next call, or when the pool asks whether the connection is
free. On a virtual clock a deadline ends the connection with the call that reads at that moment.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from meshlib.wire.errors import ReadError, ReadTimeout, WireError, WriteError, WriteTimeout
from meshlib.wire.heads import SIZES, Sizes
from meshlib.wire.http2_stream import Upload
from meshlib.wire.multiplexed_base import LONG, MultiplexedConnection
from meshlib.wire.multiplexed_incoming import MultiplexedIncoming
from meshlib.wire.trace import traced
from meshlib.wire.upload import CONTINUE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.model.cluster import Pings
    from meshlib.pools.bounds import Bounds
    from meshlib.wire.http2_stream import Http2Stream
    from meshlib.wire.message import Outgoing
    from meshlib.wire.stream import Stream

__all__ = ["Multiplexed"]


class Multiplexed(MultiplexedConnection["Stream"]):
    """One connection. Thread-safe."""

    def __init__(
        self,
        stream: Stream,
        sizes: Sizes = SIZES,
        settings: Sequence[tuple[int, int]] = (),
        pings: Pings | None = None,
    ) -> None:
        super().__init__(stream, sizes, settings, pings)
        self._lock = threading.RLock()
        self._whole = _Whole(self)
        self._queue: deque[bytes | memoryview] = deque()
        self._turn = threading.Condition(self._lock)  # the others', who have bytes in the queue

    # ------------------------------------------------------------------------------------------- what a pool asks

    def free(self) -> bool:
        """Whether it takes one more request now. What the peer has said meanwhile is read."""
        with self._lock, self._whole:
            self._give_up_lost()
            if self._reader is None:
                self._read_now()
            return self._machine.room > 0 and not self.stream.closed

    def tend(self, now: float) -> float:
        with self._lock, self._whole:
            return super().tend(now)

    def ask(self, now: float) -> None:
        with self._lock, self._whole:
            super().ask(now)

    def close(self) -> None:
        """End it, from any thread; requests on it fail. Twice is no error."""
        with self._lock:
            touched = self._machine.close()
            self._flush_now()
            self._wake(touched)
            self._turn.notify_all()
            self.stream.close()

    # ------------------------------------------------------------------------------------------------- a request

    def send(self, request: Outgoing, bounds: Bounds) -> MultiplexedIncoming:
        """The response to ``request``, once its final head is there. Raises WireError; its stream is reset then, and the connection
        goes on, unless that is what broke.
        """
        trace, info = request.trace, {"request": request}
        upload = Upload(request)
        stream = traced(trace, "http2.send_request_headers", info, self._open, request, upload, bounds)
        try:
            if not upload.done:
                traced(trace, "http2.send_request_body", info, self._send_body, stream, upload, bounds)
            traced(trace, "http2.receive_response_headers", info, self._await_head, stream, upload, bounds)
        except BaseException:
            self.give_up(stream)
            raise
        self.used = True
        return MultiplexedIncoming(self, stream, upload, bounds, request)

    def _open(self, request: Outgoing, upload: Upload, bounds: Bounds) -> Http2Stream:
        """The head is sent, and with it a body that is there and has room."""
        stream: Http2Stream | None = None
        try:
            with self._lock, self._whole:
                self._give_up_lost()
                stream = self._machine.open(request, upload.size)
                if upload.rest and not upload.waits:  # a body that is there goes with the head
                    upload.sent(self._machine.send(stream, upload.rest, end=upload.last))
                bounds.sent = True  # it may be, once the system has it or another thread sends it
                first, last = self._queued, self._flush_now()
            self._flush(stream, first, last, bounds)
        except BaseException:
            if stream is not None:
                self.give_up(stream)
            raise
        return stream

    def _send_body(self, stream: Http2Stream, upload: Upload, bounds: Bounds) -> None:
        if upload.waits:
            upload.waits = False
            until = monotonic() + CONTINUE_SECONDS
            while not (stream.interims or stream.head or stream.error):
                if not self._await(stream, bounds, until - monotonic()):
                    break
            upload.done = stream.head is not None  # an answer instead: the body is not wanted
        self._push(stream, upload, bounds)
        while not (upload.done or stream.head or stream.error):
            self.go_on(stream, upload, bounds)

    def _push(self, stream: Http2Stream, upload: Upload, bounds: Bounds) -> None:
        """Send of the body what the windows allow, as long as it is wanted."""
        while not upload.done:
            if not upload.rest and not upload.last:
                upload.fetch()
            with self._lock, self._whole:
                if stream.sending:
                    sent = self._machine.send(stream, upload.rest, end=upload.last)
                    upload.sent(sent)
                    blocked = not sent and not upload.done
                else:  # the peer wants no more of it, or has refused it
                    upload.done = blocked = True
                first, last = self._queued, self._flush_now()
                if self._reader is None:
                    self._read_now()  # an early answer
            self._flush(stream, first, last, bounds)
            if blocked or stream.ended or (stream.head is not None and stream.head.status >= 300):
                return

    def _await_head(self, stream: Http2Stream, upload: Upload, bounds: Bounds) -> Any:
        """What httpcore returns of it: status and fields."""
        while stream.head is None:
            if stream.error is not None:
                raise stream.error
            self.go_on(stream, upload, bounds)
        return stream.head.status, stream.head.headers

    def go_on(self, stream: Http2Stream, upload: Upload, bounds: Bounds) -> None:
        """Until something of ``stream`` changed, and what is left of its request went as far as it may. Raises WireError."""
        self._await(stream, bounds)
        self._push(stream, upload, bounds)

    def give_up(self, stream: Http2Stream) -> None:
        """Nobody wants the rest of it. Waits for nothing."""
        with self._lock, self._whole:
            self._machine.give_up(stream)
            self._flush_now()

    # --------------------------------------------------------------------------------------------------- reading

    def take(self, stream: Http2Stream, most: int | None = None) -> bytes | None:
        """What is there of the body, at most so many bytes, and the peer may send as many more; None: nothing is yet, ``b""``: it is
        complete. Raises what broke it.
        """
        with self._lock, self._whole:
            part = stream.take(most)
            if part:
                self._machine.took(stream, len(part))
                self._flush_now()
            return part

    def look(self) -> None:
        """Read what there is without waiting."""
        with self._lock, self._whole:
            if self._reader is None:
                self._read_now()

    def _await(self, stream: Http2Stream, bounds: Bounds, most: float = LONG) -> bool:
        """Wait until something of ``stream`` changed, and read for all if nobody does. False: ``most`` seconds are over.

        Raises ReadTimeout.
        """
        try:
            seconds = bounds.left("read")
            limit = most if seconds is None or most < seconds else seconds
            with bounds.ringing(lambda: self._ring(stream)):
                changed = self._await_until(stream, monotonic() + limit, bounds)
        except TimeoutError as error:
            bounds.timed_out()
            raise ReadTimeout(str(error)) from error
        if not changed and limit != most:
            bounds.timed_out()
            raise ReadTimeout("nothing came in time")
        return changed

    def _await_until(self, stream: Http2Stream, until: float, bounds: Bounds) -> bool:
        while True:
            try:
                with self._lock:
                    if self._has_news(stream):
                        stream.changed = False
                        return True
                    left = until - monotonic()
                    if left <= 0:
                        return False
                    if self._reader is not None:
                        self._await_reader(stream, left)
                        continue
                    self._reader = stream
                while not self._has_news(stream) and (left := until - monotonic()) > 0:
                    self._read(bounds, left)
            finally:
                with self._lock:
                    if self._reader is stream:
                        self._reader = None
                    self._hand_on_reading()

    def _await_reader(self, stream: Http2Stream, seconds: float) -> None:
        """Under the lock. Until the one who reads has something of ``stream``, or hands the reading on."""
        if stream.waiter is None:
            stream.waiter = threading.Condition(self._lock)
        self._readers[stream] = None
        try:
            stream.waiter.wait(seconds)
        finally:
            del self._readers[stream]

    def _hand_on_reading(self) -> None:
        """Under the lock. Where nobody reads, the first of those who wait does."""
        if self._reader is None:
            for stream in self._readers:
                stream.waiter.notify()
                return

    def _ring(self, stream: Http2Stream) -> None:
        with self._lock:
            self._wake([stream])
            stream.changed = True

    def _read(self, bounds: Bounds, seconds: float) -> None:
        """Wait for a chunk, and take it."""
        try:
            if not self.stream.await_input(seconds, bounds):
                return
        except ReadTimeout:
            raise
        except ReadError as error:
            self._break(str(error))
            return
        with self._lock, self._whole:
            self._read_now(1)

    def _wake(self, touched: list[Http2Stream]) -> None:
        for stream in touched:
            if stream in self._readers:
                stream.waiter.notify()

    # --------------------------------------------------------------------------------------------------- writing

    def _flush_now(self) -> int:
        """Under the lock. Send what the machine has made, as far as the system takes it; where the queue ends."""
        data = self._machine.outgoing()
        if data:
            self._queue.append(data)
            self._queued += len(data)
        queue = self._queue
        try:
            while queue:
                count = self.stream.write_now(queue[0])
                if not count:
                    break
                self._sent += count
                if count == len(queue[0]):
                    queue.popleft()
                else:
                    queue[0] = memoryview(queue[0])[count:]
        except WriteError as error:
            queue.clear()
            self._hear_last_words()
            self._break(str(error))
        return self._queued

    def _unsent(self) -> int:
        return self._queued - self._sent

    def _flush(self, stream: Http2Stream, first: int, last: int, bounds: Bounds) -> None:
        """Until what stands in the queue from ``first`` to ``last`` is with the system. Raises WriteTimeout, WriteError."""
        while True:
            if self._machine.failure is not None:
                self._not_sent(stream, first, bounds)
                return
            if self._sent >= last:
                return
            with self._lock:
                mine = self._writer is None
                if mine:
                    self._writer = stream
                listening = self._reader is None
            if not mine:
                self._await_writer(bounds)
                continue
            try:
                self.stream.await_output(bounds, listening=listening)
                if listening:
                    self.look()
            finally:
                with self._lock:
                    self._writer = None
                    self._turn.notify_all()
            with self._lock, self._whole:
                self._flush_now()

    def _await_writer(self, bounds: Bounds) -> None:
        """Until the one who waits for the system has done so."""
        rung: list[bool] = []

        def ring() -> None:
            rung.append(True)
            self._wake_writers()

        try:
            seconds = bounds.left("write")
            with bounds.ringing(ring), self._lock:
                told = self._writer is None or bool(rung) or self._turn.wait(seconds)
        except TimeoutError as error:
            bounds.timed_out()
            raise WriteTimeout(str(error)) from error
        if not told:
            bounds.timed_out()
            raise WriteTimeout("the peer took nothing in time")

    def _wake_writers(self) -> None:
        with self._lock:
            self._turn.notify_all()

    def _break(self, text: str) -> None:
        with self._lock:
            super()._break(text)


class _Whole:
    """Around what is computed: an error that is not the wire's leaves it half done, and ends the connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Multiplexed) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and not issubclass(kind, WireError):
            self._connection._break(f"interrupted by {kind.__name__}")
