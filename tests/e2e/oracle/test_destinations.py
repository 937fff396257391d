"""Calls of a pass-through cluster that say where they go: every library in the mesh, and a real Envoy (``OriginalDstLbConfig``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from meshlib.testing import build
from tests.e2e.oracle.callers import CALLERS, Call, calling
from tests.support.raw_server import RawServer

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(120)]

HEADER = "x-envoy-original-dst-host"


@pytest.fixture(params=CALLERS)
def called(request: Any, tmp_path: Path) -> Iterator[Callable[..., Call]]:
    """Calls by a cluster that is told so."""
    with ExitStack() as stack:

        def make(**fields: Any) -> Call:
            cluster = build.cluster(
                "c", type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED", original_dst_lb_config=fields
            )
            return stack.enter_context(calling(request.param, cluster, tmp_path))

        yield make


def test_the_header_says_where(called: Callable[..., Call]) -> None:
    call = called(use_http_header=True)
    with RawServer() as one, RawServer() as other:
        assert call({HEADER: one.address}) == 200
        assert call({HEADER: other.address}) == 200
        for server in (one, other):
            [head] = server.heads
            assert head.startswith(b"GET /path HTTP/1.1")
            assert server.address.encode() in head, "the header goes on"


def test_another_header_and_another_port(called: Callable[..., Call]) -> None:
    with RawServer() as server:
        port = int(server.address.rpartition(":")[2])
        call = called(use_http_header=True, http_header_name="X-To", upstream_port_override=port)
        assert call({"x-to": "127.0.0.1:9"}) == 200
        assert len(server.heads) == 1
