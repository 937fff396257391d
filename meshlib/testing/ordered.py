"""What servers of every protocol have that do as they are told: standing orders, and somebody who waits for what they see."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

__all__ = ["Ordered"]

OrderT = TypeVar("OrderT")
SeenT = TypeVar("SeenT")
ReceivedT = TypeVar("ReceivedT")
T = TypeVar("T")

_KEPT_REQUESTS = 10_000


@dataclass(slots=True)
class _Rule(Generic[OrderT, SeenT]):
    order: OrderT
    times: int | None
    where: Callable[[SeenT], bool] | None


class Ordered(ABC, Generic[OrderT, SeenT, ReceivedT]):
    """`OrderT`: its orders, a dataclass with `delay` and `hold`; `SeenT`: what `where` is asked about a request; `ReceivedT`: a
    request as it arrived.
    """

    def __init__(self, name: str, plain: OrderT) -> None:
        self.name = name
        self._plain = plain
        self._changed = threading.Condition(threading.RLock())  # guards all that derived classes have, too
        self._rules: list[_Rule[OrderT, SeenT]] = []
        self._releases = 0
        self._held_now = 0
        self._requests: deque[ReceivedT] = deque(maxlen=_KEPT_REQUESTS)
        self._requests_total = 0

    def order(
        self,
        order: OrderT | None = None,
        *,
        times: int | None = None,
        where: Callable[[SeenT], bool] | None = None,
        **parts: Any,
    ) -> None:
        """From now on does as `order` says (or `parts`: the fields of one).

        `times`: only for so many requests. `where`: only for those that it is true for. The newest order that
        applies to a request is the one that holds.
        """
        made: OrderT = replace(self._plain if order is None else order, **parts)  # type: ignore[type-var]
        with self._changed:
            self._rules.insert(0, _Rule(made, times, where))

    def behave(self) -> None:
        """Forgets all orders and releases what is held."""
        with self._changed:
            self._rules.clear()
        self.release()

    def hang(self, *, times: int | None = None) -> None:
        """Takes requests and answers nothing until `release` or `behave`."""
        self.order(hold="head", times=times)

    def delay(self, seconds: float, *, times: int | None = None) -> None:
        """Answers that much later."""
        self.order(delay=seconds, times=times)

    def release(self) -> None:
        """Lets go on all that is held now."""
        with self._changed:
            self._releases += 1
            self._changed.notify_all()

    @property
    def requests(self) -> tuple[ReceivedT, ...]:
        """The requests so far, oldest first; of very many, the last 10,000."""
        with self._changed:
            return tuple(self._requests)

    @property
    def requests_total(self) -> int:
        """How many requests have arrived; those for its control do not count."""
        return self._requests_total

    @property
    def held(self) -> int:
        """How many requests are held now: what `release` would let go."""
        return self._held_now

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """The counts, under the names of their properties."""

    def wait_for(
        self, predicate: Callable[[], T], *, timeout: float = 5.0, what: str = "what is awaited"
    ) -> T:
        """Waits until `predicate()` is true, and gives what it returned. Seconds are real ones.

        It is asked again whenever one of the counts changes. Raises TimeoutError.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (value := predicate()):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(
                        f"{self.name}: {what} did not come within {timeout} s; {self.counts()}"
                    )
                self._changed.wait(left)
            return value

    def _standing(self, seen: SeenT) -> OrderT:
        """The order that holds for this request; it counts as one of its `times`."""
        with self._changed:
            for rule in self._rules:
                if rule.times != 0 and (rule.where is None or rule.where(seen)):
                    if rule.times is not None:
                        rule.times -= 1
                    return rule.order
        return self._plain
