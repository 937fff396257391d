"""What HTTP/2 connections of either kind do without waiting (:mod:`meshlib.wire.multiplexed`, ``multiplexed_async``)."""

from __future__ import annotations

from collections import deque
from math import inf
from random import random
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from meshlib.wire.errors import ReadError, WriteError
from meshlib.wire.heads import SIZES, Sizes
from meshlib.wire.http2 import Http2
from meshlib.wire.http2_pings import Pinged
from meshlib.wire.upload import READ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.model.cluster import Pings
    from meshlib.pools.bounds import Bounds
    from meshlib.wire.http2_stream import Http2Stream

__all__ = ["LONG", "MultiplexedConnection", "SharedStream"]

#: Bytes that may wait to be sent: who takes none of them, and makes us answer, is left. Far above what calls make together.
_MOST_QUEUED = 1 << 26
#: Chunks that are read in passing, where nobody waits.
_MOST_CHUNKS = 16
#: Seconds, where there is no bound: what a system call takes.
LONG = 86_400.0


class SharedStream(Protocol):
    """What of a stream needs no waiting."""

    @property
    def closed(self) -> bool: ...
    def read_now(self, most: int) -> bytes | None: ...
    def close(self) -> None: ...


S = TypeVar("S", bound=SharedStream)


class MultiplexedConnection(Generic[S]):
    """One connection.

    Attributes:
        stream: What it goes over.
        used: A response came over it.
        born: When it was made, on the pool's clock.
        rested: Since when it is idle, on that clock.
        carried: How many requests it has carried, where the pool counts them.
        pings: How its peer is asked whether it is there; None: it is not. Who says how is to call ``tend``.
    """

    version = b"HTTP/2"

    def __init__(
        self,
        stream: S,
        sizes: Sizes = SIZES,
        settings: Sequence[tuple[int, int]] = (),
        pings: Pings | None = None,
    ) -> None:
        self.stream = stream
        self.pings = pings
        self.used = False
        self.born = self.rested = 0.0
        self.carried = 0
        self._machine = Http2(sizes, settings) if pings is None else Pinged(sizes, settings, pings, random)
        self._queued = self._sent = 0  # bytes, ever
        self._reader: Http2Stream | None = None  # whose caller reads for all
        self._readers: dict[Http2Stream, None] = {}  # whose callers wait to be woken, or to read
        self._writer: Http2Stream | None = None  # whose caller waits until more is taken
        self._lost: deque[Http2Stream] = deque()  # of responses that the collector took

    @property
    def streams(self) -> int:
        """How many requests it carries at once; 0: it takes no more."""
        machine = self._machine
        return 0 if machine.draining or machine.failure is not None else machine.limit

    @property
    def idle(self) -> bool:
        """It carries no request."""
        return not self._machine.streams

    @property
    def closed(self) -> bool:
        """It is of no use any more."""
        return self._machine.failure is not None or self.stream.closed

    def tend(self, now: float) -> float:
        """See to it that a peer that is gone is known, at the time that the last call named; when to come again, ``inf``: never. ``now``:
        on the pool's clock.
        """
        machine = self._machine
        if not isinstance(machine, Pinged) or self.closed:
            return inf
        if self._reader is None:
            self._read_now()
        due = machine.tend(now)
        if machine.gone:
            self._break("the peer did not answer a PING in time")
        else:
            self._flush_now()
        return due

    def ask(self, now: float) -> None:
        """Ask whether the peer is there before the next request, which goes out behind that."""
        if isinstance(self._machine, Pinged):
            self._machine.ask(now)

    def lose(self, stream: Http2Stream) -> None:
        """``give_up`` for the collector, at any time and in any thread: the next call does it."""
        self._lost.append(stream)

    def _give_up_lost(self) -> None:
        while self._lost:
            self._machine.give_up(self._lost.popleft())
            self._flush_now()

    def _has_news(self, stream: Http2Stream) -> bool:
        return stream.changed or self._machine.failure is not None

    def _read_now(self, chunks: int = _MOST_CHUNKS) -> None:
        """Take what there is, and answer it."""
        machine = self._machine
        try:
            while chunks and machine.failure is None and (data := self.stream.read_now(READ)) is not None:
                chunks -= 1
                self._wake(machine.feed(data))
                self._flush_now()
                if self._unsent() > _MOST_QUEUED:
                    self._break("the peer takes none of our bytes")
        except ReadError as error:
            self._break(str(error))
        if machine.failure is not None:
            self.stream.close()

    def _not_sent(self, stream: Http2Stream, first: int, bounds: Bounds) -> None:
        """The connection broke while the request went out. It may have been answered before."""
        bounds.sent = self._sent > first
        if not stream.ended and stream.head is None and type(stream.error) is ReadError:
            raise WriteError(str(stream.error))

    def _hear_last_words(self) -> None:
        """The peer takes no more: what it said before that, as a GOAWAY or an early answer."""
        try:
            for _ in range(_MOST_CHUNKS):
                data = self.stream.read_now(READ)
                if data:
                    self._wake(self._machine.feed(data))
                else:
                    return
        except ReadError:
            return

    def _break(self, text: str) -> None:
        self._wake(self._machine.broken(ReadError, text))
        self._wake_writers()
        self.stream.close()

    # Of a driver.

    def _flush_now(self) -> int:
        """Send what the machine has made, as far as it is taken; where the queue ends."""
        raise NotImplementedError

    def _unsent(self) -> int:
        """Bytes that wait to be sent."""
        raise NotImplementedError

    def _wake(self, touched: list[Http2Stream]) -> None:
        raise NotImplementedError

    def _wake_writers(self) -> None:
        raise NotImplementedError
