"""Redirects that are followed before a caller sees them: a real Envoy and meshlib follow the same, and send the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import build
from tests.e2e.oracle.beside import Beside, Got

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

PREDICATES = "envoy.extensions.internal_redirect."
#: Lines that tell of an attempt's time, or of a proxy.
NOT_COMPARED = frozenset(
    (
        "x-envoy-expected-rq-timeout-ms",
        "x-forwarded-proto",
        "x-request-id",
        "host",
        "user-agent",
        "accept",
        "connection",
    )
)


def predicate(name: str, **fields: Any) -> dict[str, Any]:
    kind = f"{PREDICATES}{name}.v3.{''.join(part.capitalize() for part in name.split('_'))}Config"
    return {"name": name, "typed_config": build.any_of(kind, fields)}


def to(name: str, policy: dict[str, Any] | None = None, action: Any = None, **route: Any) -> dict[str, Any]:
    made = build.route(f"/{name}", cluster="c")
    made["name"] = name
    made["route"] |= {} if policy is None else {"internal_redirect_policy": policy}
    made["route"] |= action or {}
    return made | route


ROUTES = [
    to(
        "to",
        request_headers_to_add=[build.header("x-target", "t")],
        response_headers_to_add=[build.header("x-answer", "to")],
    ),
    to("one", {}),
    to("none", {"max_internal_redirects": 0}),
    to("many", {"max_internal_redirects": 4}),
    to("anew", {"max_internal_redirects": 4, "predicates": [predicate("previous_routes")]}),
    to("allowed", {"predicates": [predicate("allow_listed_routes", allowed_route_names=["to"])]}),
    to("codes", {"redirect_response_codes": [303, 307], "response_headers_to_copy": ["x-copy", "x-gone"]}),
    to("across", {"allow_cross_scheme_redirect": True}),
    to("safe", {"allow_cross_scheme_redirect": True, "predicates": [predicate("safe_cross_scheme")]}),
    to(
        "edited",
        {},
        {"prefix_rewrite": "/new", "host_rewrite_literal": "there.test"},
        request_headers_to_add=[build.header("x-first", "f")],
    ),
    build.route("/answer", respond=(201, "x")),
    build.route("/moved", redirect={"path_redirect": "/elsewhere"}),
    to("plain"),
]


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    hosts = {"include_request_attempt_count": True, "include_attempt_count_in_response": True}
    with Beside(tmp_path_factory.mktemp("envoy"), {"l": (ROUTES, {})}, hosts=hosts) as made:
        yield made


def both(beside: Beside, path: str, location: str, status: int = 302, **asked: Any) -> list[Got]:
    """``location``: what the first answer says; ``lines``: what it says beside. ``always``: all answers say it."""
    lines, always = asked.pop("lines", ()), asked.pop("always", False)
    found = []
    for which in range(2):
        beside.upstream.behave()
        beside.upstream.order(
            status=status, headers=(("location", location), *lines), times=None if always else 1
        )
        found.append(beside.one(which, "l", path, **asked))
    beside.upstream.behave()
    return found


def told(got: Got) -> Any:
    """What is to be alike."""
    arrived = [
        (method, path, sorted(line for line in lines if line[0] not in NOT_COMPARED))
        for method, path, lines in got.arrived
    ]
    names = ("location", "x-answer", "x-envoy-attempt-count")
    return (
        got.status,
        [got.line(name) for name in names],
        arrived,
        [got.sent("host", n) for n in range(len(arrived))],
    )


@pytest.mark.parametrize(
    ("path", "location", "status", "reached"),
    [
        ("/one", "http://shop.test/to/x?q=1#part", 302, ["/one", "/to/x?q=1"]),
        ("/one", "HTTP://shop.test:81/to?", 302, ["/one", "/to?"]),
        ("/one/a?b", "http://shop.test/to", 302, ["/one/a?b", "/to"]),
        ("/edited/a", "http://shop.test/to", 302, ["/new/a", "/to"]),
        ("/codes", "http://shop.test/to", 307, ["/codes", "/to"]),
        ("/allowed", "http://shop.test/to", 302, ["/allowed", "/to"]),
        ("/across", "https://shop.test/to", 302, ["/across", "/to"]),
        ("/safe", "http://shop.test/to", 302, ["/safe", "/to"]),
        # What the routes answer themselves.
        ("/one", "http://shop.test/answer", 302, ["/one"]),
        ("/one", "http://shop.test/moved", 302, ["/one"]),
        # What is the caller's.
        ("/one", "/to", 302, ["/one"]),
        ("/one", "to", 302, ["/one"]),
        ("/one", "//shop.test/to", 302, ["/one"]),
        ("/one", "", 302, ["/one"]),
        ("/one", "http://", 302, ["/one"]),
        ("/one", "http:///to", 302, ["/one"]),
        ("/one", "ftp://shop.test/to", 302, ["/one"]),
        ("/one", "https://shop.test/to", 302, ["/one"]),
        ("/one", "http://shop.test", 302, ["/one"]),
        ("/one", "http://shop.test/nowhere", 302, ["/one"]),
        ("/one", "http://shop.test/to", 301, ["/one"]),
        ("/codes", "http://shop.test/to", 302, ["/codes"]),
        ("/none", "http://shop.test/to", 302, ["/none"]),
        ("/plain", "http://shop.test/to", 302, ["/plain"]),
        ("/allowed", "http://shop.test/one", 302, ["/allowed"]),
        ("/safe", "https://shop.test/to", 302, ["/safe"]),
    ],
)
def test_what_is_followed(beside: Beside, path: str, location: str, status: int, reached: list[str]) -> None:
    ours, envoy = both(beside, path, location, status, headers={"x-mine": "1"})
    assert told(ours) == told(envoy)
    assert [each[1] for each in ours.arrived] == reached


def test_bodies_are_sent_again_and_lines_copied(beside: Beside) -> None:
    sent = {"content": b"abc", "headers": {"x-copy": "0", "x-gone": "1"}, "method": "POST"}
    lines = (("x-copy", "1"), ("x-copy", "2"))
    ours, envoy = both(beside, "/codes", "http://shop.test/to", 307, lines=lines, **sent)
    assert told(ours) == told(envoy)
    assert [each[0] for each in ours.arrived] == ["POST", "POST"]
    assert [ours.sent("content-length", number) for number in range(2)] == ["3", "3"]
    assert (ours.sent("x-copy", 1), ours.sent("x-gone", 1)) == ("1, 2", None)


def test_a_body_is_never_left_out(beside: Beside) -> None:
    """Envoy makes a GET of it; here a 303 of a POST is the caller's."""
    ours, envoy = both(beside, "/codes", "http://shop.test/to", 303, method="POST", content=b"abc")
    assert (ours.status, envoy.status) == (303, 200)
    ours, envoy = both(beside, "/codes", "http://shop.test/to", 303)
    assert told(ours) == told(envoy)
    assert ours.status == 200


