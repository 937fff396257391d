"""Three services deep, over real servers: gateway (Django) → orders (Flask) → stock (FastAPI), and a depot that records."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from meshlib.testing import Upstream
from tests.support.web_servers import gunicorn, uvicorn

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def knows(name, address, **more):
    return {"services": {name: {"endpoints": [address], **more}}}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        depot = stack.enter_context(Upstream("depot"))
        stock = stack.enter_context(
            uvicorn(
                "tests.support.fastapi_site:create_app",
                logs / "stock",
                "--factory",
                mesh=knows("depot", depot.address),
                calls="depot",
                name="stock",
            )
        )
        orders = stack.enter_context(
            gunicorn(
                "tests.support.flask_site:create_app()",
                logs / "orders",
                "--preload",
                mesh=knows("stock", stock.address),
                calls="stock",
                name="orders",
            )
        )
        site = {"mesh": knows("orders", orders.address), "calls": "orders", "name": "gateway"}
        application = "tests.support.django_wsgi"
        threads = ("--worker-class", "gthread", "--threads", "4")
        gateways = {
            "gthread": stack.enter_context(
                gunicorn(f"{application}:application", logs / "gthread", *threads, **site)
            ),
            "asgi": stack.enter_context(
                uvicorn(f"{application}:asgi", logs / "asgi", "--lifespan", "off", **site)
            ),
        }
        yield gateways, depot


PATHS = [("gthread", "/"), ("gthread", "/async"), ("asgi", "/"), ("asgi", "/async")]


def hops(answer):
    """What arrived at each service, from the gateway on."""
    found = []
    while answer is not None:
        headers = answer["headers"]
        pairs = headers.items() if isinstance(headers, dict) else headers
        found.append({"service": answer["name"], **{name.lower(): value for name, value in pairs}})
        answer = answer.get("next")
    return found


@pytest.mark.parametrize(("gateway", "path"), PATHS)
def test_one_trace_from_end_to_end_and_a_deadline_that_shrinks_hop_by_hop(chain, gateway, path):
    gateways, _ = chain
    sent = {
        "traceparent": PARENT,
        "tracestate": "vendor=1",
        "baggage": "user=7",
        "x-request-id": "request-1",
        "x-envoy-attempt-count": "5",
        "x-envoy-expected-rq-timeout-ms": "60000",
        "grpc-timeout": "20S",
    }
    answer = httpx.get(gateways[gateway].url + path, headers=sent, timeout=30)
    assert answer.status_code == 200, gateways[gateway].log
    seen = hops(answer.json())
    assert [hop["service"] for hop in seen] == ["gateway", "orders", "stock", "depot"]
    for hop in seen:
        assert hop["traceparent"].split("-")[1] == TRACE
        assert (hop["tracestate"], hop["baggage"], hop["x-request-id"]) == ("vendor=1", "user=7", "request-1")
    left = [int(hop["x-envoy-expected-rq-timeout-ms"]) for hop in seen[1:]]
    assert 20_000 >= left[0] > left[1] > left[2] > 0
    assert [hop["x-envoy-attempt-count"] for hop in seen] == ["5", "1", "1", "1"]


@pytest.mark.parametrize(("gateway", "path"), [("gthread", "/"), ("asgi", "/async")])
def test_requests_at_once_on_kept_connections_do_not_mix(chain, gateway, path):
    gateways, _ = chain

    def one(number):
        headers = {"x-request-id": f"request-{number}"} if number % 3 else {}
        answer = client.get(gateways[gateway].url + path, headers=headers)
        return answer.status_code, {hop.get("x-request-id") for hop in hops(answer.json())}

    with httpx.Client(timeout=30) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(36)))
    assert found == [(200, {f"request-{number}" if number % 3 else None}) for number in range(36)]


def test_a_deadline_that_runs_out_deep_down_ends_the_whole_chain(chain):
    gateways, depot = chain
    depot.hang(times=1)
    try:
        answer = httpx.get(
            gateways["gthread"].url, headers={"x-envoy-expected-rq-timeout-ms": "700"}, timeout=20
        )
        assert answer.status_code == 500
        assert 0.3 < answer.elapsed.total_seconds() < 10
    finally:
        depot.behave()
        depot.release()
    assert httpx.get(gateways["gthread"].url, timeout=30).status_code == 200


def test_hostile_headers_change_nothing(chain):
    gateways, depot = chain
    hostile = {
        "traceparent": "00-" + "z" * 5000,
        "tracestate": "x" * 5000,
        "baggage": "y" * 6000,
        "x-request-id": "i" * 4000,
        "x-envoy-attempt-count": "-1",
        "x-envoy-expected-rq-timeout-ms": "nan",
        "grpc-timeout": "99999999999999999999H",
    }
    assert httpx.get(gateways["gthread"].url, headers=hostile, timeout=30).status_code == 200
    arrived = {name.lower() for name, _ in depot.requests[-1].headers}
    assert not arrived & (set(hostile) - {"x-envoy-attempt-count"})
