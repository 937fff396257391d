"""What is counted of RPCs: the conventions' histogram of calls, and gRPC's own instruments of calls, attempts and retries.

Semantic conventions v1.44.0, ``rpc-metrics.md``; gRFC A66 and A96. A method that no generated code names is ``_OTHER``, to gRPC
``other``, as both order: whoever passes on calls of any name would make a series of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.observe.metrics import BUCKETS, histogram
from meshlib.observe.rpc_spans import code_number, service_and_method

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.model.events import CallStarted
    from meshlib.observe.spans import Attributes

__all__ = ["LATENCY", "Labels", "RpcInstruments"]

#: Seconds; gRFC A66.
LATENCY = (
    0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008,
    0.01, 0.013, 0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4,
    0.5, 0.65, 0.8, 1, 2, 5, 10, 20, 50, 100,
)  # fmt: skip
#: gRFC A96.
_RETRIES = (1, 2, 3, 4, 5)
_TRANSPARENT = (1, 2, 3, 4, 5, 10)

_WHERE = ("server.address", "server.port")


class Labels:
    """What each measurement of one call has."""

    __slots__ = ("call", "grpc", "old")

    def __init__(self, event: CallStarted, attributes: Attributes, *, old: bool) -> None:
        method = event.method
        known = event.registered
        self.call: Attributes = {key: attributes[key] for key in ("rpc.system.name", "rpc.method")}
        where: Attributes = {key: attributes[key] for key in _WHERE if key in attributes}
        self.call |= where
        if not known:
            self.call["rpc.method"] = "_OTHER"
        self.grpc: Attributes = {"grpc.method": method if known else "other", "grpc.target": event.target}
        self.old: Attributes | None = None
        if old:
            service, name = service_and_method(method) if known else ("_OTHER", "_OTHER")
            self.old = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name, **where}


class RpcInstruments:
    """``old``: the old conventions' histogram, too. Thread-safe, as the API's are."""

    def __init__(self, meter: Any, *, old: bool) -> None:
        words = "Duration of outgoing RPCs."
        self._calls = histogram(meter, "rpc.client.call.duration", "s", words, BUCKETS)
        self._old = meter.create_histogram("rpc.client.duration", "ms", words) if old else None
        words = "Time that it took to complete an RPC, as the application sees it."
        self._grpc_calls = histogram(meter, "grpc.client.call.duration", "s", words, LATENCY)
        self._started = meter.create_counter(
            "grpc.client.attempt.started", "{attempt}", "Attempts of RPCs that were started."
        )
        words = "Time that it took to complete an attempt of an RPC."
        self._attempts = histogram(meter, "grpc.client.attempt.duration", "s", words, LATENCY)
        words = "Retries of an RPC that had some."
        self._retries = histogram(meter, "grpc.client.call.retries", "{retry}", words, _RETRIES)
        words = "Attempts of an RPC made anew since one never left, where there were some."
        self._transparent = histogram(
            meter, "grpc.client.call.transparent_retries", "{transparent_retry}", words, _TRANSPARENT
        )
        words = "Time in which an RPC waited for its next attempt."
        self._delay = histogram(meter, "grpc.client.call.retry_delay", "s", words, LATENCY)

    def attempt_started(self, labels: Labels) -> None:
        self._started.add(1, labels.grpc)

    def attempt_ended(
        self, labels: Labels, backend: Mapping[str, str], code: str, seconds: float, context: Any
    ) -> None:
        """``backend``: the optional labels."""
        found = {**labels.grpc, **backend, "grpc.status": code or "UNKNOWN"}
        self._attempts.record(seconds, found, context)

    def call_ended(self, labels: Labels, code: str, error: str, seconds: float, context: Any) -> None:
        """``context`` is the call's span's, so that exemplars find it."""
        found = dict(labels.call)
        if code:
            found["rpc.response.status_code"] = code
        if error:
            found["error.type"] = error
        self._calls.record(seconds, found, context)
        self._grpc_calls.record(seconds, {**labels.grpc, "grpc.status": code or "UNKNOWN"}, context)
        if self._old is not None and labels.old is not None:
            old = {**labels.old, "rpc.grpc.status_code": code_number(code)}
            self._old.record(seconds * 1000.0, old, context)

    def retried(self, labels: Labels, retries: int, transparent: int, delay: float) -> None:
        """Of a call that is over: 0 is not reported."""
        if retries:
            self._retries.record(retries, labels.grpc)
            self._delay.record(delay, labels.grpc)
        if transparent:
            self._transparent.record(transparent, labels.grpc)