@pytest.mark.parametrize(("path", "times"), [("/one", 2), ("/many", 5), ("/anew", 2)])
def test_how_often(beside: Beside, path: str, times: int) -> None:
    ours, envoy = both(beside, path, f"http://shop.test{path}", always=True)
    assert [len(got.arrived) for got in (ours, envoy)] == [times, times]
    assert ours.status == envoy.status == 302


def test_all_routes_count_together(beside: Beside) -> None:
    for got in both(beside, "/many", "http://shop.test/one", always=True):
        assert [path for _, path, _ in got.arrived] == ["/many", "/one"]
        assert got.status == 302


def test_tasks_follow_as_threads_do(beside: Beside) -> None:
    async def ask() -> httpx.Response:
        async with meshlib.AsyncClient(mesh=beside.mesh) as client:
            return await client.post(f"http://127.0.0.1:{beside.ports['l']}/codes", content=b"abc")

    beside.upstream.order(status=307, headers=(("location", "http://shop.test/to"),), times=1)
    before = beside.upstream.requests_total
    answer = asyncio.run(ask())
    assert answer.status_code == 200
    reached = [(each.method, each.path, each.body_length) for each in beside.upstream.requests[before:]]
    assert reached == [("POST", "/codes", 3), ("POST", "/to", 3)]
    assert [each.status for each in meshlib.call_info(answer).attempts] == [307, 200]


def test_it_is_told_beforehand(beside: Beside) -> None:
    port = beside.ports["l"]
    told = "\n".join(beside.mesh.explain("GET", f"http://127.0.0.1:{port}/codes").lines)
    assert "redirects (303, 307) are followed, 1 of a call at most" in told
    assert "are followed" not in "\n".join(beside.mesh.explain("GET", f"http://127.0.0.1:{port}/plain").lines)
