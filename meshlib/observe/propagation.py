"""Trace context: what an attempt's is, how it travels, and who asked for none. Imported with :mod:`meshlib.observe.otel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import context as contexts
from opentelemetry import propagate, trace

from meshlib.inbound import current

if TYPE_CHECKING:
    from meshlib.model.headers import Headers

__all__ = ["SUPPRESS", "inherited", "inject"]

#: A private name of the API, which its own instrumentations import; where it is gone there is nobody to agree with.
SUPPRESS: str = getattr(contexts, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")


def inherited(context: Any) -> Any:
    """``context``; where it has no span, and a request is being served that came with a trace, that trace's: nobody else
    read it.
    """
    request = current()
    if (
        request is None
        or not request.traceparent
        or trace.get_current_span(context).get_span_context().is_valid
    ):
        return context
    carrier = {"traceparent": request.traceparent, "tracestate": request.tracestate}
    return propagate.extract({name: value for name, value in carrier.items() if value}, context)


def inject(context: Any, headers: Headers) -> None:
    """Put the context into the attempt's header lines, in place of one that the application put there by hand."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    for name, value in carrier.items():
        headers.set(name, value)
    if "traceparent" in carrier and "tracestate" not in carrier and "tracestate" in headers:
        headers.remove("tracestate")  # of another trace
