"""Order of arrival: listeners, routes, clusters and endpoints in every order, each late, each missing.

What a call gets depends on what is there and not on the order in which it came; `meets` says what that is. In the sidecar
view a wildcard's answer is proof of absence; in the target view only time is.
"""

from __future__ import annotations

from itertools import permutations

import pytest

from meshlib.model.events import Unanswered
from meshlib.testing import build
from tests.support.arrival_kit import PATIENCE, SERVER, Scene, resources

TYPES = ("listener", "route", "cluster", "endpoint")
ORDERS = list(permutations(TYPES))
VIEWS = ("sidecar", "target", "auto")
THERE = "10.0.0.9:80"


def meets(view, there):
    """url → what a call meets, where the types `there` have come."""
    listener = "listener" in there
    routes = listener and "route" in there
    clusters = routes and "cluster" in there
    called = THERE if clusters and "endpoint" in there else "wait"
    # By name: of the mesh, or not known to be.
    name = {"/": called, "/forbidden": 403 if routes else "wait", "/gone": "wait"}
    if clusters and view == "sidecar":
        name["/gone"] = 503
    found = {f"http://reviews{path}": what for path, what in name.items()}
    # By address: of the mesh once a listener has it; before that nobody waits.
    for path, what in name.items():
        wild = view != "target" and listener
        found[f"http://127.0.0.1{path}"] = what if wild else "direct"
    # A name that nobody has, on a port that a listener has and on another one; one that is not of the mesh.
    found["http://other/"] = "direct" if view == "sidecar" and routes else "wait"
    found["http://other:81/"] = "direct" if view == "sidecar" and listener else "wait"
    found["http://example.com/"] = "direct"
    return found


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(short[0] for short in order))
def test_each_order_each_late_by_a_second(order, view):
    scene = Scene(view)
    for count in range(len(order) + 1):
        there = set(order[:count])
        for url, what in meets(view, there).items():
            assert scene.call(url) == what, (url, there)
        if count < len(order):
            scene.step(1.0)
            scene.give(order[count])


#: What a call meets in the end where one type never comes, once its own time is over and once the types' is (EX-01).
#: (view, missing): by name, the route to a 403, the route to a cluster that there is not, by address; each now, later.
MISSING = {
    ("sidecar", "listener"): (
        ("direct", "direct"),
        ("direct", "direct"),
        ("direct", "direct"),
        ("direct", "direct"),
    ),
    ("sidecar", "route"): (("direct", "direct"), ("direct", "direct"), ("direct", "direct"), ("failed", 404)),
    ("sidecar", "cluster"): ((503, 503), (403, 403), (503, 503), (503, 503)),
    ("sidecar", "endpoint"): ((503, 503), (403, 403), (503, 503), (503, 503)),
    ("target", "listener"): (
        ("direct", "direct"),
        ("direct", "direct"),
        ("direct", "direct"),
        ("direct", "direct"),
    ),
    ("target", "route"): (
        ("failed", "failed"),
        ("failed", "failed"),
        ("failed", "failed"),
        ("direct", "direct"),
    ),
    ("target", "cluster"): ((503, 503), (403, 403), (503, 503), ("direct", "direct")),
    ("target", "endpoint"): ((503, 503), (403, 403), (503, 503), ("direct", "direct")),
}
URLS = ("http://reviews/", "http://reviews/forbidden", "http://reviews/gone", "http://127.0.0.1/")


@pytest.mark.parametrize(("view", "missing"), MISSING)
def test_each_missing(view, missing):
    scene = Scene(view)
    for url in URLS:
        scene.call(url)
    for short in TYPES:
        if short != missing:
            scene.give(short)
    scene.step(PATIENCE + 0.1)
    assert [scene.last(url) for url in URLS] == [now for now, _ in MISSING[view, missing]]
    scene.step(15.0)
    # Now nobody waits any more.
    assert [scene.call(url) for url in URLS] == [later for _, later in MISSING[view, missing]]


