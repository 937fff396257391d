"""RT-04: each strategy that tenacity has says the same to our plan as to tenacity's own loop."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest
import tenacity

from meshlib.core.retry import Retries, may_matter
from meshlib.core.retry_grpc import PUSHBACK, GrpcRetries
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.headers import Headers
from meshlib.model.policy import RetryPolicy

MOST = 12
#: A gRPC call has no more attempts (gRFC A6).
MOST_RPC = 5
#: Seconds that each attempt takes.
TOOK = 0.25


def rung(after):
    """An event that is set when so many strategies have asked it."""

    class Event(threading.Event):
        asked = 0

        def is_set(self):
            self.asked += 1
            return self.asked > after

    return Event()


STOPS = {
    "stop_after_attempt": lambda: tenacity.stop_after_attempt(4),
    "stop_after_delay": lambda: tenacity.stop_after_delay(3.0),
    "stop_all": lambda: tenacity.stop_after_attempt(3) & tenacity.stop_after_delay(4.0),
    "stop_any": lambda: tenacity.stop_after_attempt(6) | tenacity.stop_after_delay(3.0),
    "stop_before_delay": lambda: tenacity.stop_before_delay(3.0),
    "stop_never": lambda: tenacity.stop_never,
    "stop_when_event_set": lambda: tenacity.stop_when_event_set(rung(5)),
}
WAITS = {
    "wait_chain": lambda: tenacity.wait_chain(*(tenacity.wait_fixed(n) for n in (1, 2, 3))),
    "wait_combine": lambda: tenacity.wait_fixed(0.5) + tenacity.wait_incrementing(start=0, increment=0.5),
    "wait_exception": lambda: tenacity.wait_exception(lambda error: float(len(str(error)))),
    "wait_exponential": lambda: tenacity.wait_exponential(multiplier=0.1, max=2.0, min=0.2),
    "wait_exponential_jitter": lambda: tenacity.wait_exponential_jitter(max=2.0),
    "wait_fixed": lambda: tenacity.wait_fixed(0.75),
    "wait_full_jitter": lambda: tenacity.wait_full_jitter(multiplier=0.1, max=2.0),
    "wait_incrementing": lambda: tenacity.wait_incrementing(start=0.1, increment=0.3, max=1.0),
    "wait_none": tenacity.wait_none,
    "wait_random": lambda: tenacity.wait_random(0.1, 0.9),
    "wait_random_exponential": lambda: tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
}
#: The lowest version that is allowed does not have them all.
WAITS = {name: make for name, make in WAITS.items() if hasattr(tenacity, name)}


def error_of(number):
    return ConnectionError("x" * number)


def theirs(stop, wait, monkeypatch, most=MOST):
    """The waits of tenacity's own loop, on a clock that only attempts and waits move."""
    now, waits = [100.0], []
    monkeypatch.setattr(tenacity.time, "monotonic", lambda: now[0])

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    def attempt():
        now[0] += TOOK
        raise error_of(len(waits) + 1)

    with pytest.raises(tenacity.RetryError):
        tenacity.Retrying(stop=stop | tenacity.stop_after_attempt(most), wait=wait, sleep=sleep)(attempt)
    return waits


def ours(stop, wait, *, grpc=False):
    """The waits of a plan, on its own clock."""
    policy = RetryPolicy(on=frozenset({"reset"}), retries=MOST - 1, stop=stop, wait=wait)
    retries, now, waits = Retries(policy, lambda: 0.5, method="GET", wall=lambda: 0.0), 100.0, []
    if grpc:
        retries = GrpcRetries(policy, frozenset({14}), lambda: 0.5, lambda: True)
    while True:
        began = now
        now += TOOK
        outcome = Outcome(OutcomeKind.RESET, error=error_of(len(waits) + 1), grpc=grpc)
        retry = retries.after(outcome, now, began)
        if retry is None:
            return waits
        waits.append(retry.delay)
        now += retry.delay


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("stop", STOPS)
def test_the_plan_waits_and_stops_as_tenacitys_loop(stop, wait, monkeypatch):
    random.seed(7)
    expected = theirs(STOPS[stop](), WAITS[wait](), monkeypatch)
    random.seed(7)
    found = ours(STOPS[stop](), WAITS[wait]())
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("stop", STOPS)
def test_so_does_that_of_a_grpc_call_within_its_five_attempts(stop, wait, monkeypatch):
    random.seed(7)
    expected = theirs(STOPS[stop](), WAITS[wait](), monkeypatch, MOST_RPC)
    random.seed(7)
    assert ours(STOPS[stop](), WAITS[wait](), grpc=True) == pytest.approx(expected)


class Odd(Exception):
    """Of its own kind."""


def caused(error):
    error.__cause__ = Odd("below")
    return error


def answered(status):
    return Outcome(OutcomeKind.OK, status=status, sent=True)


def is_busy(outcome):
    return isinstance(outcome, Outcome) and outcome.status == 503


