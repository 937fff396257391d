"""When telemetry is wanted. What real providers and contexts do is in tests/e2e/test_tracing.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider

from meshlib.observe.lookout import Lookout
from tests.support.telemetry import unset


@pytest.fixture(autouse=True)
def _unset() -> Iterator[None]:
    unset()
    yield
    unset()


def test_nobody_imported_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    monkeypatch.delitem(sys.modules, "opentelemetry.context")
    assert Lookout().look() is False


def test_imported_and_nothing_set() -> None:
    lookout = Lookout()
    assert [lookout.look(), lookout.look()] == [False, False]


@pytest.mark.parametrize("provider", [NoOpTracerProvider, ProxyTracerProvider])
def test_a_provider_that_does_nothing_is_none(provider: type[trace.TracerProvider]) -> None:
    lookout = Lookout()
    trace.set_tracer_provider(provider())
    assert [lookout.look(), lookout.look()] == [False, False]


def test_a_meter_provider_that_does_nothing_is_none() -> None:
    lookout = Lookout()
    metrics.set_meter_provider(NoOpMeterProvider())
    assert lookout.look() is False


def test_a_tracer_provider_is_noticed_once() -> None:
    lookout = Lookout()
    assert lookout.look() is False
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    assert [lookout.look(), lookout.look()] == [True, False]


def test_a_meter_provider_is_noticed_beside_a_tracer_provider_that_does_nothing() -> None:
    lookout = Lookout()
    trace.set_tracer_provider(NoOpTracerProvider())
    assert lookout.look() is False
    metrics.set_meter_provider(MeterProvider(shutdown_on_exit=False))
    assert lookout.look() is True


def test_a_context_that_carries_nothing_is_not_wanted() -> None:
    lookout = Lookout()
    token = contexts.attach(contexts.set_value("mine", 1))
    try:
        assert lookout.look() is False
    finally:
        contexts.detach(token)


def test_an_api_that_names_its_global_otherwise_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType("opentelemetry.trace")
    given: list[object] = [ProxyTracerProvider()]
    other.get_tracer_provider = lambda: given[0]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", other)
    for name in ("NoOpTracer", "NoOpTracerProvider", "ProxyTracerProvider"):
        setattr(other, name, getattr(trace, name))
    lookout = Lookout()
    assert [lookout.look(), lookout.look()] == [False, False]
    given[0] = TracerProvider(shutdown_on_exit=False)
    assert lookout.look() is True


def test_an_import_under_way_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", ModuleType("opentelemetry.trace"))
    assert Lookout().look() is False


def test_a_provider_that_raises_is_none() -> None:
    class Broken(trace.TracerProvider):
        def get_tracer(self, *_: object, **__: object) -> trace.Tracer:
            raise RuntimeError("no tracer")

    lookout = Lookout()
    trace.set_tracer_provider(Broken())
    assert lookout.look() is False
