"""Redirects that a plan follows. Beside a real Envoy: tests/e2e/oracle/test_redirects.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.effects import Call, Env, Finish, Pass, Reply, Send, Sleep
from meshlib.core.match import compile_routes
from meshlib.core.plan import Plan
from meshlib.core.redirects import Followed, accepts, led_to
from meshlib.core.resolution import Resolution
from meshlib.model.call import Head
from meshlib.model.cluster import Cluster, Discovery
from meshlib.model.headers import Headers
from meshlib.model.listener import FilterKind, HttpFilter, Listener
from meshlib.model.match import PathKind, PathMatch, RouteMatch
from meshlib.model.policy import InternalRedirects, PredicateKind, RedirectPredicate, RetryPolicy
from meshlib.model.route import FilterSwitch, Forward, Route, RouteConfiguration, VirtualHost
from tests.unit.core.test_plan import FakeUpstream, outcome

POLICY = InternalRedirects()
TO = "http://shop.test/to"


def head(*lines: tuple[str, str], method: str = "GET", scheme: str = "http") -> Head:
    return Head(method, scheme, "shop.test", "/from", Headers.of(*lines))


def routes_of(policy: InternalRedirects | None = POLICY, **to: object) -> RouteConfiguration:
    def route(path: str, **fields: object) -> Route:
        filters = fields.pop("filters", ())
        made = Route(RouteMatch(PathMatch(PathKind.PREFIX, path)), Forward(**fields), name=path.strip("/"))
        return replace(made, filters=filters)

    routes = (
        route("/to", **({"cluster": "b"} | to)),
        route("/from", cluster="a", redirects=policy, timeout=5.0, retry=RetryPolicy(frozenset({"5xx"}))),
    )
    return RouteConfiguration("rc", (VirtualHost("v", ("shop.test",), routes),))


def plan_of(
    config: RouteConfiguration,
    *,
    guards: tuple[HttpFilter, ...] = (),
    b: Cluster | None = None,
    **call: object,
) -> tuple[Plan, dict[str, FakeUpstream]]:
    upstreams = {"a": FakeUpstream(Cluster("a")), "b": FakeUpstream(b or Cluster("b"))}
    resolution = Resolution(
        "mesh", "a test", part="p", listener=Listener("l"), routes=compile_routes(config), guards=guards
    )
    env = Env(lambda _, name: upstreams.get(name, "is not known"), lambda: 0.5, lambda: 0.0)
    return Plan(Call(resolution, head(), **call), env), upstreams


def led(plan: Plan, location: str = TO, status: int = 302, now: float = 1.0) -> object:
    assert isinstance(plan.start(0.0), Send)
    return plan.outcome(outcome(status=status, location=location), now)


def test_a_call_goes_on_by_the_route_that_it_is_led_to() -> None:
    plan, upstreams = plan_of(routes_of())
    assert led(plan) == Sleep(0.0)
    assert upstreams["a"].picks[0].released == 1
    sent = plan.woke(1.0)
    assert isinstance(sent, Send)
    assert (sent.head.path, sent.cluster.name, plan.route) == ("/to", "b", "to")
    assert isinstance(plan.outcome(outcome(), 2.0), Finish)
    info = plan.info(2.0)
    assert [each.status for each in info.attempts] == [302, 200]
    assert "is followed: route to" in str(info.trace())


def test_its_time_begins_anew_but_the_callers_does_not() -> None:
    plan, _ = plan_of(routes_of(timeout=7.0))
    led(plan, now=4.0)
    assert plan.deadline == 11.0
    plan, _ = plan_of(routes_of(timeout=7.0), deadline=6.0, limit="the caller's")
    led(plan, now=4.0)
    assert plan.deadline == 6.0
    plan, _ = plan_of(routes_of(timeout=0.0), timeout=4.5)
    led(plan, now=4.0)
    assert plan.deadline == 4.5


def test_retries_are_the_new_routes() -> None:
    plan, upstreams = plan_of(routes_of(retry=RetryPolicy(frozenset({"5xx"}), retries=1)))
    led(plan)
    plan.woke(1.0)
    assert isinstance(plan.outcome(outcome(status=503), 1.0), Sleep)
    plan.woke(1.1)
    assert isinstance(plan.outcome(outcome(status=503), 1.2), Finish)
    assert len(upstreams["b"].picks) == 2
    assert not plan._attempts[0].retried


def test_a_request_that_cannot_be_sent_again_is_not_followed() -> None:
    plan, _ = plan_of(routes_of(), replayable=False)
    assert isinstance(led(plan), Finish)


def test_where_the_call_would_go_to_its_own_url_it_is_not_followed() -> None:
    plan, _ = plan_of(routes_of(), b=Cluster("b", discovery=Discovery.ORIGINAL_DST))
    effect = led(plan)
    assert isinstance(effect, Finish)
    assert not isinstance(effect, Pass)


def test_a_guard_covers_what_a_call_is_led_to() -> None:
    guards = (HttpFilter("rbac", FilterKind.GUARD, disabled=True),)
    config = routes_of(filters=(FilterSwitch("rbac", on=True, guard=True),))
    plan, upstreams = plan_of(config, guards=guards)
    effect = led(plan)
    assert isinstance(effect, Reply)
    assert effect.response.status == 403
    assert upstreams["b"].picks == []


def test_a_cluster_that_is_not_there_is_told_as_ever() -> None:
    plan, _ = plan_of(routes_of(cluster="nobody"))
    assert led(plan) == Sleep(0.0)
    effect = plan.woke(1.0)
    assert isinstance(effect, Finish)
    assert "'nobody'" in effect.message


@pytest.mark.parametrize("status", [300, 304, 305, 309, 200])
def test_other_statuses_lead_nowhere(status: int) -> None:
    plan, _ = plan_of(routes_of(InternalRedirects(statuses=frozenset(range(200, 600)))))
    effect = led(plan, status=status)
    # Envoy's are 301, 302, 303, 307 and 308; the decoder lets no other through.
    assert isinstance(effect, Sleep if status in range(301, 309) else Finish)


@pytest.mark.parametrize(
    ("predicates", "schemes", "taken"),
    [
        ((), ("http", "https"), True),
        ((RedirectPredicate(PredicateKind.SAFE_CROSS_SCHEME),), ("http", "https"), False),
        ((RedirectPredicate(PredicateKind.SAFE_CROSS_SCHEME),), ("https", "http"), True),
        ((RedirectPredicate(PredicateKind.ALLOWED_ROUTES, frozenset({"to"})),), ("http", "http"), True),
        ((RedirectPredicate(PredicateKind.ALLOWED_ROUTES),), ("http", "http"), False),
    ],
)
def test_predicates(predicates, schemes, taken):
    assert accepts(predicates, Followed(), ("from", "to"), schemes) is taken


def test_a_route_leads_to_another_once():
    predicates = (RedirectPredicate(PredicateKind.PREVIOUS_ROUTES),)
    followed = Followed()
    names = [("a", "b"), ("a", "b"), ("b", "b"), ("a", "c"), ("a", "c")]
    assert [accepts(predicates, followed, each, ("http", "http")) for each in names] == [
        True,
        False,
        True,
        True,
        False,
    ]


@given(st.text(max_size=60) | st.text("htps:/?#@ab. \r\n\t\0é[]", max_size=40).map("http://".__add__))
def test_a_location_is_a_url_or_nothing(location: str) -> None:
    headers = Headers([(b"location", location.encode("utf-8", "replace"))])
    found = led_to(InternalRedirects(cross_scheme=True), head(), head(), 302, headers)
    if isinstance(found, str):
        return
    assert found.scheme in ("http", "https")
    assert found.authority
    for part in (found.authority, found.path):
        assert part.isascii()
        assert part.isprintable()
        assert not set(" #") & set(part)
    assert found.path.startswith("/")
    assert not set("/?@") & set(found.authority)


def test_lines_of_the_connection_are_not_copied():
    policy = InternalRedirects(copied=("x-a", "connection", "host"))
    given_lines = Headers.of(("location", TO), ("X-A", "1"), ("connection", "close"), ("host", "evil"))
    found = led_to(policy, head(("x-a", "0"), ("host", "h")), head(), 302, given_lines)
    assert isinstance(found, Head)
    lines = dict(found.headers)
    assert (lines["host"], "connection" in lines) == ("h", False)
    assert [value for name, value in found.headers if name.lower() == "x-a"] == ["1"]