RETRIES = {
    "retry_if_exception": lambda: tenacity.retry_if_exception(lambda error: "1" in str(error)),
    "retry_if_exception_type": lambda: tenacity.retry_if_exception_type(ConnectionError),
    "retry_if_exception_message": lambda: tenacity.retry_if_exception_message(match="again.*"),
    "retry_if_exception_cause_type": lambda: tenacity.retry_if_exception_cause_type(Odd),
    "retry_if_not_exception_type": lambda: tenacity.retry_if_not_exception_type(Odd),
    "retry_if_not_exception_message": lambda: tenacity.retry_if_not_exception_message(message="stop"),
    "retry_if_result": lambda: tenacity.retry_if_result(is_busy),
    "retry_if_not_result": lambda: tenacity.retry_if_not_result(lambda outcome: not is_busy(outcome)),
    "retry_unless_exception_type": lambda: tenacity.retry_unless_exception_type(Odd),
    "retry_always": lambda: tenacity.retry_always,
    "retry_never": lambda: tenacity.retry_never,
    "retry_any": lambda: tenacity.retry_if_exception_type(Odd) | tenacity.retry_if_result(is_busy),
    "retry_all": lambda: (
        tenacity.retry_if_exception_type(ConnectionError)
        & tenacity.retry_if_exception_message(match="again.*")
    ),
}
RETRIES = {name: make for name, make in RETRIES.items() if hasattr(tenacity, name)}
#: What becomes of the attempts, one after the other.
ENDS = [
    [ConnectionError("again 1"), ConnectionError("stop"), answered(200)],
    [Odd("again 1"), ConnectionError("again"), answered(503), answered(200)],
    [answered(503), answered(503), Odd("x")],
    [caused(ConnectionError("1")), answered(404), answered(200)],
    [answered(200)],
]


def attempts_of_theirs(retry, ends):
    left, made = list(ends), []

    def attempt():
        made.append(left.pop(0))
        if isinstance(made[-1], Exception):
            raise made[-1]
        return made[-1]

    with contextlib.suppress(tenacity.RetryError, Exception):
        tenacity.Retrying(stop=tenacity.stop_after_attempt(len(ends)), retry=retry, sleep=lambda _: None)(
            attempt
        )
    return len(made)


def attempts_of_ours(retry, ends, *, grpc=False):
    policy = RetryPolicy(retries=len(ends) - 1, retry=retry)
    retries = Retries(policy, lambda: 0.5, method="GET", wall=lambda: 0.0)
    if grpc:
        retries = GrpcRetries(policy, frozenset(), lambda: 0.5, lambda: True)
    for number, end in enumerate(ends, 1):
        outcome = Outcome(OutcomeKind.RESET, error=end, grpc=grpc) if isinstance(end, Exception) else end
        assert may_matter(policy, outcome), "a good answer may be one to retry, too"
        if retries.after(outcome, float(number), number - 0.5) is None:
            return number
    raise AssertionError("more than there may be")


@pytest.mark.parametrize("ends", ENDS, ids=lambda ends: str(len(ends)))
@pytest.mark.parametrize("retry", RETRIES)
def test_the_plan_retries_what_tenacitys_loop_does(retry, ends):
    assert attempts_of_ours(RETRIES[retry](), ends) == attempts_of_theirs(RETRIES[retry](), ends)


@pytest.mark.parametrize("ends", [ENDS[3][:1], [Odd("again 1"), ConnectionError("again"), Odd("stop")]])
@pytest.mark.parametrize("retry", RETRIES)
def test_of_an_rpc_what_failed_is_an_exception(retry, ends):
    assert attempts_of_ours(RETRIES[retry](), ends, grpc=True) == attempts_of_theirs(RETRIES[retry](), ends)


def test_of_an_rpc_a_status_is_the_librarys_error_and_the_server_says_when():
    error, asked = Odd("NOT_FOUND"), []
    told = Headers.of((PUSHBACK, "250"))
    policy = RetryPolicy(
        retries=3,
        retry=lambda state: asked.append(state.outcome.exception()) or len(asked) < 2,
        wait=tenacity.wait_fixed(7.0),
    )
    retries = GrpcRetries(policy, frozenset(), lambda: 0.5, lambda: True)
    found = retries.after(Outcome(OutcomeKind.OK, 5, told, sent=True, error=error, grpc=True), 1.0, 0.0)
    assert found is not None
    assert (found.delay, found.told) == (0.25, True)
    assert retries.after(Outcome(OutcomeKind.OK, 5, sent=True, error=error, grpc=True), 2.0, 1.0) is None
    assert asked == [error, error]
    late = Outcome(OutcomeKind.TIMEOUT, sent=True, grpc=True)
    assert retries.after(late, 3.0, 2.0) is None
    assert len(asked) == 2, "time that is over is never retried"


def test_of_an_rpc_strategies_that_raise_end_the_retries():
    for name in ("retry", "wait", "stop"):
        policy = RetryPolicy(frozenset({"unavailable"}), retries=2, **{name: lambda _: 1 / 0})
        retries = GrpcRetries(policy, frozenset({14}), lambda: 0.5, lambda: True)
        assert retries.after(Outcome(OutcomeKind.OK, 14, sent=True, grpc=True), 1.0, 0.0) is None
        assert f"retry.{name} failed: ZeroDivisionError" in retries.why


def test_a_retry_strategy_that_raises_ends_the_retries():
    retries = Retries(
        RetryPolicy(retries=2, retry=lambda _: 1 / 0), lambda: 0.5, method="GET", wall=lambda: 0.0
    )
    assert retries.after(answered(503), 1.0, 0.0) is None
    assert "ZeroDivisionError" in retries.why


def test_every_strategy_of_tenacitys_is_in_the_tables():
    prefixes = ("stop_", "wait_", "retry_a", "retry_i", "retry_u", "retry_n")
    names = {name for name in dir(tenacity) if name.startswith(prefixes)}
    assert names == STOPS.keys() | WAITS.keys() | RETRIES.keys()
