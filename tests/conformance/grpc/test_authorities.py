"""Whose name a call carries as its authority: the target's, or by a trusted control plane's order the endpoint's (A81)."""

from __future__ import annotations

import pytest

from meshlib.testing import build
from tests.conformance.support.scene import endpoint

TRUSTED = "trusted_xds_server"


@pytest.fixture
def named(scene):
    """A function that starts a server whose endpoint has this name, and routes calls to it as ordered; ``/plain`` as they are."""

    def make(hostname, *, trusted=True, **action):
        if trusted:
            scene.features = [TRUSTED]
        server = scene.serve("a")
        scene.plane.update(*scene.cluster(scene.name, endpoint(server, hostname=hostname)))
        plain = build.route("/plain", cluster=scene.name)
        scene.route(plain, build.route(cluster=scene.name, action={"auto_host_rewrite": True, **action}))
        return server

    return make


def test_endpoints_name_is_the_authority(named, connect):
    """RW-03."""
    named("reviews.example")
    assert connect().call().authority == "reviews.example"


def test_order_of_a_server_that_is_not_trusted_counts_for_nothing(scene, named, connect):
    """RW-03."""
    named("reviews.example", trusted=False)
    assert connect().call().authority == scene.name


def test_endpoint_without_a_name_changes_nothing(scene, named, connect):
    """RW-03."""
    named("")
    assert connect().call().authority == scene.name


def test_name_wins_over_the_authority_of_the_channel(named, connect):
    """RW-03: only one that is given with the call would win, and Python's channels have none."""
    named("reviews.example")
    assert connect(authority="other.example").call().authority == "reviews.example"


def test_each_endpoint_has_its_name(scene, named, connect):
    """RW-03."""
    a = named("a.example")
    b = scene.serve("b")
    members = endpoint(a, hostname="a.example"), endpoint(b, hostname="b.example")
    scene.plane.update(*scene.cluster(scene.name, *members))
    caller = connect()
    caller.becomes("a", "b")
    for _ in range(6):
        answer = caller.call()
        assert answer.authority == f"{answer.who}.example"


def test_route_without_the_order_leaves_it_alone(scene, named, connect):
    """RW-03: on one channel calls of both kinds take turns, and no connection is made for each."""
    a = named("reviews.example")
    caller = connect()
    for _ in range(4):
        assert caller.call().authority == "reviews.example"
        assert caller.call("/plain/Say").authority == scene.name
    assert a.connections <= 2


def test_name_changes(scene, named, connect):
    """RW-03."""
    a = named("old.example")
    caller = connect()
    assert caller.call().authority == "old.example"
    scene.plane.update(scene.endpoints(scene.name, endpoint(a, hostname="new.example")))
    caller.until(lambda answer: answer.authority == "new.example")


def test_name_of_a_logical_dns_cluster(scene, connect):
    """RW-03: the name that is resolved."""
    scene.features = [TRUSTED]
    a = scene.serve("a")
    cluster = build.cluster(scene.name, [f"localhost:{a.port}"], type="LOGICAL_DNS")
    scene.plane.update(cluster)
    scene.route(build.route(cluster=scene.name, action={"auto_host_rewrite": True}))
    assert connect().call().authority.partition(":")[0] == "localhost"
