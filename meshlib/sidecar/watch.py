"""Keeps what is known of the sidecar true, in one process.

Theory. The first look is the constructor's: it reads what the system and the environment tell, asks nobody, and takes
milliseconds at most, so that the first call already knows whether it waits. Everything after that runs on the runtime's worker:
timers look again (:mod:`meshlib.sidecar.course` says how often), and where a look wants an answer from a health port, a thread
of its own asks and posts what came. ``current`` is swapped whole and read without a lock.

A child of a fork has a runtime of its own, and with it a watch of its own that looks anew.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.runtime import threads
from meshlib.sidecar.collect import Collector
from meshlib.sidecar.course import PERIODS, Course
from meshlib.sidecar.detect import detect
from meshlib.sidecar.inspect import answered
from meshlib.sidecar.probe import Prober

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.config import SidecarConfig
    from meshlib.model.sidecar import Sidecar
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.worker import Timer, Worker
    from meshlib.sidecar.detect import Finding
    from meshlib.sidecar.evidence import Evidence

__all__ = ["Watch"]

#: Seconds for which ``stop`` waits for a question that is under way; its socket is shut down before that.
_STOP = 0.5


class Watch:
    """The sidecar of this process, now.

    How a runtime uses it: make one where the runtime is made (``current`` holds from then on), ``start(worker)`` whenever the
    runtime begins or resumes, ``stop()`` on the worker before it pauses or ends. Both may be called any number of times, in
    turn. With ``sidecar.mode = "off"`` all of this does nothing, and no system call is made.

    Args:
        settings: The section ``[sidecar]``.
        clock: The runtime's; ``current.since`` is of it.
        changed: Called on the worker with each new value, after ``current`` is it; must not block. Not called for the first, nor
            where only the evidence is worded otherwise.
        collector, prober, apart: For tests: who looks, who asks, and what runs a question apart from the worker.
    """

    def __init__(
        self,
        settings: SidecarConfig,
        clock: Clock,
        changed: Callable[[Sidecar], object],
        *,
        collector: Collector | None = None,
        prober: Prober | None = None,
        apart: Callable[[Callable[[], None]], Callable[[float], object]] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._apart = apart or _in_a_thread
        self._course = Course(settings.start_window)
        self._worker: Worker | None = None
        self._timer: Timer | None = None
        self._join: Callable[[float], object] | None = None  # of a question under way
        self._round = 0  # what comes of an earlier one counts no more
        self._suspected = False
        self._off = settings.mode == "off"
        if not self._off:
            self._collector = collector or Collector(settings)
            self._prober = prober or Prober()
            self._course.step(self._detect(self._collector.look()), clock.now())

    @property
    def current(self) -> Sidecar:
        """What holds now. Any thread; a read of an attribute."""
        return self._course.current

    def start(self, worker: Worker) -> None:
        """Look again from now on, on ``worker``. Any thread; blocks for nothing."""
        if not self._off:
            self._worker = worker
            worker.post(lambda: self._resume(worker))

    def stop(self) -> None:
        """End timers and questions; ``current`` stays. On the worker; takes milliseconds, at most half a second."""
        self._worker = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._join is not None:
            self._round += 1
            self._prober.cancel()
            self._join(_STOP)
            self._join = None

    def suspect(self) -> None:
        """A call could not connect to it: look at once. Any thread; blocks for nothing, and many at once make one look.
        Whoever needs the verdict waits for ``changed``, a second at most.
        """
        worker = self._worker
        if worker is not None and not self._suspected:
            self._suspected = True
            worker.post(self._look)

    def _resume(self, worker: Worker) -> None:
        if self._worker is worker:  # else it was stopped before its turn came
            self._prober = self._prober.again()
            self._look()

    def _look(self) -> None:
        """On the worker. Whatever fails in it (no thread can be started), the next look comes."""
        worker = self._worker
        if worker is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        suspected, self._suspected = self._suspected, False
        try:
            self._take(worker, suspected=suspected)
        finally:
            self._timer = worker.later(PERIODS[self.current.state], self._look)

    def _take(self, worker: Worker, *, suspected: bool) -> None:
        evidence = self._collector.look()
        found = self._detect(evidence)
        carrying = self.current.carries
        if found.probe is None or (carrying and found.listening is not None):
            self._step(found, suspected=suspected)
        else:
            if self.current.state in ("absent", "starting"):  # calls wait, or wait no longer
                self._step(found, suspected=False)
            if self._join is None:
                self._ask(worker, evidence, suspected=suspected)

    def _ask(self, worker: Worker, evidence: Evidence, *, suspected: bool) -> None:
        number, prober = self._round, self._prober

        def ask() -> None:
            found: Finding | None = None
            try:
                found = answered(evidence, self._detect, prober)
            finally:
                worker.post(lambda: self._answered(found, number, suspected=suspected))

        self._join = self._apart(ask)

    def _answered(self, found: Finding | None, number: int, *, suspected: bool) -> None:
        if number == self._round:
            self._join = None
            if found is not None:
                self._step(found, suspected=suspected)

    def _detect(self, evidence: Evidence) -> Finding:
        return detect(evidence, self._settings, late=self._course.late(self._clock.now()))

    def _step(self, found: Finding, *, suspected: bool) -> None:
        before = self.current
        after = self._course.step(found, self._clock.now(), suspected=suspected)
        if replace(after, evidence=before.evidence) != before:
            self._changed(after)


def _in_a_thread(job: Callable[[], None]) -> Callable[[float], object]:
    thread = threading.Thread(target=job, name="meshlib-sidecar", daemon=True)
    threads.start(thread)
    return lambda timeout: threads.join(thread, timeout)
