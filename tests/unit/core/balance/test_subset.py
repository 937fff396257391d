"""LB-12: random subsetting. A caller's subset is its own, changes by one at most, and all callers together are fair."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.balance.subset import random_subset
from tests.support.live_kit import live_endpoint

SEEDS = st.integers(0, 2**64 - 1)


def endpoints(numbers):
    return [live_endpoint(number) for number in numbers]


@given(st.sets(st.integers(0, 500), min_size=1, max_size=60), st.integers(1, 30), SEEDS)
def test_lb_12_a_host_that_comes_or_goes_changes_one_at_most(numbers, size, seed):
    held = endpoints(numbers)
    before = random_subset(held, size, seed)
    assert len(before) == min(size, len(held))
    for endpoint in held:
        after = random_subset([other for other in held if other is not endpoint], size, seed)
        assert len(set(before) - set(after)) == (endpoint in before)
        assert len(set(after) - set(before)) <= 1


@given(st.sets(st.integers(0, 500), min_size=1, max_size=40), SEEDS)
def test_the_order_in_which_they_come_does_not_matter(numbers, seed):
    held = endpoints(numbers)
    shuffled = random.Random(1).sample(held, len(held))
    assert random_subset(held, 7, seed) == random_subset(shuffled, 7, seed)


def test_lb_12_callers_spread_evenly():
    """Of 2,000 callers of 5 each among 50 endpoints each endpoint has 200, within the sampling error."""
    rng, held, callers, size = random.Random(5), endpoints(range(50)), 2000, 5
    counts: Counter = Counter()
    for _ in range(callers):
        counts.update(random_subset(held, size, rng.getrandbits(64)))
    share = size / 50
    sigma = math.sqrt(callers * share * (1 - share))
    assert len(counts) == 50
    assert max(abs(count - callers * share) for count in counts.values()) < 4.5 * sigma
    chi = sum((count - callers * share) ** 2 / (callers * share * (1 - share)) for count in counts.values())
    assert 20 < chi < 95, "49 degrees of freedom"


def test_two_callers_have_two_subsets():
    held = endpoints(range(100))
    assert set(random_subset(held, 10, 1)) != set(random_subset(held, 10, 2))
    assert random_subset(held, 10, 1) == random_subset(held, 10, 1)


@pytest.mark.parametrize("size", [3, 4, 100])
def test_where_there_are_no_more_all_are_called(size):
    held = endpoints(range(3))
    assert set(random_subset(held, size, 9)) == set(held)
