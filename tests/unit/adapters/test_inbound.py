from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import meshlib
from meshlib.deadlines import current_deadline
from meshlib.inbound import (
    ENVIRON,
    MAX_SECONDS,
    Inbound,
    carry,
    current,
    enter,
    leave,
    of_metadata,
    of_scope,
    read,
)
from meshlib.model.headers import Headers

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def of(**headers: str) -> Inbound:
    environ = {"HTTP_" + name.upper(): value for name, value in headers.items()}
    return read(environ.get, 100.0)


@pytest.mark.parametrize(
    ("headers", "deadline"),
    [
        ({}, None),
        ({"x_envoy_expected_rq_timeout_ms": "1500"}, 101.5),
        ({"x_envoy_expected_rq_timeout_ms": " 20 "}, 100.02),
        ({"x_envoy_expected_rq_timeout_ms": "0"}, 100.0),
        ({"grpc_timeout": "2S"}, 102.0),
        ({"grpc_timeout": "250m"}, 100.25),
        ({"grpc_timeout": "1H"}, 3700.0),
        ({"grpc_timeout": "2M"}, 220.0),
        ({"grpc_timeout": "5000u"}, 100.005),
        ({"grpc_timeout": "0n"}, 100.0),
        ({"x_envoy_expected_rq_timeout_ms": "3000", "grpc_timeout": "2S"}, 102.0),
        ({"x_envoy_expected_rq_timeout_ms": "1000", "grpc_timeout": "2S"}, 101.0),
        ({"x_envoy_expected_rq_timeout_ms": "garbage", "grpc_timeout": "2S"}, 102.0),
        ({"x_envoy_expected_rq_timeout_ms": "99999999999", "grpc_timeout": "2S"}, 102.0),
    ],
)
def test_the_nearest_deadline_holds(headers, deadline):
    found = of(**headers).deadline
    assert found == (None if deadline is None else pytest.approx(deadline))


@pytest.mark.parametrize(
    "value", ["-1", "nan", "inf", "1e3", "+5", "1.5", "", "0x10", "٣", "1" * 400, "5,6", "99999999999"]
)
def test_a_timeout_that_is_none_is_ignored(value):
    assert of(x_envoy_expected_rq_timeout_ms=value).deadline is None


@pytest.mark.parametrize(
    "value", ["5", "S", "", "-1S", "nanS", "123456789S", "1s", "1 S", "1.5S", "99999999H", "1S,2S", "٣S"]
)
def test_a_grpc_timeout_that_is_none_is_ignored(value):
    assert of(grpc_timeout=value).deadline is None


@given(st.text(), st.text())
def test_a_deadline_is_bounded_whatever_comes(expected, grpc):
    found = of(x_envoy_expected_rq_timeout_ms=expected, grpc_timeout=grpc).deadline
    assert found is None or 100.0 <= found <= 100.0 + MAX_SECONDS


@pytest.mark.parametrize(
    ("expected", "left", "deadline"),
    [
        (None, None, None),
        (None, 1.5, 101.5),
        (None, 0, 100.0),
        (None, 9.2e18, None),
        ("1000", None, 101.0),
        ("1000", 9.2e18, 101.0),
        ("1000", 0.5, 100.5),
        ("1000", 2.0, 101.0),
        ("soon", 2.0, 102.0),
        ("99999999999", 2.0, 102.0),
    ],
)
def test_the_nearest_of_a_call_of_grpc(expected, left, deadline):
    metadata = [] if expected is None else [("x-envoy-expected-rq-timeout-ms", expected)]
    assert of_metadata(metadata, left, 100.0).deadline == (
        None if deadline is None else pytest.approx(deadline)
    )


def test_metadata_are_read_as_headers_are():
    pairs = [("tracestate", "a=1"), ("traceparent", PARENT), ("tracestate", b"b=2"), ("x-a-bin", b"\xff")]
    request = of_metadata([*pairs, ("x-request-id", b"r-1"), ("X-Request-Id", "other")], None, 100.0)
    assert (request.traceparent, request.tracestate, request.request_id) == (PARENT, "a=1,b=2", "r-1")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([name.removeprefix("HTTP_").replace("_", "-").lower() for name in ENVIRON]),
            st.one_of(st.binary(), st.text(), st.none(), st.integers()),
        )
    )
)
def test_hostile_metadata_are_as_good_as_absent(metadata):
    request = of_metadata(metadata, None, 0.0)
    assert request.deadline is None or 0.0 <= request.deadline <= MAX_SECONDS
    for value in (request.traceparent, request.tracestate, request.baggage, request.request_id):
        assert value.isascii()
        assert value.isprintable() or not value
        assert len(value) <= 8192


@given(st.dictionaries(st.sampled_from(ENVIRON), st.text(alphabet=st.characters(max_codepoint=255))))
def test_what_is_handed_on_may_stand_in_a_header_line(environ):
    request = read(environ.get, 0.0)
    for value in (request.traceparent, request.tracestate, request.baggage, request.request_id):
        assert value.isascii()
        assert value.isprintable() or not value
        assert len(value) <= 8192


@pytest.mark.parametrize(
    "parent",
    [
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "-more",
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        PARENT.replace("-", "_"),
        f"{PARENT},{PARENT}",
        "01" + PARENT[2:] + "-" + "x" * 300,
        "garbage",
        "",
    ],
)
def test_a_trace_that_is_none_is_not_handed_on(parent):
    request = of(traceparent=parent, tracestate="a=1")
    assert request.traceparent == ""
    assert request.tracestate == ""


