"""What a router does with `x-envoy-…` lines, and whose calls are internal: a real Envoy and meshlib do the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from meshlib.testing import build
from tests.e2e.oracle.beside import Beside

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

ROUTER = "envoy.extensions.filters.http.router.v3.Router"
INSIDE = {"x-forwarded-for": "10.0.0.1"}
TIMES = ("x-envoy-upstream-rq-timeout-ms", "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-max-retries")
NAMES = (*TIMES, "x-envoy-retry-grpc-on", "x-envoy-retry-on")
FULL = {"thresholds": [{"max_requests": 0, "max_pending_requests": 0}]}
RETRY = {
    "retry_on": "5xx,reset",
    "num_retries": 1,
    "per_try_timeout": "1.2s",  # within which the tries that are answered must be
    "retry_back_off": {"base_interval": "0.001s"},
}


def router(**fields: Any) -> dict[str, Any]:
    typed = build.any_of(ROUTER, fields)
    networks = {"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}
    return {
        "manager": {
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": typed}],
            "generate_request_id": False,
            "internal_address_config": networks,
        }
    }


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    rewritten = build.route("/old", cluster="c")
    rewritten["route"] |= {"prefix_rewrite": "/new", "host_rewrite_literal": "there.test"}
    routes = [
        rewritten,
        build.route("/full", cluster="full"),
        build.route("/own", respond=(201, "x")),
        build.route("/again", cluster="c", retry=RETRY),
        build.route("/ok", cluster="c", timeout=15),
    ]
    listeners = {
        "plain": (routes, router()),
        "bare": (routes, router(suppress_envoy_headers=True)),
        "strict": (routes, router(strict_check_headers=list(NAMES))),
        "respects": (routes, router(respect_expected_rq_timeout=True)),
    }
    full = build.cluster("full", ["127.0.0.1:9"], circuit_breakers=FULL)
    hosts = {"include_request_attempt_count": True, "include_is_timeout_retry_header": True}
    routes_of = {"internal_only_headers": ["x-inside"]}
    folder = tmp_path_factory.mktemp("envoy")
    with Beside(folder, listeners, full, hosts=hosts, table=routes_of) as made:
        yield made


@pytest.mark.parametrize("name", ["plain", "bare"])
def test_a_router_may_add_no_lines(beside: Beside, name: str) -> None:
    ours, envoy = beside.ask(name, "/old/a", headers={"x-envoy-original-path": "/app"})
    for line in ("x-envoy-original-path", "x-envoy-original-host", "x-envoy-attempt-count"):
        assert ours.sent(line) == envoy.sent(line), line
    assert [got.sent("x-envoy-expected-rq-timeout-ms") is None for got in (ours, envoy)] == [
        name == "bare"
    ] * 2
    assert ours.arrived[0][1] == envoy.arrived[0][1] == "/new/a"


@pytest.mark.parametrize("name", ["plain", "bare"])
def test_nor_to_its_replies(beside: Beside, name: str) -> None:
    told = [(got.status, got.line("x-envoy-overloaded")) for got in beside.ask(name, "/full")]
    assert told == [(503, None if name == "bare" else "true")] * 2


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *((name, value) for name in TIMES for value in ("10", "0", "x", "-1", "1.5", "9" * 20)),
        *(("x-envoy-retry-on", value) for value in ("5xx", "nope", "5xx,nope", "5xx, reset")),
        ("x-envoy-retry-grpc-on", "cancelled"),
        ("x-envoy-retry-grpc-on", "5xx"),
    ],
)
@pytest.mark.parametrize("name", ["plain", "strict"])
def test_lines_that_cannot_be_read_refuse_an_internal_call(
    beside: Beside, name: str, header: str, value: str
) -> None:
    ours, envoy = beside.ask(name, "/ok", headers={header: value} | INSIDE)
    if envoy.status == 504:  # it obeys a time that meshlib does not: the line could be read
        assert ours.status == 200
        return
    assert (ours.status, ours.body if ours.status == 400 else b"") == (
        envoy.status,
        envoy.body if envoy.status == 400 else b"",
    )


def test_lines_of_others_and_answers_of_the_routes_own_are_not_looked_at(beside: Beside) -> None:
    bad = {"x-envoy-max-retries": "x"}
    assert [got.status for got in beside.ask("strict", "/ok", headers=bad)] == [200, 200]
    assert [got.status for got in beside.ask("strict", "/own", headers=bad | INSIDE)] == [201, 201]
    assert [got.status for got in beside.ask("strict", "/ok", headers=bad | INSIDE)] == [400, 400]


@pytest.mark.parametrize(
    "said", ["10.0.0.1", "11.0.0.1", "1.1.1.1, 10.0.0.1", "10.0.0.1, 10.0.0.2", "nobody", ""]
)
def test_who_is_internal(beside: Beside, said: str) -> None:
    headers = {"x-forwarded-for": said, "x-inside": "1"} if said else {"x-inside": "1"}
    ours, envoy = beside.ask("plain", "/ok", headers=headers)
    assert ours.sent("x-envoy-internal") == envoy.sent("x-envoy-internal")
    assert ours.sent("x-inside") == envoy.sent("x-inside")
    assert (ours.sent("x-inside") == "1") is (said == "10.0.0.1")


@pytest.mark.parametrize(
    ("name", "said", "status"),
    [("respects", "500", 504), ("respects", "9000", 200), ("respects", "x", 200), ("plain", "500", 200)],
)
def test_a_call_may_say_how_much_time_it_has(beside: Beside, name: str, said: str, status: int) -> None:
    beside.upstream.delay(1.0)
    try:
        headers = {"x-envoy-expected-rq-timeout-ms": said}
        assert [got.status for got in beside.ask(name, "/ok", headers=headers | INSIDE)] == [status] * 2
        assert [got.status for got in beside.ask(name, "/ok", headers=headers)] == [200, 200]
    finally:
        beside.upstream.delay(0.0)


def test_a_retry_says_whether_it_follows_a_timeout(beside: Beside) -> None:
    found: list[list[str | None]] = []
    for order in (lambda: beside.upstream.delay(6.0, times=1), lambda: beside.upstream.fail(503, times=1)):
        for client in range(2):
            order()
            got = beside.one(client, "plain", "/again")
            assert got.status == 200
            found.append([got.sent("x-envoy-is-timeout-retry", number) for number in range(2)])
    assert found == [[None, "true"]] * 2 + [[None, "false"]] * 2
