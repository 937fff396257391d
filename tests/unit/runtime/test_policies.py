"""The policies of a configuration file as values of the model."""

from __future__ import annotations

import pytest

from meshlib.config import Config
from meshlib.model.policy import FailurePercentage, SuccessRate
from meshlib.runtime.policies import outlier


@pytest.mark.parametrize(("percent", "expected"), [(None, True), (50, True), (0, False)])
def test_one_endpoint_of_a_service_may_always_be_ejected(percent: int | None, expected: bool) -> None:
    written = {} if percent is None else {"max_ejection_percent": percent}
    config = Config.from_mapping({"services": {"a": {"endpoints": ["a:1"], "outlier": written}}})
    section = config.services["a"].outlier
    assert section is not None
    assert outlier(section).always_eject_one is expected


@pytest.mark.parametrize(
    ("written", "rate", "percentage"),
    [
        ({}, None, None),
        ({"success_rate": False}, None, None),
        ({"success_rate": True}, SuccessRate(5, 100, 1.9, 100), None),
        ({"failure_percentage": 85}, None, FailurePercentage(85.0, 1, 50, 100)),
        (
            {"success_rate": True, "failure_percentage": 12.5, "minimum_calls": 20},
            SuccessRate(5, 20, 1.9, 100),
            FailurePercentage(12.5, 1, 20, 100),
        ),
    ],
)
def test_success_rate_and_failure_percentage(
    written: dict[str, object], rate: SuccessRate | None, percentage: FailurePercentage | None
) -> None:
    config = Config.from_mapping({"services": {"a": {"endpoints": ["a:1"], "outlier": written}}})
    section = config.services["a"].outlier
    assert section is not None
    made = outlier(section)
    assert (made.success_rate, made.failure_percentage) == (rate, percentage)
