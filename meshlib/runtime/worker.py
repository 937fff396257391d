"""One thread that runs posted commands and timers, one after the other.

Theory. Whatever writes configuration runs here, so that there is one writer and sources need no locks of their own.
Commands run in the order in which they were posted; a timer that is due goes before them, if it was set by the time the worker came to the
next of them: one that is set again and again for at once holds nobody up. Nothing that runs here may block on a network: whoever needs
that (a stream, a DNS query) has a thread of its own and posts what came of it.

On a clock that somebody else moves the thread cannot sleep until a timer is due: it asks the clock for an alarm, and
whoever moves the time waits there until everything that fell due has run, so that time never overtakes a timer.

A finalizer may post, and the collector runs anywhere, also in this thread and under any lock. So posting takes none: what
is to run goes into a deque, and then the bell is rung, a raw lock on which the thread sleeps and which anybody may release.
One that was rung already stays so, and the thread looks into the deques after each ring, so that none is missed.

``_turn`` guards what only whoever runs commands needs: the heap, the flags, and that the thread rests. Nobody posts under it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from meshlib.runtime import threads
from meshlib.runtime.known import Known

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.runtime.clock import Clock

__all__ = ["Follower", "Timer", "Worker"]

_log = logging.getLogger("meshlib")

#: Real seconds for which whoever moves a clock waits for what fell due.
_CATCHING_UP = 10.0


#: What Python (from 3.12 on) says of a thread that is to start when the program has come to its end.
_ENDING = "at interpreter shutdown"


class Timer:
    """A command that is to run at ``when`` (the clock's seconds). ``cancel`` may be called from any thread, also after
    it ran; it does not stop a command that is already running.
    """

    __slots__ = ("command", "order", "when")

    def __init__(self, when: float, order: int, command: Callable[[], object]) -> None:
        self.when = when
        self.order = order
        self.command: Callable[[], object] | None = command

    def cancel(self) -> None:
        self.command = None

    def __lt__(self, other: Timer) -> bool:
        return (self.when, self.order) < (other.when, other.order)


class Follower(Protocol):
    """Whoever relies on timers that do not run any more once the worker is stopped."""

    def worker_stopped(self) -> None:
        """Called by whoever stops it. Blocks for nothing."""
        ...


class Worker:
    """Runs commands on one daemon thread. Every method may be called from any thread.

    A command that raises is logged and the next one runs. Without ``start`` nothing runs by itself: a test calls
    ``run_due`` and moves its virtual clock.
    """

    def __init__(self, clock: Clock, name: str = "meshlib-worker") -> None:
        self.clock = clock
        #: For commands that compute for long.
        self.give_way = threads.GiveWay()
        self._name = name
        self._turn = threading.Lock()
        self._bell = _new_bell()
        self._posted: deque[Callable[[], object]] = deque()
        self._set: deque[Timer] = deque()  # timers that are not in the heap yet
        self._timers: list[Timer] = []
        self._order = itertools.count()
        self._came: int | None = None  # how many timers were set when the worker came to the next posted one
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._followers: Known[Follower] = Known()
        self._resting = threading.Event()  # nothing is due, for all that the thread knows

    @property
    def running(self) -> bool:
        """Whether a thread runs the commands."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    @property
    def stopped(self) -> bool:
        """Whether it was stopped and not started again: what is posted waits, perhaps for ever."""
        return self._stopping

    @property
    def is_current(self) -> bool:
        """Whether the caller is a command of this worker."""
        return self._thread is threading.current_thread()

    def start(self) -> None:
        """Start the thread, unless it runs. What was posted before waits for it."""
        with self._turn:
            if self._thread is not None and self._thread.is_alive() and not self._stopping:
                return
            self._stopping = False
            self._bell = bell = _new_bell()  # a thread that is to end has its own
            self._thread = threading.Thread(target=self._run, args=(bell,), name=self._name, daemon=True)
            threads.start(self._thread)

    def stop(self, timeout: float = 1.0, *, for_now: bool = False) -> bool:
        """End the thread after the command that it is in; True if it ended within ``timeout`` seconds.

        Commands and timers that did not run stay, for a later ``start``.
        """
        with self._turn:
            thread = self._thread
            self._stopping = True
        self._ring()
        ended = thread is None or thread is threading.current_thread() or threads.join(thread, timeout)
        if not for_now:
            for follower in self._followers:
                self._guarded(follower.worker_stopped)
        return ended

    def attach(self, follower: Follower) -> None:
        """Tell ``follower`` of each ``stop``; it is known weakly."""
        self._followers.add(follower)

    def post(self, command: Callable[[], object]) -> None:
        """Run ``command`` soon. Takes no lock: finalizers may call it, too."""
        self._posted.append(command)
        self._ring()

    def later(self, seconds: float, command: Callable[[], object]) -> Timer:
        """Run ``command`` once, ``seconds`` from now. As ``post``."""
        timer = Timer(self.clock.now() + max(0.0, seconds), next(self._order), command)
        self._set.append(timer)
        self._ring()
        if self.clock.virtual:
            self.clock.alarm(timer.when, self._catch_up)
        return timer

    def call(self, command: Callable[[], object], timeout: float) -> bool:
        """Run ``command`` and wait for its end, at most ``timeout`` seconds. Runs at once where the caller is a command
        of this worker, or no thread runs. False: it did not end in time (it still will).
        """
        if self.is_current or not self.running:
            self._guarded(command)
            return True
        done = threading.Event()

        def run() -> None:
            try:
                command()
            finally:
                done.set()

        self.post(run)
        return done.wait(timeout)

    def run_due(self) -> float | None:
        """Run everything that is due now, in the calling thread, also what that posts. Seconds until the next timer, or
        None if there is none. For a worker without a thread.
        """
        while True:
            with self._turn:
                command, wait = self._next()
            if command is None:
                return wait
            self._guarded(command)

    def _catch_up(self) -> None:
        """A clock that somebody else moves has come to a timer: let the thread run it, and wait until it has."""
        if self.is_current or not self.running:
            return
        with self._turn:
            self._resting.clear()
        self._ring()
        if not self._resting.wait(_CATCHING_UP):
            _log.warning("meshlib: a background command takes longer than %g s; time moves on", _CATCHING_UP)

    def _ring(self) -> None:
        with suppress(RuntimeError):  # it is rung already
            self._bell.release()

    def _run(self, bell: threading.Lock) -> None:
        mine = threading.current_thread()
        while True:
            with self._turn:
                if self._stopping or self._thread is not mine:
                    return
                command, wait = self._next()
                if command is None:
                    self._resting.set()
            if command is not None:
                self._guarded(command)
            else:
                bell.acquire(timeout=-1 if wait is None else min(wait, threading.TIMEOUT_MAX))

    def _next(self) -> tuple[Callable[[], object] | None, float | None]:
        """The next command, or None and the seconds until there may be one. Under ``_turn``."""
        timers, posted = self._timers, self._posted
        if self._came is None:
            self._came = next(self._order)
        while self._set:
            heapq.heappush(timers, self._set.popleft())
        wait: float | None
        while timers:
            timer = timers[0]
            wait = timer.when - self.clock.now()
            if timer.command is None:
                heapq.heappop(timers)
            elif wait <= 0 and not (posted and timer.order > self._came):
                heapq.heappop(timers)
                command, timer.command = timer.command, None
                if command is not None:  # else it was cancelled between two lines
                    return command, None
            else:
                break
        else:
            wait = None
        self._came = None
        return (posted.popleft(), None) if posted else (None, wait)

    @staticmethod
    def _guarded(command: Callable[[], object]) -> None:
        try:
            command()
        except Exception as error:  # noqa: BLE001 - logged below
            if isinstance(error, RuntimeError) and _ENDING in str(error):
                _log.debug("meshlib: the process ends, and %r is not run any more", command)
            else:
                _log.exception("meshlib: a background command failed: %r", command)


def _new_bell() -> threading.Lock:
    bell = threading.Lock()
    bell.acquire()
    return bell
