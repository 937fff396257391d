"""What a target's listener says, and how it and its route configuration come together."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from meshlib.testing import build


def fault_like(**fields: Any) -> dict[str, Any]:
    """A filter of a type that nobody knows."""
    unknown = build.any_of(
        "xds.type.v3.TypedStruct", {"type_url": "type.googleapis.com/nobody.knows.v1.Filter"}
    )
    return {"name": "unknown", "typed_config": unknown, **fields}


def test_routes_by_rds_are_followed(scene, connect):
    """LD-02: the listener names a route configuration, which is asked for over the same stream."""
    scene.simple("a")
    assert connect().outcome() == "a"


def test_inline_routes_are_followed(scene, connect):
    """LD-02: the listener has its route configuration in it, and none is asked for."""
    scene.named("a")
    scene.plane.update(scene.listener(scene.routes(build.route(cluster="a"))))
    assert connect().outcome() == "a"
    assert not [request for request in scene.plane.requests if request.kind == "route"]


def test_api_listener_counts_where_a_socket_listener_is_there_too(scene, connect):
    """LD-01: Istio's listeners have both."""
    scene.named("a")
    routes = scene.routes(build.route(cluster="a"))
    scene.plane.update(scene.listener(routes, address=build.socket_address("127.0.0.1:80")))
    assert connect().outcome() == "a"


def test_socket_listener_alone_is_an_error_of_the_target(scene, connect):
    """LD-01: a listener for a server is none for a client."""
    scene.named("a")
    scene.plane.update(build.listener(scene.name, scene.routes(build.route(cluster="a"))))
    caller = connect()
    caller.fails()
    scene.plane.update(scene.listener(scene.routes(build.route(cluster="a"))))
    caller.becomes("a")


def test_change_from_inline_routes_to_rds_fails_no_call(scene, connect):
    """CA-07."""
    scene.named("a", "b")
    scene.plane.update(scene.listener(scene.routes(build.route(cluster="a"))))
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.route(build.route(cluster="b"))
        caller.becomes("b")
    assert set(seen) <= {"a", "b"}


def test_change_from_rds_to_inline_routes_fails_no_call(scene, connect):
    """CA-07."""
    scene.named("a", "b")
    scene.route(build.route(cluster="a"))
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.plane.update(scene.listener(scene.routes(build.route(cluster="b"))))
        caller.becomes("b")
    assert set(seen) <= {"a", "b"}


def test_change_to_another_route_configuration_fails_no_call(scene, connect):
    """CA-07: the old one serves until the new one is there."""
    scene.named("a", "b")
    scene.route(build.route(cluster="a"))
    other = build.route_config("other", build.virtual_host("all", build.route(cluster="b")))
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.plane.update(scene.listener("other"))
        scene.plane.wait_for_request("route", lambda request: "other" in request.names)
        before = seen["a"]
        scene.plane.wait_for_streams(1)
        assert caller.outcome() == "a"
        scene.plane.update(other)
        caller.becomes("b")
    assert set(seen) <= {"a", "b"}
    assert seen["a"] >= before


def test_old_route_configuration_is_no_longer_asked_for(scene, connect):
    """CA-07: after a change to another name the old one is unsubscribed, and its updates count no more."""
    scene.named("a", "b")
    scene.route(build.route(cluster="a"))
    scene.plane.update(build.route_config("other", build.virtual_host("all", build.route(cluster="b"))))
    caller = connect()
    caller.becomes("a")
    scene.plane.update(scene.listener("other"))
    caller.becomes("b")
    scene.plane.wait_for_request("route", lambda request: request.names == ("other",))
    scene.plane.update(scene.routes(build.route(cluster="a")))
    assert caller.row(10) == ["b"] * 10


