"""One hop of a fleet: a service that tells what arrived, what time is left and what the service behind it said.

``fleet_flask`` and ``fleet_django`` put it behind a framework. The process's environment says which service it is
(``SERVICE_NAME``), whom it calls (``SERVICE_CALLS``, or nobody) and where its spans go (``FLEET_SPANS``).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

import meshlib
import meshlib_requests
from meshlib.deadlines import current_deadline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["MESH", "call", "call_async", "get_ready"]

MESH: dict[str, Any] = json.loads(os.environ.get("TEST_SITE_MESHLIB", "{}"))
NAME = os.environ.get("SERVICE_NAME", "site")
NEXT = os.environ.get("SERVICE_CALLS", "")

session = meshlib_requests.Session()
client = meshlib.AsyncClient()


class ToFile(SpanExporter):
    """Each ended span is a line of the file of its process, whole or not at all."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with (self._folder / f"{os.getpid()}.jsonl").open("ab", buffering=0) as file:
            for span in spans:
                assert span.context is not None
                said = {
                    "service": NAME,
                    "trace": f"{span.context.trace_id:032x}",
                    "id": f"{span.context.span_id:016x}",
                    "parent": f"{span.parent.span_id:016x}" if span.parent else None,
                    "kind": span.kind.name,
                    "scope": span.instrumentation_scope.name if span.instrumentation_scope else "",
                    "status": (span.attributes or {}).get("http.response.status_code"),
                    "resent": (span.attributes or {}).get("http.request.resend_count"),
                }
                file.write(json.dumps(said).encode() + b"\n")
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is kept open."""


def get_ready() -> None:
    """What an application does as it is loaded: under gevent grpc is told of it, and spans go where they are wanted."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        from grpc.experimental.gevent import init_gevent

        init_gevent()
    if folder := os.environ.get("FLEET_SPANS"):
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(ToFile(folder)))
        trace.set_tracer_provider(provider)


def use_before_fork(mesh: meshlib.Mesh) -> None:
    """Where the test wants it, do what one should not: run the mesh in the parent of the workers."""
    if os.environ.get("FLEET_EARLY") and NEXT:
        mesh.wait_ready(NEXT, timeout=20.0)


def call(headers: Mapping[str, str]) -> dict[str, Any]:
    """Call the next service, if there is one, with requests; what this service answers."""
    said = _arrived(headers)
    if NEXT:
        try:
            response = session.get(f"http://{NEXT}/")
        except Exception as error:  # noqa: BLE001 - raised again, unless a body was cut off
            return said | _cut_off(error)
        response.raise_for_status()
        said["next"] = response.json()
    return said


async def call_async(headers: Mapping[str, str]) -> dict[str, Any]:
    """The same with httpx, in an event loop."""
    said = _arrived(headers)
    if NEXT:
        try:
            response = await client.get(f"http://{NEXT}/")
        except Exception as error:  # noqa: BLE001 - raised again, unless a body was cut off
            return said | _cut_off(error)
        response.raise_for_status()
        said["next"] = response.json()
    return said


def _cut_off(error: Exception) -> dict[str, Any]:
    """Where a server died between a response's head and its end. A head that was passed on cannot be asked for again, here as in
    Envoy; any other failure is raised.
    """
    info = meshlib.call_info(error)
    if info is None or not info.attempts or info.attempts[-1].status is None:
        raise error
    return {"cut_off": info.endpoint}


def _arrived(headers: Mapping[str, str]) -> dict[str, Any]:
    deadline = current_deadline()
    return {
        "name": NAME,
        "pid": os.getpid(),
        "trace": headers.get("traceparent"),
        "request": headers.get("x-request-id"),
        "expected": headers.get("x-envoy-expected-rq-timeout-ms"),
        "left": None if deadline is None else deadline - time.monotonic(),
    }
