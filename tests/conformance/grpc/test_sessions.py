"""Sessions by a cookie (gRFC A55, A60): grpcio's own channel does the same, and sessions of one go on at another."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import meshlib
import meshlib.grpc
from meshlib.testing import build
from tests.conformance.support.caller import Caller, SyncCalls
from tests.conformance.support.scene import endpoint
from tests.conformance.support.server import SAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conformance.support.server import Server

NAME = "envoy.filters.http.stateful_session"
FILTER = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
STATE = "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"
STATUSES = {"common_lb_config": {"override_host_status": {"statuses": ["UNKNOWN", "HEALTHY", "DRAINING"]}}}


def kept(**cookie: Any) -> dict[str, Any]:
    """A StatefulSession."""
    typed = build.any_of(STATE, {"cookie": {"name": "sid", **cookie}})
    return {"session_state": {"name": "envoy.http.stateful_session.cookie", "typed_config": typed}}


def filters(**cookie: Any) -> list[dict[str, Any]]:
    return [{"name": NAME, "typed_config": build.any_of(FILTER, kept(**cookie))}]


@pytest.fixture
def begin(scene, connect) -> Callable[..., tuple[Caller, list[Server]]]:
    """A function that serves three endpoints by a listener with the filter, and gives a caller."""

    def make(*routes, cookie=None, **fields):
        servers = [scene.serve(name) for name in "abc"]
        scene.plane.update(*scene.cluster("main", *servers, **fields))
        scene.plane.update(
            scene.listener(filters=filters(**(cookie or {}))),
            scene.routes(*(routes or (build.route(cluster="main"),))),
        )
        return connect(), servers

    return make


def cookie_of(answer) -> tuple[str, str]:
    """What is to be brought back, and the rest of the line."""
    [line] = [value for key, value in answer.initial if key == "set-cookie"]
    pair, _, rest = line.partition(";")
    return pair, rest.strip()


def test_a_session_stays_with_its_endpoint(begin):
    """SS-01: and its cookie has the address and the cluster."""
    caller, servers = begin()
    first = caller.call(wait_for_ready=True)
    pair, _ = cookie_of(first)
    [address] = [server.address for server in servers if server.name == first.who]
    assert b64decode(pair.removeprefix("sid=").strip('"')).decode() == f"{address};main"
    again = [caller.call(metadata=[("cookie", f"a=b; {pair}")]) for _ in range(9)]
    assert {answer.who for answer in again} == {first.who}
    assert not any(key == "set-cookie" for answer in again for key, _ in answer.initial)


def test_without_a_cookie_there_is_no_session(begin):
    caller, _ = begin()
    caller.becomes("a", "b", "c")


@pytest.mark.parametrize(
    ("cookie", "rest"),
    [
        ({}, "HttpOnly"),
        ({"ttl": "120s", "path": "/"}, "HttpOnly; Path=/; Max-Age=120"),
        ({"attributes": [{"name": "SameSite", "value": "Lax"}]}, "HttpOnly"),
    ],
)
def test_what_the_cookie_says_of_itself(cookie, rest, begin):
    """SS-01."""
    caller, _ = begin(cookie=cookie)
    pair, found = cookie_of(caller.call(wait_for_ready=True))
    assert found == rest
    assert '"' not in pair


@pytest.mark.parametrize(
    ("path", "begins"), [(SAY, True), (SAY.rpartition("/")[0], True), ("/other", False), (SAY[:-1], False)]
)
def test_a_cookie_is_for_its_path(path, begins, begin):
    """SS-01: RFC 6265, 5.1.4."""
    caller, _ = begin(cookie={"path": path})
    answer = caller.call(wait_for_ready=True)
    assert any(key == "set-cookie" for key, _ in answer.initial) is begins


@pytest.mark.parametrize(
    "said", ["sid=abc", "sid=", "sid=!", f"sid={b64encode(b'127.0.0.1:1;main').decode()}"]
)
def test_who_cannot_be_had_is_not_waited_for(said, begin):
    """LB-10: the balancer chooses, and the answer tells whom."""
    caller, servers = begin()
    caller.becomes("a", "b", "c")
    answer = caller.call(metadata=[("cookie", said)])
    assert answer.who in {server.name for server in servers}
    assert cookie_of(answer)


def test_a_draining_endpoint_serves_its_sessions_alone(begin, scene):
    """LB-10."""
    caller, servers = begin(**STATUSES)
    caller.becomes("a", "b", "c")
    answers = {answer.who: answer for answer in (caller.call() for _ in range(6))}
    pair, _ = cookie_of(answers["c"])
    a, b, c = servers
    scene.plane.update(scene.endpoints("main", a, b, endpoint(c, health="DRAINING")))
    caller.becomes("a", "b")
    assert set(caller.row(6, metadata=[("cookie", pair)])) == {"c"}
    scene.plane.update(scene.endpoints("main", a, b))
    caller.becomes("a", "b", metadata=[("cookie", pair)])


def test_an_endpoint_that_drains_serves_nobody_where_that_is_not_said(begin, scene):
    caller, servers = begin()
    caller.becomes("a", "b", "c")
    answers = {answer.who: answer for answer in (caller.call() for _ in range(6))}
    pair, _ = cookie_of(answers["c"])
    a, b, c = servers
    scene.plane.update(scene.endpoints("main", a, b, endpoint(c, health="DRAINING")))
    caller.becomes("a", "b")
    assert "c" not in caller.row(6, metadata=[("cookie", pair)])


def test_a_session_stays_in_its_share(begin, scene):
    """A60: a cluster that has hardly any weight keeps its sessions."""
    scene.named("rare")
    routes = build.route(weights={"main": 50, "rare": 50}), build.route(weights={"main": 1, "rare": 999})
    caller, _ = begin(routes[0])
    answer = caller.until(lambda answer: answer.who in ("a", "b", "c"), wait_for_ready=True)
    pair, _ = cookie_of(answer)
    scene.plane.update(scene.routes(routes[1]))
    caller.becomes("rare")
    assert set(caller.row(8, metadata=[("cookie", pair)])) == {answer.who}


def test_a_route_may_have_its_own(begin, scene):
    off = {"typed_per_filter_config": {NAME: build.any_of(f"{FILTER}PerRoute", {"disabled": True})}}
    own = kept()
    own["session_state"]["typed_config"] = build.any_of(STATE, {"cookie": {"name": "other"}})
    other = {"typed_per_filter_config": {NAME: build.any_of(f"{FILTER}PerRoute", {"stateful_session": own})}}
    caller, _ = begin(
        build.route(headers={"x-way": "off"}, cluster="main", **off),
        build.route(headers={"x-way": "other"}, cluster="main", **other),
        build.route(cluster="main"),
    )
    names = {}
    for way in ("off", "other", "plain"):
        answer = caller.call(wait_for_ready=True, metadata=[("x-way", way)])
        names[way] = [value.partition("=")[0] for key, value in answer.initial if key == "set-cookie"]
    assert names == {"off": [], "other": ["other"], "plain": ["sid"]}


def test_a_session_of_grpcios_goes_on_at_another_channel(begin, scene, kind, tmp_path):
    """And the other way round: whoever of the two is first."""
    caller, _ = begin()
    first = caller.call(wait_for_ready=True)
    pair, _ = cookie_of(first)
    bootstrap = tmp_path / "bootstrap.json"
    if kind == "grpcio":
        with meshlib.Mesh({"xds": {"bootstrap": str(bootstrap), "view": "target"}}) as mesh:
            other = Caller(SyncCalls(meshlib.grpc.channel(scene.name, mesh=mesh)))
            found = set(other.row(9, wait_for_ready=True, metadata=[("cookie", pair)]))
            other.close()
    else:
        other = Caller(SyncCalls(grpc.insecure_channel(f"xds:///{scene.name}")))
        other.becomes("a", "b", "c", wait_for_ready=True)  # who is not connected yet is passed over
        found = set(other.row(9, metadata=[("cookie", pair)]))
        other.close()
    assert found == {first.who}
