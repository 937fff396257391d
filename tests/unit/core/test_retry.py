"""RT-04 to RT-07: Envoy's conditions, backoff and what forbids a retry; tenacity's strategies as calculators."""

import math
import random
from dataclasses import replace

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from meshlib.config import RetryConfig
from meshlib.core.retry import Retries, backoff_ceiling, reset_interval
from meshlib.model.call import Head, Outcome, OutcomeKind
from meshlib.model.headers import Headers
from meshlib.model.match import HeaderMatch, StringKind, StringMatch
from meshlib.model.policy import RetryPolicy
from meshlib.runtime.policies import retry_policy

CONNECT, RESET, TIMEOUT, REFUSED, CANCELLED = (
    OutcomeKind.CONNECT,
    OutcomeKind.RESET,
    OutcomeKind.TIMEOUT,
    OutcomeKind.REFUSED,
    OutcomeKind.CANCELLED,
)


def status(code, *headers):
    return Outcome(OutcomeKind.OK, status=code, headers=Headers.of(*headers), sent=True)


def failed(kind, *, sent=False):
    return Outcome(kind, sent=sent)


def date():
    return 1_000_000.0


def decide(policy, outcome, *, rand=lambda: 0.5, **fields):
    fields.setdefault("method", "GET")
    fields.setdefault("wall", date)
    return Retries(policy, rand, **fields).after(outcome, 1.0, 0.0)


def on(*conditions, **fields):
    return RetryPolicy(on=frozenset(conditions), **fields)


# --- conditions -------------------------------------------------------------------------------------------------------

TABLE = [
    ("5xx", status(500), True),
    ("5xx", status(599), True),
    ("5xx", status(499), False),
    ("5xx", failed(CONNECT), True),
    ("5xx", failed(RESET, sent=True), True),
    ("5xx", failed(TIMEOUT, sent=True), True),
    ("5xx", failed(REFUSED), True),
    ("gateway-error", status(500), False),
    ("gateway-error", status(502), True),
    ("gateway-error", status(503), True),
    ("gateway-error", status(504), True),
    ("gateway-error", failed(TIMEOUT, sent=True), True),
    ("gateway-error", failed(CONNECT), True),
    ("reset", status(503), False),
    ("reset", failed(RESET, sent=True), True),
    ("reset", failed(CONNECT), True),
    ("reset", failed(TIMEOUT, sent=True), True),
    ("reset-before-request", failed(RESET), True),
    ("reset-before-request", failed(RESET, sent=True), False),
    ("connect-failure", failed(CONNECT), True),
    ("connect-failure", failed(RESET), False),
    ("connect-failure", failed(TIMEOUT), False),
    ("retriable-4xx", status(409), True),
    ("retriable-4xx", status(404), False),
    ("refused-stream", failed(REFUSED), True),
    ("refused-stream", failed(RESET, sent=True), False),
    ("envoy-ratelimited", status(429, ("x-envoy-ratelimited", "true")), True),
    ("envoy-ratelimited", status(429), False),
    ("5xx", status(503, ("x-envoy-ratelimited", "true")), False),
    ("unavailable", status(200, ("grpc-status", "14")), True),
    ("unavailable", status(200, ("grpc-status", "13")), False),
    ("internal", status(200, ("grpc-status", "13")), True),
    ("cancelled", status(200, ("grpc-status", "1")), True),
    ("deadline-exceeded", status(200, ("grpc-status", "4")), True),
    ("resource-exhausted", status(200, ("grpc-status", "8")), True),
    ("cancelled", failed(CANCELLED), False),
    ("5xx", failed(CANCELLED), False),
    ("no-such-condition", status(500), False),
    ("", status(500), False),
]


@pytest.mark.parametrize(("condition", "outcome", "retried"), TABLE)
def test_conditions(condition, outcome, retried):  # RT-06
    decision = decide(on(condition), outcome)
    assert (decision is not None) is retried
    if decision is not None:
        assert f"({condition})" in decision.reason


@given(st.sets(st.sampled_from(sorted({row[0] for row in TABLE})), max_size=4), st.sampled_from(TABLE))
def test_conditions_only_add_up(conditions, row):
    """A set of conditions retries exactly what one of them retries alone."""
    together = decide(on(*conditions), row[1])
    alone = [decide(on(condition), row[1]) for condition in conditions]
    rate_limited = row[1].headers is not None and "x-envoy-ratelimited" in row[1].headers
    if rate_limited:
        assert (together is not None) is ("envoy-ratelimited" in conditions)
    else:
        assert (together is not None) is any(decision is not None for decision in alone)


