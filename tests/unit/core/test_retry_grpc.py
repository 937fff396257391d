"""Retries of gRPC calls: gRFC A6 and A44, RT-02 to RT-05."""

from __future__ import annotations

import pytest

from meshlib.core.retry_grpc import PUSHBACK, GrpcRetries, grpc_codes
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.headers import Headers
from meshlib.model.policy import RetryPolicy

POLICY = RetryPolicy(frozenset({"unavailable", "cancelled"}), retries=2, base_interval=0.1, max_interval=0.3)


def status(code: int, **trailing: str) -> Outcome:
    lines = Headers.of(*((name.replace("_", "-"), value) for name, value in trailing.items()))
    return Outcome(OutcomeKind.OK, code, lines, sent=True, grpc=True)


def retries(policy: RetryPolicy = POLICY, *, random: float = 0.5, replayable: bool = True) -> GrpcRetries:
    return GrpcRetries(policy, grpc_codes(policy, from_file=False), lambda: random, lambda: replayable)


@pytest.mark.parametrize(
    ("on", "from_file", "codes"),
    [
        (
            {"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"},
            False,
            {1, 4, 8, 13, 14},
        ),
        ({"5xx", "reset", "data-loss"}, False, set()),  # RT-02: others are ignored
        ({"5xx"}, True, {14}),
        ({"connect-failure", "internal"}, True, {13, 14}),
        ({"retriable-4xx"}, True, set()),
    ],
)
def test_the_codes_of_a_policy(on: set[str], from_file: bool, codes: set[int]) -> None:
    assert grpc_codes(RetryPolicy(frozenset(on)), from_file=from_file) == codes


@pytest.mark.parametrize(("code", "again"), [(14, True), (1, True), (13, False), (0, False), (5, False)])
def test_a_code_that_is_named_is_retried(code: int, again: bool) -> None:
    assert (retries().after(status(code), 1.0, 0.0) is not None) is again


def test_a_connection_that_broke_is_unavailable() -> None:
    broken = Outcome(OutcomeKind.RESET, sent=True, grpc=True)
    assert retries().after(broken, 1.0, 0.0) is not None
    only_internal = RetryPolicy(frozenset({"internal"}))
    assert retries(only_internal).after(broken, 1.0, 0.0) is None


def test_time_that_is_over_is_never_retried() -> None:
    policy = RetryPolicy(frozenset({"deadline-exceeded", "unavailable"}))
    assert retries(policy).after(Outcome(OutcomeKind.TIMEOUT, sent=True, grpc=True), 1.0, 0.0) is None


def test_attempts_are_counted_and_never_more_than_five() -> None:
    """RT-03."""
    two = retries()
    assert [two.after(status(14), 1.0, 0.0) is not None for _ in range(3)] == [True, True, False]
    assert two.exhausted
    assert two.why == "all 3 attempts are used"
    many = retries(RetryPolicy(frozenset({"unavailable"}), retries=50))
    assert [many.after(status(14), 1.0, 0.0) is not None for _ in range(5)] == [True] * 4 + [False]


@pytest.mark.parametrize(("random", "waits"), [(0.5, [0.1, 0.2, 0.3, 0.3]), (0.0, [0.08, 0.16, 0.24, 0.24])])
def test_waits_double_give_or_take_a_fifth(random: float, waits: list[float]) -> None:
    """RT-04."""
    policy = RetryPolicy(frozenset({"unavailable"}), retries=4, base_interval=0.1, max_interval=0.3)
    some = retries(policy, random=random)
    found = [some.after(status(14), 1.0, 0.0) for _ in range(4)]
    assert [round(again.delay, 6) for again in found if again is not None] == waits


def test_a_call_that_is_committed_is_not_made_again() -> None:
    """RT-05."""
    committed = retries(replayable=False)
    assert committed.after(status(14), 1.0, 0.0) is None
    assert committed.why == "its messages cannot be sent again"


@pytest.mark.parametrize(
    ("said", "delay"),
    [("0", 0.0), ("250", 0.25), ("-1", None), ("soon", None), ("9" * 11, None), ("1.5", None)],
)
def test_a_server_says_when_to_come_back_or_not_to(said: str, delay: float | None) -> None:
    """RT-05: what is no number means not to."""
    some = retries()
    again = some.after(status(14, **{PUSHBACK.replace("-", "_"): said}), 1.0, 0.0)
    assert (None if again is None else again.delay) == delay
    if delay is None:
        assert "the server says not to" in some.why
    else:
        assert again is not None
        assert again.told
