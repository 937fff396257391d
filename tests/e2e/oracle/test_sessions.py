"""Sessions that begin at a real Envoy go on at meshlib, and the other way round: one control plane, three endpoints (SS-01, LB-10)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import Upstream, build
from meshlib.testing.control_plane import ControlPlane
from tests.e2e.oracle.envoy_process import EnvoyProcess
from tests.support.ports import Ports

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

NAME = "envoy.filters.http.stateful_session"
FILTER = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
STATES = "envoy.extensions.http.stateful_session"
STATE = {
    "cookie": "cookie.v3.CookieBasedSessionState",
    "header": "header.v3.HeaderBasedSessionState",
    "envelope": "envelope.v3.EnvelopeSessionState",
}
COOKIE = {
    "cookie": {
        "name": "sid",
        "ttl": "120s",
        "path": "/a",
        "attributes": [{"name": "SameSite", "value": "Lax"}],
    }
}
OVERRIDE = "envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost"
ROBIN = "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"


def kept(kind: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A StatefulSession."""
    typed = build.any_of(f"{STATES}.{STATE[kind]}", state)
    return {"session_state": {"name": f"envoy.http.stateful_session.{kind}", "typed_config": typed}, **more}


def here(**fields: Any) -> dict[str, Any]:
    """A route's own say."""
    return {"typed_per_filter_config": {NAME: build.any_of(f"{FILTER}PerRoute", fields)}}


def policy(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "policies": [{"typed_extension_config": {"name": name, "typed_config": build.any_of(kind, fields)}}]
    }


HEADER = {"name": "x-s"}
#: What the filter keeps, what the route says of it, what the cluster says.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "cookie": (kept("cookie", COOKIE), {}, {}),
    "cookie of a browser's session": (kept("cookie", {"cookie": {"name": "sid"}}), {}, {}),
    "header": (kept("header", HEADER), {}, {}),
    "envelope": (kept("envelope", {"header": {"name": "x-s"}}), {}, {}),
    "strict": (kept("header", HEADER, strict=True), {}, {}),
    "strict, 404": (kept("header", HEADER, strict=True, status_on_strict_destination_not_found=404), {}, {}),
    "status without strict": (kept("header", HEADER, status_on_strict_destination_not_found=404), {}, {}),
    "nothing": ({}, {}, {}),
    "off for the route": (kept("header", HEADER), here(disabled=True), {}),
    "the route's own": (kept("header", HEADER), here(stateful_session=kept("header", {"name": "x-t"})), {}),
    "the route alone": ({}, here(stateful_session=kept("header", HEADER)), {}),
    "some health": (kept("header", HEADER), {}, {"common_lb_config": {"override_host_status": {"statuses": ["DRAINING"]}}}),
    "no health": (kept("header", HEADER), {}, {"common_lb_config": {"override_host_status": {}}}),
    "by policy": (
        {},
        {},
        {
            "load_balancing_policy": policy(
                "override_host", OVERRIDE, override_host_sources=[{"header": "x-to"}, {"header": "x-or"}],
                fallback_policy=policy("round_robin", ROBIN),
            )
        },
    ),
}  # fmt: skip


class Both:
    """``ours`` and ``theirs``: how calls of a case are made."""

    def __init__(
        self, client: httpx.Client, plain: httpx.Client, ports: dict[str, int], spots: list[str]
    ) -> None:
        self.sides = {"ours": client, "theirs": plain}
        self._ports = ports
        self.spots = spots

    def ask(self, side: str, case: str, **headers: str) -> httpx.Response:
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        client = self.sides[side]
        client.cookies.clear()
        return client.get(f"http://127.0.0.1:{self._ports[case]}/a/b", headers=lines)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with ExitStack() as stack:
        upstreams = [stack.enter_context(Upstream(f"v{number}")) for number in range(4)]
        spots = [upstream.address for upstream in upstreams]
        held = Ports(len(CASES))
        stack.callback(held.close)
        ports = dict(zip(CASES, held.numbers, strict=True))
        resources = []
        for case, (fields, route, cluster) in CASES.items():
            filters = [{"name": NAME, "typed_config": build.any_of(FILTER, fields)}]
            routed = build.route(cluster=case, retry={"retry_on": "5xx", "num_retries": 1}, **route)
            routes = build.route_config(case, build.virtual_host("v", routed, domains=["*"]))
            members = [*spots[:3], build.endpoint(spots[3], health="DRAINING")]
            resources += [
                build.listener(case, routes, filters=filters, address=f"127.0.0.1:{ports[case]}"),
                build.cluster(case, **cluster),
                build.endpoints(case, *members),
            ]
        plane = stack.enter_context(ControlPlane(*resources))
        envoy = stack.enter_context(EnvoyProcess(plane.address, tmp_path_factory.mktemp("envoy")))
        envoy.wait_for_listeners(len(CASES))
        plain = stack.enter_context(httpx.Client(timeout=20))
        mesh = stack.enter_context(
            meshlib.Mesh({"failures": "respond", "xds": {"server": plane.address, "view": "sidecar"}})
        )
        mesh.wait_ready(*(f"127.0.0.1:{port}" for port in held.numbers), timeout=30)
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))
        assert not [source.rejected for source in mesh.status().sources if source.rejected]
        yield Both(client, plain, ports, spots)


