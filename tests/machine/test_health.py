"""Health checks of a live cluster against a model of Envoy's rules: any row of calls, answers, updates, ejections and waits.

The model counts for itself. What must hold in any case: an endpoint that failed is picked in panic only, nobody is held for failing
before a check of him ended (but one that comes once all others have answered), and a cluster that sleeps knows nothing of anybody.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshlib.core.endpoint import Down
from meshlib.core.health import Answer
from meshlib.core.upstream import PickContext
from meshlib.model.events import EndpointChecked
from meshlib.model.health import CheckedAt, HealthCheck, HttpCheck
from meshlib.model.policy import Balancing, Outlier
from meshlib.runtime.checks import Checks
from meshlib.runtime.live import LiveCluster
from meshlib.testing import VirtualClock
from tests.support.live_kit import GATEWAY, cluster, endpoint, locality

HEALTHY, UNHEALTHY = 2, 3


@dataclass
class Held:
    """What Envoy would keep of a host."""

    failed: bool = True
    first: bool = True
    passes: int = 0
    failures: int = 0
    degraded: bool = False

    def hear(self, answer: Answer) -> None:
        if answer.good:
            self.failures = 0
            if self.failed:
                self.passes += 1
                if self.first or self.passes == HEALTHY:
                    self.failed = False
            self.degraded = answer.degraded
        else:
            self.passes = 0
            if not self.failed:
                self.failures += 1
                if not answer.counted or self.failures == UNHEALTHY:
                    self.failed, self.failures = True, 0
        self.first = False


answers = st.builds(
    lambda good, counted, degraded: Answer(
        good, "w", counted=not good and counted, degraded=good and degraded
    ),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


class Machine(RuleBasedStateMachine):
    @initialize(numbers=st.sets(st.integers(0, 5), min_size=1), panic=st.sampled_from([0.0, 50.0]))
    def begin(self, numbers: set[int], panic: float) -> None:
        self.clock = VirtualClock()
        self.events: list[object] = []
        self.off: set[int] = set()
        self.panic = panic
        self.numbers = numbers
        self.model: dict[str, Held] = {}
        self.settled = False
        self.checks = Checks(self.clock, idle=90.0)
        make = random.Random(1).random
        self.live = LiveCluster(
            self.config(), make, self.events.append, self.clock.now, self.clock.now(), checks=self.checks
        )

    def config(self):
        members = [
            endpoint(number, check=CheckedAt(off=True) if number in self.off else None)
            for number in sorted(self.numbers)
        ]
        return cluster(
            locality(*members),
            health_check=HealthCheck(HttpCheck("/"), healthy=HEALTHY, unhealthy=UNHEALTHY),
            outlier=Outlier(consecutive_5xx=2, base_ejection=1000.0, max_ejection_percent=100.0),
            balancing=Balancing(panic_threshold=self.panic),
        )

    @property
    def awake(self) -> bool:
        return self.live.health is not None and self.live.health.awake

    def members(self):
        assert self.live.health is not None
        found = self.live.health.members(self.clock.now())
        names = {live.name for live, _ in found}
        self.model = {name: self.model.get(name, Held()) for name in names}
        self.settle()
        return found

    def settle(self) -> None:
        self.settled = self.settled or not any(held.first for held in self.model.values())

    @rule(error=st.booleans())
    def call(self, error: bool) -> None:
        before = self.awake
        picked = self.live.pick(PickContext(), self.clock.now())
        if hasattr(picked, "endpoint"):
            down = picked.endpoint.down
            if down:
                usable = sum(not live.down for live in self.live.endpoints)
                assert self.panic, "nobody who is down is picked where there is no panic"
                assert 100 * usable / len(self.live.endpoints) < self.panic
            if error:
                picked.report(GATEWAY, self.clock.now())
            picked.release(self.clock.now())
        assert self.awake  # a call wakes it
        if not before:
            self.members()

    @rule(data=st.data(), answer=answers)
    def answer(self, data, answer: Answer) -> None:
        if not self.awake:
            return
        found = self.members()
        if not found:
            return
        live, check = data.draw(st.sampled_from(found))
        ejected = live.ejected
        assert self.live.health is not None
        wait = self.live.health.hear(live, answer, self.clock.now())
        self.live.health.settle()
        held = self.model[live.name]
        held.hear(answer)
        self.settle()
        assert (check.failed, check.degraded) == (held.failed, held.degraded)
        assert 5.0 <= wait <= 5.25
        assert live.ejected == (ejected and (held.failed or not answer.good))

    @rule(number=st.integers(0, 5))
    def comes(self, number: int) -> None:
        self.numbers = self.numbers | {number}
        self.update()

    @rule(number=st.integers(0, 5))
    def leaves(self, number: int) -> None:
        if len(self.numbers) > 1:
            self.numbers = self.numbers - {number}
            self.update()

    @rule(number=st.integers(0, 5))
    def is_switched(self, number: int) -> None:
        self.off = self.off ^ {number}
        self.update()

    def update(self) -> None:
        self.live.update(self.config(), self.clock.now())
        if self.awake:
            self.members()

    @rule(seconds=st.sampled_from([15.0, 100.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.checks.sweep()
        if not self.awake:
            self.model, self.settled = {}, False

    @invariant()
    def marks_are_what_is_known(self) -> None:
        if not hasattr(self, "live"):
            return
        for live in self.live.endpoints:
            held = self.model.get(live.name)
            marked = bool(live.down & Down.CHECK)
            if held is None:
                assert (marked, live.degraded, live.check) == (False, False, None), live
            else:
                assert marked == (held.failed and (self.settled or not held.first)), (live, held)
                assert live.degraded == held.degraded

    @invariant()
    def edges_alternate(self) -> None:
        if not hasattr(self, "live"):
            return
        told: dict[str, str] = {}
        for event in self.events:
            if isinstance(event, EndpointChecked) and event.edge:
                assert event.first or told.get(event.endpoint) != event.health, event
                told[event.endpoint] = event.health


TestHealth = Machine.TestCase
TestHealth.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
