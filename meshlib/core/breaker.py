"""The circuit breaker of a cluster: it stops calls to a service that fails as a whole.

Theory. A call asks for a *permit* before it is sent and settles it once; nothing is held in between, so any number of
threads and tasks may be under way.

    state      event                                     next       effect
    CLOSED     asked                                     CLOSED     a permit
    CLOSED     success                                   CLOSED     failures := 0
    CLOSED     failure, fewer than consecutive_failures  CLOSED     failures += 1
    CLOSED     failure, the last of them                 OPEN       opened at now
    OPEN       asked, before open_for is over            OPEN       refused
    OPEN       asked, after                              HALF_OPEN  a permit (a probe)
    HALF_OPEN  asked, permits left                       HALF_OPEN  a permit (a probe)
    HALF_OPEN  asked, all permits out                    HALF_OPEN  refused
    HALF_OPEN  success, fewer than success_threshold     HALF_OPEN  the permit returns, successes += 1
    HALF_OPEN  success, the last of them                 CLOSED     failures := 0
    HALF_OPEN  failure                                   OPEN       opened at now
    any        cancelled                                 same       the permit returns, nothing is counted

Each change of state begins a new *epoch*. A permit remembers its own, and what comes of it counts only in that: a call
that began before the breaker opened can neither close it nor open it again.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.model.policy import Breaker

__all__ = ["BreakerState", "Change", "CircuitBreaker", "Permit"]


class BreakerState(Enum):
    """The values are what ``Mesh.status()`` shows."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Permit:
    """Leave for one call. ``epoch``: when it was given; ``settled``: its result was told."""

    __slots__ = ("epoch", "settled")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.settled = False


Change = tuple[BreakerState, BreakerState]


class CircuitBreaker:
    """The state machine. Not thread-safe: who owns it guards it. ``now`` is monotonic seconds.

    Methods that may change the state answer ``(old, new)`` if they did, else None.

    Attributes:
        config: Its numbers; may be replaced at any time.
        state: Now. An open breaker whose time is over stays OPEN until somebody asks.
        failures: In a row, while CLOSED.
        successes: Since it was HALF_OPEN.
        opened: When it last opened.
        epoch: How many changes of state there were.
    """

    __slots__ = ("_closed", "_out", "config", "epoch", "failures", "opened", "state", "successes")

    def __init__(self, config: Breaker) -> None:
        self.config = config
        self.state = BreakerState.CLOSED
        self.failures = 0
        self.successes = 0
        self.opened = 0.0
        self.epoch = 0
        self._out = 0
        self._closed = Permit(0)  # one for all of an epoch while closed: there is nothing to count

    def ask(self, now: float) -> tuple[Permit | None, Change | None]:
        """A permit, or None: refused."""
        if self.state is BreakerState.CLOSED:
            return self._closed, None
        change = None
        if self.state is BreakerState.OPEN:
            if now < self.opened + self.config.open_for:
                return None, None
            change = self._enter(BreakerState.HALF_OPEN)
        if self._out >= max(1, self.config.half_open_permits):
            return None, change
        self._out += 1
        return Permit(self.epoch), change

    def would_permit(self, now: float) -> bool:
        """Whether ``ask`` would give one. Changes nothing."""
        if self.state is BreakerState.OPEN:
            return now >= self.opened + self.config.open_for
        return self.state is BreakerState.CLOSED or self._out < max(1, self.config.half_open_permits)

    def settle(self, permit: Permit, good: bool | None, now: float) -> Change | None:
        """What came of it; None: cancelled, which counts as nothing. A permit may be settled again, with a failure
        only: a body that broke after a good head.
        """
        if permit.epoch != self.epoch:
            return None
        if self.state is BreakerState.HALF_OPEN and not permit.settled:
            self._out -= 1
        if permit is not self._closed:
            permit.settled = True
        if good is None:
            return None
        return self._success() if good else self._failure(now)

    def force(self, state: BreakerState, opened: float) -> Change | None:
        """Go into ``state`` as from outside (a state shared with other processes). ``opened`` holds for OPEN."""
        if state is BreakerState.OPEN:
            self.opened = opened
        return self._enter(state) if state is not self.state else None

    def _success(self) -> Change | None:
        self.failures = 0
        if self.state is BreakerState.HALF_OPEN:
            self.successes += 1
            if self.successes >= self.config.success_threshold:
                return self._enter(BreakerState.CLOSED)
        return None

    def _failure(self, now: float) -> Change | None:
        self.failures += 1
        if self.state is BreakerState.CLOSED and self.failures < self.config.consecutive_failures:
            return None
        self.opened = now
        return self._enter(BreakerState.OPEN)

    def _enter(self, state: BreakerState) -> Change:
        old, self.state = self.state, state
        self.epoch += 1
        self._out = 0
        self.successes = 0
        if state is BreakerState.CLOSED:
            self.failures = 0
            self._closed = Permit(self.epoch)
        return old, state
