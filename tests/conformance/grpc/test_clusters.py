"""Clusters: which a route leads to, how one takes another's place, and what is wrong with one of them."""

from __future__ import annotations

import grpc
import pytest

from meshlib.testing import build

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
A, B = "/x/A", "/x/B"


def test_change_to_another_cluster_fails_no_call(scene, connect):
    """CA-03: the old one serves until the new one is whole."""
    scene.named("a", "b")
    scene.route(build.route(cluster="a"))
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.route(build.route(cluster="b"))
        caller.becomes("b")
        scene.route(build.route(cluster="a"))
        caller.becomes("a")
    assert set(seen) <= {"a", "b"}


def test_old_cluster_serves_while_the_new_one_has_no_endpoints_yet(scene, connect):
    """CA-02, CA-03: routes are not followed before what they name is there."""
    scene.named("a")
    scene.route(build.route(cluster="a"))
    b = scene.serve("b")
    caller = connect()
    caller.becomes("a")
    scene.plane.hold("endpoint")
    scene.plane.update(*scene.cluster("b", b))
    scene.route(build.route(cluster="b"))
    scene.plane.wait_for_request("endpoint", lambda request: "b" in request.names)
    assert caller.row(20) == ["a"] * 20
    scene.plane.release("endpoint")
    caller.becomes("b")


def test_calls_in_flight_finish_in_the_old_cluster(scene, connect):
    """CA-03: also where the control plane takes it away."""
    a, _ = scene.named("a", "b")
    scene.route(build.route(cluster="a"))
    a.hold(times=1)
    caller = connect()
    pending = caller.start()
    a.wait_for_held(1)
    scene.route(build.route(cluster="b"))
    caller.becomes("b")
    scene.plane.remove("cluster", "a")
    a.behave()
    assert pending.result().outcome == "a"
    assert caller.outcome() == "b"


def test_stream_in_flight_stays_in_the_old_cluster(scene, connect):
    """CA-03."""
    scene.named("a", "b")
    scene.route(build.route(cluster="a"))
    caller = connect()
    talk = caller.talk()
    assert talk.say() == "a"
    scene.route(build.route(cluster="b"))
    caller.becomes("b")
    assert talk.say() == "a"
    assert talk.finish() is grpc.StatusCode.OK


def test_cluster_that_nothing_names_any_more_is_unsubscribed(scene, connect):
    """CA-03: once its calls are over."""
    scene.named("a", "b")
    scene.route(build.route(cluster="a"))
    caller = connect()
    caller.becomes("a")
    scene.route(build.route(cluster="b"))
    caller.becomes("b")
    scene.plane.wait_for_request("cluster", lambda request: request.names == ("b",))


def test_endpoints_by_another_name(scene, connect):
    """CD-02: ``service_name`` is what endpoints are asked for by."""
    a = scene.serve("a")
    scene.plane.update(
        build.cluster("main", service_name="endpoints-of-a"), scene.endpoints("endpoints-of-a", a)
    )
    scene.route(build.route(cluster="main"))
    assert connect().outcome() == "a"


def test_old_endpoints_serve_until_those_of_the_new_name_come(scene, connect):
    """CA-08."""
    scene.simple("a")
    b = scene.serve("b")
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.plane.update(build.cluster("main", service_name="other"))
        scene.plane.wait_for_request("endpoint", lambda request: "other" in request.names)
        assert caller.row(10) == ["a"] * 10
        scene.plane.update(scene.endpoints("other", b))
        caller.becomes("b")
    assert set(seen) <= {"a", "b"}


def test_two_clusters_share_their_endpoints(scene, connect):
    """CD-02: by one name, which is asked for once."""
    a = scene.serve("a")
    scene.plane.update(
        build.cluster("one", service_name="shared"),
        build.cluster("other", service_name="shared"),
        scene.endpoints("shared", a),
    )
    scene.route(build.route(path=A, cluster="one"), build.route(cluster="other"))
    caller = connect()
    assert caller.outcome(A) == caller.outcome(B) == "a"
    b = scene.serve("b")
    scene.plane.update(scene.endpoints("shared", b))
    caller.becomes("b", path=A)
    caller.becomes("b", path=B)


def test_one_clusters_fault_is_not_anothers(scene, connect):
    """CA-06: calls to one that was refused fail, and the target's others are served."""
    scene.named("a")
    scene.plane.update(build.cluster("b", outlier_detection={"interval": "-1s"}))
    scene.route(build.route(path=A, cluster="a"), build.route(cluster="b"))
    caller = connect()
    assert caller.outcome(A) == "a"
    assert caller.call(B).code is UNAVAILABLE
    scene.named("b")
    caller.becomes("b", path=B)


