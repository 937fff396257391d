"""Client spans of RPCs where instrumentations of grpc are there; run as a process of its own.

    python rpc_spans_program.py ORDER TOOLS ADDRESS

ORDER is ``before`` or ``after``: whether the instrumentations are set up before meshlib is imported and its channels are made, or
afterwards. TOOLS, with commas between: ``opentelemetry``, ``sentry``, ``ddtrace``. The server at ADDRESS refuses the first attempt of each
call. Calls are made by a channel as it is (``plain``) and through the tools' interceptors (``around``), blocking and asyncio. Prints as
JSON, for each: the client spans that each tracing system saw, by the name of who made them, and OpenTelemetry's attempts by their ids.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

ORDER, TOOLS, ADDRESS = sys.argv[1], sys.argv[2].split(","), sys.argv[3]
METHOD = "/shop.Reviews/Get"
os.environ |= {"DD_TRACE_STARTUP_LOGS": "false", "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false"}
os.environ |= {"DD_REMOTE_CONFIGURATION_ENABLED": "false", "DD_TRACE_AGENT_URL": "http://127.0.0.1:9"}
os.environ |= {"_DD_TRACE_GRPC_AIO_ENABLED": "true"}

found: dict[str, Any] = {}
blocking: list[Any] = []  # what puts a tool's interceptor around a channel
aio: list[Any] = []  # interceptors


def provider() -> None:
    """An application's SDK of OpenTelemetry is there in any case."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(tracers)

    def seen() -> dict[str, list[str]]:
        spans = exporter.get_finished_spans()
        exporter.clear()
        inner = [span for span in spans if span.kind is trace.SpanKind.INTERNAL]
        return {
            "opentelemetry": [
                span.instrumentation_scope.name for span in spans if span.kind is trace.SpanKind.CLIENT
            ],
            "attempts": [trace.format_span_id(span.context.span_id) for span in inner],
        }

    found["opentelemetry"] = seen


def opentelemetry() -> None:
    from opentelemetry.instrumentation import grpc as contrib
    from opentelemetry.instrumentation.grpc.grpcext import intercept_channel

    contrib.GrpcInstrumentorClient().instrument()
    contrib.GrpcAioInstrumentorClient().instrument()
    blocking.append(lambda channel: intercept_channel(channel, contrib.client_interceptor()))
    aio.extend(contrib.aio_client_interceptors())


def sentry() -> None:
    import grpc
    import sentry_sdk
    from sentry_sdk.integrations.grpc import GRPCIntegration
    from sentry_sdk.integrations.grpc.aio.client import SentryUnaryUnaryClientInterceptor
    from sentry_sdk.integrations.grpc.client import ClientInterceptor

    spans: list[str] = []

    def kept(event: Any, _: Any) -> None:
        spans.extend(span["op"] for span in event["spans"] if span["op"] == "grpc.client")

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        traces_sample_rate=1.0,
        before_send_transaction=kept,
        auto_enabling_integrations=False,
        integrations=[GRPCIntegration()],
    )
    blocking.append(lambda channel: grpc.intercept_channel(channel, ClientInterceptor()))
    aio.append(SentryUnaryUnaryClientInterceptor())
    found["sentry"] = lambda: {"sentry": [spans.pop() for _ in tuple(spans)]}


def ddtrace() -> None:
    import grpc
    from ddtrace import patch
    from ddtrace.contrib.internal.grpc.aio_client_interceptor import create_aio_client_interceptors
    from ddtrace.contrib.internal.grpc.client_interceptor import create_client_interceptor
    from ddtrace.trace import TraceFilter, tracer

    spans: list[str] = []

    class Kept(TraceFilter):
        def process_trace(self, trace: Any) -> None:
            spans.extend(str(span.name) for span in trace if span.get_tag("span.kind") == "client")

    tracer.configure(trace_processors=[Kept()])
    patch(raise_errors=True, grpc=True)
    blocking.append(lambda channel: grpc.intercept_channel(channel, create_client_interceptor("reviews", 80)))
    aio.extend(create_aio_client_interceptors("reviews", 80))

    def seen() -> dict[str, list[str]]:
        tracer.flush()
        return {"ddtrace": [spans.pop() for _ in tuple(spans)]}

    found["ddtrace"] = seen


def instrument() -> None:
    provider()
    for tool in TOOLS:
        {"opentelemetry": opentelemetry, "sentry": sentry, "ddtrace": ddtrace}[tool]()


def saw(call: Any) -> dict[str, list[str]]:
    """What each system saw of one call."""
    if "sentry" in TOOLS:
        import sentry_sdk

        with sentry_sdk.start_transaction(name="test"):
            assert call() == b"m"
    else:
        assert call() == b"m"
    return {name: spans for seen in found.values() for name, spans in seen().items()}


def main() -> None:
    if ORDER == "before":
        instrument()
    import meshlib
    import meshlib.grpc
    import meshlib.grpc.aio

    retry = {"attempts": 2, "on": ["unavailable"], "backoff_base": 0.001}
    config: Any = {"services": {"reviews": {"endpoints": [ADDRESS], "retry": retry}}}
    mesh = meshlib.Mesh(config)
    own: Any = meshlib.grpc.channel("reviews:80", mesh=mesh)
    plain: Any = meshlib.grpc.aio.channel("reviews:80", mesh=mesh)
    if ORDER == "after":
        instrument()
    around = own
    for wrap in blocking:
        around = wrap(around)
    loop = asyncio.new_event_loop()
    outer: Any = meshlib.grpc.aio.channel("reviews:80", interceptors=aio, mesh=mesh)

    def awaited(channel: Any) -> Any:
        async def done() -> Any:
            return await channel.unary_unary(METHOD)(b"m")

        return loop.run_until_complete(done())

    answer = {
        "plain": saw(lambda: own.unary_unary(METHOD)(b"m")),
        "around": saw(lambda: around.unary_unary(METHOD)(b"m")),
        "plain aio": saw(lambda: awaited(plain)),
        "around aio": saw(lambda: awaited(outer)),
    }
    print(json.dumps(answer))
    loop.run_until_complete(plain.close())
    loop.run_until_complete(outer.close())
    loop.close()
    own.close()
    mesh.close()


main()