@given(st.sampled_from([200, 204, 301, 302, 404]), st.sets(st.sampled_from([row[0] for row in TABLE])))
def test_a_good_answer_is_never_retried(code, conditions):
    assert decide(on(*conditions), status(code)) is None


def test_statuses_count_only_under_their_condition():
    assert decide(on("5xx", statuses=frozenset({418})), status(418)) is None
    assert decide(on("retriable-status-codes", statuses=frozenset({418})), status(418)) is not None
    assert decide(on("retriable-status-codes", statuses=frozenset({418})), status(419)) is None


def test_a_425_goes_back_to_who_sent_early_data():
    policy = on("retriable-status-codes", statuses=frozenset({425}))
    early = Head("GET", "http", "a", "/", Headers.of(("early-data", "1")))
    assert decide(policy, status(425), head=Head("GET", "http", "a", "/")) is not None
    assert decide(policy, status(425), head=early) is None


NACK, FINAL = ("finagle-http-nack", "true"), ("finagle-http-nonretryable-nack", "true")


@pytest.mark.parametrize(
    ("policy", "outcome", "fields", "retried"),
    [
        (on("refused-stream"), status(503, NACK), {}, True),
        (on("refused-stream"), status(503, NACK), {"method": "POST", "idempotent": False}, True),
        (on("refused-stream", methods=frozenset({"GET"})), status(503, NACK), {"method": "POST"}, True),
        (on("refused-stream"), status(503, NACK), {"replayable": False}, False),
        (on("refused-stream"), status(503), {}, False),
        (on("refused-stream"), status(200, NACK), {}, False),
        (on("connect-failure"), status(503, NACK), {}, False),
        (on("5xx"), status(503, NACK), {"method": "POST", "idempotent": False}, True),
        (on("5xx"), status(503), {"method": "POST", "idempotent": False}, False),
        (on("5xx", "gateway-error", "refused-stream"), status(503, FINAL), {}, False),
        (on("5xx"), status(500, FINAL), {}, True),
    ],
)
def test_finagles_nacks(policy, outcome, fields, retried):
    """What a Finagle server did not take may be sent again, whatever it is; or may not, whatever the policy says."""
    assert (decide(policy, outcome, **fields) is not None) is retried


def test_response_headers():
    match = HeaderMatch("x-again", string=StringMatch(StringKind.PREFIX, "please"))
    policy = on("retriable-headers", headers=(match,))
    assert decide(policy, status(200, ("X-Again", "please do"))) is not None
    assert decide(policy, status(200, ("x-again", "no"))) is None
    assert decide(policy, status(200)) is None
    assert decide(replace(policy, on=frozenset({"5xx"})), status(200, ("x-again", "please"))) is None
    by_status = on("retriable-headers", headers=(HeaderMatch(":status", range=(400, 500)),))
    assert decide(by_status, status(404)) is not None


def test_request_headers_restrict_every_retry():
    policy = on("5xx", request_headers=(HeaderMatch("x-retry", present=True),))
    asks = Head("GET", "http", "a", "/", Headers.of(("x-retry", "1")))
    assert decide(policy, status(500), head=asks) is not None
    assert decide(policy, status(500), head=Head("GET", "http", "a", "/")) is None
    assert decide(policy, status(500)) is None


# --- what forbids -----------------------------------------------------------------------------------------------------


def why(policy, outcome, **fields):
    fields.setdefault("method", "GET")
    fields.setdefault("wall", date)
    retries = Retries(policy, lambda: 0.5, **fields)
    assert retries.after(outcome, 1.0, 0.0) is None
    return retries.why


def test_the_first_attempt_counts():
    retries = Retries(on("5xx", retries=2), lambda: 0.5, method="GET", wall=date)
    assert [retries.after(status(500), 1.0, 0.0) is not None for _ in range(3)] == [True, True, False]
    assert retries.why == "all 3 attempts are used"
    assert retries.attempts == 3


def test_no_retries_at_all():  # RT-03: Envoy's 0 is off
    assert why(on("5xx", retries=0), status(500)) == "all 1 attempts are used"


@pytest.mark.parametrize("outcome", [status(503), failed(RESET, sent=True)])
def test_a_body_that_cannot_be_replayed(outcome):
    assert "body" in why(on("5xx"), outcome, replayable=False)
    assert decide(on("5xx"), failed(CONNECT), replayable=False) is not None


def test_the_caller_may_forbid_what_may_have_been_done():
    assert "forbids" in why(on("5xx"), failed(RESET, sent=True), idempotent=False)
    assert "forbids" in why(on("5xx"), Outcome(OutcomeKind.OK, status=503), idempotent=False)
    assert decide(on("5xx"), failed(CONNECT), idempotent=False) is not None


