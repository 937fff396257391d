"""Aggregate clusters: the first of their clusters that can be reached has all calls, and each keeps what is its own (CD-04, DV-11)."""

from __future__ import annotations

import itertools

import grpc
import pytest

from meshlib.testing import build
from tests.conformance.support.scene import endpoint, locality

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
#: The deepest chain of aggregates with a cluster at its end.
DEEPEST = 15


@pytest.fixture
def behind(scene):
    """A function that starts servers of these names, each alone in a cluster of its name, behind the aggregate `all`."""

    def make(*names, **fields):
        servers = scene.named(*names, **fields)
        scene.plane.update(aggregate("all", *names))
        scene.route(build.route(cluster="all"))
        return servers

    return make


def aggregate(name, *names):
    """C-core knows no CLUSTER_PROVIDED (CD-06)."""
    return build.aggregate(name, *names, lb_policy="ROUND_ROBIN")


def test_the_first_has_all_calls(behind, connect):
    """CD-04."""
    _, b = behind("a", "b")
    assert connect().row(20) == ["a"] * 20
    assert not b.calls


def test_failover_and_return(behind, connect):
    """CD-04, AggregateClusterFallBackFromRingHashAtStartup's other half: as among the priorities of a cluster."""
    a, _, _ = behind("a", "b", "c")
    caller = connect()
    caller.becomes("a")
    a.kill()
    caller.becomes("b")
    a.start()
    caller.becomes("a")


def test_one_that_is_dead_from_the_start_is_passed_over(behind, connect):
    """CD-04: and the first calls do not fail."""
    a, b, _ = behind("a", "b", "c")
    a.kill()
    b.kill()
    assert connect().row(10) == ["c"] * 10


def test_one_whose_endpoints_are_all_unhealthy_is_passed_over(scene, connect):
    """CD-04, AggregateClusterEdsToEds: by an update of its endpoints, and back by another."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("a", a), *scene.cluster("b", b), aggregate("all", "a", "b"))
    scene.route(build.route(cluster="all"))
    caller = connect()
    caller.becomes("a")
    scene.plane.update(scene.endpoints("a", endpoint(a, health="UNHEALTHY")))
    caller.becomes("b")
    scene.plane.update(scene.endpoints("a", a))
    caller.becomes("a")


def test_all_priorities_of_one_go_before_the_next(scene, connect):
    """CD-04, LB-11."""
    a, b, c = (scene.serve(name) for name in "abc")
    members = locality("a", a), locality("b", b, priority=1)
    scene.plane.update(
        *scene.cluster("first", *members), *scene.cluster("last", c), aggregate("all", "first", "last")
    )
    scene.route(build.route(cluster="all"))
    caller = connect()
    caller.becomes("a")
    a.kill()
    caller.becomes("b")
    b.kill()
    caller.becomes("c")


def test_each_has_its_own_balancer(scene, connect):
    """DV-11: A75. The aggregate says RING_HASH, and what it leads to ROUND_ROBIN."""
    servers = [scene.serve(name) for name in "ab"]
    scene.plane.update(
        *scene.cluster("both", *servers), build.aggregate("all", "both", lb_policy="RING_HASH")
    )
    scene.route(build.route(cluster="all", action={"hash_policy": [{"header": {"header_name": "x-none"}}]}))
    caller = connect()
    caller.becomes("a", "b")
    assert sorted(caller.row(20)) == ["a"] * 10 + ["b"] * 10


def test_each_has_its_own_limit(scene, connect):
    """CB-01, A37: what the first refuses goes to no other."""
    limit = {"circuit_breakers": {"thresholds": [{"max_requests": 1}]}}
    a, b = scene.named("a", "b", **limit)
    scene.plane.update(aggregate("all", "a", "b"))
    scene.route(build.route(cluster="all"))
    a.hold(times=1)
    caller = connect()
    pending = caller.start()
    a.wait_for_held(1)
    assert caller.call().code is UNAVAILABLE
    a.behave()
    assert pending.result().outcome == "a"
    assert not b.calls


def test_one_that_does_not_exist_is_skipped(scene, connect):
    """CD-04: once that is known, which takes 15 s (EX-01)."""
    scene.named("b")
    scene.plane.update(aggregate("all", "ghost", "b"))
    scene.route(build.route(cluster="all"))
    connect().becomes("b", calls=1, seconds=40, timeout=40)


def test_one_that_is_deleted_and_comes_back(behind, connect, scene):
    """CD-04: the first calls after either fail in no way."""
    behind("a", "b")
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.plane.remove("cluster", "a")
        caller.becomes("b")
        scene.plane.update(build.cluster("a"))
        caller.becomes("a")
    assert set(seen) <= {"a", "b"}


def test_another_order_holds_at_once(behind, connect, scene):
    """CD-04."""
    behind("a", "b")
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.plane.update(aggregate("all", "b", "a"))
        caller.becomes("b")
    assert set(seen) <= {"a", "b"}


def test_aggregates_in_aggregates_are_followed(scene, connect):
    """CD-04, AggregateClusterDuplicateInChain: depth first, and the first occurrence counts."""
    a, b, _ = scene.named("a", "b", "c")
    scene.plane.update(aggregate("all", "inner", "b", "c"), aggregate("inner", "a", "c"))
    scene.route(build.route(cluster="all"))
    caller = connect()
    caller.becomes("a")
    a.kill()
    caller.becomes("c")
    assert not b.calls


def test_a_circle_without_a_leaf_fails(scene, connect):
    """CD-04, AggregateClusterCycleWithNoLeaf."""
    scene.plane.update(aggregate("all", "other"), aggregate("other", "all"))
    scene.route(build.route(cluster="all"))
    answer = connect().call()
    assert answer.code is UNAVAILABLE


def test_a_circle_with_a_leaf_serves(scene, connect):
    """CD-04, AggregateClusterCycleWithLeaf."""
    scene.named("a")
    scene.plane.update(aggregate("all", "other"), aggregate("other", "all", "a"))
    scene.route(build.route(cluster="all"))
    assert connect().row(5) == ["a"] * 5


@pytest.mark.parametrize("chain", [DEEPEST, DEEPEST + 1])
def test_how_deep(chain, scene, connect):
    """CD-04, AggregateClusterRecursionDepthJustBelowMax, AggregateClusterRecursionMaxDepth."""
    scene.named("a")
    names = [*(f"c{number}" for number in range(chain)), "a"]
    scene.plane.update(*(aggregate(*pair) for pair in itertools.pairwise(names)))
    scene.route(build.route(cluster="c0"))
    answer = connect().call()
    if chain == DEEPEST:
        assert answer.outcome == "a"
    else:
        assert answer.code is UNAVAILABLE
