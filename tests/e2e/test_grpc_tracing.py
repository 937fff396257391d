"""Spans of real RPCs, by the semantic conventions (v1.44.0, rpc-spans.md, grpc.md) and gRFC A72."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import aio_client_interceptors, client_interceptor
from opentelemetry.instrumentation.grpc.grpcext import intercept_channel
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace import SpanKind, StatusCode

import meshlib
import meshlib.grpc
from meshlib.model.events import AttemptEnded, AttemptStarted, CallEnded, CallStarted
from tests.support.rpc_server import METHODS, Asyncio, Blocking, RpcServer
from tests.support.telemetry import Recorded, sdk

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KINDS = list(METHODS)
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
RETRY = {"attempts": 3, "on": ["unavailable"], "backoff_base": 0.001}

Make = Callable[..., Any]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with sdk() as found:
        yield found


@pytest.fixture
def server() -> Iterator[RpcServer]:
    with RpcServer() as found:
        yield found


@pytest.fixture(params=[Blocking, Asyncio])
def channel(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes a channel to ``reviews``, of the endpoints given."""
    with ExitStack() as stack:

        def make(*endpoints: str, target: str = "reviews:80", options: Any = None, **policies: Any) -> Any:
            service = {"endpoints": list(endpoints), **policies}
            mesh = stack.enter_context(meshlib.Mesh({"services": {"reviews": service}}))
            made = request.param(target, mesh, **(options or {}))
            stack.callback(made.close)
            return made

        yield make


def calls(recorded: Recorded, count: int = 1) -> list[Any]:
    return recorded.of_kind(SpanKind.CLIENT, count)


def attempts(recorded: Recorded, count: int = 1) -> list[Any]:
    spans = recorded.of_kind(SpanKind.INTERNAL, count)
    return [span for span in spans if span.instrumentation_scope.name == "meshlib"]


def ended(recorded: Recorded) -> list[Any]:
    """The spans of one call of one attempt, in the order in which they ended."""
    calls(recorded)
    assert [span.kind for span in recorded.spans] == [SpanKind.INTERNAL, SpanKind.CLIENT]
    return list(recorded.spans)


def span_id(span: Any) -> str:
    return trace.format_span_id(span.context.span_id)