@pytest.mark.parametrize(("view", "missing"), MISSING)
def test_each_missing_where_nothing_may_go_direct_at_a_cold_start(view, missing):
    """As above, but what was direct for want of an answer is no call at all."""
    scene = Scene(view, cold_start="fail")
    for url in URLS:
        scene.call(url)
    for short in TYPES:
        if short != missing:
            scene.give(short)
    scene.step(PATIENCE + 0.1)
    for url, (now, _) in zip(URLS, MISSING[view, missing], strict=True):
        answered = url.startswith("http://127")
        assert scene.last(url) == (now if now != "direct" or answered else "failed")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("late", TYPES)
def test_the_late_one_is_used_though_its_time_was_over(late, view):
    """EX-02."""
    scene = Scene(view)
    scene.call("http://reviews/")
    for short in TYPES:
        if short != late:
            scene.give(short)
    scene.step(30.0)
    scene.give(late)
    assert scene.call("http://reviews/") == THERE


class TestDeleted:
    """What is in force and then taken away, and nothing in its place."""

    @staticmethod
    def scene(view):
        scene = Scene(view)
        scene.call("http://reviews/")
        for short in TYPES:
            scene.give(short)
        assert scene.call("http://reviews/") == THERE
        return scene

    @pytest.mark.parametrize("view", VIEWS)
    def test_a_cluster(self, view):
        """ER-03: as in Envoy, once an update would have named another; the rest of the host serves on."""
        scene = self.scene(view)
        scene.take("cluster")
        assert scene.call("http://reviews/") == THERE
        scene.step(1.0)
        assert scene.call("http://reviews/") == 503
        assert scene.call("http://reviews/forbidden") == 403
        (status,) = scene.runtime.feed.statuses()
        assert "cluster c (was deleted by the server)" in status.missing
        scene.give("cluster")
        scene.give("endpoint")
        assert scene.call("http://reviews/") == THERE
        (status,) = scene.runtime.feed.statuses()
        assert not any(words.startswith("cluster c ") for words in status.missing)

    @pytest.mark.parametrize(
        ("view", "by_name", "by_address"), [("sidecar", "direct", "direct"), ("target", "direct", "direct")]
    )
    def test_a_listener(self, view, by_name, by_address):
        """Its hosts are of the mesh no more; in Envoy its port closes."""
        scene = self.scene(view)
        scene.take("listener")
        assert scene.call("http://reviews/") == by_name
        assert scene.call("http://127.0.0.1/") == by_address
        if view == "target":
            assert "was deleted by the server" in scene.reason("http://reviews/")

    @pytest.mark.parametrize("view", ["sidecar", "target"])
    def test_a_route_and_a_virtual_host(self, view):
        scene = self.scene(view)
        less = build.virtual_host("v", build.route("/only", cluster="c"), domains=["reviews", "127.0.0.1"])
        scene.give("route", build.route_config("r", less))
        assert scene.call("http://reviews/") == 404
        scene.give(
            "route", build.route_config("r", build.virtual_host("v", build.route(cluster="c"), domains=["x"]))
        )
        assert scene.call("http://reviews/") == ("direct" if view == "sidecar" else 404)

    @pytest.mark.parametrize("view", ["sidecar", "target"])
    def test_an_update_in_parts_fails_no_call(self, view):
        """CA-03: the newest routes name another cluster, and the one that is in force is gone from the server already."""
        scene = self.scene(view)
        other = build.virtual_host("v", build.route(cluster="d"), domains=["reviews", "127.0.0.1"])
        scene.give("route", build.route_config("r", other))
        assert scene.call("http://reviews/") == THERE
        scene.given["endpoint"] = None
        scene.give("cluster", build.cluster("d"))
        assert scene.call("http://reviews/") == THERE
        scene.give("endpoint", build.endpoints("d", "10.0.0.10:80"))
        assert scene.call("http://reviews/") == "10.0.0.10:80"


