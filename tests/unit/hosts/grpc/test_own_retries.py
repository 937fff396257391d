"""What a service config says of retries (gRFC A6)."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.hosts.grpc.own_retries import OwnRetries, Throttle, throttle_of

POLICY: dict[str, Any] = {
    "maxAttempts": 3,
    "initialBackoff": "0.1s",
    "maxBackoff": "2.5s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE", "not_found", 10],
}


def config(*methods: dict[str, Any], **more: Any) -> OwnRetries:
    return OwnRetries({"methodConfig": list(methods), **more})


def test_a_policy_is_read() -> None:
    made = config({"name": [{"service": "s", "method": "m"}], "retryPolicy": POLICY}).policy("/s/m")
    assert made is not None
    assert (made.retries, made.base_interval, made.max_interval, made.multiplier) == (2, 0.1, 2.5, 3.0)
    assert (made.codes, made.on) == ({14, 5, 10}, frozenset())


def test_the_most_exact_entry_holds_also_if_it_orders_none() -> None:
    made = config(
        {"name": [{}], "retryPolicy": {**POLICY, "maxAttempts": 5}},
        {"name": [{"service": "s"}], "retryPolicy": POLICY},
        {"name": [{"service": "s", "method": "plain"}, {"service": "t", "method": ""}]},
    )
    found = [made.policy(path) for path in ("/s/m", "/s/plain", "/t/m", "/other.s/m")]
    assert [None if each is None else each.retries for each in found] == [2, None, None, 4]


def test_one_that_says_nothing_of_retries_is_none() -> None:
    assert not config({"name": [{}], "timeout": "1s"})
    assert config(retryThrottling={"maxTokens": 10, "tokenRatio": 0.1})
    assert config({"name": [{}], "retryPolicy": POLICY})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maxAttempts", 1),
        ("maxAttempts", "3"),
        ("maxAttempts", True),
        ("maxAttempts", None),
        ("initialBackoff", "0s"),
        ("initialBackoff", "-1s"),
        ("initialBackoff", "1"),
        ("initialBackoff", 1),
        ("maxBackoff", "1e3s"),
        ("backoffMultiplier", 0),
        ("backoffMultiplier", "x"),
        ("retryableStatusCodes", []),
        ("retryableStatusCodes", ["NO_SUCH_CODE"]),
        ("retryableStatusCodes", [17]),
        ("retryableStatusCodes", [[]]),
    ],
)
def test_what_grpc_refuses_is_refused(field: str, value: object) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        config({"name": [{}], "retryPolicy": {**POLICY, field: value}})


@pytest.mark.parametrize(
    "throttling",
    [
        {"maxTokens": 0, "tokenRatio": 1},
        {"maxTokens": 1001, "tokenRatio": 1},
        {"maxTokens": 9, "tokenRatio": 0},
        {},
    ],
)
def test_a_throttle_without_sense_is_refused(throttling: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        config(retryThrottling=throttling)


def test_two_entries_for_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        config({"name": [{}], "retryPolicy": POLICY}, {"name": [{}]})


def test_half_of_the_tokens_must_be_left() -> None:
    throttle = Throttle(4.0, 0.5)
    assert [throttle.failed() for _ in range(3)] == [True, False, False]
    for _ in range(4):
        throttle.succeeded()
    assert not throttle.failed()
    for _ in range(100):
        throttle.succeeded()
    assert [throttle.failed() for _ in range(2)] == [True, False], "no more than there were"


def test_channels_to_one_server_share_it() -> None:
    mine = throttle_of("stock", 10.0, 0.1)
    assert throttle_of("stock", 10.0, 0.1) is mine
    assert throttle_of("other", 10.0, 0.1) is not mine
    one = config(retryThrottling={"maxTokens": 10, "tokenRatio": 0.1}).throttle("stock")
    assert one is mine
    assert config({"name": [{}], "retryPolicy": POLICY}).throttle("stock") is None


HEDGES: dict[str, Any] = {
    "maxAttempts": 4,
    "hedgingDelay": "0.5s",
    "nonFatalStatusCodes": ["UNAVAILABLE", "internal", 10],
}


def hedges(policy: Any, **method: Any) -> OwnRetries:
    return config({"name": [{}], "hedgingPolicy": policy, **method})


def test_hedges_are_read() -> None:
    made = config(
        {"name": [{"service": "s"}], "hedgingPolicy": HEDGES}, {"name": [{}], "retryPolicy": POLICY}
    )
    hedge = made.hedge("/s/m")
    assert hedge is not None
    assert (hedge.after, hedge.most, hedge.codes, hedge.own) == (0.5, 4, {14, 13, 10}, True)
    assert (hedge.methods, hedge.budget) == (None, None)
    assert made.policy("/s/m") is None
    assert made.hedge("/t/m") is None
    assert made.policy("/t/m") is not None
    assert made.refused == ""
    assert hedges(HEDGES)


def test_what_may_be_missing_of_hedges_is_and_more_than_five_attempts_are_five() -> None:
    hedge = hedges({"maxAttempts": 9}).hedge("/s/m")
    assert hedge is not None
    assert (hedge.after, hedge.most, hedge.codes) == (0.0, 5, frozenset())
    answered = hedges({"maxAttempts": 2, "nonFatalStatusCodes": ["OK"]}).hedge("/s/m")
    assert answered is not None
    assert answered.codes == frozenset(), "an answer is none that others are waited for"


@pytest.mark.parametrize(
    ("policy", "where"),
    [
        ([], ""),
        ({}, ".maxAttempts"),
        ({**HEDGES, "maxAttempts": 1}, ".maxAttempts"),
        ({**HEDGES, "maxAttempts": "3"}, ".maxAttempts"),
        ({**HEDGES, "maxAttempts": 2.5}, ".maxAttempts"),
        ({**HEDGES, "maxAttempts": True}, ".maxAttempts"),
        ({**HEDGES, "hedgingDelay": 1}, ".hedgingDelay"),
        ({**HEDGES, "hedgingDelay": "-1s"}, ".hedgingDelay"),
        ({**HEDGES, "hedgingDelay": "1"}, ".hedgingDelay"),
        ({**HEDGES, "nonFatalStatusCodes": "UNAVAILABLE"}, ".nonFatalStatusCodes"),
        ({**HEDGES, "nonFatalStatusCodes": ["UNAVAILABLE", "NONE"]}, ".nonFatalStatusCodes[1]"),
        ({**HEDGES, "nonFatalStatusCodes": [17]}, ".nonFatalStatusCodes[0]"),
        ({**HEDGES, "nonFatalStatusCodes": [True]}, ".nonFatalStatusCodes[0]"),
        ({**HEDGES, "nonFatalStatusCodes": [[]]}, ".nonFatalStatusCodes[0]"),
    ],
)
def test_hedges_that_a6_refuses_are_told_with_their_place(policy: Any, where: str) -> None:
    made = hedges(policy)
    assert f"field:methodConfig[0].hedgingPolicy{where} error:" in made.refused
    assert made, "its calls must hear of it"
    assert made.hedge("/s/m") is None


def test_a_method_has_retries_or_hedges_and_all_that_is_wrong_is_told() -> None:
    both = hedges({"hedgingDelay": 1}, retryPolicy=POLICY).refused
    assert "methodConfig[0].hedgingPolicy error:retryPolicy is set too" in both
    assert ".maxAttempts error:field not present" in both
    assert ".hedgingDelay error:" in both
