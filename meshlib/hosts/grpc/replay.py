"""The messages that a call sends, kept for as long as another attempt may have to send them again (gRFC A6).

Each attempt reads them from the first on by an iterator of its own. What the application gives is asked once for each message,
by whichever attempt comes to it; grpc's own thread of an attempt that is over may still be waiting for one, which then is the
next attempt's. That one sends what is kept meanwhile: the application may wait for an answer to it. They are serialized here, so that
what is kept can be counted: beyond ``limit`` nothing is kept any more, and the call cannot be made again.

Attempts may be under way beside each other (hedges), as long as all is kept. When that ends, one of them goes on alone, the one that
came furthest, and the others are given up *before* (``alone``): a stream of theirs that just ended would be a whole one to its server.
So a reader that was given up ends when its RPC has (``drop``), and not before.

But for a call that was not sent: an attempt that cannot connect takes a message, and another before it learns that it is over, since
grpc gives up the first before it tells why. So the last two stay. Where more was taken, no attempt is made (``whole``).
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from meshlib.core.effects import Call

__all__ = ["LIMIT", "LIMIT_OPTION", "Messages", "Unserializable", "as_is", "serialize"]

#: gRFC A6: bytes of one call, and grpc's option for another number.
LIMIT = 256 * 1024
LIMIT_OPTION = "grpc.per_rpc_retry_buffer_size"

_log = logging.getLogger("meshlib")


class Unserializable:
    """In the place of a message that could not be serialized: grpc meets the error where it serializes."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def as_is(message: Any) -> bytes:
    """The serializer of what is serialized already."""
    if isinstance(message, Unserializable):
        raise message.error
    found: bytes = message
    return found


def serialize(message: Any, serializer: Callable[[Any], bytes] | None) -> Any:
    """``message`` for :func:`as_is`."""
    if serializer is None:
        return message
    try:
        return serializer(message)
    except Exception as error:  # noqa: BLE001 - raised again where grpc serializes
        return Unserializable(error)


class Messages:
    """The messages of one call. Thread-safe.

    Args:
        source: The application's.
        serializer: The stub's.
        limit: Bytes that are kept.

    Attributes:
        kept: Whether all that will be given can be given again.
        call: Is told when it cannot.
        alone: Has one of several readers go on alone, if it can that one; gives which.
    """

    __slots__ = (
        "_asking",
        "_base",
        "_committed",
        "_end",
        "_serializer",
        "_size",
        "_source",
        "_there",
        "_turn",
        "_turns",
        "_waiting",
        "alone",
        "call",
        "kept",
        "limit",
    )

    def __init__(
        self, source: Iterable[Any], serializer: Callable[[Any], bytes] | None, limit: int = LIMIT
    ) -> None:
        self._source = iter(source)
        self._serializer = serializer
        # Guards all else here. The source is asked without it: it may wait for an answer to what is kept.
        self._there = threading.Condition()
        self._asking = False  # somebody asks the source
        self._turn = 0  # whose messages these are: the last attempt's
        self._turns: dict[Any, int] = {}  # of who reads
        self._waiting: list[Any] = []  # from number _base on
        self._base = 0
        self._size = 0
        self._committed = False
        self._end: BaseException | None = None
        self.kept = True
        self.call: Call | None = None
        self.alone: Callable[[Any], Any] | None = None
        self.limit = limit

    @property
    def whole(self) -> bool:
        """Whether all that was given so far can be given again."""
        return self._base == 0

    def commit(self, reader: Any = None) -> None:
        """No other attempt will be made: the messages are those of ``reader``."""
        with self._there:
            self._turn = self._turns.get(reader, self._turn)
            self._committed, self.kept = True, False
            self._there.notify_all()

    def read(self, reader: Any = None) -> Iterator[Any]:
        """All messages, for one more attempt. Once nothing is kept they are the last attempt's alone, or as ``alone`` says."""
        with self._there:
            self._turn += 1
            if reader is not None:
                self._turns[reader] = self._turn
            self._there.notify_all()
            return self._read(self._turn, reader)

    def drop(self, reader: Any) -> None:
        """Its RPC is over."""
        with self._there:
            self._turns.pop(reader, None)
            self._there.notify_all()

    def _read(self, turn: int, reader: Any) -> Iterator[Any]:
        number = 0
        while self._come(number, turn):
            with self._there:
                if not self.kept:
                    if turn != self._turn:
                        self._await_end(reader)
                        return
                    first = number if self._committed else max(self._base, number - 1)
                    del self._waiting[: first - self._base]
                    self._base = first
                message = self._waiting[number - self._base]
                number += 1
            yield message
        with self._there:
            if turn != self._turn and not self.kept:
                self._await_end(reader)
                return
            if self._committed:
                self._waiting.clear()
                self._base = number
        if not isinstance(self._end, StopIteration):
            assert self._end is not None
            raise self._end

    def _await_end(self, reader: Any) -> None:
        """Under the lock. Of one that was given up."""
        while reader in self._turns:
            self._there.wait()

    def _come(self, number: int, turn: int) -> bool:
        """Wait for that message; False: there is none, or it is not for this attempt."""
        while True:
            with self._there:
                if turn != self._turn and not self.kept:
                    return False
                if number < self._base + len(self._waiting):
                    return True
                if self._end is not None:
                    return False
                if self._asking:
                    self._there.wait()
                    continue
                self._asking = True
            self._ask(turn)

    def _ask(self, turn: int) -> None:
        message, end = None, None
        try:
            message = serialize(next(self._source), self._serializer)
        except BaseException as error:  # noqa: BLE001 - raised by each iterator when it comes there
            end = error
        with self._there:
            self._asking, self._end = False, end
            full = end is None and self._keep(message)
            self._there.notify_all()
        if full:
            self._fill(turn)

    def _keep(self, message: Any) -> bool:
        """Whether no more is kept from now on."""
        self._waiting.append(message)
        if not self.kept:
            return False
        self._size += len(message) if isinstance(message, bytes) else 0
        return self._size > self.limit

    def _fill(self, turn: int) -> None:
        """``turn`` came to what is not kept any more."""
        if self.call is not None:
            self.call.replayable = False
        alone, goes_on = self.alone, None
        if alone is not None:
            goes_on = alone(next((reader for reader, its in list(self._turns.items()) if its == turn), None))
        with self._there:
            if not self._committed:
                self._turn = self._turns.get(goes_on, self._turn)
            self.kept = False
            self._there.notify_all()
