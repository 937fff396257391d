"""What `explain` tells of a route's own words that no configuration file has."""

from __future__ import annotations

from meshlib.core.effects import Env
from meshlib.core.explain import explain
from meshlib.core.joining import Adoption
from meshlib.core.match import compile_routes
from meshlib.core.resolution import Resolution
from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.model.listener import Listener
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.policy import Limits
from meshlib.model.route import Forward, Route, RouteConfiguration, VirtualHost
from tests.support.live_kit import Watched, flat


def test_the_limits_of_a_priority_are_told_and_nothing_is_counted() -> None:
    watched = Watched(flat(1, limits=Limits(max_requests=0), high_limits=Limits(max_requests=1)))
    action = Forward(cluster="c", high=True)
    route = Route(RouteMatch(PathMatch(PathKind.PREFIX, "/")), action)
    routes = compile_routes(RouteConfiguration("r", (VirtualHost("v", ("*",), (route,)),)))
    resolution = Resolution("mesh", "a test", part="p", listener=Listener("l"), routes=routes)
    env = Env(lambda part, name: watched.live, lambda: 0.5, lambda: 0.0)
    decision = explain(resolution, Head("GET", "http", "h", "/", Headers.of()), env, Adoption())
    assert "priority HIGH: the cluster's limits for these calls hold" in decision.lines
    assert decision.endpoint == watched.live.endpoints[0].name
    assert watched.live.active == watched.live.high.active == 0
