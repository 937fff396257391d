"""Time that moves when a test says so.

The theory: a clock holds a heap of timers, each due at an instant. `advance` walks to its goal from one due timer to
the next, so each runs at exactly its own time, and timers that it starts on the way run too if they are due by
then. A sleeper is a timer that wakes a thread or a task. One lock guards the heap, the time and the count of
sleepers; what a timer calls runs outside of it, on the thread that advances.

It is also what a whole Mesh can run on: `Mesh(config, clock=clock)`. Then everything of that mesh that waits asks this
clock for an alarm, and whoever advances waits until the mesh's own thread has done what fell due.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable

__all__ = ["Timer", "VirtualClock"]

#: Moves of a clock that are remembered, for those who ask what the time was.
_REMEMBERED = 1000


class Timer:
    """A call that a clock will make. `when` is the instant in seconds; `cancel` is safe from every thread."""

    __slots__ = ("_call", "_clock", "when")

    def __init__(self, clock: VirtualClock, when: float, call: Callable[[], object]) -> None:
        self.when = when
        self._clock = clock
        self._call: Callable[[], object] | None = call

    @property
    def pending(self) -> bool:
        """Whether it will still be called."""
        return self._call is not None

    def cancel(self) -> bool:
        """Prevents the call; False if it was made, is being made, or was cancelled before."""
        return self._clock._take(self) is not None


class VirtualClock:
    """A monotonic clock in seconds, for what takes a clock (`now()`), and for code that sleeps.

    `start` is the first instant. With `auto`, a sleep moves the time itself and returns at once: right for code in one
    thread. Without, a sleeper waits until somebody advances; `wait_for_sleepers` tells when that can be.
    Safe to use from many threads and event loops; `advance` calls follow one another.
    """

    def __init__(self, start: float = 1000.0, *, auto: bool = False) -> None:
        self._now = start
        self._auto = auto
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._sleepers = 0
        # When the time was moved, in the system's monotonic seconds, and to what.
        self._moves: deque[tuple[float, float]] = deque([(-math.inf, start)], maxlen=_REMEMBERED)
        self._changed = threading.Condition()  # guards all of the above
        self._advancing = threading.RLock()  # one advance at a time; a timer may advance further

    def now(self) -> float:
        """The time in seconds."""
        return self._now

    __call__ = now

    @property
    def virtual(self) -> bool:
        """Yes: what waits on it is woken by it."""
        return True

    def instant(self, monotonic: float) -> float:
        """What the time was when the system's monotonic clock said `monotonic`; of long ago, the oldest that is known."""
        with self._changed:
            moves = list(self._moves)
        return moves[max(0, bisect_right(moves, monotonic, key=lambda move: move[0]) - 1)][1]

    def alarm(self, when: float, call: Callable[[], object]) -> Callable[[], bool]:
        """`call_at`, for what runs on any clock: what is returned cancels."""
        return self.call_at(when, call).cancel

    def wall(self) -> float:
        """The same seconds, as those since the epoch: what tells the time of day by this clock agrees with it."""
        return self._now

    @property
    def sleepers(self) -> int:
        """How many threads and tasks sleep now."""
        return self._sleepers

    @property
    def timers(self) -> tuple[Timer, ...]:
        """The timers that wait, sleepers' among them, in the order in which they will be called."""
        with self._changed:
            return tuple(timer for _, _, timer in sorted(self._heap) if timer.pending)

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Calls `call` when the time reaches `when`; at the next `advance`, even by 0, if it already has."""
        timer = Timer(self, when, call)
        with self._changed:
            heapq.heappush(self._heap, (when, next(self._order), timer))
            self._changed.notify_all()
        return timer

    def call_later(self, delay: float, call: Callable[[], object]) -> Timer:
        """Calls `call` in `delay` seconds."""
        return self.call_at(self._now + delay, call)

    def advance(self, seconds: float) -> None:
        """Moves the time on, calling what falls due, each call at its own time and in order.

        Raises ValueError for a negative number. An exception of a timer's call comes out here, with the time where
        that timer was.
        """
        if not seconds >= 0:
            raise ValueError(f"time does not go back: advance({seconds!r})")
        with self._advancing:
            goal = self._now + seconds
            while (timer := self._due(goal)) is not None:
                call = self._take(timer)
                if call is not None:
                    call()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Blocks this thread until `event` is set; False: the time moved by that much first, and `event` is set by that. With
        `auto` others have that many real seconds to set it, and then the time moves.
        """
        if self._auto and not event.wait(max(0.0, seconds)):
            self.advance(max(0.0, seconds))
        if self._auto or seconds <= 0:
            return event.is_set()
        timer = self._sleeper(seconds, event.set)
        try:
            event.wait()
        finally:
            early = self._leave(timer)
        return early

    def sleep(self, seconds: float) -> None:
        """Blocks this thread until the time has moved by that much (with `auto`: moves it)."""
        if self._auto:
            self.advance(max(0.0, seconds))
            return
        if seconds <= 0:
            return
        woken = threading.Event()
        timer = self._sleeper(seconds, woken.set)
        try:
            woken.wait()
        finally:
            self._leave(timer)

    async def sleep_async(self, seconds: float) -> None:
        """As `sleep`, for a task of asyncio or trio: only the task waits. It can be cancelled."""
        import anyio

        from meshlib.runtime.clock import MonotonicClock
        from meshlib.runtime.signal import Signal

        if self._auto or seconds <= 0:
            if self._auto:
                self.advance(max(0.0, seconds))
            await anyio.lowlevel.checkpoint()
            return
        woken = Signal()
        timer = self._sleeper(seconds, woken.set)
        try:
            await woken.wait(math.inf, MonotonicClock())
        finally:
            self._leave(timer)

    def wait_for_sleepers(self, count: int = 1, *, timeout: float = 5.0) -> None:
        """Waits, in real seconds, until at least `count` threads and tasks sleep on this clock.

        Raises TimeoutError. Do not call it on the event loop whose tasks are to sleep.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._sleepers < count:
                if (
                    not self._changed.wait(max(0.0, deadline - time.monotonic()))
                    and time.monotonic() >= deadline
                ):
                    raise TimeoutError(f"{self._sleepers} of {count} sleepers after {timeout} s")

    def _sleeper(self, seconds: float, wake: Callable[[], object]) -> Timer:
        """A timer that wakes a sleeper. Who is woken counts no more as soon as time has come, not when it runs."""

        def due() -> None:
            self._count(-1)
            wake()

        timer = self.call_later(seconds, due)
        self._count(1)
        return timer

    def _leave(self, timer: Timer) -> bool:
        """Whether the sleeper leaves before its time."""
        early = timer.cancel()
        if early:
            self._count(-1)
        return early

    def _due(self, goal: float) -> Timer | None:
        """The next timer due by `goal`, with the time moved to it; when there is none, the time is `goal`. In one step, so that who
        sets a timer and then looks at the time knows whether it was seen.
        """
        with self._changed:
            while self._heap and (self._heap[0][0] <= goal or not self._heap[0][2].pending):
                _, _, timer = heapq.heappop(self._heap)
                if timer.pending:
                    self._move(timer.when)
                    return timer
            self._move(goal)
        return None

    def _take(self, timer: Timer) -> Callable[[], object] | None:
        """The timer's call, for the one who gets it first."""
        with self._changed:
            call, timer._call = timer._call, None
            return call

    def _move(self, when: float) -> None:
        """Under the lock."""
        if when > self._now:
            self._now = when
            self._moves.append((time.monotonic(), when))

    def _count(self, change: int) -> None:
        with self._changed:
            self._sleepers += change
            self._changed.notify_all()
