"""Spans and metrics by OpenTelemetry's conventions: one CLIENT span an attempt, its context sent with it. RPCs, whose conventions
are others, are told to :mod:`meshlib.observe.rpc`.

A span is never made current. The attempt's context goes into its headers and nowhere else, so that nothing of it shows
in the caller's context, be that a thread's or a task's, and spans of the caller's own never become its children.

Somebody else's instrumentation may make spans of the same calls:

- It wraps us, and says so by the context key of the contrib packages or because the current span is one that a contrib
  package made for an HTTP call: then there is no span and no metric of ours, and what only we know (cluster, endpoint,
  which try it is) is added to the span that is there.
- It lies under us, where a call goes out by the host library's own transport (``via`` is ``"direct"``): then the key is
  set for that call. A call of the mesh that is made inside it (by a body that is being generated) finds our own mark
  beside the key, and is told as usual.

Only opentelemetry-api is used. This module is imported once :mod:`meshlib.observe.lookout` says that it is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from meshlib import __version__
from meshlib.model.events import (
    AttemptEnded,
    AttemptStarted,
    BreakerChanged,
    CallEnded,
    CallStarted,
    EndpointChecked,
    EndpointEjected,
    HedgeStarted,
    RetryScheduled,
    SidecarChanged,
    Unanswered,
)
from meshlib.observe.grpc_metrics import GrpcInstruments
from meshlib.observe.metrics import Instruments
from meshlib.observe.propagation import SUPPRESS, inherited, inject
from meshlib.observe.rpc import RpcTelemetry
from meshlib.observe.spans import error_type, known_methods, mesh_attributes, start_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshlib.config import TelemetryConfig
    from meshlib.model.call import Outcome
    from meshlib.model.events import Event
    from meshlib.model.status import SourceStatus, XdsClientStatus

__all__ = ["Telemetry"]

# As meshlib.observe.propagation.SUPPRESS.
_SUPPRESS_HTTP: str = getattr(contexts, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_http_instrumentation")
_OURS = contexts.create_key("meshlib")

#: Whose client spans are of one HTTP call; those of httpx and aiohttp set no key.
_CONTRIB = frozenset(
    f"opentelemetry.instrumentation.{name}" for name in ("aiohttp_client", "httpx", "requests", "urllib3")
)

#: Of a span's attributes, those of the conventions' histogram.
_MEASURED = ("http.request.method", "server.address", "server.port")


class _Open:
    """An attempt under way."""

    __slots__ = ("context", "measured", "span", "token")

    def __init__(self, span: Any, context: Any, measured: dict[str, Any], token: Any) -> None:
        self.span = span
        self.context = context
        self.measured = measured
        self.token = token


class Telemetry:
    """An observer of one mesh's events. Called from any thread; an attempt's two events come from one thread or task.

    Args:
        sources: The mesh's sources as they are now, for a gauge; ``clients``: its streams to control planes.
        config: What is told beyond the default.
    """

    def __init__(
        self,
        sources: Callable[[], Iterable[SourceStatus]],
        clients: Callable[[], Iterable[XdsClientStatus]],
        config: TelemetryConfig,
    ) -> None:
        # Both are proxies as long as no provider is set, and real from then on.
        self._tracer = trace.get_tracer("meshlib", __version__)
        meter = metrics.get_meter("meshlib", __version__)
        self._instruments = Instruments(meter, sources)
        grpc = GrpcInstruments(meter, config, clients)
        self._rpc = RpcTelemetry(self._tracer, meter, grpc.of_backend)
        self._methods = known_methods()
        self._open: dict[int, _Open] = {}
        told: dict[type, Callable[[Any], None]] = {
            AttemptStarted: self._started,
            AttemptEnded: self._ended,
            RetryScheduled: self._retried,
            HedgeStarted: self._hedged,
            CallStarted: self._rpc.started,
            CallEnded: self._rpc.ended,
            EndpointEjected: self._instruments.ejected,
            EndpointChecked: self._instruments.checked,
            BreakerChanged: self._instruments.breaker,
            SidecarChanged: self._instruments.sidecar,
            Unanswered: self._instruments.unanswered,
        }
        self._told: dict[type, tuple[Callable[[Any], None], ...]] = {
            kind: tuple(each[kind] for each in (told, grpc.told) if kind in each) for kind in told | grpc.told
        }

    def __call__(self, event: Event) -> None:
        for tell in self._told.get(type(event), ()):
            tell(event)

    def _retried(self, event: RetryScheduled) -> None:
        self._instruments.retried(event)
        if event.call:
            self._rpc.retried(event)

    def _hedged(self, event: HedgeStarted) -> None:
        self._instruments.hedged(event)
        if event.call:
            self._rpc.hedged(event)

    def _started(self, event: AttemptStarted) -> None:
        if event.call:
            self._rpc.attempt_started(event)
            return
        context = contexts.get_current()
        if context.get(SUPPRESS):
            return
        around = trace.get_current_span(context)
        if (context.get(_SUPPRESS_HTTP) and not context.get(_OURS)) or _is_of_the_call(around):
            around.set_attributes(mesh_attributes(event))
            return
        context = inherited(context)
        attributes = start_attributes(event, self._methods)
        method = str(attributes["http.request.method"])
        name = "HTTP" if method == "_OTHER" else method
        span = self._tracer.start_span(name, context, SpanKind.CLIENT, attributes)
        if span.get_span_context().is_valid:
            context = trace.set_span_in_context(span, context)
        inject(context, event.head.headers)
        measured = {key: attributes[key] for key in _MEASURED if key in attributes}
        token = None
        if event.via == "direct":
            marked = contexts.set_value(_SUPPRESS_HTTP, True, contexts.set_value(_OURS, True))
            token = contexts.attach(marked)
        self._open[event.key] = _Open(span, context, measured, token)

    def _ended(self, event: AttemptEnded) -> None:
        begun = self._open.pop(event.key, None)
        if begun is None:
            self._rpc.attempt_ended(event)
            return
        if begun.token is not None:
            contexts.detach(begun.token)
        outcome, error = event.outcome, error_type(event.outcome)
        found: dict[str, Any] = {}
        if outcome.status is not None:
            found["http.response.status_code"] = outcome.status
        if event.protocol:
            found["network.protocol.version"] = event.protocol
        if error:
            found["error.type"] = error
        if begun.span.is_recording():
            _finish(begun.span, outcome, found, error)
        begun.span.end()
        self._instruments.duration(outcome.seconds, {**begun.measured, **found}, begun.context)


def _is_of_the_call(span: Any) -> bool:
    """Whether an instrumentation of a host library made ``span`` for the call that is being made."""
    scope = getattr(span, "instrumentation_scope", None)
    return (
        scope is not None and scope.name in _CONTRIB and span.is_recording() and span.kind is SpanKind.CLIENT
    )


def _finish(span: Any, outcome: Outcome, found: dict[str, Any], error: str) -> None:
    span.set_attributes(found)
    if outcome.status is None:
        span.set_attribute("meshlib.outcome", outcome.kind.value)
    if error:
        # A status code says what is wrong by itself.
        words = None if outcome.status is not None else outcome.detail or str(outcome.error or "") or None
        span.set_status(Status(StatusCode.ERROR, words))
