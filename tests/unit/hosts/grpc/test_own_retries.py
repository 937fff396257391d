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