def test_methods_narrow_and_the_caller_widens():
    policy = on("5xx", methods=frozenset({"GET"}))
    assert "POST" in why(policy, status(500), method="POST")
    assert decide(policy, status(500), method="get") is not None
    assert decide(policy, status(500), method="POST", idempotent=True) is not None
    assert decide(on("5xx"), status(500), method="POST") is not None  # as in Envoy


def test_nothing_is_said_of_what_did_not_fail():
    assert why(on("5xx"), status(200)) == ""


# --- backoff ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("retry", "ceiling"), [(1, 0.025), (2, 0.075), (3, 0.175), (4, 0.25), (5000, 0.25)])
def test_backoff_doubles_up_to_the_longest(retry, ceiling):  # RT-04
    assert backoff_ceiling(RetryPolicy(), retry) == pytest.approx(ceiling)


@given(st.integers(1, 200), st.floats(0, 1, exclude_max=True), st.floats(0.001, 10))
def test_jitter_is_full(retries, chance, base):
    policy = on("5xx", retries=retries, base_interval=base, max_interval=10 * base)
    machine = Retries(policy, lambda: chance, method="GET", wall=date)
    for number in range(1, retries + 1):
        decision = machine.after(status(500), 1.0, 0.0)
        assert decision.delay == pytest.approx(chance * min((2.0**number - 1) * base, 10 * base))


def test_the_server_says_when():  # RT-07
    policy = on("5xx", reset_headers=(("x-reset", "unix_timestamp"), ("retry-after", "seconds")))
    assert decide(policy, status(503, ("retry-after", "4"))).delay == pytest.approx(5.0)
    assert decide(policy, status(503, ("retry-after", "4")), rand=lambda: 0.0).delay == 4.0
    # Too far, no number, in the past, nothing: the usual backoff.
    for value in ("301", "Fri, 31 Dec 1999 23:59:59 GMT", "0", "-5", "9" * 30, ""):
        assert decide(policy, status(503, ("retry-after", value))).delay == pytest.approx(0.0125)
    timed = status(503, ("x-reset", "1060"), ("retry-after", "4"))
    assert decide(policy, timed, wall=lambda: 1000.0, rand=lambda: 0.0).delay == 60.0
    assert decide(policy, timed, wall=lambda: 2000.0, rand=lambda: 0.0).delay == 4.0


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Mon, 12 Jan 1970 13:47:10 GMT"}, 30.0),
        ({"retry-after": "Mon, 12 Jan 1970 13:46:40 GMT"}, None),  # now
        ({"retry-after": "Mon, 12 Jan 1970 14:00:00 GMT"}, None),  # 800 s, and 300 are allowed
        ({"retry-after": "301"}, None),
        ({"retry-after": "Monday, 12-Jan-70 13:47:10 GMT"}, None),  # obsolete forms
        ({"retry-after": "Mon Jan 12 13:47:10 1970"}, None),
        ({"retry-after": "Mon, 12 Jon 1970 13:47:10 GMT"}, None),
        ({"retry-after": "Mon, 32 Jan 1970 13:47:10 GMT"}, None),
        ({"retry-after": "Mon, 12 Jan 0000 13:47:10 GMT"}, None),
        ({"retry-after": "Mon, 1 2 Jan 197013:47:10 GMT"}, None),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "Mon, 12 Jan 1970 13:47:10 GMT"}, None),
        ({}, None),
    ],
)
def test_what_a_file_orders_by_retry_after(headers, delay):
    """RFC 9110, 10.2.3: seconds or a date; milliseconds as several HTTP APIs say them. The clock says 13:46:40."""
    policy = retry_policy(RetryConfig(on=("5xx",), retry_after=300.0))
    decision = decide(policy, status(503, *headers.items()), rand=lambda: 0.0)
    assert decision.told is (delay is not None)
    assert decision.delay == (0.0 if delay is None else delay)


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"x-ratelimit-reset": "7"}, 7.0),
        ({"x-ratelimit-reset": "1700000030"}, 30.0),
        ({"x-ratelimit-reset": "1700000000"}, None),
        ({"x-ratelimit-reset": "1700000301"}, None),
        ({"retry-after": "5", "x-ratelimit-reset": "7"}, 5.0),
        ({"x-ratelimit-reset": "2023-11-14T22:13:50Z"}, None),
    ],
)
def test_what_a_rate_limit_says_of_its_reset_is_seconds_or_a_point_in_time(headers, delay):
    policy = retry_policy(RetryConfig(on=("retriable-status-codes",), statuses=(429,), retry_after=300.0))
    decision = decide(policy, status(429, *headers.items()), rand=lambda: 0.0, wall=lambda: 1_700_000_000.0)
    assert (decision.delay if decision.told else None) == delay


