"""The circuit breaker of a cluster: it stops calls to a service that fails as a whole.

Theory. A call asks for a *permit* before it is sent and settles it once; nothing is held in between, so any number of
threads and tasks may be under way.

    state      event                                     next       effect
    CLOSED     asked                                     CLOSED     a permit
    CLOSED     success                                   CLOSED     failures := 0, the window learns
    CLOSED     failure, fewer than consecutive_failures  CLOSED     failures += 1, the window learns
    CLOSED     failure, the last of them                 OPEN       opened at now
    CLOSED     any, and the window's share of failures   OPEN       opened at now
               or of slow calls is too much
    OPEN       asked, before open_for is over            OPEN       refused
    OPEN       asked, after                              HALF_OPEN  a permit (a probe)
    HALF_OPEN  asked, permits left                       HALF_OPEN  a permit (a probe)
    HALF_OPEN  asked, all permits out                    HALF_OPEN  refused
    HALF_OPEN  success, fewer than success_threshold     HALF_OPEN  the permit returns, successes += 1
    HALF_OPEN  success, the last of them                 CLOSED     failures := 0
    HALF_OPEN  failure, or a success that was slow       OPEN       opened at now
    any        cancelled                                 same       the permit returns, nothing is counted

Each change of state begins a new *epoch*. A permit remembers its own, and what comes of it counts only in that: a call
that began before the breaker opened can neither close it nor open it again. The window outlives no epoch, and every change of the numbers.

What is refused is so in the mode ON. In OBSERVE the machine moves as always, and a call that it would refuse gets a permit that counts
nowhere; in OFF and OPEN nothing moves.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from meshlib.core.window import Window
from meshlib.model.policy import BreakerMode

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

#: Of an epoch that never is.
_UNCOUNTED = Permit(-1)


class CircuitBreaker:
    """The state machine. Not thread-safe: who owns it guards it. ``now`` is monotonic seconds.

    Methods that may change the state answer ``(old, new)`` if they did, else None.

    Attributes:
        config: Its numbers; ``configure`` replaces them at any time.
        state: Now. An open breaker whose time is over stays OPEN until somebody asks.
        failures: In a row, while CLOSED.
        successes: Since it was HALF_OPEN.
        opened: When it last opened.
        epoch: How many changes of state there were.
        window: Of calls while CLOSED; None where no share opens it.
    """

    __slots__ = (
        "_closed",
        "_moves",
        "_out",
        "config",
        "epoch",
        "failures",
        "opened",
        "state",
        "successes",
        "window",
    )

    def __init__(self, config: Breaker) -> None:
        self.config = config
        self.state = BreakerState.CLOSED
        self.failures = 0
        self.successes = 0
        self.opened = 0.0
        self.epoch = 0
        self._out = 0
        self._closed = Permit(0)  # one for all of an epoch while closed: there is nothing to count
        self.window: Window | None = None
        self.configure(config)

    def configure(self, config: Breaker) -> None:
        """Other numbers. What is known of calls stays."""
        self.config = config
        self._moves = config.mode is BreakerMode.ON or config.mode is BreakerMode.OBSERVE
        if config.failure_rate is None and config.slow_rate is None:
            self.window = None
        elif self.window is None:
            self.window = Window(config.window, config.window_seconds)
        elif (self.window.calls, self.window.seconds) != (config.window, config.window_seconds):
            self.window = self.window.resized(config.window, config.window_seconds)

    def ask(self, now: float) -> tuple[Permit | None, Change | None]:
        """A permit, or None: refused."""
        if not self._moves:
            return (_UNCOUNTED if self.config.mode is BreakerMode.OFF else None), None
        if self.state is BreakerState.CLOSED:
            return self._closed, None
        refused = _UNCOUNTED if self.config.mode is BreakerMode.OBSERVE else None
        change = None
        if self.state is BreakerState.OPEN:
            if now < self.opened + self.config.open_for:
                return refused, None
            change = self._enter(BreakerState.HALF_OPEN)
        if self._out >= max(1, self.config.half_open_permits):
            return refused, change
        self._out += 1
        return Permit(self.epoch), change

    def would_permit(self, now: float) -> bool:
        """Whether ``ask`` would give one. Changes nothing."""
        if self.config.mode is not BreakerMode.ON:
            return self.config.mode is not BreakerMode.OPEN
        if self.state is BreakerState.OPEN:
            return now >= self.opened + self.config.open_for
        return self.state is BreakerState.CLOSED or self._out < max(1, self.config.half_open_permits)

    def settle(
        self, permit: Permit, good: bool | None, now: float, seconds: float = 0.0, *, again: bool = False
    ) -> Change | None:
        """What came of it, after so many ``seconds``; ``good`` None: cancelled, which counts as nothing. ``again``: it was settled
        before, and a body broke after a good head.
        """
        if permit.epoch != self.epoch:
            return None
        if self.state is BreakerState.HALF_OPEN and not permit.settled:
            self._out -= 1
        if permit is not self._closed:
            permit.settled = True
        if good is None:
            return None
        longest = self.config.slow_call
        slow = longest is not None and seconds > longest
        if self.state is BreakerState.HALF_OPEN:
            return self._probed(now, good=good and not slow)
        return self._learned(now, good=good, slow=slow, again=again)

    def force(self, state: BreakerState, opened: float) -> Change | None:
        """Go into ``state`` as from outside (a state shared with other processes). ``opened`` holds for OPEN."""
        if state is BreakerState.OPEN:
            self.opened = opened
        return self._enter(state) if state is not self.state else None

    def _probed(self, now: float, *, good: bool) -> Change | None:
        if not good:
            return self._open(now)
        self.successes += 1
        return self._enter(BreakerState.CLOSED) if self.successes >= self.config.success_threshold else None

    def _learned(self, now: float, *, good: bool, slow: bool, again: bool) -> Change | None:
        self.failures = 0 if good else self.failures + 1
        in_a_row = self.config.consecutive_failures
        if in_a_row and self.failures >= in_a_row:
            return self._open(now)
        window = self.window
        if window is None:
            return None
        if again and not good:
            window.fail_last()
        else:
            window.add(now, failed=not good, slow=slow)
        return self._open(now) if self._too_much(window) else None

    def _too_much(self, window: Window) -> bool:
        config, total = self.config, window.total
        if total < config.minimum:
            return False
        failing = config.failure_rate is not None and window.failed >= config.failure_rate * total
        return failing or (config.slow_rate is not None and window.slow >= config.slow_rate * total)

    def _open(self, now: float) -> Change:
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
            if self.window is not None:
                self.window.clear()
        return old, state
