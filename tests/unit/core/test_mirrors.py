"""Which calls are mirrored, and what of them is (RW-04; hosts as Envoy 1.40 has them)."""

from __future__ import annotations

import pytest

from meshlib.core.attempt import Shadow
from meshlib.core.effects import Call, Env, Finish, Send
from meshlib.core.match import compile_routes
from meshlib.core.mirrors import is_drawn, shadow_host
from meshlib.core.plan import Plan
from meshlib.core.resolution import Resolution
from meshlib.core.upstream import Refusal, RefusalKind
from meshlib.model.call import Head
from meshlib.model.edits import Removal
from meshlib.model.headers import Headers
from meshlib.model.listener import Listener
from meshlib.model.match import PathKind, PathMatch, RouteMatch, StringKind, StringMatch
from meshlib.model.policy import RetryPolicy
from meshlib.model.route import (
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
from tests.unit.core.test_plan import FakeUpstream, outcome


def plan_of(*, route=(), host=(), config=(), upstream=None, random=lambda: 0.5, action=None, **more) -> Plan:
    action = action or {}
    routes = RouteConfiguration(
        "rc",
        (
            VirtualHost(
                "v",
                ("*",),
                (
                    Route(
                        RouteMatch(PathMatch(PathKind.PREFIX, "/")),
                        Forward(cluster="c", mirrors=tuple(route), **action),
                        name="r",
                        edits=HeaderEdits(request_add=(Edit("x-added", "1"),)),
                    ),
                ),
                mirrors=tuple(host),
                include_attempt_count=True,
            ),
        ),
        mirrors=tuple(config),
    )
    upstream = upstream or FakeUpstream()
    resolution = Resolution("mesh", "a test", part="p", listener=Listener("l"), routes=compile_routes(routes))
    env = Env(lambda _, name: upstream if name == "c" else "is not known", random, lambda: 0.0)
    head = Head("GET", "http", "reviews:80", "/api", Headers.of(("x-c", "named")))
    return Plan(Call(resolution, head, **more), env)


def mirrored(plan: Plan) -> tuple[Shadow, ...]:
    sent = plan.start(10.0)
    assert isinstance(sent, Send)
    return sent.mirrors


def test_the_most_specific_list_that_is_not_empty_holds() -> None:
    """RW-04."""
    ones = [Mirror("config")], [Mirror("host")], [Mirror("route"), Mirror("more")]
    for given, found in (
        ((ones[0], (), ()), ["config"]),
        ((ones[0], ones[1], ()), ["host"]),
        (ones, ["route", "more"]),
        (((), (), ()), []),
    ):
        plan = plan_of(config=given[0], host=given[1], route=given[2])
        assert [each.cluster for each in mirrored(plan)] == found


def test_what_is_mirrored_is_the_head_of_the_first_attempt() -> None:
    action = {"prefix_rewrite": "/new", "host_rewrite": HostRewrite(HostRewriteKind.LITERAL, "other:81")}
    plan = plan_of(route=[Mirror("s")], action=action)
    sent = plan.start(10.0)
    assert isinstance(sent, Send)
    [shadow] = sent.mirrors
    assert (shadow.part, shadow.cluster, shadow.seconds) == ("p", "s", 15.0)
    assert (shadow.head.authority, shadow.head.path) == ("other-shadow:81", "/newapi")
    lines = [line for line in sent.head.headers.raw if line[0] != b"x-envoy-expected-rq-timeout-ms"]
    assert shadow.head.headers.raw == lines
    assert (b"x-envoy-attempt-count", b"1") in lines
    assert sent.head.authority == "other:81"
    assert any("mirrored to cluster 's'" in line for line in plan.info(11.0).trace())


def test_a_retry_is_not_mirrored() -> None:
    retry = RetryPolicy(frozenset({"5xx"}), retries=2)
    plan = plan_of(route=[Mirror("s")], action={"retry": retry})
    assert len(mirrored(plan)) == 1
    plan.outcome(outcome(status=503), 10.1)
    again = plan.woke(10.2)
    assert isinstance(again, Send)
    assert again.mirrors == ()


def test_a_call_that_goes_nowhere_is_mirrored_nowhere() -> None:
    """RW-04."""
    upstream = FakeUpstream()
    upstream.refusal = Refusal(RefusalKind.NO_ENDPOINT, "nobody")
    assert isinstance(plan_of(route=[Mirror("s")], upstream=upstream).start(10.0), Finish)
    missing = plan_of(route=[Mirror("s")])
    missing._env.upstream = lambda *_: "is not known"
    assert isinstance(missing.start(10.0), Finish)


@pytest.mark.parametrize(("share", "chance", "is_one"), [(None, 0.999, True), (0, 0.0, False), (250_000, 0.24, True), (250_000, 0.25, False), (1_000_000, 0.999, True)])  # fmt: skip
def test_each_is_drawn_by_itself(share: int | None, chance: float, is_one: bool) -> None:
    assert is_drawn(Mirror("s", share), lambda: chance) is is_one


def test_a_header_names_the_cluster() -> None:
    assert [each.cluster for each in mirrored(plan_of(route=[Mirror("", cluster_header="x-c")]))] == ["named"]
    assert mirrored(plan_of(route=[Mirror("", cluster_header="x-none")])) == ()


def test_it_has_the_time_that_the_call_has_and_is_never_without_a_bound() -> None:
    assert mirrored(plan_of(route=[Mirror("s")], action={"timeout": 2.0}))[0].seconds == 2.0
    assert mirrored(plan_of(route=[Mirror("s")], action={"timeout": 0.0}))[0].seconds == 15.0
    assert mirrored(plan_of(route=[Mirror("s")], timeout=0.5))[0].seconds == 0.5


@pytest.mark.parametrize(
    ("authority", "found"),
    [
        ("reviews", "reviews-shadow"),
        ("reviews:80", "reviews-shadow:80"),
        ("[::1]:80", "[::1]-shadow:80"),
        ("[::1]", "[::1]-shadow"),
    ],
)
def test_hosts(authority: str, found: str) -> None:
    assert shadow_host(Mirror("s"), authority) == found
    assert shadow_host(Mirror("s", append_shadow=False), authority) == authority
    assert shadow_host(Mirror("s", host="lit"), authority) == "lit"


def test_headers_of_what_is_mirrored_alone_are_edited():
    mutations = (
        Edit("x-new", "%REQ(x-added)%|%REQ(:authority)%"),
        Removal("x-added"),
        Removal(matching=StringMatch(StringKind.PREFIX, "x-c")),
    )
    sent = plan_of(route=[Mirror("s", mutations=mutations)]).start(0.0)
    assert isinstance(sent, Send)
    [shadow] = sent.mirrors
    lines = dict(shadow.head.headers)
    assert (lines["x-new"], shadow.head.authority) == ("1|reviews:80", "reviews-shadow:80")
    assert lines.keys().isdisjoint({"x-added", "x-c"})
    kept = dict(sent.head.headers)
    assert (kept["x-added"], kept["x-c"]) == ("1", "named")
    assert "x-new" not in kept
