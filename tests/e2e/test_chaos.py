"""Chaos, in small: the same calls through a real Envoy and through meshlib while endpoints are killed, stopped, silent, slow and reset, and
their weights change each second. ``make chaos`` is the same with 100,000 calls of each side.
"""

from __future__ import annotations

import pytest

from bench.chaos.__main__ import table, worse
from bench.chaos.stage import run
from tests.support.late import again_if_late, soon

CALLS = 1_500


@pytest.mark.timeout(240)
@again_if_late
def test_calls_fail_no_more_often_and_end_no_later_than_through_an_envoy() -> None:
    """Of so few calls a handful decides, and a loaded machine may take its time from one process and not from the other: the p99 lies on
    either side of the timeout of an attempt, half a second.
    """
    sides = run(calls=CALLS, rate=100.0, callers=32, seed=2)
    shown = table(sides)
    print(f"\n{shown}")
    for envoy, ours in zip(sides[::2], sides[1::2], strict=True):
        assert len(ours.times) == len(envoy.times) == CALLS
        assert envoy.extra, "nothing that was broken was on any call's way"
        retriable = sum(ours.failures.values()) - ours.failures["ReadError"]
        assert retriable <= CALLS // 200, f"calls that could have been retried failed:\n{shown}"
    assert not [line for line in worse(sides, beyond=4.0) if "failed" in line], shown
    for envoy, ours in zip(sides[::2], sides[1::2], strict=True):
        soon(ours.quantile(0.99), max(2 * envoy.quantile(0.99), 1.0), f"the p99 of {ours.pair}")
