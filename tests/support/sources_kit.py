"""Sources without a mesh: a runtime that keeps what is published, a worker whose time a test moves."""

from __future__ import annotations

from meshlib.runtime.worker import Worker
from meshlib.sources.merge import Merge
from meshlib.testing.clock import VirtualClock

__all__ = ["Bench"]


class Bench:
    """Sources on a virtual worker. `build(merge, bench)` makes them; `step` runs what is due.

    Attributes:
        published: Every row of parts that went into force, in order; the first is what `open` gave.
        changes: (source, state, error) of every change of a source's state.
        events: What observers were told.
    """

    def __init__(self, build, inherited=(), start=True):
        self.clock = VirtualClock(1000.0)
        self.worker = Worker(self.clock)
        self.published = []
        self.changes = []
        self.events = []
        self.merge = Merge(lambda merge: build(merge, self))
        self.published.append(self.merge.open(self, tuple(inherited)))
        if start:
            self.start()

    # --- what a runtime is to a Merge

    def random(self):
        return 0.0

    def emit(self, event):
        self.events.append(event)

    def want(self, name, authority=""):
        self.worker.post(lambda: self.merge.want(name, authority))

    def publish(self, parts):
        self.published.append(parts)

    def source_changed(self, source, state, error):
        self.changes.append((source, state, error))

    # --- what a test does

    def start(self):
        self.worker.post(self.merge.start)
        self.step()

    def step(self, seconds=0.0):
        """Move time, running each timer at its own instant."""
        goal = self.clock.now() + seconds
        while True:
            wait = self.worker.run_due()
            if wait is None or self.clock.now() + wait > goal:
                break
            self.clock.advance(wait)
        self.clock.advance(goal - self.clock.now())
        self.worker.run_due()

    @property
    def parts(self):
        """What is in force, by source."""
        return {part.source: part for part in self.published[-1]}

    def status(self, name):
        return next(status for status in self.merge.statuses() if status.name == name)

    def cluster(self, source, name):
        """A cluster in force."""
        return self.parts[source].clusters[name]

    def addresses(self, source, cluster):
        """The addresses of a cluster in force; None while nothing is known."""
        assignment = self.parts[source].clusters[cluster].assignment
        return None if assignment is None else [str(each.address) for each in assignment.endpoints]