class TestOutage:
    @pytest.mark.parametrize("view", VIEWS)
    def test_a_control_plane_that_cannot_be_reached_at_start(self, view):
        """CA-09: nobody waits, and nobody is told that there is no listener."""
        scene = Scene(view, up=False)
        assert scene.call("http://reviews/") == "wait"
        scene.end("connection refused")
        assert scene.call("http://reviews/") == "direct"
        assert scene.call("http://127.0.0.1/") == "direct"
        assert scene.reason("http://reviews/").startswith(
            f"the control plane {SERVER} is not reachable (connection refused): "
        )
        assert scene.reason("http://reviews/").endswith("reviews is called directly")
        assert next(event.via for event in scene.events if isinstance(event, Unanswered)) == "direct"

    @pytest.mark.parametrize("view", VIEWS)
    def test_where_such_calls_are_not_to_be_made(self, view):
        for rules in ({"cold_start": "fail"}, {"unknown": "refuse"}):
            scene = Scene(view, up=False, **rules)
            scene.call("http://reviews/")
            scene.end("connection refused")
            assert scene.call("http://reviews/") == "failed"

    @pytest.mark.parametrize("cold_start", ["direct", "fail"])
    def test_one_that_never_answered_has_not_said_that_there_is_no_listener(self, cold_start):
        """Though the time of the name is over (EX-01)."""
        end = "direct" if cold_start == "direct" else "failed"
        scene = Scene("target", cold_start=cold_start)
        scene.call("http://reviews/")
        scene.step(16.0)
        assert scene.last("http://reviews/") == end
        assert "has not answered" in scene.reason("http://reviews/")
        scene.end("reset")
        assert scene.call("http://reviews/") == end
        assert "is not reachable (reset)" in scene.reason("http://reviews/")

    @pytest.mark.parametrize("view", VIEWS)
    def test_it_is_there_later(self, view):
        scene = Scene(view, up=False)
        scene.call("http://reviews/")
        scene.end("connection refused")
        scene.up = True
        for short in TYPES:
            scene.give(short)
        scene.step(5.0)
        assert scene.call("http://reviews/") == THERE

    @pytest.mark.parametrize("view", ["sidecar", "target"])
    @pytest.mark.parametrize("count", range(1, 4))
    def test_it_goes_away_when_a_part_has_come(self, view, count):
        """What the listener has never goes direct, and nobody waits."""
        scene = Scene(view)
        scene.call("http://reviews/")
        for short in TYPES[:count]:
            scene.give(short)
        scene.end("reset")  # an answer came on it: no outage yet (ST-05)
        scene.step(2.0)
        scene.end("connection refused")
        by_name = "failed" if view == "target" else "direct"
        assert scene.call("http://reviews/") == (by_name if count < 2 else 503)
        assert scene.call("http://reviews/forbidden") == (by_name if count < 2 else 403)
        if view == "sidecar":
            assert scene.call("http://127.0.0.1/") == ("failed" if count < 2 else 503)


@pytest.mark.parametrize("view", ["sidecar", "auto"])
def test_a_route_to_a_cluster_that_there_is_not_takes_nothing_else_away(view):
    """One such route: the listener, its 403 and its other routes serve at once, and that route is Envoy's 503."""
    scene = Scene(view)
    for short in ("cluster", "endpoint", "listener", "route"):
        scene.give(short)
    assert scene.call("http://reviews/forbidden") == 403
    assert scene.call("http://127.0.0.1/forbidden") == 403
    assert scene.call("http://127.0.0.1/") == THERE
    if view == "sidecar":
        assert scene.call("http://127.0.0.1/gone") == 503


def test_a_refused_target_is_no_direct_call():
    """ER-02: it exists, and what it orders is not known."""
    scene = Scene("target")
    scene.call("http://reviews/")
    scene.give("listener", build.api_listener("reviews", "r", manager={"http_filters": []}))
    assert scene.call("http://reviews/") == "failed"
    assert "was refused" in scene.reason("http://reviews/")
    scene.give("listener", *resources()["listener"])
    assert scene.call("http://reviews/") == "wait"