def test_connection_manager_changes_without_a_new_route_response(scene, connect, limit):
    """CA-07, LD-08: a listener that names the same routes has a new limit at once."""
    (a,) = scene.simple("a")
    caller = connect()
    assert caller.outcome() == "a"
    a.hold()
    scene.plane.hold("route")
    scene.plane.update(
        scene.listener(manager={"common_http_protocol_options": {"max_stream_duration": limit(0.3)}})
    )
    answer = caller.until(lambda answer: answer.seconds < 1.0, timeout=1.5)
    assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_call_waits_for_the_routes(scene, connect):
    """CA-02: a call that begins before the configuration is whole waits for it, and does not fail."""
    scene.plane.hold("route")
    scene.simple("a")
    pending = connect().start()
    scene.plane.wait_for_request("route")
    scene.plane.release("route")
    assert pending.result().outcome == "a"


def test_call_waits_for_the_endpoints(scene, connect):
    """CA-02: as before, of the last part."""
    scene.plane.hold("endpoint")
    scene.simple("a")
    pending = connect().start()
    scene.plane.wait_for_request("endpoint")
    scene.plane.release("endpoint")
    assert pending.result().outcome == "a"


def test_deadline_ends_a_call_that_waits_for_the_configuration(scene, connect):
    """CA-02: its own deadline, and no other answer."""
    scene.plane.hold("listener")
    scene.simple("a")
    answer = connect().call(timeout=0.5)
    assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.4 <= answer.seconds < 3


@pytest.mark.plane(wrap=True)
def test_resources_may_come_wrapped(scene, connect):
    """SW-10: each inside a message ``Resource``."""
    scene.simple("a")
    assert connect().outcome() == "a"


def test_names_that_nobody_asked_for_are_passed_over(scene, connect):
    """CP-01: what belongs to others is not taken for one's own."""
    scene.plane.update(build.api_listener("somebody-else", "nothing"), build.cluster("unrelated"))
    scene.simple("a")
    assert connect().outcome() == "a"


def test_the_same_again_keeps_the_connection(scene, connect):
    """SW-13: resources that say what was said already change nothing."""
    (a,) = scene.simple("a")
    caller = connect()
    assert caller.row(3) == ["a"] * 3
    for _ in range(3):
        seen = scene.plane.seen
        scene.plane.push()
        for kind in ("listener", "route", "cluster", "endpoint"):
            scene.plane.wait_for_ack(kind, after=seen)
        assert caller.outcome() == "a"
    assert a.connections == 1


def test_filter_that_is_unknown_is_refused(scene, connect):
    """LD-04: its listener is not taken, so nothing answers."""
    scene.named("a")
    scene.plane.update(scene.listener(scene.routes(build.route(cluster="a")), filters=[fault_like()]))
    caller = connect()
    caller.fails()
    assert "nobody.knows.v1.Filter" in (scene.plane.wait_for_nack("listener").error or "")


def test_filter_that_is_unknown_and_optional_is_passed_over(scene, connect):
    """LD-04."""
    scene.named("a")
    filters = [fault_like(is_optional=True)]
    scene.plane.update(scene.listener(scene.routes(build.route(cluster="a")), filters=filters))
    assert connect().outcome() == "a"


def test_filters_without_a_router_are_refused(scene, connect):
    """LD-03: the last one has to be terminal."""
    scene.named("a")
    routes = scene.routes(build.route(cluster="a"))
    scene.plane.update(scene.listener(routes, manager={"http_filters": []}))
    connect().fails()
    scene.plane.wait_for_nack("listener")


def test_two_filters_of_one_name_are_refused(scene, connect):
    """LD-03: names are unique."""
    scene.named("a")
    routes = scene.routes(build.route(cluster="a"))
    twice = [fault_like(is_optional=True), fault_like(is_optional=True)]
    scene.plane.update(scene.listener(routes, filters=twice))
    connect().fails()
    scene.plane.wait_for_nack("listener")


def test_trusted_hops_are_refused(scene, connect):
    """LD-07: what decides whose address counts is not passed over."""
    scene.named("a")
    routes = scene.routes(build.route(cluster="a"))
    scene.plane.update(scene.listener(routes, manager={"xff_num_trusted_hops": 1}))
    connect().fails()
    scene.plane.wait_for_nack("listener")
