"""The attempts of one call for which no thread waits (``hosts/run_later.py``): those under way, and which of them its caller looks at.

Each has a leg: its step, its bounds, what the library holds for it. The *front* one is what the caller looks at, as a rule the only one; where it ends and others
go on, one of them is.

All of it is guarded by the lock of the call; ``leg_of`` may be asked without it, since what it reads is replaced whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.attempt import Send
    from meshlib.core.effects import Direct
    from meshlib.pools.bounds import Bounds

__all__ = ["I", "Leg", "Legs"]

I = TypeVar("I")  # noqa: E741 - the library's call of one attempt


class Leg(Generic[I]):
    """An attempt under way. ``attempt``: the library's call, None before it is begun; ``pending``: ends what it waits for before that. The rest is the library's
    own, and has its defaults here, so that a leg costs what it has.
    """

    attempt: I | None = None
    pending: Callable[[], object] | None = None
    #: Its connection, and its pick, where somebody listens to its endpoint.
    sub: Any = None
    pick: Any = None
    #: Prevents its alarm.
    silence: Callable[[], object] | None = None
    #: Who reads the first message of a stream, where that is known; that, in a tuple; and that a thread has done so, or found none.
    watched: Any = None
    first: tuple[Any, ...] = ()
    read: bool = False

    def __init__(self, step: Send | Direct, bounds: Bounds) -> None:
        self.step = step
        self.bounds = bounds


class Legs(Generic[I]):
    """Of one call.

    Attributes:
        attempt: The front attempt, or the one whose answer the caller reads.
    """

    __slots__ = ("_beside", "_front", "_losers", "_sent_once", "attempt")

    def __init__(self) -> None:
        self._front: Leg[I] | None = None
        self._beside: tuple[Leg[I], ...] = ()  # replaced whole
        self._losers: tuple[I, ...] = ()  # that are to be given up
        self._sent_once = False  # by an attempt that is over
        self.attempt: I | None = None

    def _left(self, leg: Leg[I]) -> None:
        """It is over, or given up, and not the call's."""
        raise NotImplementedError

    @property
    def legs(self) -> tuple[Leg[I], ...]:
        """All that are under way, the front one first."""
        return () if self._front is None else (self._front, *self._beside)

    def leg_of(self, attempt: I) -> Leg[I] | None:
        """Of an attempt that is under way, or the caller's."""
        front = self._front
        if front is not None and front.attempt is attempt:
            return front
        if not self._beside:
            return None
        return next((leg for leg in self._beside if leg.attempt is attempt), None)

    def _sent(self) -> bool:
        return self._sent_once or any(leg.bounds.sent for leg in self.legs)

    def _end(self, leg: Leg[I]) -> None:
        """It is under way no more."""
        self._sent_once = self._sent_once or leg.bounds.sent
        self._left(leg)
        if leg is not self._front:
            self._beside = tuple(other for other in self._beside if other is not leg)
        elif self._beside:
            self._front, self._beside = self._beside[0], self._beside[1:]
            self.attempt = self._front.attempt
        else:
            self._front = self.attempt = None

    def _drop(self, leg: Leg[I], *, over: bool = False) -> None:
        """It is to be given up, once the lock is free, unless it is ``over``."""
        pending, leg.pending = leg.pending, None
        if pending is not None:
            pending()
        if leg.attempt is not None and not over:
            self._losers = (*self._losers, leg.attempt)

    def _alone(self, leg: Leg[I]) -> None:
        """The others are given up."""
        for other in self.legs:
            if other is not leg:
                self._drop(other)
                self._left(other)
        self._front, self._beside, self.attempt = leg, (), leg.attempt
