"""Ends idle connections at their time, for all pools of a worker, on that worker: there is no further thread.

The worker knows the reaper weakly, and pools know it strongly, so that it goes with the last of them. A child's worker is
another, as its pools are. Where the worker stops (the mesh is closed, or pauses for a fork), nobody would come any more: what
is idle ends then.

Locks: ``_lock`` guards the heap and the timer, ``_making`` that a worker has one reaper; both for microseconds. No finalizer
takes them.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import weakref
from math import inf
from typing import TYPE_CHECKING, Protocol

from meshlib.runtime.process import Local

if TYPE_CHECKING:
    from meshlib.runtime.worker import Timer, Worker

__all__ = ["Reaped", "Reaper", "reaper_of"]

#: Between two rounds, in seconds: thousands of pools shall not wake the worker thousands of times a second.
_PAUSE = 0.1


class Reaped(Protocol):
    """What has something to end now and then."""

    def reap(self) -> float:
        """End what is to end now; when there is something to do next, ``inf`` for never. Blocks for nothing."""
        ...

    def retire(self) -> None:
        """Nobody will come any more: end what is idle."""
        ...


class Reaper:
    """Calls ``reap`` of those that are watched at their time. Thread-safe."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._lock = threading.Lock()
        self._heap: list[tuple[float, int, Reaped]] = []
        self._due: dict[Reaped, float] = {}  # which entry of the heap counts
        self._order = itertools.count()
        self._timer: Timer | None = None
        self._rested = -inf  # no round before
        worker.attach(self)

    def watch(self, reaped: Reaped, when: float) -> None:
        """Call its ``reap`` at ``when``, on the worker's clock, and from then on when that says."""
        with self._lock:
            self._put(reaped, when)
            self._arm()

    def worker_stopped(self) -> None:
        """End what is idle: the worker's timers do not run."""
        with self._lock:
            watched = list(self._due)
            self._due.clear()
            self._heap.clear()
            self._timer = None
        for reaped in watched:
            reaped.retire()

    def _put(self, reaped: Reaped, when: float) -> None:
        self._due[reaped] = when
        heapq.heappush(self._heap, (when, next(self._order), reaped))

    def _arm(self) -> None:
        """See that a timer fires for the first of them. Under the lock, which the worker takes none of."""
        if not self._heap:
            return
        when, timer = max(self._heap[0][0], self._rested), self._timer
        if timer is not None:
            if timer.when <= when:
                return
            timer.cancel()
        known = weakref.ref(self)
        self._timer = self.worker.later(when - self.worker.clock.now(), lambda: _round(known))

    def round(self) -> None:
        """On the worker: reap what is due."""
        now = self.worker.clock.now()
        for reaped in self._take(now):
            when = reaped.reap()
            if when != inf:
                with self._lock:
                    self._put(reaped, when)
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._rested = None, now + _PAUSE
            self._arm()

    def _take(self, now: float) -> list[Reaped]:
        due = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                when, _, reaped = heapq.heappop(self._heap)
                if self._due.get(reaped) == when:
                    del self._due[reaped]
                    due.append(reaped)
        return due


def _round(known: weakref.ref[Reaper]) -> None:
    reaper = known()
    if reaper is not None:
        reaper.round()


_reapers: weakref.WeakKeyDictionary[Worker, weakref.ref[Reaper]] = weakref.WeakKeyDictionary()
_making = Local(threading.Lock)


def reaper_of(worker: Worker) -> Reaper:
    """The one of ``worker``."""
    with _making.get():
        known = _reapers.get(worker)
        reaper = known() if known is not None else None
        if reaper is None:
            reaper = Reaper(worker)
            _reapers[worker] = weakref.ref(reaper)
        return reaper
