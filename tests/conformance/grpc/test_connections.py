"""How many connections an endpoint may have, once the streams of one are used up (A105)."""

from __future__ import annotations

import grpc
import pytest

from meshlib.testing import build

SOON = 5.0  # seconds; grpcio waits for more connections in vain

unread = pytest.mark.oracle_differs("grpcio 1.85 does not read per_host_thresholds yet")


@pytest.fixture
def narrow(scene):
    """A function that starts a server whose connections carry two calls each, with these thresholds for each endpoint."""

    def make(**threshold):
        server = scene.serve("a", streams=2)
        breakers = {"per_host_thresholds": [threshold]} if threshold else {}
        scene.plane.update(*scene.cluster(scene.name, server, circuit_breakers=breakers))
        scene.route(build.route(cluster=scene.name))
        return server

    return make


def begun(server, caller, count):
    """So many calls, of which the server gets as many as it may."""
    assert caller.outcome() == server.name  # it says how many calls a connection may carry
    server.hold()
    return [caller.start() for _ in range(count)]


def ended(server, calls, at_once):
    """Those that it had ``at_once`` are answered. One that has waited comes as a stream ends, and grpcio's server refuses it
    now and then: to it that has not ended yet.
    """
    server.behave()
    answers = [each.result() for each in calls]
    assert sum(each.outcome == server.name for each in answers) >= at_once
    assert all("error code 7" in each.details for each in answers if each.outcome != server.name)


def check_bound(server, caller, connections):
    """More calls than so many connections carry make no further one, and the rest is not sent."""
    calls = begun(server, caller, 2 * connections + 4)
    server.wait_for_held(2 * connections, SOON)
    assert waits(caller)
    ended(server, calls, 2 * connections)
    assert server.connections == connections, "those that stood are used on"


def waits(caller):
    """Whether another call is not even sent."""
    return caller.call(timeout=0.5).code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_one_connection_unless_it_says_more(narrow, connect):
    """CB-03: calls beyond its streams wait for it."""
    a = narrow()
    check_bound(a, connect(), 1)


@unread
def test_as_many_as_the_threshold_of_an_endpoint_says(narrow, connect):
    """CB-03."""
    a = narrow(max_connections=3)
    check_bound(a, connect(), 3)


@unread
def test_ten_at_most(narrow, connect):
    """CB-03."""
    a = narrow(max_connections=100)
    check_bound(a, connect(), 10)


def test_threshold_of_another_priority_counts_for_nothing(narrow, connect):
    """CB-03."""
    a = narrow(priority="HIGH", max_connections=3)
    check_bound(a, connect(), 1)


@unread
def test_no_connection_at_all_is_refused(scene, narrow, connect):
    """CB-03: the cluster keeps what it had."""
    a = narrow(max_connections=2)
    caller = connect()
    assert caller.outcome() == "a"
    narrow_one = {"per_host_thresholds": [{"max_connections": 0}]}
    scene.plane.update(*scene.cluster(scene.name, a, circuit_breakers=narrow_one))
    assert "max_connections" in str(scene.plane.wait_for_nack("cluster").error)
    check_bound(a, caller, 2)


@unread
def test_threshold_is_changed(scene, narrow, connect):
    """CB-03: calls under way go on."""
    a = narrow(max_connections=2)
    caller = connect()
    before = begun(a, caller, 4)
    a.wait_for_held(4, SOON)
    wide = {"per_host_thresholds": [{"max_connections": 4}]}
    scene.plane.update(*scene.cluster(scene.name, a, circuit_breakers=wide))
    scene.named("b")
    scene.route(build.route("/later", cluster="b"), build.route(cluster=scene.name))
    caller.becomes("b", path="/later/Say", timeout=0.3)
    a.wait_for_held(4, SOON)
    ended(a, before, 4)
    check_bound(a, caller, 4)
