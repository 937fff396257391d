"""Ids of requests: who gets one, and that all attempts of a call have the same; through a real Envoy, and by meshlib."""

from __future__ import annotations

import uuid
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


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The ids that an upstream which fails got with the attempts of one call: by meshlib, and by Envoy."""
    with ExitStack() as stack:
        upstream = stack.enter_context(Upstream("v1"))
        upstream.fail(503)
        held = Ports(2)
        stack.callback(held.close)
        ports = dict(zip((True, False), held.numbers, strict=True))
        host = build.virtual_host("v", build.route(cluster="c", retry=RETRY), domains=["*"])
        listeners = [
            build.listener(
                f"l{port}",
                build.route_config("r", host),
                address=f"127.0.0.1:{port}",
                manager={"generate_request_id": made},
            )
            for made, port in ports.items()
        ]
        plane = stack.enter_context(ControlPlane(build.cluster("c", [upstream.address]), *listeners))
        envoy = stack.enter_context(EnvoyProcess(plane.address, tmp_path_factory.mktemp("envoy")))
        envoy.wait_for_listeners(2)
        plain = stack.enter_context(httpx.Client(timeout=20, trust_env=False))
        mesh = stack.enter_context(meshlib.Mesh({"xds": {"server": plane.address, "view": "sidecar"}}))
        mesh.wait_ready(*(f"127.0.0.1:{port}" for port in held.numbers), timeout=30)
        client = stack.enter_context(meshlib.Client(mesh=mesh, timeout=20))

        def ask(made: bool, **headers: str) -> list[list[str | None]]:
            found = []
            for each in (client, plain):
                before = upstream.requests_total
                each.get(f"http://127.0.0.1:{ports[made]}/", headers=headers)
                found.append([request.header("x-request-id") for request in upstream.requests[before:]])
            return found

        yield ask


def test_a_call_without_one_gets_one_for_all_its_attempts(asked: Any) -> None:
    for ids in (*asked(True), *asked(True)):
        assert len(ids) == 3
        [made] = set(ids)
        assert str(uuid.UUID(made)) == made
        assert uuid.UUID(made).version == 4
    first, second = asked(True)[0][0], asked(True)[0][0]
    assert first != second


def test_one_that_is_there_is_kept(asked: Any) -> None:
    assert asked(True, **{"x-request-id": "mine"}) == [["mine"] * 3] * 2


def test_where_none_is_to_be_made_none_is(asked: Any) -> None:
    assert asked(False) == [[None] * 3] * 2
