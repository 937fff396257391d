"""A live cluster against a model of it: any row of picks, outcomes, updates and waits.

The model knows who is in the cluster, who is held and how often; of ejections and the breaker it only knows what must
hold in any case. At the end everything is released, and every counter is back at 0.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from meshlib.core.endpoint import LiveEndpoint
from meshlib.core.upstream import PickContext, Refusal, RefusalKind
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.endpoint import Health
from meshlib.model.events import BreakerChanged, EndpointEjected, EndpointReturned
from meshlib.model.policy import (
    Balancer,
    Balancing,
    Breaker,
    FailurePercentage,
    Limits,
    Outlier,
    RetryBudget,
    SuccessRate,
)
from tests.support.live_kit import Watched, cluster, endpoint, locality

endpoints = st.lists(
    st.builds(
        endpoint,
        st.integers(0, 7),
        st.integers(1, 5),
        st.sampled_from([Health.UNKNOWN, Health.UNKNOWN, Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY]),
    ),
    max_size=5,
)
localities = st.lists(
    st.builds(
        lambda members, zone, weight, priority: locality(
            *members, zone=zone, weight=weight, priority=priority
        ),
        endpoints,
        st.sampled_from("abc"),
        st.none() | st.integers(0, 3),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=3,
)
configs = st.builds(
    lambda places, kind, weighted, panic, outlier, breaker, most: cluster(
        *places,
        balancing=Balancing(kind, locality_weighted=weighted, panic_threshold=panic),
        outlier=outlier,
        breaker=breaker,
        limits=Limits(None, None, most, 2),
    ),
    localities,
    st.sampled_from(Balancer),
    st.booleans(),
    st.sampled_from([0.0, 50.0]),
    st.none()
    | st.builds(
        Outlier,
        consecutive_5xx=st.integers(0, 3),
        max_ejection_percent=st.sampled_from([30.0, 60.0, 100.0]),
        split_local_origin=st.booleans(),
        success_rate=st.none() | st.builds(SuccessRate, st.integers(1, 3), st.integers(1, 2), st.just(0.5)),
        failure_percentage=st.none()
        | st.builds(
            FailurePercentage,
            st.sampled_from([30.0, 100.0]),
            st.integers(1, 2),
            st.integers(1, 2),
            st.just(100),
            st.sampled_from([0, 100]),
        ),
    ),
    st.none() | st.builds(Breaker, st.integers(1, 3), st.just(10.0), st.integers(1, 2), st.integers(1, 2)),
    st.none() | st.integers(1, 6),
)
outcomes = st.sampled_from(
    [
        Outcome(OutcomeKind.OK, status=200),
        Outcome(OutcomeKind.OK, status=500),
        Outcome(OutcomeKind.OK, status=503),
        Outcome(OutcomeKind.OK, status=0, grpc=True),
        Outcome(OutcomeKind.OK, status=14, grpc=True),
        Outcome(OutcomeKind.CONNECT),
        Outcome(OutcomeKind.RESET, sent=True),
        Outcome(OutcomeKind.TIMEOUT, sent=True),
        Outcome(OutcomeKind.CANCELLED),
    ]
)


class LiveClusterMachine(RuleBasedStateMachine):
    picks = Bundle("picks")
    permits = Bundle("permits")

    @initialize(config=configs, seed=st.integers(0, 2**16))
    def start(self, config, seed):
        self.watched = Watched(config, seed=seed)
        self.live = self.watched.live
        self.held: list[LiveEndpoint] = []
        self.retries = self.retried = 0
        self.given: Counter[LiveEndpoint] = Counter()
        self.everybody: dict[int, LiveEndpoint] = {}

    # --- what may happen ----------------------------------------------------------------------------------------

    @rule(target=picks, tries=st.integers(0, 3))
    def pick(self, tries):
        tried = tuple(self.live.endpoints[:tries])
        limit = self.live.cluster.limits.max_requests
        full = limit is not None and len(self.held) >= limit
        usable = self.usable()
        picked = self.live.pick(PickContext(len(tried) + 1, tried), self.watched.now)
        if isinstance(picked, Refusal):
            self.check_refusal(picked, full=full)
            return multiple()
        assert not full
        found = picked.endpoint
        assert found in self.live.endpoints
        assert not found.gone
        if self.live.cluster.balancing.panic_threshold == 0.0:
            assert found.usable
        if usable == set(self.live.endpoints) and len({item.priority for item in usable}) == 1:
            weighted = self.live.cluster.balancing.locality_weighted
            if not weighted and usable - set(tried) and not self.degraded(usable):
                assert found not in tried
        self.held.append(found)
        self.given[found] += 1
        return picked

    @rule(pick=picks, outcome=outcomes)
    def report(self, pick, outcome):
        pick.report(outcome, self.watched.now)

    @rule(pick=consumes(picks), failure=st.none() | outcomes, again=st.booleans())
    def release(self, pick, failure, again):
        pick.release(self.watched.now, failure)
        if again:
            pick.release(self.watched.now, failure)
            pick.report(Outcome(OutcomeKind.CONNECT), self.watched.now)
        self.held.remove(pick.endpoint)

    @rule(tries=st.integers(0, 3))
    def peek(self, tries):
        before = [(item.active, item.down) for item in self.live.endpoints]
        seen = self.live.peek(PickContext(1, tuple(self.live.endpoints[:tries])))
        assert seen is None or seen in self.live.endpoints
        assert [(item.active, item.down) for item in self.live.endpoints] == before

    @rule(
        target=permits,
        budget=st.none() | st.builds(RetryBudget, st.sampled_from([0.0, 50.0]), st.integers(0, 2)),
    )
    def begin_retry(self, budget):
        permit = self.live.begin_retry(budget)
        if permit is None:
            assert self.retries >= 2 or budget is not None
            return multiple()
        assert self.retries < 2
        self.retries += 1
        self.retried += 1
        return permit

    @rule(permit=consumes(permits))
    def end_retry(self, permit):
        permit.release()
        permit.release()
        self.retries -= 1

    @rule(config=configs)
    def update(self, config):
        before = {item.address: item for item in self.live.endpoints}
        marks = {item.address: item.ejected for item in self.live.endpoints}
        told = len(self.watched.events)
        self.live.update(config, self.watched.now)
        # The sweep that was due before.
        judged = {item.endpoint for item in self.watched.events[told:] if isinstance(item, EndpointEjected)}
        for live in self.live.endpoints:
            if live.address in before:
                assert live is before[live.address]
                assert not live.ejected or marks[live.address] or live.name in judged
        still = set(self.live.endpoints)
        assert all(item.gone is (item not in still) for item in before.values())
        assert not any(item.gone for item in still)

    @rule()
    def change_a_number_only(self):
        config = self.live.cluster
        self.live.update(replace(config, connect_timeout=1.0), self.watched.now)

    @rule(seconds=st.sampled_from([0.1, 5.0, 10.0, 31.0, 400.0]))
    def wait(self, seconds):
        self.watched.now += seconds

    # --- what holds at any time ---------------------------------------------------------------------------------

    @invariant()
    def counters_are_what_is_held(self):
        assert self.live.active == len(self.held)
        assert self.live.retries == self.retries
        for item in {*self.live.endpoints, *self.held}:
            assert item.active == self.held.count(item)
            assert item.requests == self.given[item]
            assert 0 <= item.failures <= item.requests
            assert bool(item.last_error) == bool(item.failures)
        assert self.live.requests == self.given.total()
        assert self.live.failures == sum(item.failures for item in self.given)
        assert self.live.retried == self.retried

    @invariant()
    def no_more_are_out_than_may_be(self):
        out = [item for item in self.live.endpoints if item.ejected]
        assert not out or self.live.cluster.outlier is not None
        if self.live._ejections is not None:
            assert self.live._ejections.ejected == len(out)
        told = sum(isinstance(event, EndpointEjected) for event in self.watched.events)
        assert self.live.ejected == told

    @rule()
    def status_says_what_is(self):
        status = self.live.status(self.watched.now)
        assert status.active == len(self.held)
        assert [item.address for item in status.endpoints] == [item.name for item in self.live.endpoints]
        for item, live in zip(status.endpoints, self.live.endpoints, strict=True):
            assert (item.ejected_for is not None) == live.ejected
            assert item.ejected_for is None or item.ejected_for >= 0.0
            assert item.latency is None or item.latency.p50 <= item.latency.p99
        assert status.breaker in ("closed", "open", "half_open")
        assert self.live.cluster.breaker is not None or status.breaker == "closed"

    def teardown(self):
        if not hasattr(self, "live"):
            return
        self.events_pair_up()
        self.live.retire()
        assert isinstance(self.live.pick(PickContext(), self.watched.now), Refusal)
        assert not any(item.ejected and not item.gone for item in self.live.endpoints)

    def events_pair_up(self):
        """Nobody is ejected twice without having returned (or left and come anew), and the breaker moves in a row."""
        out: set[str] = set()
        state = "closed"
        for event in self.watched.events:
            if isinstance(event, EndpointEjected):
                out.add(event.endpoint)
                assert event.seconds > 0
            elif isinstance(event, EndpointReturned):
                assert event.endpoint in out
                out.discard(event.endpoint)
            elif isinstance(event, BreakerChanged):
                # A breaker that was switched off and on begins anew.
                assert event.old in (state, "closed")
                state = event.new

    # --- the model ----------------------------------------------------------------------------------------------

    def usable(self) -> set[LiveEndpoint]:
        return {item for item in self.live.endpoints if item.usable}

    def degraded(self, members) -> bool:
        return any(item.endpoint.health is Health.DEGRADED for item in members)

    def check_refusal(self, refusal, *, full):
        if refusal.kind is RefusalKind.MAX_REQUESTS:
            assert full
        elif refusal.kind is RefusalKind.NO_ENDPOINT:
            # Sweeps are done by the pick itself, so who returned just now counts.
            assert not self.usable()
            assert not self.live.endpoints or self.live.cluster.balancing.panic_threshold == 0.0
        else:
            assert refusal.kind is RefusalKind.BREAKER
            assert self.live.cluster.breaker is not None
            assert self.live.status(self.watched.now).breaker != "closed"
        assert repr(self.live.cluster.name) in refusal.detail


LiveClusterMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40)
TestLiveCluster = LiveClusterMachine.TestCase
