"""An aggregate in use: its picks are its leaves', by shares of all their levels (CD-04, DV-11)."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.core.aggregate import split
from meshlib.core.health import Answer
from meshlib.core.override import Override, spelled
from meshlib.core.upstream import PickContext, Refusal, RefusalKind
from meshlib.model.cluster import Cluster, Discovery
from meshlib.model.endpoint import Health
from meshlib.model.health import HealthCheck, HttpCheck
from meshlib.model.policy import Balancer, Balancing, Limits, Outlier, RetryBudget
from meshlib.model.snapshot import Part, Snapshot
from meshlib.model.subset import Selector, SubsetFallback, Subsets, value_of
from meshlib.runtime.aggregate import LiveAggregate
from meshlib.runtime.checks import Checks
from meshlib.runtime.clusters import Clusters
from meshlib.testing import VirtualClock
from tests.support.live_kit import ERROR, changed, cluster, endpoint, flat, locality

WELL, ILL = Health.HEALTHY, Health.UNHEALTHY


class Now:
    seconds = 0.0

    def now(self):
        return self.seconds


class World:
    """Live clusters of one part, with the aggregate ``all``."""

    def __init__(self, *clusters, names=None, seed=1, **fields):
        self.clock = Now()
        self.clusters = Clusters(self.clock, random.Random(seed).random)
        self.lacking = {}
        self.put(*clusters, names=names, **fields)

    def put(self, *clusters, names=None, **fields):
        leaves = tuple(names or (item.name for item in clusters))
        whole = Cluster("all", Discovery.AGGREGATE, children=leaves, leaves=leaves, **fields)
        self.publish(*clusters, whole)

    def publish(self, *clusters):
        held = {item.name: item for item in clusters}
        part = Part("xds", clusters=held, lacking=self.lacking)
        self.clusters.reconcile(Snapshot((part,)), self.clock.seconds)

    @property
    def all(self):
        return self.clusters.get("xds", "all")

    def leaf(self, name):
        return self.clusters.get("xds", name)

    def pick(self, **fields):
        return self.all.pick(PickContext(**fields), self.clock.seconds)

    def shares(self, count=400, **fields):
        found = Counter()
        for _ in range(count):
            picked = self.pick(**fields)
            if isinstance(picked, Refusal):
                found[picked.kind] += 1
            else:
                found[picked.upstream.cluster.name] += 1
                picked.release(self.clock.seconds)
        return found


def levels(name, *rows, base=0, **fields):
    """A cluster with these levels, each a list of healths."""
    groups = [
        locality(
            *(endpoint(base + 16 * number + index, health=health) for index, health in enumerate(row)),
            priority=number,
        )
        for number, row in enumerate(rows)
    ]
    return cluster(*groups, name=name, **fields)


def test_the_pick_is_the_leafs():
    world = World(flat(2, name="a"), flat(2, name="b"))
    picked = world.pick()
    assert picked.upstream is world.leaf("a")
    assert (world.leaf("a").active, world.leaf("b").active, world.all.active) == (1, 0, 1)
    picked.release(0.0)
    assert world.all.active == 0


def test_load_spills_over_as_among_levels():
    world = World(levels("a", [WELL, WELL, ILL, ILL]), levels("b", [WELL], base=8))
    found = world.shares(2000)
    assert abs(found["a"] / 2000 - 0.7) < 0.05


def test_the_level_that_was_drawn_is_the_one_that_is_called():
    """Two levels of the first leaf, and one of the second, have 46, 46 and 8 percent."""
    world = World(levels("a", [WELL, ILL, ILL], [WELL, ILL, ILL]), levels("b", [WELL], base=64))
    found = Counter()
    for _ in range(3000):
        picked = world.pick()
        found[picked.upstream.cluster.name, picked.endpoint.priority] += 1
        picked.release(0.0)
    assert {key: round(count / 30) for key, count in found.items()} == {
        ("a", 0): pytest.approx(46, abs=4),
        ("a", 1): pytest.approx(46, abs=4),
        ("b", 0): pytest.approx(8, abs=3),
    }


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.lists(st.sampled_from([WELL, ILL, Health.DEGRADED]), max_size=4), min_size=1, max_size=3),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([0.0, 50.0]),
)
def test_no_share_that_the_split_does_not_give(shapes, threshold):
    """Every pick is of a level that has load, and of nobody who is not to be called there."""
    balancing = Balancing(panic_threshold=threshold)
    leaves = [
        levels(f"c{number}", *rows, base=64 * number, balancing=balancing)
        for number, rows in enumerate(shapes)
    ]
    world = World(*leaves, balancing=balancing)
    told = [world.leaf(f"c{n}")._balances.of(PickContext()).levels for n in range(len(shapes))]
    made = split(told, threshold)
    for _ in range(60):
        picked = world.pick()
        if isinstance(picked, Refusal):
            assert made is None or threshold == 0.0
            continue
        assert made is not None
        name, priority = picked.upstream.cluster.name, picked.endpoint.priority
        number = int(name[1:])
        assert any(place.leaf == number and place.level == priority for place in made.places), (
            name,
            priority,
            made,
        )
        if threshold == 0.0:
            assert picked.endpoint.endpoint.health is not ILL
        picked.release(0.0)


def test_an_ejection_moves_load_and_its_end_brings_it_back():
    """Who is ejected is not picked, so that nobody but the aggregate looks for the end of it."""
    outlier = Outlier(consecutive_5xx=1, max_ejection_percent=100.0)
    world = World(flat(1, name="a", outlier=outlier), flat(1, name="b"))
    picked = world.pick()
    picked.report(ERROR, 0.0)
    picked.release(0.0)
    assert world.shares() == {"b": 400}
    world.clock.seconds = 100.0
    assert world.shares() == {"a": 400}


def test_what_the_leaf_refuses_is_refused():
    """Envoy and gRPC do not go on with the next leaf."""
    world = World(flat(2, name="a", limits=Limits(max_requests=1)), flat(2, name="b"))
    held = world.pick()
    refused = world.pick()
    assert isinstance(refused, Refusal)
    assert (refused.kind, "'a'" in refused.detail) == (RefusalKind.MAX_REQUESTS, True)
    held.release(0.0)
    assert world.shares(5) == {"a": 5}


def test_one_that_is_not_there_is_skipped_and_one_that_comes_is_used():
    world = World(flat(2, name="b"), names=["a", "b"])
    assert world.shares(5) == {"b": 5}
    world.put(flat(2, name="a"), flat(2, name="b"))
    assert world.shares(5) == {"a": 5}
    world.put(flat(2, name="b"), names=["a", "b"])
    assert world.shares(5) == {"b": 5}


def test_one_that_is_kept_for_calls_under_way_has_no_new_ones():
    world = World(flat(2, name="a"), flat(2, name="b"))
    world.lacking = {"a": "does not exist"}
    world.put(flat(2, name="a"), flat(2, name="b"))
    assert world.shares(5) == {"b": 5}


def test_nobody_is_there():
    world = World(names=["a", "b"])
    refused = world.pick()
    assert isinstance(refused, Refusal)
    assert refused.kind is RefusalKind.NO_ENDPOINT
    assert refused.detail == "aggregate cluster 'all' has nobody to call: 'a' is not there; 'b' is not there"
    assert world.all.cluster.assignment is not None, "there is nothing to wait for"


def test_what_may_come_is_waited_for():
    """A plan waits where a cluster has no assignment."""
    world = World(names=["a"])
    world.lacking = {"a": ""}
    world.put(names=["a"])
    assert world.all.cluster.assignment is None
    world.lacking = {}
    world.put(replace(flat(1, name="a"), assignment=None))
    assert world.all.cluster.assignment is None
    world.put(flat(1, name="a"))
    assert world.all.cluster.assignment is not None
    assert world.shares(5) == {"a": 5}


def test_of_no_use():
    world = World(flat(1, name="a"), unassigned="it is nested too deep")
    world.publish(replace(world.all.given, leaves=()))
    refused = world.pick()
    assert isinstance(refused, Refusal)
    assert "nested too deep" in refused.detail


def test_retries_are_the_aggregates():
    """CB-03: as in Envoy; what a leaf says of retries does not count."""
    world = World(flat(1, name="a", limits=Limits(max_retries=0)), limits=Limits(max_retries=1))
    first = world.all.begin_retry(None)
    assert first is not None
    assert world.all.begin_retry(None) is None
    first.release()
    first.release()
    second = world.all.begin_retry(None)
    assert second is not None
    second.release()
    assert (world.all.retries, world.all.retried, world.all.overflows) == (0, 2, 1)
    assert world.all.begin_retry(None, limited=False) is not None


def test_a_budget_counts_the_calls_of_all_leaves():
    world = World(flat(1, name="a"), limits=Limits(budget=RetryBudget(50.0, 0)))
    assert world.all.begin_retry(None) is None
    held = [world.pick() for _ in range(2)]
    permit = world.all.begin_retry(None)
    assert permit is not None
    for pick in held:
        pick.release(0.0)


def test_calls_of_priority_high_are_counted_by_themselves():
    """CB-01: requests at the leaves, retries at the aggregate."""
    leaf = flat(1, name="a", limits=Limits(max_requests=1), high_limits=Limits(max_requests=1))
    world = World(leaf, limits=Limits(max_retries=0), high_limits=Limits(budget=RetryBudget(50.0, 1)))
    high = world.all.high
    assert high is world.all.high
    held = [world.pick(), high.pick(PickContext(), 0.0)]
    assert [item.upstream.cluster.high for item in held] == [False, True]
    assert isinstance(world.pick(), Refusal)
    assert isinstance(high.pick(PickContext(), 0.0), Refusal)
    assert world.all.begin_retry(None) is None
    permit = high.begin_retry(None)
    assert permit is not None
    assert high.begin_retry(None) is None
    permit.release()
    for pick in held:
        pick.release(0.0)
    assert (world.leaf("a").active, world.leaf("a").high.active, high.retries) == (0, 0, 0)


def test_a_leaf_that_hashes_has_the_key():
    """LB-03: the leaf is drawn, and the key chooses there."""
    hashing = Balancing(Balancer.MAGLEV)
    world = World(levels("a", [WELL] * 4, balancing=hashing), flat(2, name="b"))
    assert world.all.consistent
    for key in range(20):
        chosen = {world.pick(hash=key).endpoint.name for _ in range(5)}
        assert len(chosen) == 1


def test_those_tried_are_avoided():
    """As long as their level has another."""
    world = World(flat(3, name="a"))
    first = world.pick()
    second = world.pick(attempt=2, tried=(first.endpoint,))
    third = world.pick(attempt=3, tried=(first.endpoint, second.endpoint))
    assert len({first.endpoint, second.endpoint, third.endpoint}) == 3


class TestGrpc:
    def test_the_first_that_can_be_reached(self):
        """CD-04: whatever its health beside others is worth."""
        world = World(levels("a", [WELL, ILL, ILL, ILL]), levels("b", [WELL], base=8))
        assert world.shares(50, grpc=True) == {"a": 50}
        [first] = [item for item in world.leaf("a").endpoints if not item.down]
        world.leaf("a").mark_reached(first, 1)
        assert world.shares(50, grpc=True) == {"b": 50}
        assert world.all.reached()
        [other] = world.leaf("b").endpoints
        world.leaf("b").mark_reached(other, 1)
        assert not world.all.reached()
        assert world.shares(50, grpc=True) == {"a": 50}, "where nobody can be reached, the first"
        world.leaf("a").mark_reached(first, -1)
        world.leaf("b").mark_reached(other, -1)
        assert world.shares(50, grpc=True) == {"a": 50}

    def test_nobody_usable(self):
        world = World(levels("a", [ILL]))
        assert world.shares(5, grpc=True) == {RefusalKind.NO_ENDPOINT: 5}


class TestTold:
    def test_status(self):
        world = World(flat(1, name="a"), flat(1, name="b"), names=["a", "ghost", "b"])
        held = world.pick()
        status = world.clusters.status()["all"]
        assert (status.leaves, status.active, status.endpoints) == (("a", "b"), 1, ())
        held.release(0.0)

    def test_why_a_leaf_is_chosen(self):
        world = World(levels("a", [ILL, ILL, ILL, WELL, WELL, WELL]), levels("b", [WELL], base=8))
        leaf, context, why = world.all.chosen(PickContext())
        assert why == f"leaf {leaf.cluster.name}, by how usable each is: a 70 %, b 30 %"
        assert leaf.peek(context) is not None
        assert world.all.active == 0
        _, _, why = world.all.chosen(PickContext(grpc=True))
        assert why == "leaf a: the first that has an endpoint that can be called"

    def test_an_ordinary_cluster_is_no_question(self):
        world = World(flat(1, name="a"))
        context = PickContext()
        assert world.leaf("a").chosen(context) == (world.leaf("a"), context, "")


class TestChange:
    def test_what_becomes_an_aggregate_and_back(self):
        world = World(flat(1, name="a"))
        plain = flat(1, name="all")
        before = world.all
        world.publish(flat(1, name="a"), plain)
        assert not isinstance(world.all, LiveAggregate)
        assert isinstance(before.pick(PickContext(), 0.0), Refusal), "whoever still holds it is refused"
        world.put(flat(1, name="a"))
        assert isinstance(world.all, LiveAggregate)
        assert world.shares(5) == {"a": 5}

    def test_counters_stay_when_it_changes(self):
        world = World(flat(1, name="a"), flat(1, name="b"))
        held = world.all
        permit = held.begin_retry(None)
        world.put(flat(1, name="a"), flat(1, name="b"), names=["b", "a"])
        assert world.all is held
        assert held.retries == 1
        assert world.shares(5) == {"b": 5}
        assert permit is not None
        permit.release()
        assert held.retries == 0

    def test_endpoints_of_a_leaf_that_change(self):
        world = World(flat(2, name="a"), flat(2, name="b"))
        assert world.shares(5) == {"a": 5}
        ill = changed(flat(2, name="a"), locality(endpoint(0, health=ILL), endpoint(1, health=ILL)))
        world.put(ill, flat(2, name="b"))
        assert world.shares(5) == {"b": 5}


class TestSessions:
    def test_a_session_stays_with_the_leaf_that_has_its_endpoint(self):
        world = World(flat(1, name="a"), levels("b", [WELL, WELL], base=8))
        kept = world.leaf("b").endpoints[1]
        for grpc in (False, True):
            context = PickContext(grpc=grpc)
            context.override = Override([spelled(kept.address)])
            picked = world.all.pick(context, 0.0)
            assert (picked.endpoint, picked.upstream) == (kept, world.leaf("b"))
        _, _, why = world.all.chosen(context)
        assert "leaf b" in why

    def test_one_that_may_not_be_called_now_is_no_other_leafs(self):
        world = World(flat(1, name="a"), levels("b", [ILL], base=8))
        context = PickContext()
        context.override = Override([spelled(world.leaf("b").endpoints[0].address)], strict=True)
        refused = world.all.pick(context, 0.0)
        assert isinstance(refused, Refusal)
        assert refused.kind is RefusalKind.NO_ENDPOINT, "its session is not over"
        context.override = Override(["10.9.9.9:1"], strict=True)
        refused = world.all.pick(context, 0.0)
        assert isinstance(refused, Refusal)
        assert refused.kind is RefusalKind.SESSION
        context.override = Override(["10.9.9.9:1"])
        assert world.all.pick(context, 0.0).upstream is world.leaf("a")


def test_labels_choose_within_the_leaf():
    """The load is that of the whole leaf, as in Envoy, and the endpoint is of the subset."""
    rules = Subsets((Selector(("v",)),), SubsetFallback.ANY)
    members = [
        endpoint(number, health=health, metadata={"envoy.lb": {"v": str(number % 2)}})
        for number, health in enumerate([WELL, WELL, ILL, ILL])
    ]
    leaf = cluster(locality(*members), name="a", balancing=Balancing(subsets=rules))
    world = World(leaf, levels("b", [WELL], base=8))
    assert world.all.labelled
    found = Counter()
    for _ in range(600):
        context = PickContext()
        context.labels = (("v", value_of("1")),)
        picked = world.all.pick(context, 0.0)
        found[picked.endpoint.name] += 1
        picked.release(0.0)
    assert set(found) == {"10.0.0.1:80", "10.0.0.8:80"}
    assert abs(found["10.0.0.1:80"] / 600 - 0.7) < 0.08


@pytest.mark.parametrize("grpc", [False, True])
def test_checks_go_on_of_a_leaf_that_no_call_goes_to(grpc):
    """Its endpoints are down by their checks: it is not used any more, and must be asked whether it can be."""
    clock = VirtualClock()
    checks = Checks(clock)
    clusters = Clusters(clock, random.Random(1).random, checks=checks)
    check = HealthCheck(HttpCheck("/"), healthy=1)
    first = flat(1, name="a", health_check=check)
    second = levels("b", [WELL], base=8, health_check=check)
    whole = Cluster("all", Discovery.AGGREGATE, leaves=("a", "b"))
    part = Part("xds", clusters={item.name: item for item in (first, second, whole)})
    clusters.reconcile(Snapshot((part,)), clock.now())
    everything, one, two = (clusters.get("xds", name) for name in ("all", "a", "b"))

    def chosen():
        picked = everything.pick(PickContext(grpc=grpc), clock.now())
        picked.release(clock.now())
        return picked.upstream.cluster.name

    def say(*, good):
        [(live, _)] = one.health.members(clock.now())
        one.health.hear(live, Answer(good, "a test"), clock.now())
        one.health.settle()

    assert chosen() == "a"
    assert one.health.awake
    assert two.health.awake, "who is to take over is asked before it is needed"
    say(good=False)
    for _ in range(20):
        assert chosen() == "b"
        clock.advance(15.0)
        checks.sweep()
    assert one.health.awake
    say(good=True)
    assert chosen() == "a"
