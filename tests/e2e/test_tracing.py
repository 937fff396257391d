"""Spans of real calls, by the semantic conventions (v1.44.0, http-spans.md)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import wrapt
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as contexts
from opentelemetry.trace import SpanKind, StatusCode

import meshlib
from meshlib.testing.upstream import Upstream
from tests.support.faces import FaceFactory
from tests.support.telemetry import Recorded, sdk, unset

UpstreamFactory = Any
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with sdk() as found:
        yield found


@pytest.fixture
def nobody() -> Iterator[None]:
    """No provider is set."""
    unset()
    yield
    unset()


def service(*upstreams: Upstream, **policies: Any) -> dict[str, Any]:
    return {"services": {"reviews": {"endpoints": [up.address for up in upstreams], **policies}}}


def peer(upstream: Upstream) -> dict[str, Any]:
    host, _, port = upstream.address.rpartition(":")
    return {"network.peer.address": host, "network.peer.port": int(port)}


def parent_of(upstream: Upstream, index: int = -1) -> list[str]:
    said = upstream.requests[index].header("traceparent")
    assert said is not None
    return said.split("-")


def test_an_attempt_is_one_client_span(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    face(service(one)).get("http://reviews/api/1?q=1")
    [span] = recorded.client_spans
    assert (span.name, span.kind, span.status.status_code) == ("GET", SpanKind.CLIENT, StatusCode.UNSET)
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "server.address": "reviews",
        "server.port": 80,
        "url.full": "http://reviews/api/1?q=1",
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
        "meshlib.via": "mesh",
        "meshlib.cluster": "reviews",
        "meshlib.route": span.attributes["meshlib.route"],
        **peer(one),
    }
    assert span.attributes["meshlib.route"]
    version, trace_id, span_id, _ = parent_of(one)
    assert (version, trace_id, span_id) == (
        "00",
        f"{span.context.trace_id:032x}",
        f"{span.context.span_id:016x}",
    )


def test_each_retry_is_a_span_of_its_own_with_its_own_context(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    one.fail(503, times=2)
    with trace.get_tracer("app").start_as_current_span("work") as work:
        response = face(service(one, retry={"attempts": 3, "on": ["5xx"], "backoff_base": 0.001})).get(
            "http://reviews/", headers={"traceparent": PARENT, "tracestate": "old=1"}
        )
    assert response.status_code == 200
    spans = recorded.client_spans
    assert [span.attributes.get("http.request.resend_count") for span in spans] == [None, 1, 2]
    assert [span.attributes["http.response.status_code"] for span in spans] == [503, 503, 200]
    assert [span.attributes.get("error.type") for span in spans] == ["503", "503", None]
    assert [span.status.status_code for span in spans] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    assert [span.status.description for span in spans] == [None] * 3
    for index, span in enumerate(spans):
        # Siblings under the application's span, and each sent itself, not the caller's stale header.
        assert span.parent.span_id == work.get_span_context().span_id
        assert parent_of(one, index)[2] == f"{span.context.span_id:016x}"
        assert one.requests[index].header("tracestate") is None


def test_a_dead_endpoint_is_an_error_with_its_address(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    dead, alive = upstream("dead"), upstream("alive")
    dead.kill()
    config = service(dead, alive, retry={"attempts": 2, "on": ["connect-failure"]}, balancer="round_robin")
    client = face(config)
    for _ in range(2):
        assert client.get("http://reviews/").status_code == 200
    failed = [span for span in recorded.client_spans if span.status.status_code is StatusCode.ERROR]
    assert 1 <= len(failed) <= 2
    assert failed[0].attributes["error.type"] == "ConnectError"
    assert failed[0].attributes["meshlib.outcome"] == "connect"
    assert failed[0].status.description
    assert "http.response.status_code" not in failed[0].attributes
    assert {key: failed[0].attributes[key] for key in peer(dead)} == peer(dead)


@pytest.mark.parametrize(("status", "error"), [(302, None), (404, "404"), (500, "500")])
def test_a_status_from_400_on_is_an_error(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory, status: int, error: str | None
) -> None:
    one = upstream("v1")
    one.fail(status)
    face(service(one)).get("http://reviews/")
    [span] = recorded.client_spans
    assert span.attributes.get("error.type") == error
    assert span.status.status_code is (StatusCode.ERROR if error else StatusCode.UNSET)


def test_a_direct_call_is_told_and_carries_context(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("direct")
    face({}).get(f"{one.url}/x")
    [span] = recorded.client_spans
    host, _, port = one.address.rpartition(":")
    assert span.attributes["meshlib.via"] == "direct"
    assert (span.attributes["server.address"], span.attributes["server.port"]) == (host, int(port))
    assert span.attributes["http.response.status_code"] == 200
    assert "meshlib.cluster" not in span.attributes
    assert parent_of(one)[2] == f"{span.context.span_id:016x}"


def test_a_direct_call_that_fails_is_an_error(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("direct")
    one.kill()
    client = face({})
    with pytest.raises(client.library.ConnectError):
        client.get(f"{one.url}/x")
    [span] = recorded.client_spans
    assert (span.attributes["error.type"], span.status.status_code) == ("ConnectError", StatusCode.ERROR)


def test_credentials_are_not_recorded(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    face(service(one)).get("http://user:secret@reviews/a?sig=secret&q=1")
    [span] = recorded.client_spans
    assert span.attributes["url.full"] == "http://REDACTED:REDACTED@reviews/a?sig=REDACTED&q=1"
    assert "secret" not in repr(dict(span.attributes))


def test_an_unknown_method_does_not_name_a_span(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    face(service(upstream("v1"))).request("BREW", "http://reviews/")
    [span] = recorded.client_spans
    assert span.name == "HTTP"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"


def test_nothing_of_an_attempt_is_left_in_the_callers_context(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    client = face(service(one))
    before = contexts.get_current()
    client.get("http://reviews/")
    client.get(f"{one.url}/direct")
    assert contexts.get_current() is before
    assert not trace.get_current_span().get_span_context().is_valid
    assert len(recorded.client_spans) == 2


async def test_tasks_do_not_see_each_others_spans(recorded: Recorded, upstream: UpstreamFactory) -> None:
    one = upstream("v1")
    tracer = trace.get_tracer("app")

    async def work(client: meshlib.AsyncClient, index: int) -> None:
        with tracer.start_as_current_span(f"work{index}") as span:
            for url in (f"http://reviews/{index}", f"{one.url}/{index}"):
                await client.get(url)
                assert trace.get_current_span() is span

    async with meshlib.Mesh(service(one)) as mesh, meshlib.AsyncClient(mesh=mesh) as client:
        await asyncio.gather(*(work(client, index) for index in range(20)))
    works = {span.context.span_id: span for span in recorded.spans if span.name.startswith("work")}
    ours = recorded.client_spans
    assert len(ours) == 40
    for span in ours:
        path = str(span.attributes["url.full"]).rpartition("/")[2]
        assert works[span.parent.span_id].name == f"work{path}"


async def test_a_cancelled_call_is_no_error_and_its_span_ends(
    recorded: Recorded, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    one.hang()
    async with meshlib.Mesh(service(one)) as mesh, meshlib.AsyncClient(mesh=mesh) as client:
        for number, url in enumerate(("http://reviews/", f"{one.url}/"), 1):
            task = asyncio.ensure_future(client.get(url))
            await asyncio.to_thread(one.wait_for, lambda n=number: one.requests_total == n)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert [span.status.status_code for span in recorded.client_spans] == [StatusCode.UNSET] * 2
    assert [span.attributes["meshlib.outcome"] for span in recorded.client_spans] == ["cancelled"] * 2
    assert not any("error.type" in span.attributes for span in recorded.client_spans)


def test_an_error_of_the_callers_own_body_is_an_error(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    client = face(service(upstream("v1")))

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    async def broken_async() -> Any:
        yield b"a"
        raise KeyError("mine")

    body = broken_async() if client.is_async else broken()
    with pytest.raises(KeyError):
        client.request("POST", "http://reviews/", content=body)
    [span] = recorded.client_spans
    assert span.attributes["error.type"] == "KeyError"


# --- beside others -------------------------------------------------------------------------------------------------------


def test_an_instrumentation_around_us_keeps_its_span_and_learns_what_we_know(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    client = face(service(one))
    with trace.get_tracer("other").start_as_current_span("theirs"):
        token = contexts.attach(contexts.set_value(contexts._SUPPRESS_HTTP_INSTRUMENTATION_KEY, True))
        try:
            client.get("http://reviews/")
        finally:
            contexts.detach(token)
    [span] = recorded.spans
    assert span.name == "theirs"
    assert span.attributes["meshlib.cluster"] == "reviews"
    assert span.attributes["network.peer.address"] == "127.0.0.1"
    assert recorded.points("http.client.request.duration") == []


def test_what_is_suppressed_altogether_is_not_touched(
    recorded: Recorded, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    client = face(service(one))
    token = contexts.attach(contexts.set_value(contexts._SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        client.get("http://reviews/")
    finally:
        contexts.detach(token)
    assert recorded.spans == ()
    assert one.requests[-1].header("traceparent") is None


def test_an_instrumentation_under_us_is_silenced_for_direct_calls(
    recorded: Recorded, upstream: UpstreamFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contrib package for httpx wraps HTTPTransport, by wrapt, and looks for the key."""
    seen = []

    def wrapper(wrapped: Any, _: httpx.HTTPTransport, arguments: Any, options: Any) -> httpx.Response:
        seen.append(contexts.get_value(contexts._SUPPRESS_HTTP_INSTRUMENTATION_KEY))
        return wrapped(*arguments, **options)

    original = httpx.HTTPTransport.handle_request
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", wrapt.FunctionWrapper(original, wrapper))
    one = upstream("v1")
    with meshlib.Mesh(service(one)) as mesh, meshlib.Client(mesh=mesh) as client:

        def body() -> Iterator[bytes]:
            # A call of the mesh while a direct one is under way is a call of its own.
            yield client.get("http://reviews/inner").content

        client.post(f"{one.url}/outer", content=body())
    assert seen == [True]
    assert {str(span.attributes["url.full"]).rpartition("/")[2] for span in recorded.client_spans} == {
        "inner",
        "outer",
    }


