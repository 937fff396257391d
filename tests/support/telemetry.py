"""An OpenTelemetry SDK in memory, set globally for one test as an application sets its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal as metrics_api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from opentelemetry.util._once import Once


class Exporter(InMemorySpanExporter):
    """Tells of each span."""

    def __init__(self) -> None:
        super().__init__()
        self.more = threading.Condition()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self.more:
            done = super().export(spans)
            self.more.notify_all()
        return done


class Recorded:
    """What was exported."""

    def __init__(self, spans: Exporter, reader: InMemoryMetricReader) -> None:
        self._spans = spans
        self._reader = reader

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    @property
    def client_spans(self) -> list[ReadableSpan]:
        """Ours, in the order in which they ended."""
        return [span for span in self.spans if span.instrumentation_scope.name == "meshlib"]

    def of_kind(self, kind: SpanKind, count: int) -> list[ReadableSpan]:
        """The spans of that kind, once there are ``count``: some end in another thread than the call."""

        def found() -> list[ReadableSpan]:
            return [span for span in self.spans if span.kind is kind]

        with self._spans.more:
            assert self._spans.more.wait_for(lambda: len(found()) >= count, 10), found()
            return found()

    @property
    def metrics(self) -> list[Any]:
        data = self._reader.get_metrics_data()
        return [
            metric
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    def points(self, name: str) -> list[Any]:
        return [point for metric in self.metrics if metric.name == name for point in metric.data.data_points]


def unset() -> None:
    """As in a process in which nobody has set a provider. OpenTelemetry's own tests do the same."""
    trace._TRACER_PROVIDER = None
    trace._TRACER_PROVIDER_SET_ONCE = Once()
    metrics_api._METER_PROVIDER = None
    metrics_api._METER_PROVIDER_SET_ONCE = Once()
    metrics_api._PROXY_METER_PROVIDER = metrics_api._ProxyMeterProvider()


@contextmanager
def sdk(*, tracing: bool = True, metering: bool = True) -> Iterator[Recorded]:
    unset()
    exporter, reader = Exporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider([reader], shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    if tracing:
        trace.set_tracer_provider(tracers)
    if metering:
        metrics.set_meter_provider(meters)
    try:
        yield Recorded(exporter, reader)
    finally:
        unset()
        tracers.shutdown()
        meters.shutdown()
