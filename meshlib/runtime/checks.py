"""Which clusters of a mesh have their endpoints' health asked for, and when that ends.

The asking is I/O and another room's: a :class:`Prober` does it, on a thread of its own. Beginning is posted to the worker, so that a
call starts no thread. ``_lock`` guards which clusters are awake; nothing is called under it.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Protocol

from meshlib.runtime.interest import IDLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.runtime.clock import Clock
    from meshlib.runtime.live_health import LiveHealth
    from meshlib.runtime.worker import Worker

__all__ = ["Checks", "Prober"]


class Prober(Protocol):
    """Asks endpoints. Thread-safe; it ends its thread by itself when it has nobody to ask."""

    def begin(self, health: LiveHealth, worker: Worker) -> None:
        """Ask the endpoints of ``health``, until ``end``. Twice is no error."""
        ...

    def look(self, health: LiveHealth) -> None:
        """Its endpoints, or how they are asked, may be others. Blocks for nothing."""
        ...

    def end(self, health: LiveHealth) -> None:
        """Ask them no more. What is under way is given up. Blocks for nothing."""
        ...

    def settle(self, timeout: float) -> bool:
        """Wait until its thread is gone, if it has nobody to ask; whether it is."""
        ...


class Checks:
    """Of one mesh in one process. Thread-safe; no method but ``stop`` waits.

    Args:
        clock: Monotonic time.
        prober: Made on first use.
        idle: Seconds without a call after which a cluster's endpoints are asked no more.
    """

    def __init__(
        self, clock: Clock, prober: Callable[[Clock], Prober] | None = None, idle: float = IDLE
    ) -> None:
        self.now = clock.now
        self.idle = idle
        self._clock = clock
        self._make = prober
        self._prober: Prober | None = None
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self._awake: dict[LiveHealth, None] = {}

    def start(self, worker: Worker) -> None:
        """Go on, after ``stop`` or for the first time."""
        self._worker = worker
        for health in self._all():
            worker.post(partial(self._begin, health, worker))

    def stop(self, timeout: float) -> None:
        """Ask nobody, and wait for the end of the thread. What is known stays."""
        self._worker = None
        prober = self._prober
        if prober is None:
            return
        for health in self._all():
            prober.end(health)
        prober.settle(timeout)

    def begin(self, health: LiveHealth) -> None:
        """A call uses its cluster."""
        with self._lock:
            self._awake[health] = None
        if not health.awake:  # its cluster left meanwhile
            self.end(health)
            return
        worker = self._worker
        if worker is not None:
            worker.post(partial(self._begin, health, worker))

    def look(self, health: LiveHealth) -> None:
        """Its cluster's configuration is another."""
        if self._prober is not None and self._worker is not None:
            self._prober.look(health)

    def end(self, health: LiveHealth) -> None:
        """It sleeps, or its cluster left."""
        with self._lock:
            self._awake.pop(health, None)
        if self._prober is not None:
            self._prober.end(health)

    def sweep(self) -> None:
        """Let those sleep that no call has used for long. On the worker, now and then."""
        now = self.now()
        for health in self._all():
            if health.sweep(now, self.idle) and not health.stays:
                health.sleep()

    def _all(self) -> list[LiveHealth]:
        with self._lock:
            return list(self._awake)

    def _begin(self, health: LiveHealth, worker: Worker) -> None:
        """On the worker."""
        if self._worker is not worker or self._make is None:
            return
        with self._lock:
            wanted = health in self._awake
        if wanted:
            if self._prober is None:
                self._prober = self._make(self._clock)
            self._prober.begin(health, worker)
            if self._worker is not worker:  # stopped meanwhile
                self._prober.end(health)
