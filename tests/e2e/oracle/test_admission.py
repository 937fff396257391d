"""Admission control that a control plane orders: a real Envoy and meshlib refuse the same share of the calls to a service that fails."""

from __future__ import annotations

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

NAME, KIND = (
    "envoy.filters.http.admission_control",
    "envoy.extensions.filters.http.admission_control.v3.AdmissionControl",
)
CALLS = 900
SHARE = {"default_value": {"value": 40}}
LOW = {"http_criteria": {"http_success_status": [{"start": 100, "end": 600}]}}

#: Fields, and the share that is refused where all calls fail with 500.
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "the most": ({"success_criteria": {}}, 0.8),
    "another most": ({"success_criteria": {}, "max_rejection_probability": SHARE}, 0.4),
    "500 is good": ({"success_criteria": LOW}, 0.0),
    "off": ({"success_criteria": {}, "enabled": {"default_value": False}}, 0.0),
    "too few calls": ({"success_criteria": {}, "rps_threshold": {"default_value": 1_000_000}}, 0.0),
}


def test_both_refuse_the_same_share(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of 900 calls the share is 1.6 % off, as a standard deviation, where it is 40 %: six of them are allowed, and the first calls."""
    with ExitStack() as stack:
        upstream = stack.enter_context(Upstream("v1"))
        upstream.fail(500)
        held = Ports(len(CASES))
        stack.callback(held.close)
        resources = [build.cluster("c", [upstream.address])]
        for (case, (fields, _)), port in zip(CASES.items(), held.numbers, strict=True):
            filters = [{"name": NAME, "typed_config": build.any_of(KIND, fields)}]
            name = case.replace(" ", "-")
            routes = build.route_config(name, build.virtual_host("v", build.route(cluster="c")))
            resources.append(build.listener(name, routes, filters=filters, address=f"127.0.0.1:{port}"))
        plane = stack.enter_context(ControlPlane(*resources))
        envoy = stack.enter_context(EnvoyProcess(plane.address, tmp_path_factory.mktemp("envoy")))
        envoy.wait_for_listeners(len(CASES))
        plain = stack.enter_context(httpx.Client(timeout=20))
        mesh = stack.enter_context(
            meshlib.Mesh({"seed": 7, "xds": {"server": plane.address, "view": "sidecar"}})
        )
        mesh.wait_ready(*(f"127.0.0.1:{port}" for port in held.numbers), timeout=30)
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))
        found = {}
        for (case, (_, expected)), port in zip(CASES.items(), held.numbers, strict=True):
            shares = []
            for each in (client, plain):
                statuses = [each.get(f"http://127.0.0.1:{port}/").status_code for _ in range(CALLS)]
                assert set(statuses) <= {500, 503}
                shares.append(statuses.count(503) / CALLS)
            found[case] = (expected, *shares)
        print(found)
        for expected, ours, theirs in found.values():
            assert abs(ours - expected) < 0.1
            assert abs(theirs - expected) < 0.1
