"""HTTP/1.1 over a blocking stream."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from meshlib.wire.connection_base import Http1Connection, Http1Incoming
from meshlib.wire.errors import WriteError
from meshlib.wire.http1 import END
from meshlib.wire.message import Head
from meshlib.wire.stream import Stream
from meshlib.wire.stream_network import NetworkStream
from meshlib.wire.trace import shown, traced
from meshlib.wire.upload import CONTINUE_SECONDS, PATIENCE, READ, Early, begin

if TYPE_CHECKING:
    from meshlib.pools.bounds import Bounds
    from meshlib.wire.message import Outgoing

__all__ = ["Connection", "Incoming"]


class Connection(Http1Connection[Stream]):
    """One request at a time. Not thread-safe, but for ``close``."""

    __slots__ = ()

    def send(self, request: Outgoing, bounds: Bounds) -> Incoming:
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
                sent = traced(trace, "http11.send_request_headers", info, write, first, bounds, True)
                if not (sent and whole) or trace is not None:
                    early = Early(self.machine)
                    body = None if whole else request.body
                    traced(trace, "http11.send_request_body", info, self._send_rest, body, bounds, early)
            except WriteError as error:
                early = self._answered(early, bounds, error)
            head = self._head(bounds, early) if trace is None else self._traced_head(request, bounds, early)
        except BaseException:
            first = []  # who reports an error shows what its frames hold
            self.close()
            raise
        return Incoming(self, head, early, bounds, request)

    def _send_rest(self, body: Any, bounds: Bounds, early: Early) -> None:
        """What is left of the first bytes, and the body, or as much of that as is wanted."""
        machine = self.machine
        if not self._push(b"", bounds, early) or body is None:
            return
        if machine.expects_continue and self._wait_to_continue(bounds, early):
            return
        for part in (body,) if isinstance(body, bytes) else body:
            if self._hear(early) or not self._push(machine.data(part), bounds, early):
                return
        self._push(machine.end(), bounds, early)

    def _wait_to_continue(self, bounds: Bounds, early: Early) -> bool:
        """Wait for 100 Continue, not for long; whether a final head came instead."""
        until = monotonic() + CONTINUE_SECONDS
        while self.machine.expects_continue:
            left = until - monotonic()
            if left <= 0 or not self.stream.await_input(left, bounds):
                break
            self._hear(early)
        return early.head is not None

    def _push(self, data: bytes | list[bytes], bounds: Bounds, early: Early) -> bool:
        """Send ``data``; False: no more of the body is to be sent."""
        while not self.stream.write(data, bounds, True, None if early.head is None else PATIENCE):
            if self._hear(early):
                self.cut = True
                return False
            data = b""
        return True

    def _head(self, bounds: Bounds, early: Early | None) -> Head:
        if early is not None and early.head is not None:
            return early.head
        machine, stream = self.machine, self.stream
        while True:
            machine.feed(stream.read(READ, bounds))
            while (event := machine.next()) is not None:
                if isinstance(event, Head):
                    return event

    def _traced_head(self, request: Outgoing, bounds: Bounds, early: Early | None) -> Head:
        heads: list[Head] = []

        def receive() -> tuple[bytes, int, bytes, list[tuple[bytes, bytes]]]:
            heads.append(self._head(bounds, early))
            return shown(heads[0])

        traced(request.trace, "http11.receive_response_headers", {"request": request}, receive)
        return heads[0]


class Incoming(Http1Incoming[Connection]):
    """A response, of which the body is still to come. An iterator over the body's parts. Not thread-safe.

    Whatever it raises ends the exchange: the connection is closed then, and ``on_end`` was told.

    Attributes:
        on_end: Called once, when the body is whole, given up or broken.
        trailers: Once the body is whole.
    """

    __slots__ = ("_rest",)

    awaited = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._rest = b""

    @property
    def network_stream(self) -> NetworkStream:
        """The stream as httpcore shows it. After an upgrade it is there to be used; ``close`` ends it."""
        if self._network_stream is None:
            self._network_stream = NetworkStream(self._connection.stream, self._leading())
        made: NetworkStream = self._network_stream
        return made

    def __iter__(self) -> Incoming:
        return self

    def __next__(self) -> bytes:
        part = self._part()
        if not part:
            raise StopIteration
        return part

    def read(self) -> bytes:
        """All that is still to come of the body. Raises WireError."""
        first = self._part()
        if not first:
            return b""
        parts = [first]
        while part := self._part():
            parts.append(part)
        return first if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill ``buffer`` with what comes next, as much as there is; 0: the body is whole. Raises WireError."""
        view = memoryview(buffer)
        if not self._rest and not self._over and not self._early:
            count = self._straight(view)
            if count:
                return count
        part = self._part()
        count = min(len(part), len(view))
        view[:count] = part[:count]
        self._rest = part[count:]
        return count

    def drain(self, most: int) -> bool:
        """Read what is left if it is at hand and no more than ``most`` bytes, and give it up else; whether the connection may be
        used again. Waits for nothing.
        """
        kept = self._drain(most)
        self._tell()
        return kept

    def close(self) -> None:
        """Give up what is left of the body. The connection is closed, unless all of it is here."""
        self._give_up()
        self._tell()

    def _part(self) -> bytes:
        """The next of the body; b"" once it is whole."""
        if self._rest:
            part, self._rest = self._rest, b""
            return part
        if self._over or self._machine.upgraded:
            return b""
        if self._trace is not None and not self._reading:
            self._reading = True
            self._trace("http11.receive_response_body.started", {"request": self._asked})
        try:
            while True:
                event = self._next()
                if event is None:
                    most = self._machine.remaining
                    data = self._connection.stream.read(most if 0 < most < READ else READ, self._bounds)
                    if most and data:
                        self._machine.took(len(data))
                        return data
                    self._machine.feed(data)
                elif isinstance(event, bytes):
                    return event
                elif event is END:
                    self._ended()
                    self._tell()
                    return b""
        except BaseException as error:
            self._broken(error)
            raise

    def _straight(self, view: memoryview) -> int:
        """Receive into ``view`` without a copy, where the machine has nothing and knows how much is to come; 0: not so."""
        machine = self._machine
        try:
            event = machine.next()
            most = machine.remaining
            if event is not None or not most:
                self._early = [] if event is None else [event]
                return 0
            count = self._connection.stream.readinto(view[:most] if most < len(view) else view, self._bounds)
            if count:
                machine.took(count)
            else:
                machine.feed(b"")
        except BaseException as error:
            self._broken(error)
            raise
        return count

    def _broken(self, error: BaseException) -> None:
        self._end(close=True)
        self._tell(error)

    def _tell(self, error: BaseException | None = None) -> None:
        trace = self._trace
        if trace is not None and self._over:
            self._trace = self._asked = None
            if self._reading and error is None:
                trace("http11.receive_response_body.complete", {"return_value": None})
            elif self._reading:
                trace("http11.receive_response_body.failed", {"exception": error})
            trace("http11.response_closed.started", {})
            trace("http11.response_closed.complete", {"return_value": None})
