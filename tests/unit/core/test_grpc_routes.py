"""What a gRPC client passes over of a route configuration (checklist Δ of sections 10 and 11)."""

from __future__ import annotations

import pytest

from meshlib.core.match import CompiledRoutes, compile_routes
from meshlib.core.resolve import Rules, View, compile_view
from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.model.listener import FilterChain, HttpManager, Listener
from meshlib.model.match import (
    CookieMatch,
    HeaderMatch,
    PathKind,
    PathMatch,
    QueryMatch,
    RouteMatch,
    StringKind,
    StringMatch,
)
from meshlib.model.route import (
    ClusterWeight,
    Edit,
    Forward,
    HeaderEdits,
    HostRewrite,
    HostRewriteKind,
    Mirror,
    Route,
    RouteConfiguration,
    VirtualHost,
)
from meshlib.model.snapshot import Part, Snapshot

EVERY = PathMatch(PathKind.PREFIX, "")


def exact(value: str) -> StringMatch:
    return StringMatch(StringKind.EXACT, value)


def matched(route: Route, *metadata: tuple[str, str], vhost: dict | None = None) -> str:
    """The cluster of a gRPC call where ``route`` stands before one that goes to ``rest``."""
    rest = Route(RouteMatch(EVERY), Forward(cluster="rest"))
    host = VirtualHost("v", ("*",), (route, rest), **(vhost or {}))
    routes = compile_routes(RouteConfiguration("rc", (host,)))
    head = Head("POST", "http", "a", "/shop.Stock/Get", Headers.of(*metadata))
    match = routes.grpc.match(head, lambda: 0.0)
    assert match is not None
    return match.compiled.choose_cluster(head, lambda: 0.0)[0]


def to(cluster: str = "c", **match: object) -> Route:
    return Route(RouteMatch(EVERY, **match), Forward(cluster=cluster))


@pytest.mark.parametrize(
    "route",
    [
        to(query=(QueryMatch("q", present=False),)),  # RM-07: also one that would hold
        to(cookies=(CookieMatch("sid", exact("x"), invert=True),)),
        Route(RouteMatch(EVERY), Forward(cluster_header="x-to")),  # RA-03
        Route(RouteMatch(EVERY), Forward(weighted=(ClusterWeight("", 1, cluster_header="x-to"),))),
    ],
)
def test_a_route_that_gRPC_cannot_read_is_passed_over(route: Route) -> None:
    assert matched(route, ("x-to", "c")) == "rest"


@pytest.mark.parametrize("name", [":path", ":method", ":authority", ":scheme", "host", "user-bin"])
def test_what_gRPC_does_not_show_is_an_absent_header(name: str) -> None:
    """HM-05."""
    assert matched(to(headers=(HeaderMatch(name, present=True),))) == "rest"
    assert matched(to(headers=(HeaderMatch(name, present=False),))) == "c"
    assert matched(to(headers=(HeaderMatch(name, string=exact("x"), invert=True),))) == "rest"


@pytest.mark.parametrize(("value", "cluster"), [("application/grpc", "c"), ("application/json", "rest")])
def test_the_content_type_is_always_gRPCs(value: str, cluster: str) -> None:
    """HM-05: whatever the metadata says."""
    route = to(headers=(HeaderMatch("content-type", string=exact(value)),))
    assert matched(route, ("content-type", "application/json")) == cluster


def test_metadata_is_matched_as_headers_are() -> None:
    route = to(headers=(HeaderMatch("x-tier", string=exact("gold")),))
    assert matched(route, ("x-tier", "gold")) == "c"
    assert matched(route, ("x-tier", "tin")) == "rest"


def test_several_values_of_a_key_are_one_text() -> None:
    """HM-01; Envoy looks at each."""
    both = ("x-tier", "gold"), ("x-tier", "silver")
    assert matched(to(headers=(HeaderMatch("x-tier", string=exact("gold,silver")),)), *both) == "c"
    assert matched(to(headers=(HeaderMatch("x-tier", string=exact("gold")),)), *both) == "rest"


def test_the_grpc_condition_is_ignored() -> None:
    assert matched(to(grpc=True)) == "c"  # RM-08


def test_tls_that_a_virtual_host_demands_is_ignored() -> None:
    assert matched(to(), vhost={"require_tls": "all"}) == "c"


def test_nothing_is_rewritten_and_names_are_those_of_the_configuration() -> None:
    """RW-01, RW-02, RW-03, RW-04."""
    edits = HeaderEdits(request_add=(Edit("x-added", "1"),), response_add=(Edit("x-back", "1"),))
    action = Forward(
        weighted=(
            ClusterWeight("c", 1, edits=edits, host_rewrite=HostRewrite(HostRewriteKind.LITERAL, "h")),
        ),
        prefix_rewrite="/other",
        host_rewrite=HostRewrite(HostRewriteKind.LITERAL, "elsewhere"),
        mirrors=(Mirror("m"),),
    )
    passed = to(query=(QueryMatch("q", present=True),))
    route = Route(RouteMatch(EVERY), action, edits=edits)
    host = VirtualHost("v", ("*",), (passed, route), edits=edits, include_attempt_count=True)
    routes = compile_routes(RouteConfiguration("rc", (host,), edits=edits))
    head = Head("POST", "http", "a", "/s/m")
    match = routes.grpc.match(head, lambda: 0.0)
    assert match is not None
    assert match.name == "v/1"
    _, weight = match.compiled.choose_cluster(head, lambda: 0.0)
    sent = match.compiled.request_head(weight, head, cluster="c")
    assert (sent.path, sent.authority, sent.headers.raw) == ("/s/m", "a", [])
    assert not match.compiled.edits_responses
    assert isinstance(match.route.action, Forward)
    assert match.route.action.mirrors == ()


def test_it_is_compiled_once() -> None:
    routes = compile_routes(RouteConfiguration("rc", (VirtualHost("v", ("*",), (to(),)),)))
    assert routes.grpc is routes.grpc


def test_once_gRPC_calls_came_what_is_new_is_compiled_with_the_view() -> None:
    """No call pays for it then."""

    def part(name: str) -> Snapshot:
        config = RouteConfiguration(name, (VirtualHost("v", ("*",), (to(),)),))
        manager = HttpManager(routes=config)
        listener = Listener(name, (FilterChain(http=manager),))
        return Snapshot((Part("static", services={"stock": listener}),), 1)

    def routes(view: View) -> CompiledRoutes:
        found = view.resolve("grpc", "stock", None, "stock").routes
        assert found is not None
        return found

    first = compile_view(part("one"), Rules())
    second = compile_view(part("two"), Rules(), first)
    assert not routes(second).of_grpc
    assert routes(second).grpc is routes(second).grpc
    third = compile_view(part("three"), Rules(), second)
    assert routes(third).of_grpc
