"""Resources that are refused: what was there before stays, and what is good beside them is taken."""

from __future__ import annotations

import grpc
import pytest

from meshlib.testing import Raw, build

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
A, B = "/x/A", "/x/B"


def bad_listener(scene):
    return scene.listener(manager={"http_filters": []})


def bad_routes(scene):
    return scene.routes({"match": {}, "route": {"cluster": "main"}})


def bad_cluster(_):
    return build.cluster("main", outlier_detection={"interval": "-1s"})


def bad_endpoints(_):
    return build.endpoints("main", build.locality("127.0.0.1:1", priority=3))


BAD = [
    pytest.param("listener", bad_listener, id="listener"),
    pytest.param("route", bad_routes, id="routes"),
    pytest.param("cluster", bad_cluster, id="cluster"),
    pytest.param("endpoint", bad_endpoints, id="endpoints"),
]


#: What a call is told of each of them.
SAID = {
    "listener": "http_filters",
    "route": "match",
    "cluster": "outlier_detection.interval",
    "endpoint": "priorit",
}


@pytest.fixture
def good(scene):
    """A function that gives the good resource of a type, as ``Scene.simple`` has set it for this server."""

    def make(short, server):
        return {
            "listener": scene.listener(),
            "route": scene.routes(build.route(cluster="main")),
            "cluster": build.cluster("main"),
            "endpoint": scene.endpoints("main", server),
        }[short]

    return make


@pytest.mark.parametrize(("short", "bad"), BAD)
def test_bad_update_leaves_what_was_there(scene, connect, short, bad):
    """ER-02, SW-02: it is refused by name, under the version that was accepted last."""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    before = scene.plane.version(short)
    scene.plane.update(bad(scene))
    nack = scene.plane.wait_for_nack(short)
    assert (scene.name if short in {"listener", "route"} else "main") in (nack.error or "")
    assert nack.version == (before if nack.protocol == "sotw" else "")
    assert caller.row(10) == ["a"] * 10


@pytest.mark.parametrize(("short", "bad"), BAD)
def test_bad_first_version_is_unavailable_until_a_good_one_comes(scene, connect, good, short, bad):
    """ER-02: in words; no 15 s are waited for what is there, and is wrong (EX-05)."""
    (a,) = scene.simple("a")
    scene.plane.update(bad(scene))
    caller = connect()
    answer = caller.call()
    assert answer.code is UNAVAILABLE
    assert answer.seconds < 5
    assert SAID[short] in answer.details
    scene.plane.update(good(short, a))
    caller.becomes("a")


@pytest.mark.parametrize(("short", "bad"), BAD)
def test_good_update_after_a_bad_one_is_taken(scene, connect, good, short, bad):
    """ER-02, SW-06: and is accepted as if nothing had been."""
    a, b = scene.serve("a"), scene.serve("b")
    scene.plane.update(*scene.cluster("main", a))
    scene.route(build.route(cluster="main"))
    caller = connect()
    caller.becomes("a")
    scene.plane.update(bad(scene))
    scene.plane.wait_for_nack(short)
    seen = scene.plane.seen
    scene.plane.update(good(short, a), scene.endpoints("main", b))
    scene.plane.wait_for_ack(short, after=seen)
    caller.becomes("b")


def test_good_one_beside_a_bad_one_is_taken(scene, connect):
    """ER-01: a response with both is refused, and the good part of it counts."""
    a, b = scene.named("a", "b")
    scene.route(build.route(path=A, cluster="a"), build.route(cluster="b"))
    caller = connect()
    caller.becomes("a", path=A)
    caller.becomes("b", path=B)
    scene.plane.update(
        build.cluster("a", service_name="new"),
        scene.endpoints("new", b),
        build.cluster("b", outlier_detection={"interval": "-1s"}),
    )
    scene.plane.wait_for_nack("cluster")
    caller.becomes("b", path=A)
    assert caller.row(5, B) == ["b"] * 5
    assert a.calls


def test_every_bad_one_is_named(scene, connect):
    """SW-06: not the first alone."""
    scene.named("cart", "till")
    scene.route(build.route(path=A, cluster="cart"), build.route(cluster="till"))
    connect().becomes("cart", path=A)
    scene.plane.update(
        *(build.cluster(name, outlier_detection={"interval": "-1s"}) for name in ("cart", "till"))
    )
    error = scene.plane.wait_for_nack("cluster").error or ""
    assert "cart" in error
    assert "till" in error


def test_refusal_of_one_kind_is_not_anothers(scene, connect):
    """SW-04: endpoints change while the routes are refused."""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    scene.plane.update(bad_routes(scene))
    scene.plane.wait_for_nack("route")
    scene.plane.update(scene.endpoints("main", scene.serve("b")))
    caller.becomes("b")


@pytest.mark.parametrize("short", ["route", "endpoint"])
def test_bytes_that_are_no_message_are_refused(scene, connect, short):
    """SW-20, ER-11: and break nothing."""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    name = scene.name if short == "route" else "main"
    scene.plane.update(Raw(short, name, b"\xff\xff\xff"))
    scene.plane.wait_for_nack(short)
    assert caller.row(10) == ["a"] * 10


def test_refused_over_and_over(scene, connect):
    """SW-01: each response has its answer, and calls go on. (What is wrong is at another place each time.)"""
    scene.simple("a")
    caller = connect()
    caller.becomes("a")
    with caller.calling() as seen:
        for number in range(10):
            good = [build.route(f"/x{each}", cluster="main") for each in range(number)]
            after = scene.plane.seen
            scene.plane.update(scene.routes(*good, {"match": {}, "route": {"cluster": "main"}}))
            scene.plane.wait_for_nack("route", after=after)
    assert set(seen) == {"a"}
