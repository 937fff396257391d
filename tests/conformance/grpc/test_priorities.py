"""Priorities: the highest that can be reached has all calls; failover to the next, and the return (A56)."""

from __future__ import annotations

import grpc
import pytest

from meshlib.testing import build
from tests.conformance.support.scene import endpoint, locality

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def ranked(scene):
    """A function that starts servers of these names, each in a locality of a priority of its own, in this order."""

    def make(*names):
        servers = [scene.serve(name) for name in names]
        scene.plane.update(*scene.cluster("main", *_ranks(*servers)))
        scene.route(build.route(cluster="main"))
        return servers

    return make


def _ranks(*servers):
    return [locality(server.name, server, priority=rank) for rank, server in enumerate(servers)]


def test_highest_priority_has_all_calls(ranked, connect):
    """LB-11: whatever the order that they are listed in."""
    a, b, c = ranked("a", "b", "c")
    assert connect().row(20) == ["a"] * 20
    assert not b.calls
    assert not c.calls
    assert a.calls == 20


def test_order_of_the_list_does_not_count(scene, connect):
    """LB-11: the number does."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("main", locality("b", b, priority=1), locality("a", a)))
    scene.route(build.route(cluster="main"))
    assert connect().row(10) == ["a"] * 10


def test_failover_and_return(ranked, connect):
    """LB-11: to the next one where the endpoints die, and back as soon as one is there again."""
    a, _ = ranked("a", "b")
    caller = connect()
    caller.becomes("a")
    a.kill()
    caller.becomes("b")
    a.start()
    caller.becomes("a")


def test_failover_goes_down_step_by_step(ranked, connect):
    """LB-11."""
    a, b, _ = ranked("a", "b", "c")
    caller = connect()
    caller.becomes("a")
    a.kill()
    caller.becomes("b")
    b.kill()
    caller.becomes("c")
    a.start()
    caller.becomes("a")


def test_priority_that_is_dead_from_the_start_is_passed_over(ranked, connect):
    """LB-11: the first calls wait for the next one, and do not fail."""
    a, b, _ = ranked("a", "b", "c")
    a.kill()
    b.kill()
    assert connect().row(10) == ["c"] * 10


def test_all_priorities_dead_are_unavailable_until_one_returns(ranked, connect):
    """LB-11."""
    a, b = ranked("a", "b")
    a.kill()
    b.kill()
    caller = connect()
    assert caller.call().code is UNAVAILABLE
    b.start()
    caller.becomes("b")
    a.start()
    caller.becomes("a")


def test_one_endpoint_that_lives_keeps_the_priority(scene, connect):
    """LB-11, ED-07: there is no spill-over, whatever the part that is dead."""
    a, b, c, d = (scene.serve(name) for name in "abcd")
    scene.plane.update(*scene.cluster("main", locality("one", a, b, c), locality("other", d, priority=1)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("a", "b", "c")
    b.kill()
    c.kill()
    caller.becomes("a", calls=20)
    a.kill()
    caller.becomes("d")


def test_unhealthy_endpoints_count_as_none(scene, connect):
    """ED-04, ED-07: there is no spill-over, whatever the part that is unhealthy."""
    a, b, c = (scene.serve(name) for name in "abc")

    def say(*health):
        first = [endpoint(server, health=each) for server, each in zip((a, b), health, strict=True)]
        return scene.endpoints("main", locality("one", *first), locality("other", c, priority=1))

    scene.plane.update(build.cluster("main"), say("HEALTHY", "UNHEALTHY"))
    scene.route(build.route(cluster="main"))
    caller = connect()
    assert caller.row(20) == ["a"] * 20
    scene.plane.update(say("UNHEALTHY", "UNHEALTHY"))
    caller.becomes("c")
    scene.plane.update(say("UNHEALTHY", "HEALTHY"))
    caller.becomes("b")


def test_priority_without_endpoints_is_passed_over(scene, connect):
    """ED-05."""
    b = scene.serve("b")
    scene.plane.update(*scene.cluster("main", locality("empty"), locality("other", b, priority=1)))
    scene.route(build.route(cluster="main"))
    assert connect().row(10) == ["b"] * 10


def test_locality_without_endpoints_beside_one_that_has(scene, connect):
    """ED-05: within a priority."""
    a, b = scene.serve("a"), scene.serve("b")
    members = [locality("empty", weight=9), locality("one", a), locality("other", b, priority=1)]
    scene.plane.update(*scene.cluster("main", *members))
    scene.route(build.route(cluster="main"))
    assert connect().row(10) == ["a"] * 10


def test_priorities_change_places(scene, ranked, connect):
    """LB-11: an update says which is the highest, and no call fails."""
    a, b = ranked("a", "b")
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.plane.update(scene.endpoints("main", *_ranks(b, a)))
        caller.becomes("b")
    assert set(seen) <= {"a", "b"}


def test_new_highest_priority_has_all_calls(scene, ranked, connect):
    """LB-11: once it can be reached, and no call fails."""
    a, b = ranked("a", "b")
    c = scene.serve("c")
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.plane.update(scene.endpoints("main", *_ranks(c, a, b)))
        caller.becomes("c")
    assert set(seen) <= {"a", "c"}


def test_highest_priority_is_removed(scene, ranked, connect):
    """LB-11: the next one is the highest."""
    _, b, c = ranked("a", "b", "c")
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        scene.plane.update(scene.endpoints("main", *_ranks(b, c)))
        caller.becomes("b")
    assert set(seen) <= {"a", "b"}


def test_all_localities_move_to_a_higher_priority(scene, connect):
    """LB-11: what served as the second serves on as the first."""
    a, b = scene.serve("a"), scene.serve("b")
    a.kill()
    scene.plane.update(*scene.cluster("main", *_ranks(a, b)))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("b")
    with caller.calling() as seen:
        scene.plane.update(scene.endpoints("main", locality("a", a), locality("b", b)))
        caller.becomes("b", calls=20)
    assert set(seen) == {"b"}
    a.start()
    caller.becomes("a", "b", calls=20)


def test_priority_that_comes_back_into_the_list(scene, ranked, connect):
    """LB-11, A115."""
    a, b = ranked("a", "b")
    caller = connect()
    caller.becomes("a")
    scene.plane.update(scene.endpoints("main", *_ranks(a)))
    a.kill()
    caller.fails()
    scene.plane.update(scene.endpoints("main", *_ranks(a, b)))
    caller.becomes("b")


def test_endpoints_that_change_their_priority_keep_their_connections(scene, ranked, connect):
    """LB-11, A115: whatever becomes of the priorities, who stays in the list is not connected to anew."""
    a, b, c = ranked("a", "b", "c")
    caller = connect()
    caller.becomes("a")
    for servers in ((b, a, c), (c, b), (a, c), (b, a, c), (a, b, c), (c, a, b)):
        scene.plane.update(scene.endpoints("main", *_ranks(*servers)))
        caller.becomes(servers[0].name)
    # They left the list once each.
    assert a.connections <= 2
    assert b.connections <= 2
    assert c.connections == 1


def test_lower_priority_that_was_left_is_there_at_once_when_it_is_needed_again(scene, connect):
    """LB-11: its connections are kept for a while."""
    a, b = scene.serve("a"), scene.serve("b")

    def health(said):
        return locality("a", endpoint(a, health=said)), locality("b", b, priority=1)

    scene.plane.update(*scene.cluster("main", *health("UNHEALTHY")))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("b")
    for said, who in (("HEALTHY", "a"), ("UNHEALTHY", "b"), ("HEALTHY", "a"), ("UNHEALTHY", "b")):
        scene.plane.update(scene.endpoints("main", *health(said)))
        caller.becomes(who)
    assert b.connections == 1


def test_calls_in_flight_of_a_priority_that_is_removed_come_to_their_end(scene, ranked, connect):
    """A115: it gets no new ones."""
    a, _ = ranked("a", "b")
    a.hold()
    caller = connect()
    held = caller.start()
    a.wait_for_held(1)
    b = scene.serve("c")
    scene.plane.update(scene.endpoints("main", *_ranks(b)))
    caller.becomes("c", timeout=0.3)
    a.behave()
    assert held.result().outcome == "a"
    assert caller.row(10) == ["c"] * 10


def test_calls_in_flight_stay_where_they_are(ranked, connect):
    """LB-11: the return takes nobody away from the lower priority."""
    a, b = ranked("a", "b")
    a.kill()
    caller = connect()
    caller.becomes("b")
    talk = caller.talk()
    assert talk.say() == "b"
    a.start()
    caller.becomes("a")
    assert talk.say() == "b"
    assert talk.finish() is grpc.StatusCode.OK
    assert b.calls