# --- without an SDK, and with one that comes late -------------------------------------------------------------------------


def test_without_an_sdk_calls_have_no_observer(
    nobody: None, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    client = face(service(one))
    client.get("http://reviews/", headers={"traceparent": PARENT})
    assert client.mesh._runtime().env.emit is None
    assert one.requests[-1].header("traceparent") == PARENT


def test_without_an_sdk_an_inbound_context_is_handed_on(
    nobody: None, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    client = face(service(one))
    client.get("http://reviews/")
    assert one.requests[-1].header("traceparent") is None
    inbound = propagate.extract({"traceparent": PARENT, "tracestate": "a=1"})
    token = contexts.attach(baggage.set_baggage("tenant", "x", inbound))
    try:
        client.get("http://reviews/")
        client.get(f"{one.url}/direct")
    finally:
        contexts.detach(token)
    for request in one.requests[-2:]:
        assert request.header("traceparent") == PARENT
        assert request.header("tracestate") == "a=1"
        assert request.header("baggage") == "tenant=x"
    client.get("http://reviews/")
    assert one.requests[-1].header("traceparent") is None


def test_a_provider_that_is_set_after_the_first_call_is_noticed(
    nobody: None, face: FaceFactory, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    client = face(service(one))
    client.get("http://reviews/before")
    with sdk() as recorded:
        client.get("http://reviews/after")
        [span] = recorded.client_spans
        assert str(span.attributes["url.full"]).endswith("/after")


def test_many_threads_that_notice_at_once_make_one_span_a_call(
    nobody: None, upstream: UpstreamFactory
) -> None:
    one = upstream("v1")
    with meshlib.Mesh(service(one)) as mesh, meshlib.Client(mesh=mesh) as client:
        client.get("http://reviews/")
        with sdk() as recorded:
            gate = threading.Barrier(8)

            def call() -> None:
                gate.wait()
                client.get("http://reviews/")

            threads = [threading.Thread(target=call) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(mesh._observers) == 1
            client.get("http://reviews/last")
            assert [str(span.attributes["url.full"]) for span in recorded.client_spans].count(
                "http://reviews/last"
            ) == 1


PROGRAM = """
import json, os, sys
import meshlib
mesh = meshlib.Mesh({"services": {"reviews": {"endpoints": [sys.argv[1]]}}})
client = meshlib.Client(mesh=mesh)
client.get("http://reviews/")
before = sorted(name for name in sys.modules if name.startswith("opentelemetry"))
if sys.argv[2] == "none":
    print(json.dumps([before, mesh._runtime().env.emit is None]))
    sys.exit()
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
client.get("http://reviews/")
parent = len(exporter.get_finished_spans())
reading, writing = os.pipe()
pid = os.fork()
if not pid:
    exporter.clear()
    client.get("http://reviews/")
    os.write(writing, str(len(exporter.get_finished_spans())).encode())
    os._exit(0)
os.waitpid(pid, 0)
client.get("http://reviews/")
print(json.dumps([before, parent, int(os.read(reading, 10)), len(exporter.get_finished_spans())]))
"""


def run(upstream: Upstream, how: str, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, upstream.address, how],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_of_opentelemetry_is_imported_where_nobody_did(upstream: UpstreamFactory) -> None:
    assert run(upstream("v1"), "none") == [[], True]


def test_a_forked_child_is_traced_too(upstream: UpstreamFactory) -> None:
    assert run(upstream("v1"), "fork") == [[], 1, 1, 2]


def test_an_sdk_that_is_switched_off_is_none(
    nobody: None, upstream: UpstreamFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    one = upstream("v1")
    with sdk(), meshlib.Mesh(service(one)) as mesh, meshlib.Client(mesh=mesh) as client:
        client.get("http://reviews/")
        assert mesh._runtime().env.emit is None


def test_a_provider_that_a_variable_names_is_loaded(upstream: UpstreamFactory) -> None:
    assert run(upstream("v1"), "none", OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider")[1] is False


def test_telemetry_that_fails_fails_no_call(
    recorded: Recorded,
    face: FaceFactory,
    upstream: UpstreamFactory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    one = upstream("v1")
    client = face(service(one))
    client.get("http://reviews/")

    def broken(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("broken propagator")

    monkeypatch.setattr(propagate, "inject", broken)
    assert client.get("http://reviews/").status_code == 200
    assert client.get(f"{one.url}/direct").status_code == 200
    assert "an observer failed" in caplog.text
