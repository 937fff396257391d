"""Endpoints: their health, their localities, how they come and go, and what is no assignment."""

from __future__ import annotations

from collections import Counter

import grpc
import pytest

from meshlib.testing import build
from tests.conformance.support.scene import endpoint, locality
from tests.interop.support.calling import fits
from tests.support.asking import asked

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
CALLS = 864


def test_calls_take_turns(scene, connect):
    """LB-01: each endpoint once a round."""
    scene.simple("a", "b", "c")
    caller = connect()
    caller.becomes("a", "b", "c")
    row = caller.row(30)
    assert Counter(row) == {"a": 10, "b": 10, "c": 10}
    assert row[:3] * 10 == row


def test_weights_of_endpoints_count_for_nothing(scene, connect):
    """LB-01: round robin takes turns all the same."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("main", endpoint(a, weight=9), endpoint(b, weight=1)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("a", "b")
    assert Counter(caller.row(20)) == {"a": 10, "b": 10}


@pytest.mark.parametrize("health", ["UNKNOWN", "HEALTHY"])
def test_health_that_is_used(scene, connect, health):
    """ED-04."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("main", a, endpoint(b, health=health)))
    scene.route(build.route(cluster="main"))
    connect().becomes("a", "b")


@pytest.mark.parametrize("health", ["UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"])
def test_health_that_is_not_used(scene, connect, health):
    """ED-04."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("main", a, endpoint(b, health=health)))
    scene.route(build.route(cluster="main"))
    assert connect().row(30) == ["a"] * 30
    assert not b.calls


@pytest.mark.parametrize("health", ["UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"])
def test_no_endpoint_that_is_used_is_unavailable(scene, connect, health):
    """ED-04, ED-08: they are not called after all."""
    a = scene.serve("a")
    scene.plane.update(*scene.cluster("main", endpoint(a, health=health)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    assert caller.call().code is UNAVAILABLE
    scene.plane.update(scene.endpoints("main", a))
    caller.becomes("a")


def test_health_changes(scene, connect):
    """ED-04: calls follow it, and none fails."""
    a, b = scene.simple("a", "b")
    caller = connect()
    caller.becomes("a", "b")
    with caller.calling() as seen:
        scene.plane.update(scene.endpoints("main", a, endpoint(b, health="UNHEALTHY")))
        caller.becomes("a", calls=12)
        assert asked(lambda: seen["a"])  # nobody tells of a call of another thread
        scene.plane.update(scene.endpoints("main", endpoint(a, health="DRAINING"), b))
        caller.becomes("b", calls=12)
        assert asked(lambda: seen["b"])
        scene.plane.update(scene.endpoints("main", a, b))
        caller.becomes("a", "b")
    assert set(seen) == {"a", "b"}


def test_endpoint_is_added(scene, connect):
    """ED-09: and is called as soon as it is known."""
    a, _ = scene.simple("a", "b")
    c = scene.serve("c")
    caller = connect()
    caller.becomes("a", "b")
    scene.plane.update(scene.endpoints("main", a, c))
    caller.becomes("a", "c")


def test_all_endpoints_are_replaced(scene, connect):
    """ED-09: no call fails."""
    scene.simple("a", "b")
    c, d = scene.serve("c"), scene.serve("d")
    caller = connect()
    caller.becomes("a", "b")
    with caller.calling() as seen:
        scene.plane.update(scene.endpoints("main", c, d))
        caller.becomes("c", "d")
    assert set(seen) <= {"a", "b", "c", "d"}


def test_call_in_flight_to_an_endpoint_that_leaves_finishes(scene, connect):
    """ED-09: its connection is drained."""
    (a,) = scene.simple("a")
    b = scene.serve("b")
    caller = connect()
    assert caller.outcome() == "a"
    a.hold(times=1)
    pending = caller.start()
    a.wait_for_held(1)
    scene.plane.update(scene.endpoints("main", b))
    caller.becomes("b")
    a.behave()
    assert pending.result().outcome == "a"


def test_stream_to_an_endpoint_that_leaves_goes_on(scene, connect):
    """ED-09."""
    scene.simple("a")
    b = scene.serve("b")
    caller = connect()
    talk = caller.talk()
    assert talk.say() == "a"
    scene.plane.update(scene.endpoints("main", b))
    caller.becomes("b")
    assert [talk.say() for _ in range(3)] == ["a"] * 3
    assert talk.finish() is grpc.StatusCode.OK


def test_endpoint_that_stays_keeps_its_connection(scene, connect):
    """ED-09: others come and go around it."""
    a, _ = scene.simple("a", "b")
    c = scene.serve("c")
    caller = connect()
    caller.becomes("a", "b")
    scene.plane.update(scene.endpoints("main", a, c))
    caller.becomes("a", "c")
    scene.plane.update(scene.endpoints("main", a))
    caller.becomes("a")
    assert a.connections == 1


@pytest.mark.oracle_differs("a connection of C-core is of its locality, too")
def test_endpoint_that_moves_keeps_its_connection(scene, connect):
    """ED-09: to another locality."""
    a = scene.serve("a")
    scene.plane.update(*scene.cluster("main", locality("one", a)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    assert caller.outcome() == "a"
    b = scene.serve("b")
    scene.plane.update(scene.endpoints("main", locality("other", a, b)))
    caller.becomes("a", "b")
    assert a.connections == 1


def test_no_endpoints_are_unavailable_at_once_until_there_are(scene, connect):
    """ED-05: an empty assignment is an answer; nothing is waited for."""
    scene.plane.update(*scene.cluster("main"))
    scene.route(build.route(cluster="main"))
    caller = connect()
    answer = caller.call()
    assert answer.code is UNAVAILABLE
    assert answer.seconds < 5
    scene.plane.update(scene.endpoints("main", scene.serve("a")))
    caller.becomes("a")


def test_endpoints_all_gone_and_back(scene, connect):
    """ED-05."""
    (a,) = scene.simple("a")
    caller = connect()
    caller.becomes("a")
    scene.plane.update(scene.endpoints("main"))
    caller.fails()
    scene.plane.update(scene.endpoints("main", a))
    caller.becomes("a")


def test_call_that_waits_for_ready_waits_for_endpoints(scene, connect):
    """ED-05: the others fail meanwhile."""
    scene.plane.update(*scene.cluster("main"))
    scene.route(build.route(cluster="main"))
    caller = connect()
    assert caller.call().code is UNAVAILABLE
    pending = caller.start(wait_for_ready=True)
    scene.plane.update(scene.endpoints("main", scene.serve("a")))
    assert pending.result().outcome == "a"


def test_endpoint_that_is_dead_is_passed_over(scene, connect):
    """LB-01: only connections that stand are used."""
    a, b = scene.simple("a", "b")
    b.kill()
    caller = connect()
    assert caller.row(20) == ["a"] * 20
    a.kill()
    caller.fails()


def test_endpoint_that_dies_and_returns(scene, connect):
    """LB-01: it is looked for again, and found."""
    _, b = scene.simple("a", "b")
    caller = connect()
    caller.becomes("a", "b")
    b.kill()
    caller.becomes("a", calls=12)
    b.start()
    caller.becomes("a", "b")


def test_all_endpoints_dead_are_unavailable_until_one_returns(scene, connect):
    """LB-01."""
    a, b = scene.simple("a", "b")
    caller = connect()
    caller.becomes("a", "b")
    a.kill()
    b.kill()
    caller.fails()
    b.start()
    caller.becomes("b")


def test_call_that_waits_for_ready_waits_for_a_dead_endpoint(scene, connect):
    """LB-01."""
    (a,) = scene.simple("a")
    a.kill()
    caller = connect()
    assert caller.call().code is UNAVAILABLE
    pending = caller.start(wait_for_ready=True)
    a.start()
    assert pending.result().outcome == "a"


# ----------------------------------------------------------------------------------------------------------- localities


def test_localities_share_by_weight(scene, connect):
    """LB-02."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("main", locality("one", a, weight=3), locality("other", b, weight=1)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("a", "b", calls=20)
    assert fits(caller.many(CALLS), "a", 0.75)


