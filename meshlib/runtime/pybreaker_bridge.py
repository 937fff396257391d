"""pybreaker's listeners and storages behind our breaker. Imported only where a configuration has one of them.

Our state machine decides; what is pybreaker's only hears and keeps. Listeners are called in the thread of the call, with
no lock held, and what they raise is logged. A storage is written after the machine moved and read to learn what other
processes did:

- ``CircuitMemoryStorage`` is read and written in place, at each call.
- Any other (Redis, the user's own) is only touched by a thread that lives while there is something to write or read.
  It is read at most each ``POLL`` seconds, and only while calls come. So a storage that is slow, hangs or raises delays
  no call and no event loop and fails none: the local state decides until it answers again.

What a storage says wins over the local state, unless the local state changed since it was asked.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pybreaker

from meshlib.core.breaker import BreakerState
from meshlib.errors import MeshError
from meshlib.runtime import threads
from meshlib.runtime.process import Local
from meshlib.runtime.pybreaker_storage import Kept, Said, talk_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.breaker import Change, CircuitBreaker
    from meshlib.model.call import Outcome

__all__ = ["POLL", "Bridge"]

#: Seconds between two looks at a storage that other processes share.
POLL = 0.5
#: What waits to be written to a storage that does not answer; the oldest goes first.
_MOST_WAITING = 256

_log = logging.getLogger("meshlib")

_NAMES = {
    BreakerState.CLOSED: pybreaker.STATE_CLOSED,
    BreakerState.OPEN: pybreaker.STATE_OPEN,
    BreakerState.HALF_OPEN: pybreaker.STATE_HALF_OPEN,
}
_STATES = {name: state for state, name in _NAMES.items()}

# Guards every memory storage: two clusters may share one. Taken inside a cluster's lock, never the other way round.
_memory = Local(threading.Lock)


class Bridge:
    """What of one cluster's breaker is pybreaker's.

    ``look``, ``settled`` and ``changed`` are called under the lock that guards the machine and do no I/O;
    ``before_call``, ``told`` and ``state_change`` are called without it.

    Args:
        name: The cluster's.
        machine: The state machine.
        apply: Runs a function on the machine under its lock and tells everybody of the change that it answers.
        now: Monotonic seconds.
        wall: The time of day, for a storage's ``opened_at``.
    """

    def __init__(
        self,
        name: str,
        machine: CircuitBreaker,
        apply: Callable[[Callable[[], Change | None]], None],
        now: Callable[[], float],
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        storage = machine.config.storage
        if storage is not None and not isinstance(storage, pybreaker.CircuitBreakerStorage):
            _log.error(
                "meshlib: breaker.storage of %s is no pybreaker storage and is not used: %r", name, storage
            )
            storage = None
        self._machine = machine
        self._apply = apply
        self._now = now
        self._wall = wall
        self._memory = type(storage) is pybreaker.CircuitMemoryStorage
        self._talk = None if storage is None else talk_to(storage)
        self._listeners = machine.config.listeners
        self._face = _Face(name, self)
        self._asked = float("-inf")
        self._shared_failures = False
        self._work = _Work()

    # --- under the machine's lock ---------------------------------------------------------------------------------

    def look(self, now: float) -> Change | None:
        """A call is about to ask: learn what others did."""
        talk = self._talk
        if talk is None:
            return None
        if self._memory:
            with _memory.get():
                return self._adopt(talk(Said()))
        if now - self._asked >= POLL:
            self._asked = now
            self._say(Said(), learn=True)
        return None

    def settled(self, good: bool, change: Change | None) -> None:
        """A call was counted, and the machine moved or not."""
        said = Said() if change is None else self._moved(change[1])
        if not good:
            self._shared_failures = True
            said = replace(said, failed=True)
        elif self._shared_failures:
            self._shared_failures = False
            said = replace(said, healed=True)
        if good and self._machine.state is BreakerState.HALF_OPEN:
            said = replace(said, succeeded=True)
        if said != Said():
            self._say(said, learn=not good)

    def changed(self, new: BreakerState) -> None:
        """The machine moved by itself."""
        self._say(self._moved(new))

    def _moved(self, new: BreakerState) -> Said:
        closed = new is BreakerState.CLOSED
        if closed:
            self._shared_failures = False
        opened = self._wall() if new is BreakerState.OPEN else None
        return Said(opened, fresh=True, healed=closed, state=_NAMES[new])

    # --- without it -----------------------------------------------------------------------------------------------

    def before_call(self) -> None:
        for listener in self._listeners:
            self._tell(listener, "before_call", _attempt)

    def told(self, good: bool, outcome: Outcome) -> None:
        for listener in self._listeners:
            if good:
                self._tell(listener, "success")
            else:
                self._tell(listener, "failure", outcome.error or MeshError(_failure(outcome)))

    def state_change(self, old: BreakerState, new: BreakerState) -> None:
        for listener in self._listeners:
            self._tell(listener, "state_change", self._face.as_state(old), self._face.as_state(new))

    def force(self, state: BreakerState) -> None:
        """A listener moves the breaker by hand."""

        def move() -> Change | None:
            change = self._machine.force(state, self._now())
            if change is not None:
                self.changed(state)
            return change

        self._apply(move)

    def idle(self, timeout: float) -> bool:
        """Wait until nothing is left to write or read; False if that took longer. For tests and for the last words."""
        return self._work.idle(timeout)

    def _tell(self, listener: object, method: str, *arguments: object) -> None:
        try:
            getattr(listener, method)(self._face, *arguments)
        except Exception:  # noqa: BLE001 - the user's object must not fail a call
            _log.exception("meshlib: a breaker listener failed in %s", method)

    # --- the storage ----------------------------------------------------------------------------------------------

    def _say(self, said: Said, *, learn: bool = False) -> None:
        """Tell the storage: one of memory now, another later and elsewhere. ``learn``: adopt what that says if nothing has happened
        here since.
        """
        talk = self._talk
        if talk is None:
            return
        if self._memory:
            with _memory.get():
                talk(said)
            return
        machine, epoch = self._machine, self._machine.epoch

        def work() -> None:
            kept = talk(said)
            self._work.failing = False
            if learn:
                self._apply(lambda: self._adopt(kept) if machine.epoch == epoch else None)

        self._work.add(work)

    def _adopt(self, kept: Kept) -> Change | None:
        """Go by what the storage says. The lock of memory storages is held where it is one."""
        machine = self._machine
        state = _STATES.get(kept.state)
        self._shared_failures = self._shared_failures or kept.failures > 0
        if state is BreakerState.CLOSED and machine.state is BreakerState.CLOSED:
            most = machine.config.consecutive_failures
            if not most or kept.failures < most:
                return None
            change = machine.force(BreakerState.OPEN, self._now())
            said = self._moved(BreakerState.OPEN)
            if self._memory and self._talk is not None:
                self._talk(said)
            else:
                self._say(said)
            return change
        if state is None or state is machine.state:
            return None
        return machine.force(state, self._now() - self._age(kept.opened_at))

    def _age(self, opened_at: datetime | None) -> float:
        """How long ago the breaker opened, as far as the storage's clock can be believed."""
        if opened_at is None:
            return 0.0
        if opened_at.tzinfo is None:
            opened_at = opened_at.replace(tzinfo=UTC)
        return max(timedelta(0), self._wall() - opened_at).total_seconds()


