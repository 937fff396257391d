"""What a control plane has seen: the requests of its clients, in order, and waiting for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Journal", "Request"]

T = TypeVar("T")

# A journal that is never read must not grow without end in a long storm of reconnects.
_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Request:
    """One message from a client on a stream, as it arrived."""

    index: int  # counts all requests from 0, over all streams
    stream: int  # counts all streams from 1
    protocol: str  # "sotw", "delta", "fetch" or "rest"
    kind: str  # short name of the type ("listener", …), or the type URL where it has none
    names: tuple[str, ...]  # resource_names; resource_names_subscribe in delta
    unsubscribe: tuple[str, ...]  # delta only
    version: str  # version_info; in delta, of an ACK only, the version of the response that it accepts
    nonce: str
    error: str | None  # error_detail.message; None if there is no error_detail
    error_code: int | None
    node: Any  # the Node message; None if this request had none
    initial_versions: dict[str, str]  # initial_resource_versions; delta only
    raw: bytes
    at: float  # time.monotonic() at arrival

    @property
    def is_ack(self) -> bool:
        """Whether it accepts a response."""
        return bool(self.nonce) and self.error is None

    @property
    def is_nack(self) -> bool:
        """Whether it rejects a response."""
        return self.error is not None


class Journal:
    """The record of requests, and the condition that everything of a control plane is guarded by."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._requests: list[Request] = []
        self._count = 0

    @property
    def count(self) -> int:
        """How many requests have arrived."""
        return self._count

    def requests(self) -> tuple[Request, ...]:
        with self.changed:
            return tuple(self._requests)

    def add(self, make: Callable[[int], Request]) -> Request:
        with self.changed:
            request = make(self._count)
            self._count += 1
            self._requests.append(request)
            if len(self._requests) > 2 * _KEPT:
                del self._requests[:_KEPT]
            self.changed.notify_all()
            return request

    def first(self, where: Callable[[Request], bool], after: int) -> Request | None:
        """The first request with an index of at least `after` for which `where` is true."""
        with self.changed:
            oldest = self._count - len(self._requests)
            return next((each for each in self._requests[max(0, after - oldest) :] if where(each)), None)

    def wait(self, predicate: Callable[[], T], timeout: float, what: str) -> T:
        """The predicate's first true value; it is asked again after everything that happens.

        Raises TimeoutError, with what was waited for and the last requests.
        """
        deadline = time.monotonic() + timeout
        with self.changed:
            while not (value := predicate()):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{what} did not come within {timeout} s; {self._story()}")
                self.changed.wait(left)
            return value

    def _story(self) -> str:
        lines = [_line(each) for each in self._requests[-10:]]
        return "the last requests: " + "; ".join(lines) if lines else "there was no request"


def _line(of: Request) -> str:
    words = [f"#{of.index} stream {of.stream} {of.kind} names={list(of.names)}"]
    if of.unsubscribe:
        words.append(f"unsubscribe={list(of.unsubscribe)}")
    words.append(f"version={of.version!r} nonce={of.nonce!r}")
    if of.error is not None:
        words.append(f"error={of.error!r}")
    return " ".join(words)
