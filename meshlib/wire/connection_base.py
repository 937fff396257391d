"""What HTTP/1.1 connections of either kind do without waiting: when they are free, when they end, what a response gives up.

The machine (:mod:`meshlib.wire.http1`) says what bytes mean and whether the connection may be used again; the two drivers,
``connection.py`` and ``connection_async.py``, move the bytes. Whatever interrupts them in the middle closes the connection, a
signal, a killed greenlet or a cancelled task as well as an error: nobody knows what the peer has then.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from meshlib.wire.errors import WireError, WriteError, WriteTimeout
from meshlib.wire.http1 import END, SIZES, Http1, Sizes
from meshlib.wire.upload import READ, Early

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.pools.bounds import Bounds
    from meshlib.wire.http1 import Event
    from meshlib.wire.message import Head, Lines, Outgoing
    from meshlib.wire.spelled import Spelling

__all__ = ["Http1Connection", "Http1Incoming"]


class _Stream(Protocol):
    """What of a stream needs no waiting."""

    @property
    def closed(self) -> bool: ...
    def read_now(self, most: int) -> bytes | None: ...
    def readable(self) -> bool: ...
    def close(self) -> None: ...


S = TypeVar("S", bound=_Stream)


class Http1Connection(Generic[S]):
    """One request at a time.

    Attributes:
        stream: What it goes over. After an upgrade it is the caller's.
        streams: How many requests it carries at once.
        idle: It carries none.
        cut: The peer has less of a request than the machine was told, so there is no further one.
        born: When it was made, on the pool's clock.
        rested: Since when it is idle, on that clock.
        used: It has carried a request.
        carried: How many, where the pool counts them.
    """

    __slots__ = ("born", "carried", "cut", "idle", "machine", "rested", "stream", "used")

    streams = 1
    pings = None
    version = b"HTTP/1.1"

    def __init__(self, stream: S, sizes: Sizes = SIZES, spelling: Spelling | None = None) -> None:
        self.machine = Http1(sizes, spelling=spelling)
        self.stream = stream
        self.idle = True
        self.cut = self.used = False
        self.born = self.rested = 0.0
        self.carried = 0

    @property
    def closed(self) -> bool:
        """It is of no use any more."""
        return self.stream.closed

    def free(self) -> bool:
        """Whether it takes a request now: it carries none, the peer has not closed it nor sent what nobody asked for."""
        return self.idle and not self.stream.readable()

    def close(self) -> None:
        """End it; a request on it fails. Twice is no error. A blocking connection's may be called from any thread."""
        self.idle = False
        self.stream.close()

    def settle(self) -> None:
        """Request and response are over: it rests, or ends."""
        if self.machine.reusable and not self.cut and not self.stream.closed:
            self.idle = self.used = True
        else:
            self.close()

    def _hear(self, early: Early) -> bool:
        """Take what the peer has said; whether no more of the body is to be sent."""
        data = self.stream.read_now(READ)
        return data is not None and early.hear(data)

    def _answered(self, early: Early | None, bounds: Bounds, error: WriteError) -> Early:
        """The peer takes no more: what it has answered before. Raises ``error`` where it has not, or where time is over."""
        self.cut = True
        if early is None:
            early = Early(self.machine)
        if not isinstance(error, WriteTimeout):
            try:
                while early.head is None and (data := self.stream.read_now(READ)) is not None:
                    if not (bounds.sent or data):
                        break
                    if bounds.sent:  # else what there is answers nothing of ours
                        early.hear(data)
            except WireError as found:
                if (
                    type(found.__cause__) is ssl.SSLError
                ):  # an alert: why a server of TLS 1.3 refuses our certificate
                    raise WriteError(str(found)) from found.__cause__
                raise error from None
        if early.head is None:
            raise error
        return early


C = TypeVar("C", bound=Http1Connection[Any])


class Http1Incoming(Generic[C]):
    """A response, of which the body is still to come.

    Whatever it raises ends the exchange: the connection is closed then, and ``on_end`` was told.

    Attributes:
        awaited: Whether its body is.
        on_end: Called once, when the body is whole, given up or broken.
        on_lost: Called instead, by ``abandon``.
        trailers: Once the body is whole.
    """

    awaited: ClassVar[bool]

    __slots__ = (
        "_asked",
        "_bounds",
        "_connection",
        "_early",
        "_machine",
        "_network_stream",
        "_over",
        "_reading",
        "_trace",
        "headers",
        "on_end",
        "on_lost",
        "reason",
        "status",
        "trailers",
        "version",
    )

    def __init__(
        self, connection: C, head: Head, early: Early | None, bounds: Bounds, request: Outgoing
    ) -> None:
        self._connection = connection
        self._machine = connection.machine
        self._early: list[Event] = [] if early is None else early.events
        self._bounds = bounds
        self._trace = request.trace
        self._asked = None if request.trace is None else request  # for its trace; else its body may go
        self._reading = False  # and the trace was told
        self._over = False
        self._network_stream: Any = None
        self.status = head.status
        self.reason = head.reason
        self.headers = head.headers
        self.version = head.version
        self.trailers: Lines = []
        self.on_end: Callable[[], object] | None = None
        self.on_lost: Callable[[], object] | None = None

    def abandon(self) -> None:
        """``close`` for a finalizer: takes no lock, and leaves all to ``on_lost``."""
        if not self._over:
            self._over = True
            if self.on_lost is not None:
                self.on_lost()

    def _leading(self) -> bytes:
        """What came of the protocol that was upgraded to."""
        return self._machine.leftover if self._machine.upgraded else b""

    def _next(self) -> Event:
        """The next that is here."""
        return self._early.pop(0) if self._early else self._machine.next()

    def _drain(self, most: int) -> bool:
        try:
            while not self._over and most >= 0:
                event = self._next()
                if event is None:
                    data = self._connection.stream.read_now(READ)
                    if data is None:
                        break
                    self._machine.feed(data)
                elif isinstance(event, bytes):
                    most -= len(event)
                elif not self._ended():
                    break
        except WireError:  # nobody wants the rest, broken or whole
            most = -1
        self._give_up()
        return self._connection.idle

    def _give_up(self) -> None:
        if self._over:
            return
        try:
            while isinstance(event := self._next(), bytes):
                pass
            whole = event is END and self._ended()
        except WireError:  # what is broken is given up as well
            whole = False
        if not whole:
            self._end(close=True)

    def _ended(self) -> bool:
        """The response is whole; whether the exchange is over by that. After an upgrade only ``close`` ends it."""
        if not self._machine.upgraded:
            self._end()
        return self._over

    def _end(self, *, close: bool = False) -> None:
        if self._over:
            return
        self._over = True
        self.trailers = self._machine.trailers
        if close:
            self._connection.close()
        else:
            self._connection.settle()
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()
