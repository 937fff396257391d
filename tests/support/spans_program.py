"""Client spans of one call, where an instrumentation of the library's own is there; run as a process of its own.

    python spans_program.py WAY LIBRARY ORDER URL

WAY and LIBRARY as for ``tools_program.py``. ORDER is ``before`` or ``after``: whether the instrumentations are set up before the
library is imported and meshlib joins, or afterwards. Prints as JSON what was answered, the attempts that meshlib made, and the
client spans that each tracing system saw: OpenTelemetry's by their ids, the others' by their names.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

WAY, LIBRARY, ORDER, URL = sys.argv[1:]
NAME = LIBRARY.split()[0]
os.environ |= {"DD_TRACE_STARTUP_LOGS": "false", "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false"}
os.environ |= {"DD_REMOTE_CONFIGURATION_ENABLED": "false", "DD_TRACE_AGENT_URL": "http://127.0.0.1:9"}

found: dict[str, Any] = {}


def opentelemetry() -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    module, kind = {
        "httpx": ("httpx", "HTTPXClientInstrumentor"),
        "requests": ("requests", "RequestsInstrumentor"),
        "urllib3": ("urllib3", "URLLib3Instrumentor"),
        "aiohttp": ("aiohttp_client", "AioHttpClientInstrumentor"),
    }[NAME]
    getattr(importlib.import_module(f"opentelemetry.instrumentation.{module}"), kind)().instrument()
    found["opentelemetry"] = lambda: [
        trace.format_span_id(span.context.span_id)
        for span in exporter.get_finished_spans()
        if span.kind is trace.SpanKind.CLIENT
    ]


def sentry() -> None:
    import sentry_sdk

    spans: list[str] = []
    # Requests and urllib3 are seen by what Sentry makes of http.client, always.
    kind = {"httpx": "HttpxIntegration", "aiohttp": "AioHttpIntegration"}.get(NAME)

    def kept(event: Any, _: Any) -> None:
        spans.extend(span["op"] for span in event["spans"] if span["op"] == "http.client")

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        traces_sample_rate=1.0,
        before_send_transaction=kept,
        # Those that look for their library would import everything that is installed here: seconds.
        auto_enabling_integrations=False,
        integrations=[getattr(importlib.import_module(f"sentry_sdk.integrations.{NAME}"), kind)()]
        if kind
        else [],
    )
    found["sentry"] = lambda: spans


def ddtrace() -> None:
    from ddtrace import patch
    from ddtrace.trace import TraceFilter, tracer

    spans: list[str] = []

    class Kept(TraceFilter):
        def process_trace(self, trace: Any) -> None:
            spans.extend(
                str(span.name)
                for span in trace
                if span.get_tag("span.kind") == "client" and "connect" not in span.name
            )

    tracer.configure(trace_processors=[Kept()])
    patch(raise_errors=True, **{NAME: True})
    found["ddtrace"] = lambda: spans


def instrument() -> None:
    opentelemetry()
    sentry()
    ddtrace()


def attempts() -> Any:
    """A list that grows with each attempt of the mesh."""
    import meshlib

    seen: list[Any] = []
    mesh = meshlib.default()
    mesh._runtime().observe(
        lambda event: seen.append(event) if type(event).__name__ == "AttemptStarted" else None
    )
    return seen


def main() -> None:
    if ORDER == "before":
        instrument()
    if WAY == "auto":
        import meshlib.auto  # noqa: F401
    sys.argv[1:] = [WAY, LIBRARY, "", URL]
    import tools_program

    call = tools_program.LIBRARIES[LIBRARY]()
    if ORDER == "after":
        importlib.import_module(NAME)
        instrument()
    seen = attempts()
    import sentry_sdk
    from ddtrace.trace import tracer

    with sentry_sdk.start_transaction(name="test"):
        body = call()
    tracer.flush()
    answer = {
        "body": body.decode(),
        "attempts": len(seen),
        "traceparent": dict(json.loads(body)["headers"]).get("traceparent", ""),
    }
    print(json.dumps(answer | {name: spans() for name, spans in found.items()}))


main()
