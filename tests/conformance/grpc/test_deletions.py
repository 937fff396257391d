"""Resources that the control plane takes away, or does not have."""

from __future__ import annotations

import grpc
import pytest

from meshlib.testing import build

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
SAID_AT_ONCE = pytest.mark.sotw("by delta a server says at once what it does not have (DL-06)")
A, B = "/x/A", "/x/B"
KEEP = "ignore_resource_deletion"


def test_listener_is_deleted_and_returns(scene, connect):
    """ER-03, SW-14: calls fail meanwhile."""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    scene.plane.remove("listener", scene.name)
    caller.fails()
    scene.plane.update(scene.listener())
    caller.becomes("a")


def test_cluster_is_deleted_and_returns(scene, connect):
    """ER-03, SW-14: calls that it would have fail meanwhile."""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    scene.plane.remove("cluster", "main")
    caller.fails()
    scene.plane.update(build.cluster("main"))
    caller.becomes("a")


def test_deletion_of_one_cluster_leaves_the_others(scene, connect):
    """ER-03, CA-06."""
    scene.named("a", "b")
    scene.route(build.route(path=A, cluster="a"), build.route(cluster="b"))
    caller = connect()
    caller.becomes("a", path=A)
    caller.becomes("b", path=B)
    scene.plane.remove("cluster", "b")
    caller.fails(path=B)
    assert caller.row(5, A) == ["a"] * 5


def test_call_in_flight_survives_the_deletion_of_its_listener(scene, connect):
    """ER-03, CA-03."""
    scene.simple("a")
    caller = connect()
    talk = caller.talk()
    assert talk.say() == "a"
    scene.plane.remove("listener", scene.name)
    caller.fails()
    assert talk.say() == "a"
    assert talk.finish() is grpc.StatusCode.OK


def test_route_configuration_that_is_left_out_stays(scene, connect):
    """SW-14: for routes, to be missing says nothing."""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    scene.plane.remove("route", scene.name)
    scene.plane.push("route")
    scene.plane.wait_for_ack("route")
    assert caller.row(10) == ["a"] * 10


def test_endpoints_that_are_left_out_stay(scene, connect):
    """SW-14: for endpoints, too."""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    scene.plane.remove("endpoint", "main")
    scene.plane.push("endpoint")
    scene.plane.wait_for_ack("endpoint")
    assert caller.row(10) == ["a"] * 10


def test_deletion_of_the_listener_may_be_ignored(scene, connect):
    """ER-03: ``ignore_resource_deletion`` of the bootstrap's server; what it says later counts again."""
    scene.features = [KEEP]
    scene.simple("a")
    scene.named("b")
    caller = connect()
    caller.becomes("a")
    scene.plane.remove("listener", scene.name)
    scene.plane.wait_for_ack("listener")
    assert caller.row(10) == ["a"] * 10
    scene.plane.update(
        scene.listener("other"),
        build.route_config("other", build.virtual_host("all", build.route(cluster="b"))),
    )
    caller.becomes("b")


def test_deletion_of_a_cluster_may_be_ignored(scene, connect):
    """ER-03."""
    scene.features = [KEEP]
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    scene.plane.remove("cluster", "main")
    scene.plane.wait_for_ack("cluster")
    assert caller.row(10) == ["a"] * 10


def test_deletion_of_a_cluster_that_no_route_names_is_nothing(scene, connect):
    """SW-14."""
    scene.simple("a")
    scene.named("b")
    caller = connect()
    caller.becomes("a")
    scene.plane.remove("cluster", "b")
    scene.plane.push("cluster")
    scene.plane.wait_for_ack("cluster")
    assert caller.row(10) == ["a"] * 10


def test_split_loses_a_cluster(scene, connect):
    """ER-03, RA-02: its part of the calls fails, and is not given to the others."""
    scene.named("a", "b")
    scene.route(build.route(weights={"a": 50, "b": 50}))
    caller = connect()
    caller.becomes("a", "b", calls=20)
    scene.plane.remove("cluster", "b")
    caller.becomes("a", "UNAVAILABLE", calls=20)


# --------------------------------------------------------------------------- what never comes: 15 s, then it is missing


def missing(caller):
    """Whether a call is UNAVAILABLE because what it needs was not there for 15 s."""
    answer = caller.call(timeout=25)
    return answer.code is UNAVAILABLE and 13 <= answer.seconds < 20


@SAID_AT_ONCE
def test_listener_that_never_comes_is_missing_until_it_does(scene, connect):
    """EX-01, EX-02: UNAVAILABLE, and no other code."""
    caller = connect()
    assert missing(caller)
    scene.simple("a")
    caller.becomes("a")


def test_routes_that_never_come_are_missing_until_they_do(scene, connect):
    """EX-01, EX-02."""
    scene.named("a")
    scene.plane.update(scene.listener())
    caller = connect()
    assert missing(caller)
    scene.plane.update(scene.routes(build.route(cluster="a")))
    caller.becomes("a")


def test_cluster_that_never_comes_leaves_the_others(scene, connect):
    """EX-08, CA-02: the target waits for it; then its calls fail, and the others' are served."""
    scene.named("a")
    scene.route(build.route(path=A, cluster="a"), build.route(cluster="b"))
    caller = connect()
    pending = caller.start(A, timeout=25)
    assert missing(caller)
    assert pending.result(30).outcome == "a"
    scene.named("b")
    caller.becomes("b", path=B)
