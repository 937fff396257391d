"""Quantiles of the last minute, against what was added."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.latency import SLICE, Latency

SHARES = (0.5, 0.99)
WITHIN = pytest.approx


def test_nothing_has_no_quantiles():
    assert Latency(0.0).quantiles(SHARES, 0.0) is None


@given(st.lists(st.floats(2e-5, 900.0), min_size=1, max_size=300))
def test_a_quantile_is_known_to_within_a_twentieth(seconds):
    latency = Latency(0.0)
    for each in seconds:
        latency.add(each, 1.0)
    found = latency.quantiles(SHARES, 1.0)
    assert found is not None
    for share, said in zip(SHARES, found, strict=True):
        true = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
        assert said == WITHIN(true, rel=0.05)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9, 1e9, math.inf])
def test_what_is_beyond_the_bounds_counts_at_them(seconds):
    latency = Latency(0.0)
    latency.add(seconds, 0.0)
    found = latency.quantiles(SHARES, 0.0)
    assert found is not None
    assert 0.0 < found[0] < 1100.0


def test_a_minute_later_it_is_forgotten():
    latency = Latency(100.0)
    latency.add(0.010, 100.0)
    latency.add(1.0, 100.0 + 2 * SLICE)
    assert latency.quantiles(SHARES, 100.0 + 3 * SLICE) == (WITHIN(0.010, rel=0.05), WITHIN(1.0, rel=0.05))
    assert latency.quantiles(SHARES, 100.0 + 4 * SLICE) == (WITHIN(1.0, rel=0.05), WITHIN(1.0, rel=0.05))
    assert latency.quantiles(SHARES, 100.0 + 6 * SLICE) is None
    latency.add(0.5, 100.0 + 1e6)
    assert latency.quantiles(SHARES, 100.0 + 1e6) == (WITHIN(0.5, rel=0.05), WITHIN(0.5, rel=0.05))


@given(st.lists(st.tuples(st.floats(0.0, 40.0), st.floats(0.001, 10.0)), min_size=1, max_size=100))
def test_what_is_read_is_of_the_last_minute_and_of_all_of_the_last_45_seconds(steps):
    latency, now, added = Latency(0.0), 0.0, []
    for pause, seconds in steps:
        now += pause
        latency.add(seconds, now)
        added.append((now, seconds))
    found = latency.quantiles((0.0, 1.0), now)
    assert found is not None
    recent = [seconds for at, seconds in added if at > now - 4 * SLICE]
    surely = [seconds for at, seconds in added if at > now - 3 * SLICE]
    assert min(recent) * 0.95 <= found[0] <= min(surely) * 1.05
    assert max(surely) * 0.95 <= found[1] <= max(recent) * 1.05
