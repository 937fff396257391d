"""Routes for a fraction of the calls, and routes that split them among clusters."""

from __future__ import annotations

import grpc
import pytest

from meshlib.testing import build
from tests.interop.support.calling import fits

CALLS = 864


def fraction(numerator: int, denominator: str = "HUNDRED") -> dict[str, object]:
    return {"runtime_fraction": {"default_value": {"numerator": numerator, "denominator": denominator}}}


def test_fraction_has_its_share(scene, connect):
    """RM-06: the rest goes on to the next route."""
    scene.named("a", "b")
    scene.route(build.route(match=fraction(25), cluster="a"), build.route(cluster="b"))
    seen = connect().many(CALLS)
    assert set(seen) == {"a", "b"}
    assert fits(seen, "a", 0.25)


@pytest.mark.parametrize(
    ("numerator", "denominator", "share"),
    [
        (0, "HUNDRED", 0),
        (100, "HUNDRED", 1),
        (250, "HUNDRED", 1),
        (3_000, "TEN_THOUSAND", 0.3),
        (700_000, "MILLION", 0.7),
    ],
)
def test_fractions_of_each_denominator(scene, connect, numerator, denominator, share):
    """RM-06: a numerator above the denominator is always."""
    scene.named("a", "b")
    scene.route(build.route(match=fraction(numerator, denominator), cluster="a"), build.route(cluster="b"))
    seen = connect().many(400)
    assert seen.total() == seen["a"] + seen["b"]
    assert fits(seen, "a", share)


def test_fraction_and_metadata_must_both_hold(scene, connect):
    """RM-06: it is one matcher among the others."""
    scene.named("a", "b")
    match = fraction(50) | {"headers": [{"name": "x-beta", "present_match": True}]}
    scene.route(build.route(match=match, cluster="a"), build.route(cluster="b"))
    caller = connect()
    assert caller.many(100) == {"b": 100}
    assert fits(caller.many(CALLS, metadata=(("x-beta", "1"),)), "a", 0.5)


def test_weights_split_the_calls(scene, connect):
    """RA-01."""
    scene.named("a", "b", "c")
    scene.route(build.route(weights={"a": 60, "b": 30, "c": 10}))
    seen = connect().many(CALLS)
    assert set(seen) == {"a", "b", "c"}
    assert fits(seen, "a", 0.6)
    assert fits(seen, "b", 0.3)
    assert fits(seen, "c", 0.1)


def test_weights_need_no_round_sum(scene, connect):
    """RA-01: what they sum up to is the whole, whatever ``total_weight`` says."""
    scene.named("a", "b")
    split = {"clusters": [{"name": "a", "weight": 2}, {"name": "b", "weight": 1}], "total_weight": 100}
    scene.route(build.route(action={"weighted_clusters": split}))
    assert fits(connect().many(CALLS), "a", 2 / 3)


def test_weight_of_zero_has_no_call(scene, connect):
    """RA-01."""
    scene.named("a", "b")
    scene.route(build.route(weights={"a": 0, "b": 5}))
    assert connect().many(100) == {"b": 100}


def test_weights_change(scene, connect):
    """RA-01: the new shares hold for the calls behind the update."""
    scene.named("a", "b")
    scene.route(build.route(path="/x/Probe", cluster="a"), build.route(weights={"a": 75, "b": 25}))
    caller = connect()
    assert fits(caller.many(CALLS), "a", 0.75)
    scene.route(build.route(path="/x/Probe", cluster="b"), build.route(weights={"a": 25, "b": 75}))
    caller.becomes("b", path="/x/Probe")
    assert fits(caller.many(CALLS), "a", 0.25)


def test_clusters_of_a_split_change(scene, connect):
    """RA-01, CA-03: one of them is replaced; no call fails."""
    scene.named("a", "b", "c")
    scene.route(build.route(weights={"a": 50, "b": 50}))
    caller = connect()
    caller.becomes("a", "b", calls=20)
    with caller.calling() as seen:
        scene.route(build.route(weights={"b": 50, "c": 50}))
        caller.becomes("b", "c", calls=20)
    assert set(seen) <= {"a", "b", "c"}
    assert fits(caller.many(CALLS), "c", 0.5)


def test_split_becomes_one_cluster(scene, connect):
    """RA-01."""
    scene.named("a", "b")
    scene.route(build.route(weights={"a": 50, "b": 50}))
    caller = connect()
    caller.becomes("a", "b", calls=20)
    scene.route(build.route(cluster="b"))
    caller.becomes("b")
    assert caller.many(100) == {"b": 100}


def test_cluster_that_fails_keeps_its_share(scene, connect):
    """RA-02: how a cluster fares does not count in the choice among clusters."""
    a, _ = scene.named("a", "b")
    a.kill()
    scene.route(build.route(weights={"a": 50, "b": 50}))
    seen = connect().many(CALLS)
    assert set(seen) == {"UNAVAILABLE", "b"}
    assert fits(seen, "b", 0.5)


@pytest.mark.parametrize(
    "clusters",
    [
        pytest.param([], id="none"),
        pytest.param([{"name": "a", "weight": 0}], id="all zero"),
        pytest.param([{"name": "", "weight": 1}], id="no name"),
        pytest.param(
            [{"name": "a", "weight": 4_294_967_295}, {"name": "b", "weight": 1}], id="sum too large"
        ),
    ],
)
def test_weights_that_make_no_sense_are_refused(scene, connect, clusters):
    """RA-01: the routes before stay."""
    scene.simple("a")
    caller = connect()
    assert caller.outcome() == "a"
    scene.plane.update(scene.routes(build.route(action={"weighted_clusters": {"clusters": clusters}})))
    scene.plane.wait_for_nack("route")
    assert caller.row(5) == ["a"] * 5


def test_split_holds_for_streams(scene, connect):
    """RA-01: each stream is one call, and all its messages go where it went."""
    scene.named("a", "b")
    scene.route(build.route(weights={"a": 50, "b": 50}))
    caller = connect()
    found = set()
    for _ in range(40):
        talk = caller.talk()
        who = {talk.say(str(number)) for number in range(3)}
        assert len(who) == 1
        assert talk.finish() is grpc.StatusCode.OK
        found |= who
    assert found == {"a", "b"}