@given(
    st.text(max_size=40)
    | st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", fullmatch=True)
)
def test_any_reset_header_is_read_or_left(text):
    policy = on(reset_headers=(("retry-after", "retry_after"), ("x-reset", "unix_timestamp")))
    raw = text.encode("utf-8", "surrogatepass")
    found = reset_interval(policy, Headers([(b"retry-after", raw), (b"x-reset", raw)]), lambda: 1.0)
    assert found is None or 0 < found <= 300.0


# --- tenacity ---------------------------------------------------------------------------------------------------------


def test_wait_says_how_long_and_is_told_how_often():
    policy = on("5xx", retries=4, wait=tenacity.wait_incrementing(start=1, increment=2))
    retries = Retries(policy, lambda: 0.5, method="GET", wall=date)
    assert [retries.after(status(500), 1.0, 0.0).delay for _ in range(3)] == [1.0, 3.0, 5.0]


def test_stop_ends_beside_the_count():
    policy = on("5xx", retries=9, stop=tenacity.stop_after_attempt(2))
    retries = Retries(policy, lambda: 0.5, method="GET", wall=date)
    assert retries.after(status(500), 1.0, 0.0) is not None
    assert retries.after(status(500), 1.0, 0.0) is None
    assert retries.why == "retry.stop says so"
    assert why(on("5xx", retries=0, stop=tenacity.stop_never), status(500)) == "all 1 attempts are used"


def test_time_is_the_plans_and_runs_from_the_first_attempt():
    policy = on("5xx", retries=9, stop=tenacity.stop_after_delay(2.0), wait=tenacity.wait_fixed(0.1))
    retries = Retries(policy, lambda: 0.5, method="GET", wall=date)
    assert retries.after(status(500), 11.0, 10.0) is not None
    assert retries.after(status(500), 11.9, 11.5) is not None
    assert retries.after(status(500), 12.0, 11.95) is None


def test_stop_sees_the_sleep_that_is_to_come():
    policy = on("5xx", retries=9, stop=tenacity.stop_before_delay(2.0), wait=tenacity.wait_fixed(1.5))
    retries = Retries(policy, lambda: 0.5, method="GET", wall=date)
    assert retries.after(status(500), 10.4, 10.0) is not None
    assert retries.after(status(500), 10.6, 10.5) is None


def test_strategies_see_the_outcome():
    seen = []

    def wait(state):
        seen.append((state.outcome.failed, state.outcome.exception(), state.attempt_number, state.idle_for))
        return 0.5

    error = ConnectionError("no")
    retries = Retries(on("5xx", retries=3, wait=wait), lambda: 0.5, method="GET", wall=date)
    retries.after(Outcome(CONNECT, error=error), 1.0, 0.0)
    retries.after(status(503), 2.0, 1.5)
    assert seen == [(True, error, 1, 0.0), (False, None, 2, 0.5)]


def test_combined_and_exception_strategies_work():
    wait = tenacity.wait_fixed(1) + tenacity.wait_chain(tenacity.wait_fixed(2), tenacity.wait_fixed(3))
    assert decide(on("5xx", wait=wait), status(500)).delay == 3.0

    def by_error(state):
        return 7.0 if isinstance(state.outcome.exception(), OSError) else 1.0

    assert decide(on("reset", wait=by_error), Outcome(RESET, error=OSError())).delay == 7.0
    assert decide(on("reset", wait=by_error), failed(RESET)).delay == 1.0
    stop = tenacity.stop_after_attempt(1) | tenacity.stop_after_delay(10)
    assert decide(on("5xx", stop=stop), status(500)) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, "soon", None])
def test_a_wait_that_makes_no_sense_ends_the_retries(bad):
    assert "retry.wait" in why(on("5xx", wait=lambda state: bad), status(500))


def test_a_strategy_that_raises_ends_the_retries():
    assert "ZeroDivisionError" in why(on("5xx", wait=lambda state: 1 / 0), status(500))
    assert "ZeroDivisionError" in why(on("5xx", stop=lambda state: 1 / 0), status(500))


def test_a_negative_wait_is_none():
    assert decide(on("5xx", wait=lambda state: -1), status(500)).delay == 0.0


def test_one_strategy_serves_many_calls():
    """A shared policy keeps nothing: calls that run interleaved each have their own count."""
    policy = on("5xx", retries=9, stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(0))
    calls = [Retries(policy, random.Random(1).random, method="GET", wall=date) for _ in range(20)]
    rounds = [[call.after(status(500), 1.0, 0.0) is not None for call in calls] for _ in range(3)]
    assert rounds == [[True] * 20, [True] * 20, [False] * 20]
