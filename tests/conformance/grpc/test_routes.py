"""Which route has a call, by its path; and what a route may be that leads nowhere."""

from __future__ import annotations

import grpc
import pytest

from meshlib.testing import build

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
READ, WRITE = "/shop.Cart/Read", "/shop.Cart/Write"


@pytest.fixture
def choose(scene, connect):
    """A function that sets these routes, behind them one to ``rest``, and gives a caller; the other clusters are ``a`` and ``b``."""

    def make(*routes, clusters=("a", "b")):
        scene.named(*clusters, "rest")
        scene.route(*routes, build.route(cluster="rest"))
        return connect()

    return make


def test_path_matches_exactly(choose):
    """RM-02: no more and no less than the whole."""
    caller = choose(build.route(path=READ, cluster="a"))
    assert caller.outcome(READ) == "a"
    assert caller.outcome(WRITE) == "rest"
    assert caller.outcome(READ + "er") == "rest"
    assert caller.outcome(READ.lower()) == "rest"


def test_path_without_case(choose):
    """RM-04: ``case_sensitive: false``."""
    caller = choose(build.route(path=READ.upper(), match={"case_sensitive": False}, cluster="a"))
    assert caller.outcome(READ) == "a"
    assert caller.outcome(WRITE) == "rest"


def test_prefix_matches_the_beginning(choose):
    """RM-02."""
    caller = choose(build.route("/shop.Cart/", cluster="a"), build.route("/shop", cluster="b"))
    assert caller.outcome(READ) == "a"
    assert caller.outcome("/shop.Till/Read") == "b"
    assert caller.outcome("/bank.Till/Read") == "rest"
    assert caller.outcome("/SHOP.Till/Read") == "rest"


def test_prefix_without_case(choose):
    """RM-04."""
    caller = choose(build.route("/SHOP.cart/", match={"case_sensitive": False}, cluster="a"))
    assert caller.outcome(READ) == "a"
    assert caller.outcome("/shop.Till/Read") == "rest"


@pytest.mark.parametrize("prefix", ["", "/"])
def test_empty_prefix_and_slash_match_everything(choose, prefix):
    """RM-02."""
    caller = choose(build.route(prefix, cluster="a"))
    assert caller.outcome(READ) == "a"
    assert caller.outcome("/x/y") == "a"


def test_regex_matches_the_whole_path(choose):
    """RM-03."""
    caller = choose(build.route(regex=r"/shop\.(Cart|Till)/R.*", cluster="a"))
    assert caller.outcome(READ) == "a"
    assert caller.outcome("/shop.Till/Rest") == "a"
    assert caller.outcome(WRITE) == "rest"
    assert caller.outcome("/more/shop.Cart/Read") == "rest"


def test_regex_that_fits_a_part_only_does_not_match(choose):
    """RM-03: it is a full match."""
    caller = choose(build.route(regex="/shop.Cart/Re", cluster="a"), build.route(regex="Read", cluster="b"))
    assert caller.outcome(READ) == "rest"


def test_regex_keeps_to_the_case(choose):
    """RM-03: ``case_sensitive`` says nothing of it."""
    caller = choose(build.route(regex="/SHOP.*", match={"case_sensitive": False}, cluster="a"))
    assert caller.outcome(READ) == "rest"


def test_first_route_that_matches_wins(choose):
    """RM-01: even where a later one says more."""
    caller = choose(build.route("/shop", cluster="a"), build.route(path=READ, cluster="b"))
    assert caller.outcome(READ) == "a"


def test_no_route_is_unavailable(scene, connect):
    """RM-01."""
    scene.named("a")
    scene.route(build.route(path=READ, cluster="a"))
    caller = connect()
    assert caller.outcome(READ) == "a"
    assert caller.call(WRITE).code is UNAVAILABLE


def test_no_routes_at_all_are_unavailable_until_there_are(scene, connect):
    """RM-01: an empty list is valid."""
    scene.named("a")
    scene.route()
    caller = connect()
    caller.fails()
    scene.plane.update(scene.routes(build.route(cluster="a")))
    caller.becomes("a")


