"""Whether anybody wants to know of calls, asked at each call until somebody does.

An application may set up OpenTelemetry before its first call, after it, or never. Never is the usual case and must cost
nothing, so this neither imports OpenTelemetry nor hooks into it: who set up a provider has imported the package, and a
look into ``sys.modules`` says so (below 0.1 µs where it was not imported, 0.3 µs where it was and nothing is set; CPython 3.11).
Three things make telemetry wanted:

- a tracer provider that makes spans,
- a meter provider that counts,
- a context to hand on (an extracted ``traceparent``, baggage), with or without an SDK.

``trace.get_tracer_provider()`` reads an environment variable at each call as long as nothing is set, 0.8 µs; the global
that it returns afterwards is read here instead, and the function where that global has another name.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Lookout", "makes_spans"]

_log = logging.getLogger("meshlib")
_modules = sys.modules
_UNKNOWN = object()

#: OpenTelemetry's variables that name a provider to load; its API loads it when it is first asked.
_BY_VARIABLE = {
    "OTEL_PYTHON_TRACER_PROVIDER": "opentelemetry.trace",
    "OTEL_PYTHON_METER_PROVIDER": "opentelemetry.metrics",
}


class Lookout:
    """One for each mesh. Thread-safe without a lock: the last step is an atomic ``pop``."""

    def __init__(self) -> None:
        self._mine = [True]
        # The providers that were judged last; None: nobody has set one.
        self._tracers: object = None
        self._meters: object = None
        for variable, module in _BY_VARIABLE.items():
            if os.environ.get(variable):
                _load(module)

    @staticmethod
    def possible() -> bool:
        """Whether anything of OpenTelemetry is imported: all of it imports this."""
        return "opentelemetry.context" in _modules

    def look(self) -> bool:
        """True once, when telemetry is wanted for the first time. Never raises."""
        context = _modules.get("opentelemetry.context")
        if context is None:  # everything of OpenTelemetry imports it
            return False
        trace = _modules.get("opentelemetry.trace")
        tracers = getattr(trace, "_TRACER_PROVIDER", _UNKNOWN)
        if tracers is _UNKNOWN:
            tracers = _asked(trace)
        metrics = _modules.get("opentelemetry.metrics._internal")
        meters = getattr(metrics, "_METER_PROVIDER", _UNKNOWN)
        if meters is _UNKNOWN:
            meters = _asked(metrics)
        wanted = False
        if tracers is not self._tracers:
            self._tracers = tracers
            wanted = tracers is not None and bool(_guarded(makes_spans, tracers))
        if meters is not self._meters:
            self._meters = meters
            wanted = wanted or (meters is not None and bool(_guarded(_counts, meters)))
        return (wanted or _carries(context)) and self._claim()

    def _claim(self) -> bool:
        try:
            return self._mine.pop()
        except IndexError:  # another thread was quicker
            return False


def _asked(module: ModuleType | None) -> object:
    """The provider by the public way; None where the module is not there, or not all there yet."""
    ask = getattr(module, "get_tracer_provider", None) or getattr(module, "get_meter_provider", None)
    return None if ask is None else _guarded(ask)


def makes_spans(provider: Any) -> bool:
    """Whether a tracer provider does anything."""
    from opentelemetry.trace import NoOpTracer, NoOpTracerProvider, ProxyTracerProvider

    if isinstance(provider, NoOpTracerProvider | ProxyTracerProvider):
        return False
    # An SDK that OTEL_SDK_DISABLED switched off gives tracers that do nothing.
    return not isinstance(provider.get_tracer("meshlib"), NoOpTracer)


def _counts(provider: Any) -> bool:
    from opentelemetry.metrics import NoOpMeter, NoOpMeterProvider

    if isinstance(provider, NoOpMeterProvider) or type(provider).__name__ == "_ProxyMeterProvider":
        return False
    return not isinstance(provider.get_meter("meshlib"), NoOpMeter)


def _carries(context: Any) -> bool:
    """Whether the current context has something that the global propagator would put into a request."""
    current = context.get_current()
    return bool(current and _guarded(_injected, current))


def _injected(current: Any) -> dict[str, str]:
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier, current)
    return carrier


def _load(module: str) -> None:
    from importlib import import_module

    _guarded(lambda: _asked(import_module(module)))


def _guarded(step: Any, *arguments: object) -> Any:
    """What ``step`` gives; None where it raises: telemetry that is broken is telemetry that is not there."""
    try:
        return step(*arguments)
    except Exception as problem:  # noqa: BLE001 - logged below
        _log.debug("meshlib: OpenTelemetry cannot be used: %r", problem)
        return None