def peer(server: RpcServer) -> dict[str, Any]:
    host, _, port = server.address.rpartition(":")
    return {"network.peer.address": host, "network.peer.port": int(port)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_is_one_client_span_and_its_attempt_a_child(
    recorded: Recorded, server: RpcServer, channel: Make, kind: str
) -> None:
    channel(server.address).call(kind)
    [call], [attempt] = calls(recorded), attempts(recorded)
    assert (call.name, call.status.status_code) == (METHODS[kind], StatusCode.UNSET)
    assert dict(call.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHODS[kind],
        "rpc.response.status_code": "OK",
        "server.address": "reviews",
        "server.port": 80,
        "meshlib.via": "mesh",
        "meshlib.cluster": "reviews",
        "meshlib.route": "reviews",
        **peer(server),
    }
    assert attempt.name == f"Attempt.{METHODS[kind].replace('/', '.')}"
    assert attempt.status.status_code is StatusCode.UNSET
    assert dict(attempt.attributes) == {
        "previous-rpc-attempts": 0,
        "transparent-retry": False,
        "rpc.response.status_code": "OK",
        "meshlib.via": "mesh",
        "meshlib.cluster": "reviews",
        "meshlib.route": "reviews",
        **peer(server),
    }
    assert attempt.parent.span_id == call.context.span_id
    assert server.parent() == span_id(attempt)
    assert call.start_time <= attempt.start_time <= attempt.end_time <= call.end_time


@pytest.mark.parametrize("kind", KINDS)
def test_retries_are_attempts_of_one_call(
    recorded: Recorded, server: RpcServer, channel: Make, kind: str
) -> None:
    """Each carries its own context, in place of a stale one that the application put there; RT-02."""
    server.codes = [UNAVAILABLE, UNAVAILABLE]
    made = channel(server.address, retry=RETRY)
    with trace.get_tracer("app").start_as_current_span("work") as work:
        made.call(kind, metadata=(("traceparent", PARENT), ("tracestate", "old=1")))
    [call] = calls(recorded)
    assert call.parent.span_id == work.get_span_context().span_id
    assert call.status.status_code is StatusCode.UNSET
    tries = attempts(recorded)
    assert [one.attributes["previous-rpc-attempts"] for one in tries] == [0, 1, 2]
    assert not any(one.attributes["transparent-retry"] for one in tries)
    codes = [one.attributes["rpc.response.status_code"] for one in tries]
    assert codes == ["UNAVAILABLE", "UNAVAILABLE", "OK"]
    assert [one.attributes.get("error.type") for one in tries] == ["UNAVAILABLE", "UNAVAILABLE", None]
    assert [one.status.status_code for one in tries] == [StatusCode.ERROR] * 2 + [StatusCode.UNSET]
    for index, one in enumerate(tries):
        assert one.parent.span_id == call.context.span_id
        assert server.parent(index) == span_id(one)
        assert "tracestate" not in server.metadata[index]


def test_an_attempt_that_never_left_is_made_again_transparently(
    recorded: Recorded, server: RpcServer, channel: Make
) -> None:
    with RpcServer() as gone:
        dead = gone.address
    made = channel(dead, server.address, balancer="round_robin")
    for _ in range(2):
        made.call("unary_unary")
    by_call = [
        [one for one in attempts(recorded) if one.parent.span_id == call.context.span_id]
        for call in calls(recorded, 2)
    ]
    [tries] = [found for found in by_call if len(found) == 2]
    assert [one.attributes["transparent-retry"] for one in tries] == [False, True]
    first = tries[0]
    assert first.attributes["meshlib.outcome"] == "connect"
    assert first.attributes["error.type"] == "UNAVAILABLE"
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description
    assert all(call.status.status_code is StatusCode.UNSET for call in calls(recorded))


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_but_ok_is_an_error(
    recorded: Recorded, server: RpcServer, channel: Make, code: grpc.StatusCode
) -> None:
    server.codes = [code]
    with pytest.raises(grpc.RpcError):
        channel(server.address).call("unary_unary")
    for span in ended(recorded):
        assert span.attributes["rpc.response.status_code"] == code.name
        assert span.attributes["error.type"] == code.name
        assert span.status.status_code is StatusCode.ERROR
        assert "meshlib.outcome" not in span.attributes


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_a_cancel_by_the_caller_is_no_error(
    recorded: Recorded, server: RpcServer, channel: Make, kind: str
) -> None:
    server.held.clear()
    channel(server.address).cancelled(kind, server.arrived)
    for span in ended(recorded):
        assert span.attributes["rpc.response.status_code"] == "CANCELLED"
        assert span.attributes["meshlib.outcome"] == "cancelled"
        assert span.status.status_code is StatusCode.UNSET
        assert "error.type" not in span.attributes


def test_a_stream_ends_with_its_last_message(recorded: Recorded, server: RpcServer) -> None:
    server.held.clear()
    with meshlib.Mesh({"services": {"reviews": {"endpoints": [server.address]}}}) as mesh:
        call = meshlib.grpc.channel("reviews:80", mesh=mesh).unary_stream(f"/{METHODS['unary_stream']}")(b"m")
        assert next(call) == b"m"
        assert recorded.spans == ()
        server.held.set()
        assert len(list(call)) == 2
        assert all(span.status.status_code is StatusCode.UNSET for span in ended(recorded))


@pytest.mark.parametrize("kind", ["unary_stream", "stream_stream"])
def test_a_stream_that_breaks_is_an_error_of_its_attempt_too(
    recorded: Recorded, server: RpcServer, channel: Make, kind: str
) -> None:
    server.broken = grpc.StatusCode.DATA_LOSS
    with pytest.raises(grpc.RpcError):
        channel(server.address).call(kind)
    for span in ended(recorded):
        assert span.attributes["rpc.response.status_code"] == "DATA_LOSS"
        assert span.attributes["error.type"] == "DATA_LOSS"
        assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_a_call_whose_time_is_over(recorded: Recorded, server: RpcServer, channel: Make, kind: str) -> None:
    server.held.clear()
    with pytest.raises(grpc.RpcError):
        # An attempt is begun within that time on a busy machine, too.
        channel(server.address).call(kind, timeout=1.0)
    for span in ended(recorded):
        assert span.attributes["rpc.response.status_code"] == "DEADLINE_EXCEEDED"
        assert span.attributes["error.type"] == "DEADLINE_EXCEEDED"
        assert span.status.status_code is StatusCode.ERROR


def test_a_call_that_nobody_may_answer_is_a_span_without_an_attempt(
    recorded: Recorded, channel: Make
) -> None:
    with pytest.raises(meshlib.NoHealthyEndpoint):
        channel().call("unary_unary")
    [call] = calls(recorded)
    assert recorded.spans == (call,)
    assert call.attributes["rpc.response.status_code"] == "UNAVAILABLE"
    assert call.attributes["error.type"] == "UNAVAILABLE"
    assert call.attributes["meshlib.cluster"] == "reviews"
    assert "network.peer.address" not in call.attributes
    assert call.status.status_code is StatusCode.ERROR
    assert "reviews" in call.status.description


@pytest.mark.parametrize("kind", KINDS)
def test_a_direct_call_is_told_and_carries_context(
    recorded: Recorded, server: RpcServer, channel: Make, kind: str
) -> None:
    channel("127.0.0.1:9", target=server.address).call(kind)
    [call], [attempt] = calls(recorded), attempts(recorded)
    assert call.attributes["meshlib.via"] == "direct"
    assert call.attributes["rpc.response.status_code"] == "OK"
    assert call.attributes["server.address"] == "127.0.0.1"
    assert "network.peer.address" not in call.attributes
    assert server.parent() == span_id(attempt)


def test_a_call_that_is_dropped_ends(recorded: Recorded, server: RpcServer) -> None:
    server.held.clear()
    with meshlib.Mesh({"services": {"reviews": {"endpoints": [server.address]}}}) as mesh:
        call = meshlib.grpc.channel("reviews:80", mesh=mesh).unary_stream(f"/{METHODS['unary_stream']}")(b"m")
        assert next(call) == b"m"
        del call
        gc.collect()
        assert ended(recorded)[1].attributes["rpc.response.status_code"] == "CANCELLED"


@pytest.mark.parametrize(("said", "old"), [("rpc", False), ("http, rpc/dup", True), ("rpc/dup,rpc", True)])
def test_the_old_names_are_there_beside_the_new_ones_where_both_are_asked_for(
    recorded: Recorded,
    server: RpcServer,
    channel: Make,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    old: bool,
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", said)
    server.codes = [grpc.StatusCode.NOT_FOUND]
    with pytest.raises(grpc.RpcError):
        channel(server.address).call("unary_unary")
    [call] = calls(recorded)
    assert call.attributes["rpc.method"] == METHODS["unary_unary"]
    assert call.attributes["rpc.response.status_code"] == "NOT_FOUND"
    found = {
        name: call.attributes.get(name) for name in ("rpc.system", "rpc.service", "rpc.grpc.status_code")
    }
    assert list(found.values()) == (["grpc", "shop.Reviews", 5] if old else [None] * 3)
    points = recorded.points("rpc.client.duration")
    assert len(points) == old
    assert not old or points[0].attributes["rpc.method"] == "Get"


def test_who_wants_no_spans_gets_none(recorded: Recorded, server: RpcServer, channel: Make) -> None:
    made = channel(server.address)
    with suppress_instrumentation():
        made.call("unary_unary")
    assert recorded.spans == ()
    assert recorded.points("rpc.client.call.duration") == []
    made.call("unary_unary")
    assert len(calls(recorded)) == 1


def test_nothing_of_it_shows_in_the_callers_context(
    recorded: Recorded, server: RpcServer, channel: Make
) -> None:
    before = contexts.get_current()
    channel(server.address).call("unary_unary")
    assert contexts.get_current() == before


# --- somebody else's spans ----------------------------------------------------------------------------------------------------


def contrib(make: Make, request: Any, *endpoints: str, **policies: Any) -> Any:
    """A channel with OpenTelemetry's interceptors around it."""
    if request.node.callspec.params["channel"] is Blocking:
        options = {"wrap": lambda own: intercept_channel(own, client_interceptor())}
    else:
        options = {"interceptors": aio_client_interceptors()}
    return make(*endpoints, options=options, **policies)


@pytest.mark.parametrize("kind", KINDS)
def test_a_span_of_the_contrib_interceptors_is_the_calls(
    recorded: Recorded, server: RpcServer, channel: Make, kind: str, request: pytest.FixtureRequest
) -> None:
    server.codes = [UNAVAILABLE]
    contrib(channel, request, server.address, retry=RETRY).call(kind)
    [call] = calls(recorded)
    assert call.instrumentation_scope.name == "opentelemetry.instrumentation.grpc"
    assert call.attributes["meshlib.cluster"] == "reviews"
    assert call.attributes["network.peer.port"] == peer(server)["network.peer.port"]
    tries = attempts(recorded, 2)
    assert [one.attributes["previous-rpc-attempts"] for one in tries] == [0, 1]
    assert [one.parent.span_id for one in tries] == [call.context.span_id] * 2
    assert [server.parent(index) for index in range(2)] == [span_id(one) for one in tries]
    if kind == "unary_unary":
        [point] = recorded.points("rpc.client.call.duration")
        assert point.count == 1


def test_a_call_made_while_a_stream_of_the_same_method_is_read_has_its_own_span(
    recorded: Recorded, server: RpcServer
) -> None:
    """The interceptor's span of a stream is current in the loop that reads it."""
    with meshlib.Mesh({"services": {"reviews": {"endpoints": [server.address]}}}) as mesh:
        own = meshlib.grpc.channel("reviews:80", mesh=mesh)
        path = f"/{METHODS['unary_stream']}"
        wrapped = intercept_channel(own, client_interceptor()).unary_stream(path)
        for _ in wrapped(b"m"):
            assert len(list(own.unary_stream(path)(b"m"))) == 3
    scopes = [span.instrumentation_scope.name for span in calls(recorded, 4)]
    assert scopes == ["meshlib"] * 3 + ["opentelemetry.instrumentation.grpc"]


# --- events -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_and_its_attempts_are_told_of_once_each(server: RpcServer, channel: Make, kind: str) -> None:
    server.codes = [UNAVAILABLE]
    seen: list[Any] = []
    over = threading.Event()

    def observer(event: Any) -> None:
        seen.append(event)
        if isinstance(event, CallEnded):
            over.set()

    made = channel(server.address, retry=RETRY)
    made.mesh._runtime().observe(observer)
    made.call(kind)
    assert over.wait(10)
    told = (CallStarted, AttemptStarted, AttemptEnded, CallEnded)
    events: list[Any] = [event for event in seen if isinstance(event, told)]
    assert [type(event) for event in events] == [
        CallStarted, AttemptStarted, AttemptEnded, AttemptStarted, AttemptEnded, CallEnded,
    ]  # fmt: skip
    begun, ended = events[0], events[-1]
    assert (begun.method, begun.registered, begun.target) == (METHODS[kind], True, "dns:///reviews:80")
    assert [event.call for event in events if isinstance(event, AttemptStarted)] == [begun.key] * 2
    assert (ended.key, ended.outcome.status) == (begun.key, 0)
    assert ended.seconds >= events[-2].outcome.seconds > 0
    assert [attempt.number for attempt in ended.info.attempts] == [1, 2]