def test_endpoints_of_a_locality_share_its_part(scene, connect):
    """LB-02, LB-01: however many they are."""
    a, b, c = (scene.serve(name) for name in "abc")
    scene.plane.update(*scene.cluster("main", locality("one", a, b), locality("other", c)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("a", "b", "c", calls=30)
    seen = caller.many(CALLS)
    assert fits(seen, "c", 0.5)
    assert fits(seen, "a", 0.25)


def test_weights_of_localities_change(scene, connect):
    """LB-02: a third one comes with them, for it to be seen."""
    a, b, c = (scene.serve(name) for name in "abc")
    scene.plane.update(*scene.cluster("main", locality("one", a, weight=3), locality("other", b, weight=1)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("a", "b", calls=20)
    scene.plane.update(
        scene.endpoints(
            "main",
            locality("one", a, weight=1),
            locality("other", b, weight=2),
            locality("third", c, weight=1),
        )
    )
    caller.becomes("a", "b", "c", calls=30)
    seen = caller.many(CALLS)
    assert fits(seen, "b", 0.5)
    assert fits(seen, "a", 0.25)


@pytest.mark.parametrize("weight", [None, 0])
def test_locality_without_weight_has_no_call(scene, connect, weight):
    """ED-01, DV-15."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("main", locality("one", a), locality("other", b, weight=weight)))
    scene.route(build.route(cluster="main"))
    assert connect().row(20) == ["a"] * 20
    assert not b.calls


def test_locality_without_endpoints_has_no_part(scene, connect):
    """ED-05: the others carry it."""
    a = scene.serve("a")
    scene.plane.update(*scene.cluster("main", locality("one", a), locality("other", weight=99)))
    scene.route(build.route(cluster="main"))
    assert connect().row(30) == ["a"] * 30


def test_locality_with_nothing_healthy_has_no_part(scene, connect):
    """ED-05."""
    a, b = scene.serve("a"), scene.serve("b")
    sick = locality("other", endpoint(b, health="UNHEALTHY"), weight=99)
    scene.plane.update(*scene.cluster("main", locality("one", a), sick))
    scene.route(build.route(cluster="main"))
    assert connect().row(30) == ["a"] * 30


def test_locality_that_is_dead_has_no_part(scene, connect):
    """LB-02: only those with a connection that stands."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("main", locality("one", a), locality("other", b, weight=3)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("a", "b", calls=20)
    b.kill()
    caller.becomes("a", calls=30)


def test_locality_is_removed_and_another_added(scene, connect):
    """LB-02: no call fails."""
    a, b, c = (scene.serve(name) for name in "abc")
    scene.plane.update(*scene.cluster("main", locality("one", a), locality("other", b)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("a", "b", calls=20)
    with caller.calling() as seen:
        scene.plane.update(scene.endpoints("main", locality("other", b), locality("third", c)))
        caller.becomes("b", "c", calls=20)
    assert set(seen) <= {"a", "b", "c"}


def test_all_localities_are_replaced(scene, connect):
    """LB-02: no call fails."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("main", locality("one", a)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.plane.update(scene.endpoints("main", locality("other", b)))
        caller.becomes("b")
    assert set(seen) <= {"a", "b"}


def test_many_localities(scene, connect):
    """LB-02: each has its part."""
    servers = [scene.serve(f"s{number}") for number in range(12)]
    members = [locality(f"zone-{number}", server) for number, server in enumerate(servers)]
    scene.plane.update(*scene.cluster("main", *members))
    scene.route(build.route(cluster="main"))
    connect().becomes(*(server.name for server in servers), calls=150)


# ------------------------------------------------------------------------------------------------ what is no assignment


def _port(number):
    return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": number}}}}


def _name(host):
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": 80}}}}


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([locality("one", "127.0.0.1:1", priority=1)], id="no priority 0"),
        pytest.param(
            [locality("one", "127.0.0.1:1"), locality("two", "127.0.0.1:2", priority=2)], id="a gap"
        ),
        pytest.param([locality("one", "127.0.0.1:1"), locality("one", "127.0.0.1:2")], id="a locality twice"),
        pytest.param([locality("one", "127.0.0.1:1", "127.0.0.1:1")], id="an address twice"),
        pytest.param(
            [locality("one", "127.0.0.1:1"), locality("two", "127.0.0.1:1", priority=1)],
            id="an address in two",
        ),
        pytest.param([build.endpoint("127.0.0.1:1", weight=0)], id="weight of zero"),
        pytest.param([_port(65_536)], id="port"),
        pytest.param([_name("localhost")], id="name"),
        pytest.param(
            [locality("one", "127.0.0.1:1", weight=4_294_967_295), locality("two", "127.0.0.1:2")],
            id="sum of weights",
        ),
        pytest.param(
            [{"lb_endpoints": [build.endpoint("127.0.0.1:1")], "load_balancing_weight": 1}], id="no locality"
        ),
    ],
)
def test_assignment_that_makes_no_sense_is_refused(scene, connect, members):
    """ED-01, ED-02, ED-03: the one before stays."""
    scene.simple("a")
    caller = connect()
    assert caller.outcome() == "a"
    scene.plane.update(build.endpoints("main", *members))
    assert "main" in (scene.plane.wait_for_nack("endpoint").error or "")
    assert caller.row(5) == ["a"] * 5


def test_locality_in_two_priorities_is_accepted(scene, connect):
    """ED-02."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("main", locality("one", a), locality("one", b, priority=1)))
    scene.route(build.route(cluster="main"))
    assert connect().row(10) == ["a"] * 10
