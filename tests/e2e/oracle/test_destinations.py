"""Calls of a pass-through cluster that say where they go: every library in the mesh, and a real Envoy (``OriginalDstLbConfig``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import ControlPlane, build
from tests.e2e.oracle.envoy_process import EnvoyProcess, Ports
from tests.support.libraries import LIBRARIES, Caller
from tests.support.raw_server import RawServer

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

HEADER = "x-envoy-original-dst-host"
Call = Callable[[dict[str, str]], int]


@pytest.fixture(params=("envoy", *LIBRARIES))
def calling(request: Any, tmp_path: Path) -> Iterator[Callable[..., Call]]:
    """A call with these headers by a cluster that is told so; it gives its status."""
    with ExitStack() as stack:

        def make(**fields: Any) -> Call:
            held = Ports(1)
            stack.callback(held.close)
            address = f"127.0.0.1:{held.numbers[0]}"
            host = build.virtual_host("v", build.route("/", cluster="c"), domains=["*"])
            made = [
                build.listener("l", build.route_config("r", host), address=address),
                build.cluster(
                    "c", type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED", original_dst_lb_config=fields
                ),
            ]
            plane = stack.enter_context(ControlPlane(*made))
            url = f"http://{address}/path"
            if request.param == "envoy":
                envoy = stack.enter_context(EnvoyProcess(plane.address, tmp_path))
                envoy.wait_for_listeners(1)
                client = stack.enter_context(httpx.Client(timeout=20))
                return lambda headers: client.get(url, headers=headers).status_code
            config = {"xds": {"server": plane.address, "view": "sidecar"}, "failures": "respond"}
            mesh = stack.enter_context(meshlib.Mesh(config))
            mesh.wait_ready(address, timeout=20)
            caller = stack.enter_context(Caller(request.param, mesh))
            return lambda headers: caller("GET", url, headers=headers)[0]

        yield make


def test_the_header_says_where(calling: Callable[..., Call]) -> None:
    call = calling(use_http_header=True)
    with RawServer() as one, RawServer() as other:
        assert call({HEADER: one.address}) == 200
        assert call({HEADER: other.address}) == 200
        for server in (one, other):
            [head] = server.heads
            assert head.startswith(b"GET /path HTTP/1.1")
            assert server.address.encode() in head, "the header goes on"


def test_another_header_and_another_port(calling: Callable[..., Call]) -> None:
    with RawServer() as server:
        port = int(server.address.rpartition(":")[2])
        call = calling(use_http_header=True, http_header_name="X-To", upstream_port_override=port)
        assert call({"x-to": "127.0.0.1:9"}) == 200
        assert len(server.heads) == 1
