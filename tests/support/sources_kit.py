"""Sources without a mesh: a runtime that keeps what is published, a worker whose time a test moves."""

from __future__ import annotations

from meshlib.runtime.worker import Worker
from meshlib.sources.merge import Merge
from meshlib.testing.clock import VirtualClock
from meshlib.xds.bootstrap import Server
from tests.support.xds_kit import read, response

__all__ = ["SERVER", "Bench", "FakeStream", "ScriptedBench", "XdsBench"]

SERVER = Server("127.0.0.1:18000")


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


class XdsBench:
    """A bench with the source of a control plane; each kind of it makes its own ``bench``."""

    bench: Bench

    def want(self, *names):
        for name in names:
            self.bench.merge.want(name, name)
        self.bench.step()

    @property
    def part(self):
        """What of it is in force; None before anything is."""
        return self.bench.parts.get("xds")

    @property
    def status(self):
        return self.bench.status("xds")


class FakeStream:
    """A stream whose other end is the test. `ready`, `answer` and `end` are what the server does."""

    def __init__(self, server, ears, post, protocol):
        self.server, self.ears, self.post, self.protocol = server, ears, post, protocol
        self.written = []
        self.consumptions = 0
        self.cancelled = False

    def send(self, raw):
        self.written.append(raw)

    def consumed(self):
        self.consumptions += 1

    def cancel(self, timeout=0.5):
        self.cancelled = True

    def ready(self):
        self.post(lambda: self.ears.on_ready(self))

    def answer(self, raw):
        self.post(lambda: self.ears.on_message(self, raw))

    def end(self, error="", *, unimplemented=False):
        self.post(lambda: self.ears.on_end(self, error, unimplemented=unimplemented))

    @property
    def requests(self):
        """(short name, names, version, nonce, refusal) of what was written."""
        return read(self.written)


class ScriptedBench(XdsBench):
    """Of a control plane whose streams are fake. ``at``: which of them, by when it was opened; the newest unless it is said."""

    def __init__(self, build, inherited=(), start=True):
        self.streams = []
        self.nonce = 0
        self.bench = Bench(build, inherited, start)

    def open_stream(self, server, ears, post, protocol):
        self.streams.append(FakeStream(server, ears, post, protocol))
        return self.streams[-1]

    def up(self, at=-1):
        self.streams[at].ready()
        self.bench.step()

    def answer(self, short, *resources, at=-1, **fields):
        self.nonce += 1
        self.streams[at].answer(response(short, *resources, nonce=f"n{self.nonce}", **fields))
        self.bench.step()

    def end(self, error="", *, at=-1, **options):
        self.streams[at].end(error, **options)
        self.bench.step()