SIDES = pytest.mark.parametrize("first", ["ours", "theirs"])


def told(response: httpx.Response) -> dict[str, str]:
    """What the answer says of the session, without what is another at each call."""
    return {name: value for name, value in response.headers.items() if name in ("set-cookie", "x-s", "x-t")}


@SIDES
@pytest.mark.parametrize("case", ["cookie", "cookie of a browser's session"])
def test_a_cookie_of_one_is_the_others(case: str, first: str, both: Both) -> None:
    second = "theirs" if first == "ours" else "ours"
    for _ in range(4):
        begun = both.ask(first, case)
        value = begun.headers["set-cookie"].partition(";")[0]
        for side in (second, first, second):
            again = both.ask(side, case, cookie=value)
            assert again.json()["name"] == begun.json()["name"]
            assert "set-cookie" not in again.headers


def test_a_cookie_has_the_same_form(both: Both) -> None:
    """But for the address and the second in which it ends."""
    forms = []
    for side in ("ours", "theirs"):
        value, _, rest = both.ask(side, "cookie").headers["set-cookie"].partition(";")
        data = b64decode(value.split('"')[1])
        forms.append((rest, data[:1], len(data), data[-6:-5]))
    assert forms[0] == forms[1]


@SIDES
def test_a_header_of_one_is_the_others(first: str, both: Both) -> None:
    second = "theirs" if first == "ours" else "ours"
    begun = both.ask(first, "header")
    for side in (second, first):
        again = both.ask(side, "header", x_s=begun.headers["x-s"])
        assert again.json()["name"] == begun.json()["name"]
        assert told(again) == {}


@SIDES
def test_an_envelope_of_one_is_the_others(first: str, both: Both) -> None:
    second = "theirs" if first == "ours" else "ours"
    spot = both.spots[1]
    wrapped = f"{b64encode(spot.encode()).decode()};UV:{b64encode(b'abc').decode()}"
    for side in (first, second, first):
        answer = both.ask(side, "envelope", x_s=wrapped)
        assert answer.json()["name"] == "v1"
        assert dict(answer.json()["headers"])["x-s"] == "abc"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("named", ["first", "second", "draining", "gone", "no address", "", "several"])
def test_both_go_and_answer_alike(case: str, named: str, both: Both) -> None:
    """Where somebody is named it is the same endpoint and the same answer; where nobody is, both choose, and tell it alike."""
    spots = both.spots
    text = {
        "first": spots[0], "second": spots[1], "draining": spots[3], "gone": "127.0.0.1:1", "no address": "abc", "": "",
        "several": f"127.0.0.1:1, {spots[2]},{spots[0]}",
    }[named]  # fmt: skip
    encoded = b64encode(text.encode()).decode()
    headers = {"x_s": encoded, "x_to": text, "x_or": spots[1]}
    if not named:
        headers = {}
    seen = []
    for side in ("ours", "theirs"):
        answer = both.ask(side, case, **headers)
        lines = told(answer)
        if "set-cookie" in lines:
            lines["set-cookie"] = lines["set-cookie"].partition(";")[2]
        went = answer.json()["name"] if answer.status_code == 200 else answer.text
        at = {b64encode(spot.encode()).decode(): f"v{number}" for number, spot in enumerate(spots)}
        told_at = {
            name: at.get(value, value) == went for name, value in lines.items() if name != "set-cookie"
        }
        if went == at.get(encoded) and not _is_named(case, named):
            return  # by chance the balancer chose whom the call names, and so there is nothing to tell
        seen.append((answer.status_code, told_at, lines.get("set-cookie"), went))
    ours, theirs = seen
    assert ours[:3] == theirs[:3]
    if _is_named(case, named) or ours[0] != 200:
        assert ours[3] == theirs[3]


def _is_named(case: str, named: str) -> bool:
    if case == "by policy":
        return bool(named)
    if case in ("header", "strict", "strict, 404", "status without strict", "the route alone"):
        return named in ("first", "second")
    return case == "some health" and named == "draining"