def test_a_trace_of_a_later_version_is():
    assert of(traceparent="01" + PARENT[2:] + "-more").traceparent.endswith("-more")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tracestate", "a=" + "1" * 2048),
        ("tracestate", ",".join(f"k{n}=1" for n in range(33))),
        ("baggage", "a=" + "1" * 8192),
        ("baggage", ",".join(f"k{n}=1" for n in range(181))),
        ("tracestate", "garbage"),
        ("baggage", "a=1,garbage"),
        ("baggage", " , "),
        ("request_id", "x" * 257),
        ("request_id", "a\nb"),
        ("request_id", "a\x7fb"),
        ("request_id", "é"),
    ],
)
def test_what_is_too_long_or_no_text_is_dropped_whole(name, value):
    header = "x_request_id" if name == "request_id" else name
    assert getattr(of(traceparent=PARENT, **{header: value}), name) == ""


@pytest.mark.parametrize(
    ("text", "attempt"), [("3", 3), ("0", None), ("-1", None), ("1234567", None), ("x", None)]
)
def test_the_attempt_of_the_caller(text, attempt):
    assert of(x_envoy_attempt_count=text).attempt == attempt


def test_forwarded_headers_are_there_to_be_read():
    request = of(x_forwarded_for="1.2.3.4", x_forwarded_proto="https", forwarded="\r\n")
    assert request.forwarded == {"x-forwarded-for": "1.2.3.4", "x-forwarded-proto": "https"}
    assert of().forwarded == {}


def test_lines_of_one_name_are_joined_in_a_scope_too():
    headers = [
        (b"traceparent", PARENT.encode()),
        (b"tracestate", b"a=1"),
        (b"tracestate", b"b=2"),
        (b"cookie", b"x"),
    ]
    request = of_scope(headers, 0.0)
    assert request.traceparent == PARENT
    assert request.tracestate == "a=1,b=2"
    assert of_scope([(b"grpc-timeout", b"1S"), (b"grpc-timeout", b"2S")], 0.0).deadline is None


def test_headers_are_looked_at_once_and_by_many_threads_alike():
    asked = []

    def get(name):
        asked.append(name)
        return {"HTTP_GRPC_TIMEOUT": "5S", "HTTP_X_REQUEST_ID": "one"}.get(name)

    request = read(get, 0.0)
    assert not asked
    barrier, found = threading.Barrier(8), []

    def look():
        barrier.wait(10)
        found.append((request.request_id, request.deadline, request.attempt))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [("one", 5.0, None)] * 8
    before = len(asked)
    assert request.baggage == ""
    assert len(asked) == before
    with pytest.raises(AttributeError):
        _ = request.nothing


class TestCarry:
    def test_without_a_request_nothing_is_added(self):
        headers = Headers()
        assert not carry(headers)
        assert len(headers) == 0

    def test_what_the_application_says_itself_stands(self):
        token = enter(of(traceparent=PARENT, tracestate="a=1", baggage="b=1", x_request_id="id"))
        own = Headers.of(("TraceParent", "mine"), ("X-Request-Id", "own"))
        bare = Headers()
        try:
            assert carry(own)
            assert carry(bare)
        finally:
            leave(token)
        assert own.to_dict() == {"traceparent": "mine", "x-request-id": "own", "baggage": "b=1"}
        assert bare.to_dict() == {
            "traceparent": PARENT,
            "tracestate": "a=1",
            "baggage": "b=1",
            "x-request-id": "id",
        }


class TestDeadline:
    def test_the_nearer_of_block_and_request_holds_until_the_request_is_answered(self):
        request = Inbound(deadline=1.0)
        token = enter(request)
        try:
            assert current_deadline() == 1.0
            with meshlib.deadline(1000.0):
                assert current_deadline() == 1.0
                request.answered = True
                assert (current_deadline() or 0) > 1.0
            assert current_deadline() is None
        finally:
            leave(token)

    def test_threads_with_a_copy_of_the_context_and_tasks_inherit(self):
        found: list[object] = []
        token = enter(Inbound(deadline=7.0))
        try:
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(lambda: found.append(current_deadline()),))
            thread.start()
            thread.join(10)

            async def task() -> None:
                found.append(current_deadline())

            asyncio.run(task())
        finally:
            leave(token)
        assert found == [7.0, 7.0]
        assert current_deadline() is None


def test_leaving_in_another_context_leaves_that_one_without_a_request():
    token = contextvars.copy_context().run(enter, Inbound())
    mine = enter(Inbound(request_id="mine"))
    leave(token)
    assert current() is None
    leave(mine)
    assert current() is None


def test_a_mesh_given_to_the_middleware_is_the_default_while_it_serves():
    with meshlib.Mesh({}) as mesh:
        token = enter(Inbound(mesh=mesh))
        try:
            assert meshlib.default() is mesh
        finally:
            leave(token)
        assert meshlib.default() is not mesh


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1000000000 3500000000", 2.5),
        (" 1000000000 1000000000 ", 0.0),
        ("2000000000 1000000000", 0.0),  # over when it was said
        ("0 9223372036854775807", None),  # Finagle's Time.Top: none
        ("-5 10", None),
        ("1000000000", None),
        ("1 2 3", None),
        ("1,5 2", None),
        ("9" * 21 + " 1", None),
    ],
)
@pytest.mark.parametrize("name", ["finagle_ctx_com.twitter.finagle.deadline", "l5d_ctx_deadline"])
def test_a_deadline_in_finagles_form(name, text, seconds):
    found = of(**{name: text}).deadline
    assert found is None if seconds is None else found == pytest.approx(100.0 + seconds)
