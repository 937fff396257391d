"""Faults that a control plane orders: meshlib and a real Envoy answer alike (FI-01 to FI-03)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"
NAME = "envoy.filters.http.fault"
ALWAYS = {"numerator": 100}


def abort(status: int) -> dict[str, Any]:
    return {"abort": {"http_status": status, "percentage": ALWAYS}}


def here(fields: dict[str, Any]) -> dict[str, Any]:
    return {"typed_per_filter_config": {NAME: build.any_of(FAULT, fields)}}


OFF = {
    "typed_per_filter_config": {NAME: build.any_of("envoy.config.route.v3.FilterConfig", {"disabled": True})}
}
#: What the filter says, what the route says, what the call says.
CASES: dict[str, tuple[dict[str, Any] | None, dict[str, Any], dict[str, str]]] = {
    "none": ({}, {}, {}),
    "of the filter": (abort(503), {}, {}),
    "of the route": ({}, here(abort(418)), {}),
    "the route's holds": (abort(503), here(abort(418)), {}),
    "the route has none": (abort(503), here({}), {}),
    "off for the route": (abort(503), OFF, {}),
    "without the filter": (None, here(abort(418)), {}),
    "never": ({"abort": {"http_status": 503, "percentage": {"numerator": 0}}}, {}, {}),
    "no percentage": ({"abort": {"http_status": 503}}, {}, {}),
    "another cluster": ({**abort(503), "upstream_cluster": "another"}, {}, {}),
    "this cluster": ({**abort(503), "upstream_cluster": "c"}, {}, {}),
    "calls with a header": (
        {**abort(503), "headers": [{"name": "x-user", "present_match": True}]},
        {},
        {"x-user": "me"},
    ),
    "calls without it": ({**abort(503), "headers": [{"name": "x-user", "present_match": True}]}, {}, {}),
    "calls of a node": (
        {**abort(503), "downstream_nodes": ["n0", "n1"]},
        {},
        {"x-envoy-downstream-service-node": "n1"},
    ),
    "calls of another node": (
        {**abort(503), "downstream_nodes": ["n0", "n1"]},
        {},
        {"x-envoy-downstream-service-node": "n2"},
    ),
    "calls of no node": ({**abort(503), "downstream_nodes": ["n0"]}, {}, {}),
    "a code": ({"abort": {"grpc_status": 14, "percentage": ALWAYS}}, {}, {}),
    "a delay": ({"delay": {"fixed_delay": "0.01s", "percentage": ALWAYS}}, {}, {}),
    "a delay and an answer": (
        {"delay": {"fixed_delay": "0.01s", "percentage": ALWAYS}, **abort(504)},
        {},
        {},
    ),
    "by header": (
        {"abort": {"header_abort": {}, "percentage": ALWAYS}},
        {},
        {"x-envoy-fault-abort-request": "429"},
    ),
    "by header, none": ({"abort": {"header_abort": {}, "percentage": ALWAYS}}, {}, {}),
    "by header, no status": (
        {"abort": {"header_abort": {}, "percentage": ALWAYS}},
        {},
        {"x-envoy-fault-abort-request": "99"},
    ),
    "by header, never": (
        {"abort": {"header_abort": {}, "percentage": ALWAYS}},
        {},
        {"x-envoy-fault-abort-request": "429", "x-envoy-fault-abort-request-percentage": "0"},
    ),
    "header without header mode": (abort(503), {}, {"x-envoy-fault-abort-request": "429"}),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[tuple[int, str]]]]:
    with ExitStack() as stack:
        upstream = stack.enter_context(Upstream("v1"))
        held = Ports(len(CASES))
        stack.callback(held.close)
        ports = dict(zip(CASES, held.numbers, strict=True))
        resources = [build.cluster("c", [upstream.address])]
        for case, (fields, route, _) in CASES.items():
            filters = [] if fields is None else [{"name": NAME, "typed_config": build.any_of(FAULT, fields)}]
            host = build.virtual_host("v", build.route(cluster="c", **route), domains=["*"])
            address = f"127.0.0.1:{ports[case]}"
            resources.append(
                build.listener(case, build.route_config(case, host), filters=filters, address=address)
            )
        plane = stack.enter_context(ControlPlane(*resources))
        envoy = stack.enter_context(EnvoyProcess(plane.address, tmp_path_factory.mktemp("envoy")))
        envoy.wait_for_listeners(len(CASES))
        plain = stack.enter_context(httpx.Client(timeout=20))
        mesh = stack.enter_context(meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}}))
        mesh.wait_ready(*(f"127.0.0.1:{port}" for port in held.numbers), timeout=30)
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))

        def ask(case: str) -> list[tuple[int, str]]:
            found = []
            for each in (client, plain):
                response = each.get(f"http://127.0.0.1:{ports[case]}/", headers=CASES[case][2])
                body = response.text if response.text == "fault filter abort" else "passed"
                found.append((response.status_code, body))
            return found

        yield ask


@pytest.mark.parametrize("case", CASES)
def test_both_answer_alike(case: str, both: Callable[[str], list[tuple[int, str]]]) -> None:
    ours, theirs = both(case)
    assert ours == theirs
