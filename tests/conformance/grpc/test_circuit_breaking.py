"""How many calls a cluster may have at a time: ``max_requests`` of its thresholds (A32)."""

from __future__ import annotations

import grpc
import pytest

from meshlib.testing import build

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def thresholds(maximum, **fields):
    return {"thresholds": [{"priority": "DEFAULT", "max_requests": maximum, **fields}]}


@pytest.fixture
def limited(scene):
    """A function that starts a server, ``a``, alone in a cluster that may have so many calls at a time."""

    def make(maximum):
        server = scene.serve("a")
        scene.plane.update(*scene.cluster(scene.name, server, circuit_breakers=thresholds(maximum)))
        scene.route(build.route(cluster=scene.name))
        server.hold()
        return server

    return make


def held(server, caller, count):
    """So many calls that the server has got and has not answered."""
    pending = [caller.start() for _ in range(count)]
    server.wait_for_held(count)
    return pending


def test_call_above_the_limit_is_unavailable(limited, connect):
    """CB-01: at once, and the server does not hear of it."""
    a = limited(3)
    caller = connect()
    pending = held(a, caller, 3)
    assert caller.call().code is UNAVAILABLE
    assert a.calls == 3
    a.behave()
    assert [each.result().outcome for each in pending] == ["a"] * 3


def test_call_that_ends_makes_room(limited, connect):
    """CB-01."""
    a = limited(1)
    caller = connect()
    (first,) = held(a, caller, 1)
    assert caller.call().code is UNAVAILABLE
    a.behave()
    assert first.result().outcome == "a"
    caller.becomes("a")


def test_call_that_is_cancelled_makes_room(limited, connect):
    """CB-01: it is over, too."""
    a = limited(1)
    caller = connect()
    (first,) = held(a, caller, 1)
    assert caller.call().code is UNAVAILABLE
    first.cancel()
    assert first.result().code is grpc.StatusCode.CANCELLED
    a.wait_for_held(0)
    a.behave()
    caller.becomes("a")


def test_stream_counts_until_it_ends(limited, connect):
    """CB-01: however little it says."""
    a = limited(1)
    a.behave()
    caller = connect()
    talk = caller.talk()
    assert talk.say() == "a"
    assert caller.call().code is UNAVAILABLE
    assert talk.finish() is grpc.StatusCode.OK
    caller.becomes("a")


def test_channels_share_the_limit(limited, connect):
    """CB-02: it is the cluster's, whoever calls."""
    a = limited(2)
    one, other = connect(), connect()
    pending = [one.start(), other.start()]
    a.wait_for_held(2)
    assert one.call().code is UNAVAILABLE
    assert other.call().code is UNAVAILABLE
    a.behave()
    assert [each.result().outcome for each in pending] == ["a"] * 2


def test_limit_is_of_one_cluster(scene, limited, connect):
    """CB-02: another is not concerned."""
    a = limited(1)
    b = scene.serve("b")
    scene.plane.update(*scene.cluster(scene.name + "-b", b, circuit_breakers=thresholds(1)))
    scene.route(build.route(path="/x/B", cluster=scene.name + "-b"), build.route(cluster=scene.name))
    caller = connect()
    held(a, caller, 1)
    assert caller.call().code is UNAVAILABLE
    assert caller.outcome("/x/B") == "b"


def test_limit_is_raised(scene, limited, connect):
    """CB-02: while calls are in flight."""
    a = limited(1)
    a.behave()
    a.hold(times=1)
    caller = connect()
    held(a, caller, 1)
    assert caller.call().code is UNAVAILABLE
    scene.plane.update(build.cluster(scene.name, circuit_breakers=thresholds(2)))
    caller.until(lambda answer: answer.outcome == "a")
    assert a.calls == 2


def test_limit_is_lowered_below_what_is_in_flight(scene, limited, connect):
    """CB-02: those stay; none is let through until there are fewer."""
    a = limited(10)
    caller = connect()
    pending = held(a, caller, 3)
    scene.plane.update(build.cluster(scene.name, circuit_breakers=thresholds(2)))
    caller.fails(timeout=0.3)
    a.behave()
    assert [each.result().outcome for each in pending] == ["a"] * 3
    caller.becomes("a")


def test_limit_of_zero_lets_nothing_through(limited, connect):
    """CB-01."""
    a = limited(0)
    assert connect().call().code is UNAVAILABLE
    assert a.calls == 0


def test_thresholds_of_high_priority_count_for_nothing(scene, connect):
    """CB-01: the first of priority DEFAULT is the one."""
    a = scene.serve("a")
    breakers = {
        "thresholds": [
            {"priority": "HIGH", "max_requests": 1},
            {"priority": "DEFAULT", "max_requests": 2},
            {"priority": "DEFAULT", "max_requests": 100},
        ]
    }
    scene.plane.update(*scene.cluster(scene.name, a, circuit_breakers=breakers))
    scene.route(build.route(cluster=scene.name))
    a.hold()
    caller = connect()
    held(a, caller, 2)
    assert caller.call().code is UNAVAILABLE


def test_other_thresholds_count_for_nothing(scene, connect):
    """CB-01, RT-08: connections, pending calls and retries are not limited."""
    a = scene.serve("a")
    none = {"max_connections": 0, "max_pending_requests": 0, "max_retries": 0}
    scene.plane.update(*scene.cluster(scene.name, a, circuit_breakers=thresholds(10, **none)))
    retry = {"retry_on": "unavailable", "num_retries": 1}
    scene.route(build.route(cluster=scene.name, retry=retry))
    a.fail(times=1)
    assert connect().outcome() == "a"
    assert a.calls == 2


def test_call_above_the_limit_is_not_tried_again(scene, limited, connect):
    """CB-01: whatever the retry policy says; it ends at once."""
    a = limited(1)
    slow = {"base_interval": "2s", "max_interval": "2s"}
    retry = {"retry_on": "unavailable", "num_retries": 3, "retry_back_off": slow}
    scene.route(build.route(cluster=scene.name, retry=retry))
    caller = connect()
    held(a, caller, 1)
    answer = caller.call()
    assert answer.code is UNAVAILABLE
    assert answer.seconds < 1.5


def test_limit_holds_beyond_endpoints(scene, connect):
    """CB-02: it is the cluster's, and not each endpoint's."""
    servers = [scene.serve(name) for name in ("a", "b")]
    scene.plane.update(*scene.cluster(scene.name, *servers, circuit_breakers=thresholds(2)))
    scene.route(build.route(cluster=scene.name))
    caller = connect()
    caller.becomes("a", "b")
    for server in servers:
        server.hold()
    pending = [caller.start(), caller.start()]
    for server in servers:
        server.wait_for_held(1)
    assert caller.call().code is UNAVAILABLE
    for server in servers:
        server.behave()
    assert sorted(each.result().outcome for each in pending) == ["a", "b"]
