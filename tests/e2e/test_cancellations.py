"""Tasks that are cancelled at any point of their calls leave nothing: no connection, no permit, no span."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor

import meshlib
import meshlib.httpx2
from meshlib.testing import UpstreamProcess
from meshlib.testing.orders import ORDER_HEADER
from tests.support.asking import asked
from tests.support.cancelling import TASKS, cancelled_calls
from tests.support.telemetry import sdk

CONNECTIONS = 32  # fewer than tasks
RETRY = {"attempts": 3, "on": ["5xx", "connect-failure", "reset"], "backoff_base": 0.005}
#: Each call finds a permit, as long as none is lost.
LIMITS = {"max_connections": CONNECTIONS, "max_pending": TASKS, "max_requests": TASKS, "max_retries": TASKS}
#: A task of anyio's that is cancelled before its first step leaves its coroutine to the collector, which complains.
anyio_tidies_late = pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning")


class Spans(SpanProcessor):
    """Those that began and did not end; and how many ended because their call was cancelled."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.cancelled = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.open.add(span.context.span_id)

    def on_end(self, span: Any) -> None:
        self.open.remove(span.context.span_id)
        self.cancelled += span.attributes.get("meshlib.outcome") == "cancelled"


@pytest.fixture
def spans() -> Iterator[Spans]:
    with sdk():
        found = Spans()
        trace.get_tracer_provider().add_span_processor(found)  # type: ignore[attr-defined]
        yield found


@pytest.fixture
def server() -> Iterator[UpstreamProcess]:
    with UpstreamProcess() as found:
        yield found


def service(server: UpstreamProcess) -> dict[str, Any]:
    policies = {"retry": RETRY, "limits": LIMITS, "timeout": 60.0}
    return {"services": {"reviews": {"endpoints": [server.address], **policies}}}


def connections_at(server: UpstreamProcess) -> int:
    """Open at the server, but for the one that asks: for ``asked``, since the one that asked before may be there still."""
    return server.counts()["connections_open"] - 1


async def check_nothing_is_held(mesh: meshlib.Mesh, server: UpstreamProcess, spans: Spans) -> None:
    gc.collect()
    assert spans.open == set()
    cluster = mesh.status().clusters["reviews"]
    assert (cluster.active, [endpoint.active for endpoint in cluster.endpoints]) == (0, [0])
    # The server is told by the kernel that a connection was closed, and we by nobody that it knows.
    assert await asyncio.to_thread(asked, lambda: connections_at(server) <= CONNECTIONS)


async def check_permits(client: Any, mesh: meshlib.Mesh, server: UpstreamProcess) -> None:
    """A client that has no connection yet gets as much as the limits say: all of it is free."""
    refused = mesh.status().clusters["reviews"].overflows
    server.order(hold="head")
    calls = [asyncio.ensure_future(client.get("http://reviews/")) for _ in range(TASKS)]
    assert await asyncio.to_thread(asked, lambda: server.counts()["held"] == CONNECTIONS)
    assert mesh.status().clusters["reviews"].active == TASKS
    assert await asyncio.to_thread(asked, lambda: connections_at(server) == CONNECTIONS)
    await asyncio.to_thread(server.behave)
    assert Counter(answer.status_code for answer in await asyncio.gather(*calls)) == {200: TASKS}

    before = mesh.status().clusters["reviews"].retries
    failing = {ORDER_HEADER: json.dumps({"status": 503})}
    await asyncio.gather(*(client.get("http://reviews/", headers=failing) for _ in range(TASKS)))
    cluster = mesh.status().clusters["reviews"]
    assert (cluster.retries - before, cluster.overflows) == (2 * TASKS, refused)


async def run(kind: Any, server: UpstreamProcess, spans: Spans, number: int, seed: int) -> None:
    with meshlib.Mesh(service(server)) as mesh:
        async with kind(mesh=mesh, timeout=60.0) as client:
            ends = await cancelled_calls(client, number, seed)
            await check_nothing_is_held(mesh, server, spans)
        assert await asyncio.to_thread(asked, lambda: connections_at(server) == 0)
        async with kind(mesh=mesh, timeout=60.0) as client:
            await check_permits(client, mesh, server)
    assert spans.open == set()
    # They were cancelled at all the points that there are.
    assert sum(ends.values()) >= number
    assert min(ends["begun"], ends["answered"], spans.cancelled) > number / 50, (ends, spans.cancelled)


CLIENTS = [
    pytest.param(meshlib.AsyncClient, id="httpx"),
    pytest.param(meshlib.httpx2.AsyncClient, id="httpx2"),
]


@anyio_tidies_late
@pytest.mark.parametrize("kind", CLIENTS)
async def test_cancelled_calls_leave_nothing(kind: Any, server: UpstreamProcess, spans: Spans) -> None:
    await run(kind, server, spans, 1_000, 1)


@anyio_tidies_late
@pytest.mark.storm
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", CLIENTS)
async def test_24_000_cancelled_calls_leave_nothing(kind: Any, server: UpstreamProcess, spans: Spans) -> None:
    await run(kind, server, spans, 24_000, 2)