def ours(*values, reason, **names):
    """A parameter for which our channels know more than gRPC's."""
    return pytest.param(
        *values, marks=pytest.mark.ours_differs(f"docs/reference/xds-fields.md: {reason}"), **names
    )


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"eds_cluster_config": {"eds_config": {"path": "x"}}}, id="source of endpoints"),
        pytest.param({"load_balancing_policy": {"policies": []}}, id="no policy at all"),
        pytest.param({"lb_policy": "CLUSTER_PROVIDED"}, id="balancer of the cluster"),
        ours({"lb_policy": "MAGLEV"}, id="maglev", reason="hashing balancers are reported"),
        ours({"type": "ORIGINAL_DST"}, id="type", reason="ORIGINAL_DST is honoured"),
        pytest.param({"lrs_server": {"ads": {}}}, id="load reports"),
    ],
)
def test_cluster_that_is_not_supported_is_refused(scene, connect, fields):
    """CD-01, CD-02, CD-05, CD-06, CD-07: and the one before stays."""
    scene.simple("a")
    caller = connect()
    assert caller.outcome() == "a"
    scene.plane.update(build.cluster("main", **fields))
    assert "main" in (scene.plane.wait_for_nack("cluster").error or "")
    assert caller.row(5) == ["a"] * 5


def _ring(**fields):
    made = build.any_of("envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash", fields)
    return {"policies": [{"typed_extension_config": {"name": "ring", "typed_config": made}}]}


_MOST = 8 * 1024 * 1024


_WRONG_RINGS = (
    {"minimum_ring_size": _MOST + 1, "maximum_ring_size": _MOST + 1},
    {"maximum_ring_size": _MOST + 1},
    {"minimum_ring_size": 10, "maximum_ring_size": 5},
    {"minimum_ring_size": 0},
    {"maximum_ring_size": 0},
    {"hash_function": "MURMUR_HASH_2"},
)


@pytest.mark.parametrize(
    ("written", "fields"),
    [
        *(("lb_policy", fields) for fields in _WRONG_RINGS),
        *(("load_balancing_policy", fields) for fields in _WRONG_RINGS),
        (
            "load_balancing_policy",
            {"maximum_ring_size": 5},
        ),  # the other does not compare it with the default minimum
    ],
)
def test_ring_that_makes_no_sense_is_refused(scene, connect, written, fields):
    """LB-03: and the cluster stays as it was."""
    scene.simple("a")
    caller = connect()
    assert caller.outcome() == "a"
    if written == "lb_policy":
        scene.plane.update(build.cluster("main", lb_policy="RING_HASH", ring_hash_lb_config=fields))
    else:
        scene.plane.update(build.cluster("main", load_balancing_policy=_ring(**fields)))
    assert "main" in (scene.plane.wait_for_nack("cluster").error or "")
    assert caller.row(5) == ["a"] * 5


def test_first_policy_that_is_known_is_taken(scene, connect):
    """CD-05: ``load_balancing_policy`` wins over ``lb_policy``, and what is not known in it is passed over."""
    unknown = {"typed_extension_config": {"name": "x", "typed_config": _struct("nobody.knows.v1.Policy")}}
    robin = {
        "typed_extension_config": {
            "name": "y",
            "typed_config": build.any_of(
                "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"
            ),
        }
    }
    policies = {"policies": [unknown, robin]}
    scene.simple("a", "b", lb_policy="CLUSTER_PROVIDED", load_balancing_policy=policies)
    caller = connect()
    caller.becomes("a", "b")


def _struct(name):
    return build.any_of("xds.type.v3.TypedStruct", {"type_url": f"type.googleapis.com/{name}"})


def test_cluster_comes_after_its_route(scene, connect):
    """CA-02, EX-02: a call waits for it, and is served once it comes."""
    scene.route(build.route(cluster="late"))
    caller = connect()
    pending = caller.start()
    scene.plane.wait_for_request("cluster", lambda request: "late" in request.names)
    scene.named("late")
    assert pending.result().outcome == "late"


def test_cluster_changes_back_and_forth_under_load(scene, connect):
    """CA-03: ten times, and no call fails."""
    scene.named("a", "b")
    scene.route(build.route(cluster="a"))
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        for _ in range(5):
            scene.route(build.route(cluster="b"))
            caller.becomes("b")
            scene.route(build.route(cluster="a"))
            caller.becomes("a")
    assert set(seen) == {"a", "b"}
