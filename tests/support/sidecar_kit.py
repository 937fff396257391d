"""Evidence of sidecars, made up, and a watch whose looks and answers a test orders."""

from __future__ import annotations

from meshlib.config import Config
from meshlib.runtime.worker import Worker
from meshlib.sidecar.evidence import Answer, Evidence, Listening, Probe
from meshlib.sidecar.watch import Watch
from meshlib.testing.clock import VirtualClock

__all__ = ["APPLICATION", "ISTIO", "LINKERD", "READY", "Bench", "seen", "settings"]

#: The user of the application.
APPLICATION = 1000

ISTIO = dict.fromkeys((15000, 15001, 15004, 15006, 15020, 15021, 15090), 1337)
LINKERD = dict.fromkeys((4140, 4143, 4190, 4191), 2102)


def settings(mode="auto", **others):
    return Config.from_mapping({"sidecar": {"mode": mode, **others}}).sidecar


def seen(listeners=(), *, redirected=True, uid=APPLICATION, host="0.0.0.0", **others):
    """A look that sees these listeners, a mapping of port to owner."""
    made = tuple(Listening(host, port, owner) for port, owner in dict(listeners).items())
    return Evidence(listeners=made, redirected=redirected, uid=uid, **others)


READY = {
    Probe.at(15021, "/healthz/ready"): Answer("answered", 200),
    Probe.at(4191, "/ready"): Answer("answered", 200, b"ready\n"),
    Probe.at(9902, "/ready"): Answer("answered", 200, b"READY"),
    Probe.at(21000, "/ready"): Answer("answered", 200, b"LIVE\n"),
}


class Bench:
    """A watch on a virtual worker. `evidence` is what the next look sees, `replies` what a probe is answered.

    Attributes:
        told: Every value that the watch told of.
        asked: Every probe that was asked.
        looks: How often it looked.
    """

    def __init__(self, evidence, replies=None, *, start=True, **config):
        self.clock = VirtualClock(1000.0)
        self.worker = Worker(self.clock)
        self.evidence = evidence
        self.replies = READY if replies is None else replies
        self.told, self.asked, self.held = [], [], []
        self.looks = 0
        self.holding = False
        self.watch = Watch(
            settings(**config),
            self.clock,
            self.told.append,
            collector=self,
            prober=self,
            apart=self._apart,
        )
        if start:
            self.watch.start(self.worker)
            self.step()

    # --- what a collector and a prober are to a watch

    def look(self):
        self.looks += 1
        return self.evidence

    def ask(self, probe):
        self.asked.append(probe)
        return self.replies.get(probe, Answer("refused"))

    def cancel(self):
        self.held.clear()

    def again(self):
        return self

    def _apart(self, job):
        if self.holding:
            self.held.append(job)
        else:
            job()
        return lambda timeout: None

    # --- what a test does

    @property
    def now(self):
        return self.watch.current

    def step(self, seconds=0.0):
        """Move time, running each timer at its own instant."""
        goal = self.clock.now() + seconds
        while True:
            wait = self.worker.run_due()
            left = goal - self.clock.now()
            if wait is None or wait > left:
                self.clock.advance(max(0.0, left))
                self.worker.run_due()
                return
            self.clock.advance(wait)
