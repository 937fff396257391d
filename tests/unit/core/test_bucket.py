"""A token bucket lets no more pass than its numbers say, and no less."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.bucket import Bucket
from meshlib.model.policy import RateLimit

gaps = st.lists(st.floats(0, 2), min_size=1, max_size=200)


@given(gaps, st.floats(0.1, 50), st.integers(1, 20))
def test_over_any_time_no_more_than_the_burst_and_the_rate(gaps, rate, burst):
    bucket, now, passed = Bucket(RateLimit(rate, burst), 0.0), 0.0, []
    for gap in gaps:
        now += gap
        if bucket.take(now):
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - passed[first]) + 1e-6


def test_as_many_as_it_says():
    bucket = Bucket(RateLimit(10.0, 3), 100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(100.05), bucket.take(100.11)] == [False, True]
    assert sum(bucket.take(101.0 + step * 0.01) for step in range(1000)) == pytest.approx(102, abs=1)


def test_other_numbers_keep_what_fits():
    bucket = Bucket(RateLimit(1.0, 10), 0.0)
    bucket.configure(RateLimit(1.0, 2))
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    bucket.configure(RateLimit(1.0, 50))
    assert not bucket.take(0.0), "what is not in it does not come by a larger burst"
