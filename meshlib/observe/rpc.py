"""Spans and metrics of RPCs: one CLIENT span a call, from its begin to its last message, and a child of it an attempt.

The call's span is the conventions' (:mod:`meshlib.observe.rpc_spans`), whose one RPC is the whole call with its retries. The
attempts' are gRFC A72's, as those of gRPC in Go and Java: INTERNAL, so that a call stays one client's. An attempt's context goes
into its metadata and nowhere else, so that of two servers that a call reached each hangs under its own attempt.

A call begins where the application makes it, and its context is taken there; its attempts may be made and end in any thread.

Somebody else's instrumentation may have made a span of the call: OpenTelemetry's interceptors do, around a channel of ours. Then
that is the call's span, ended by whom it belongs to, and only attempts are added. It is known by its scope, kind and name, and it
is of one call: while a stream is being read it stays current, and a call of the same method made meanwhile has its own. Those
instrumentations measure nothing, so that all metrics are ours in either case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from meshlib.model.endpoint import NOWHERE
from meshlib.observe.propagation import SUPPRESS, inherited, inject
from meshlib.observe.rpc_metrics import Labels, RpcInstruments
from meshlib.observe.rpc_spans import (
    attempt_attributes,
    attempt_name,
    call_attributes,
    code_name,
    code_number,
    dup,
    failure,
    failure_words,
)
from meshlib.observe.spans import place_attributes

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.model.call import Outcome
    from meshlib.model.endpoint import Locality
    from meshlib.model.events import (
        AttemptEnded,
        AttemptStarted,
        CallEnded,
        CallStarted,
        HedgeStarted,
        RetryScheduled,
    )

__all__ = ["RpcTelemetry"]

_CONTRIB = "opentelemetry.instrumentation.grpc"
_OF_A_CALL = (
    "meshlib.via",
    "meshlib.cluster",
    "meshlib.route",
    "meshlib.listener.version",
    "meshlib.route.version",
    "meshlib.cluster.version",
    "meshlib.endpoint.version",
    "network.peer.address",
    "network.peer.port",
)


class _Call:
    """A call under way. ``ours``: its span is to be ended here; ``due``: a policy scheduled the next attempt."""

    __slots__ = ("attempts", "context", "delay", "due", "labels", "method", "ours", "retries", "span")

    def __init__(self, method: str, span: Any, context: Any, labels: Labels, *, ours: bool) -> None:
        self.method = method
        self.span = span
        self.context = context
        self.labels = labels
        self.ours = ours
        self.attempts = 0
        self.retries = 0
        self.delay = 0.0
        self.due = False


class RpcTelemetry:
    """Called from any thread; what is of one call comes one after the other. ``of_backend``: the optional labels of an attempt, by
    its cluster and locality.
    """

    def __init__(
        self, tracer: Any, meter: Any, of_backend: Callable[[str, Locality], dict[str, str]]
    ) -> None:
        self._tracer = tracer
        self._of_backend = of_backend
        self._old = dup()
        self._instruments = RpcInstruments(meter, old=self._old)
        self._calls: dict[int, _Call] = {}
        self._attempts: dict[int, tuple[_Call, Any, Any, dict[str, str]]] = {}
        self._taken: WeakSet[Any] = WeakSet()  # spans of somebody else that a call has

    def started(self, event: CallStarted) -> None:
        context = contexts.get_current()
        if context.get(SUPPRESS):
            return
        attributes = call_attributes(event, old=self._old)
        span = trace.get_current_span(context)
        theirs = self._is_of_the_call(span, event.method)
        if theirs:
            self._taken.add(span)
        else:
            context = inherited(context)
            span = self._tracer.start_span(event.method, context, SpanKind.CLIENT, attributes)
            if span.get_span_context().is_valid:
                context = trace.set_span_in_context(span, context)
        labels = Labels(event, attributes, old=self._old)
        self._calls[event.key] = _Call(event.method, span, context, labels, ours=not theirs)

    def attempt_started(self, event: AttemptStarted) -> None:
        call = self._calls.get(event.call)
        if call is None:
            return
        attributes = attempt_attributes(event, transparent=event.number > 1 and not call.due)
        call.attempts += 1
        call.retries += call.due
        call.due = False
        if call.span.is_recording():
            call.span.set_attributes({key: attributes[key] for key in _OF_A_CALL if key in attributes})
        name, context = attempt_name(call.method), call.context
        span = self._tracer.start_span(name, context, SpanKind.INTERNAL, attributes)
        if span.get_span_context().is_valid:
            context = trace.set_span_in_context(span, context)
        inject(context, event.head.headers)
        self._instruments.attempt_started(call.labels)
        backend = self._of_backend(event.cluster, event.locality)
        self._attempts[event.key] = call, span, context, backend

    def attempt_ended(self, event: AttemptEnded) -> None:
        begun = self._attempts.pop(event.key, None)
        if begun is None:
            return
        call, span, context, backend = begun
        outcome, code = event.outcome, code_name(event.outcome)
        self._finish(span, outcome, code, failure(outcome, code))
        self._instruments.attempt_ended(call.labels, backend, code, outcome.seconds, context)

    def retried(self, event: RetryScheduled) -> None:
        call = self._calls.get(event.call)
        if call is not None:
            call.due = True
            call.delay += event.delay

    def hedged(self, event: HedgeStarted) -> None:
        call = self._calls.get(event.call)
        if call is not None:
            call.due = True

    def ended(self, event: CallEnded) -> None:
        call = self._calls.pop(event.key, None)
        outcome = event.outcome
        if call is None or outcome is None:
            return
        code = code_name(outcome)
        error = failure(outcome, code)
        instruments, labels = self._instruments, call.labels
        if not call.attempts and event.info is not None and event.info.cluster:
            # To gRPC an attempt begins before an endpoint is chosen: that one had none is the attempt's end.
            instruments.attempt_started(labels)
            backend = self._of_backend(event.info.cluster, NOWHERE)
            instruments.attempt_ended(labels, backend, code, event.seconds, call.context)
        instruments.call_ended(labels, code, error, event.seconds, call.context)
        transparent = max(0, call.attempts - 1 - call.retries)
        instruments.retried(labels, call.retries, transparent, call.delay)
        if call.ours:
            if not call.attempts and event.info is not None and call.span.is_recording():
                call.span.set_attributes(place_attributes(event.info))
            self._finish(call.span, outcome, code, error)

    def _finish(self, span: Any, outcome: Outcome, code: str, error: str) -> None:
        if span.is_recording():
            if code:
                span.set_attribute("rpc.response.status_code", code)
                if self._old:
                    span.set_attribute("rpc.grpc.status_code", code_number(code))
            if outcome.status is None:
                span.set_attribute("meshlib.outcome", outcome.kind.value)
            if error:
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR, failure_words(outcome)))
        span.end()

    def _is_of_the_call(self, span: Any, method: str) -> bool:
        """Whether an instrumentation made ``span`` for the call that begins."""
        scope = getattr(span, "instrumentation_scope", None)
        return (
            scope is not None
            and scope.name == _CONTRIB
            and span.is_recording()
            and span.kind is SpanKind.CLIENT
            and span.name.removeprefix("/") == method
            and span not in self._taken
        )