@pytest.mark.parametrize(
    "path", ["", "/", "/shop.Cart", "/shop.Cart/", "/shop.Cart/Read/", "shop.Cart/Read", "//Read"]
)
def test_path_that_no_method_has_is_passed_over(choose, path):
    """RM-02, DV-06: the route is left out, and its configuration stands."""
    caller = choose(build.route(path=path, cluster="a"))
    assert caller.outcome(READ) == "rest"


@pytest.mark.parametrize("prefix", ["shop", "/shop.Cart/Read/", "//"])
def test_prefix_that_no_method_has_is_passed_over(choose, prefix):
    """RM-02, DV-06."""
    caller = choose(build.route(prefix, cluster="a"))
    assert caller.outcome(READ) == "rest"


def test_route_by_query_is_passed_over(choose):
    """RM-07, DV-06: a call has no query."""
    match = {"query_parameters": [{"name": "x", "string_match": {"exact": "1"}}]}
    caller = choose(build.route(match=match, cluster="a"))
    assert caller.outcome(READ) == "rest"


def test_route_by_cluster_header_is_passed_over(choose):
    """RA-03: the next route has the call."""
    caller = choose(build.route(action={"cluster_header": "x-cluster"}))
    assert caller.outcome(READ, metadata=(("x-cluster", "a"),)) == "rest"


def test_redirect_is_unavailable(choose):
    """RA-04."""
    caller = choose(build.route(path=READ, redirect={"host_redirect": "elsewhere.test"}))
    assert caller.call(READ).code is UNAVAILABLE
    assert caller.outcome(WRITE) == "rest"


def test_direct_response_is_unavailable(choose):
    """RA-04: whatever its status."""
    caller = choose(build.route(path=READ, respond=(200, "well")))
    assert caller.call(READ).code is UNAVAILABLE
    assert caller.outcome(WRITE) == "rest"


def test_non_forwarding_action_is_unavailable(choose):
    """RA-04: it is for servers."""
    only = {"match": {"path": READ}, "non_forwarding_action": {}}
    caller = choose(only)
    assert caller.call(READ).code is UNAVAILABLE
    assert caller.outcome(WRITE) == "rest"


@pytest.mark.parametrize(
    "match",
    [
        pytest.param({}, id="no path specifier"),
        pytest.param({"safe_regex": {"regex": "a[z-a]"}}, id="regex"),
        pytest.param(
            {"prefix": "/", "headers": [{"name": "x", "safe_regex_match": {"regex": "("}}]}, id="header regex"
        ),
        pytest.param(
            {"prefix": "/", "headers": [{"name": "x", "range_match": {"start": 9, "end": 1}}]}, id="range"
        ),
        pytest.param(
            {"prefix": "/", "runtime_fraction": {"default_value": {"numerator": 1, "denominator": 7}}},
            id="denominator",
        ),
    ],
)
def test_match_that_makes_no_sense_is_refused(scene, connect, match):
    """RM-02, RM-03, RM-06, HM-03: the routes before stay."""
    scene.simple("a")
    caller = connect()
    assert caller.outcome() == "a"
    scene.plane.update(scene.routes({"match": match, "route": {"cluster": "nothing"}}))
    scene.plane.wait_for_nack("route")
    assert caller.row(5) == ["a"] * 5


def test_routes_change(choose, scene):
    """RM-01: what is said last holds."""
    caller = choose(build.route(path=READ, cluster="a"))
    caller.becomes("a", path=READ)
    scene.plane.update(scene.routes(build.route(path=READ, cluster="b"), build.route(cluster="a")))
    caller.becomes("b", path=READ)
    assert caller.outcome(WRITE) == "a"


def test_two_routes_to_one_cluster(choose, scene):
    """CA-03: a cluster that one route has left serves the other."""
    caller = choose(build.route(path=READ, cluster="a"), build.route(path=WRITE, cluster="a"))
    assert caller.outcome(READ) == caller.outcome(WRITE) == "a"
    scene.plane.update(
        scene.routes(build.route(path=READ, cluster="b"), build.route(path=WRITE, cluster="a"))
    )
    caller.becomes("b", path=READ)
    assert caller.row(5, WRITE) == ["a"] * 5
