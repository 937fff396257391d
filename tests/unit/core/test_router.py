"""What a router is told of ``x-envoy-…`` lines. Beside a real Envoy: tests/e2e/oracle/test_router_lines.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.router import Internal, compile_router
from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.model.listener import HttpManager

INSIDE = ("x-forwarded-for", "10.0.0.1")
NETWORKS = ("10.0.0.0/8", "fd00::/8")


def head(*lines: tuple[str, str]) -> Head:
    return Head("GET", "http", "shop.test", "/", Headers.of(*lines))


@pytest.mark.parametrize(
    ("said", "internal"),
    [
        ([], False),
        (["10.1.2.3"], True),
        ([" 10.1.2.3 "], True),
        (["fd00::1"], True),
        (["::ffff:10.1.2.3"], False),
        (["11.0.0.1"], False),
        (["10.0.0.1, 10.0.0.2"], False),
        (["10.0.0.1", "10.0.0.2"], False),
        (["10.0.0.1:80"], False),
        (["me"], False),
    ],
)
def test_who_is_internal(said, internal):
    lines = [("x-forwarded-for", value) for value in said]
    assert Internal(NETWORKS).has(head(*lines)) is internal


def test_as_a_rule_there_is_nothing_to_do():
    assert compile_router(HttpManager()) is None
    # Nobody is internal: nobody's lines are looked at.
    assert compile_router(HttpManager(strict_headers=("x-envoy-max-retries",), respect_timeout=True)) is None
    assert compile_router(HttpManager(internal=NETWORKS)) is None


def test_what_cannot_be_read_refuses():
    router = compile_router(HttpManager(internal=NETWORKS, strict_headers=("x-envoy-max-retries",)))
    assert router is not None
    assert router.refusal(head(INSIDE)) is None
    assert router.refusal(head(INSIDE, ("x-envoy-max-retries", "3"))) is None
    assert router.refusal(head(("x-envoy-max-retries", "x"))) is None
    assert router.refusal(head(INSIDE, ("x-envoy-retry-on", "x"))) is None
    refused = router.refusal(head(INSIDE, ("x-envoy-max-retries", "1"), ("X-Envoy-Max-Retries", "2")))
    assert refused is not None
    assert (refused.status, refused.flags) == (400, "IH")
    assert refused.body == b"invalid header 'x-envoy-max-retries' with value '1,2'"


@given(st.text(max_size=5000))
def test_a_refusal_is_bounded(value):
    value = "x" + value.encode("ascii", "replace").decode()
    router = compile_router(HttpManager(internal=NETWORKS, strict_headers=("x-envoy-retry-on",)))
    refused = router.refusal(head(INSIDE, ("x-envoy-retry-on", value)))
    assert refused is None or len(refused.body) < 1200


@pytest.mark.parametrize(
    ("said", "seconds"), [("1500", 1.5), ("0", 0.0), ("-1", None), ("x", None), ("", None)]
)
def test_how_long_a_call_may_take_by_its_own_word(said, seconds):
    router = compile_router(HttpManager(internal=NETWORKS, respect_timeout=True))
    line = ("x-envoy-expected-rq-timeout-ms", said)
    assert router.timeout(head(INSIDE, line)) == seconds
    assert router.timeout(head(line)) is None


def test_what_a_rewrite_added_is_taken_back():
    router = compile_router(HttpManager(suppress_envoy_headers=True))
    lines = [(b"x-envoy-original-path", b"/b"), (b"a", b"1"), (b"x-envoy-original-host", b"h")]
    router.unmark(lines, [(b"X-Envoy-Original-Path", b"/mine")])
    assert lines == [(b"a", b"1"), (b"X-Envoy-Original-Path", b"/mine")]
