"""Which calls are made again, by the length of their bodies: through a real Envoy, and by meshlib."""

from __future__ import annotations

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

RETRY = {"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}}
#: What the virtual host says, what the route says, and the bytes of the body.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "no limit": ({}, {}, 3000),
    "as long": ({}, {"request_body_buffer_limit": 3000}, 3000),
    "longer": ({}, {"request_body_buffer_limit": 2999}, 3000),
    "older": ({}, {"per_request_buffer_limit_bytes": 2999}, 3000),
    "older, as long": ({}, {"per_request_buffer_limit_bytes": 3000}, 3000),
    "both": ({}, {"per_request_buffer_limit_bytes": 10, "request_body_buffer_limit": 3000}, 3000),
    "the host's": ({"request_body_buffer_limit": 10}, {}, 3000),
    "the route's goes before": ({"request_body_buffer_limit": 10}, {"request_body_buffer_limit": 4000}, 3000),
    "none": ({}, {"request_body_buffer_limit": 0}, 0),
}


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """How often the upstream, which always fails, was asked for one call: by meshlib, and by Envoy."""
    with ExitStack() as stack:
        upstream = stack.enter_context(Upstream("v1"))
        upstream.fail(503)
        held = Ports(len(CASES))
        stack.callback(held.close)
        ports = dict(zip(CASES, held.numbers, strict=True))
        resources = [build.cluster("c", [upstream.address])]
        for case, (host, route, _) in CASES.items():
            made = build.virtual_host(
                "v", build.route(cluster="c", retry=RETRY, **route), domains=["*"], **host
            )
            resources.append(
                build.listener(case, build.route_config(case, made), address=f"127.0.0.1:{ports[case]}")
            )
        plane = stack.enter_context(ControlPlane(*resources))
        envoy = stack.enter_context(EnvoyProcess(plane.address, tmp_path_factory.mktemp("envoy")))
        envoy.wait_for_listeners(len(CASES))
        plain = stack.enter_context(httpx.Client(timeout=20, trust_env=False))
        mesh = stack.enter_context(meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}}))
        mesh.wait_ready(*(f"127.0.0.1:{port}" for port in held.numbers), timeout=30)
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))

        def ask(case: str) -> list[int]:
            found = []
            for each in (client, plain):
                before = upstream.requests_total
                body = b"x" * CASES[case][2]
                assert each.post(f"http://127.0.0.1:{ports[case]}/", content=body).status_code == 503
                found.append(upstream.requests_total - before)
            return found

        yield ask


@pytest.mark.parametrize("case", CASES)
def test_as_many_attempts(case: str, attempts: Any) -> None:
    ours, theirs = attempts(case)
    assert ours == theirs
    assert theirs in (1, 3)