class _Work:
    """Jobs done one after the other by a thread that lives while there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the two below
        self._jobs: deque[Callable[[], object]] = deque(maxlen=_MOST_WAITING)
        self._running = False
        self.failing = False  # said once, until the storage can be read again; only the thread touches it

    def add(self, job: Callable[[], object]) -> None:
        with self._changed:
            self._jobs.append(job)
            if self._running:
                return
            self._running = True
        threads.start(threading.Thread(target=self._run, name="meshlib-breaker-storage", daemon=True))

    def idle(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    self._running = False
                    self._changed.notify_all()
                    return
                job = self._jobs.popleft()
            self._do(job)

    def _do(self, job: Callable[[], object]) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - whatever a storage raises, the local state decides meanwhile
            if not self.failing:
                _log.warning("meshlib: a breaker storage fails, each process decides for itself: %r", error)
            self.failing = True


class _Face(pybreaker.CircuitBreaker):
    """What listeners get as their breaker: it shows our machine, and ``open``, ``close``, ``half_open`` move it."""

    def __init__(self, name: str, bridge: Bridge) -> None:
        self._bridge = bridge
        machine = bridge._machine
        config = machine.config
        super().__init__(
            fail_max=config.consecutive_failures,
            reset_timeout=config.open_for,
            success_threshold=config.success_threshold,
            name=name,
            state_storage=_Window(machine),
        )

    def as_state(self, state: BreakerState) -> pybreaker.CBStateType:
        return self._create_new_state(_NAMES[state])

    @property  # type: ignore[misc]  # to be read only: what moves it are the three methods
    def state(self) -> pybreaker.CBStateType:
        return self._create_new_state(self.current_state)

    @property
    def listeners(self) -> tuple[Any, ...]:
        return self._bridge._listeners

    def open(self) -> bool:
        self._bridge.force(BreakerState.OPEN)
        return True

    def half_open(self) -> None:
        self._bridge.force(BreakerState.HALF_OPEN)

    def close(self) -> None:
        self._bridge.force(BreakerState.CLOSED)


class _Window(pybreaker.CircuitBreakerStorage):
    """Our machine, seen as a storage that can be read."""

    def __init__(self, machine: CircuitBreaker) -> None:
        super().__init__("meshlib")
        self._machine = machine

    @property  # type: ignore[misc]  # to be read only
    def state(self) -> str:
        return _NAMES[self._machine.state]

    @property
    def counter(self) -> int:
        return self._machine.failures

    @property
    def success_counter(self) -> int:
        return self._machine.successes

    @property  # type: ignore[misc]  # to be read only
    def opened_at(self) -> datetime | None:
        return None


def _attempt() -> None:
    """What listeners are told is being called: an attempt of a call, which is no function."""


def _failure(outcome: Outcome) -> str:
    return outcome.detail or (f"status {outcome.status}" if outcome.status else outcome.kind.value)
