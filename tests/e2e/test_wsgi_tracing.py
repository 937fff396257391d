"""Trace context while a request is served: who wins, where OpenTelemetry is set up and where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace

import meshlib
from meshlib.inbound import enter, leave, read
from tests.support.telemetry import Recorded, sdk, unset

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
SAID = {"HTTP_TRACEPARENT": PARENT, "HTTP_TRACESTATE": "vendor=1", "HTTP_BAGGAGE": "user=7"}


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with sdk() as found:
        yield found


def serve(upstream: Any, work: Any) -> Any:
    server = upstream("stock")
    token = enter(read(SAID.get, 0.0))
    try:
        with (
            meshlib.Mesh({"services": {"stock": {"endpoints": [server.address]}}}) as mesh,
            meshlib.Client(mesh=mesh) as client,
        ):
            work(client)
    finally:
        leave(token)
    return server.requests[-1]


def test_our_span_continues_the_trace_that_nobody_else_read(recorded, upstream):
    received = serve(upstream, lambda client: client.get("http://stock/"))
    (span,) = recorded.client_spans
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    assert received.header("traceparent") == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert (received.header("tracestate"), received.header("baggage")) == ("vendor=1", "user=7")


def test_a_span_of_the_application_wins(recorded, upstream):
    tracer = trace.get_tracer("test")

    def work(client):
        with tracer.start_as_current_span("own"):
            client.get("http://stock/")

    received = serve(upstream, work)
    own = next(span for span in recorded.spans if span.name == "own")
    assert received.header("traceparent").split("-")[1] == f"{own.context.trace_id:032x}" != TRACE
    assert received.header("tracestate") is None
    assert received.header("baggage") == "user=7"


def test_without_an_sdk_it_is_handed_on_as_it_came(upstream):
    unset()
    received = serve(upstream, lambda client: client.get("http://stock/"))
    assert received.header("traceparent") == PARENT
    own = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    received = serve(upstream, lambda client: client.get("http://stock/", headers=own))
    assert received.header("traceparent") == own["traceparent"]
    # Half of one trace and half of another would be none.
    assert received.header("tracestate") is None
