"""Deterministic aperture: all callers together give each endpoint the same, and what comes or goes moves little."""

import random
from collections import Counter
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.balance.aperture import Partial, aperture, width
from meshlib.core.balance.picker import make_picker
from meshlib.core.upstream import PickContext
from meshlib.model.policy import Balancer, Balancing, SlowStart
from tests.support.live_kit import live_endpoint

CONTEXT = PickContext()
KINDS = [Balancer.ROUND_ROBIN, Balancer.RANDOM, Balancer.LEAST_REQUEST, Balancer.PEAK_EWMA, Balancer.ORCA]


def endpoints(count):
    return [live_endpoint(number) for number in range(count)]


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 60))
def test_each_endpoint_is_covered_equally(count, callers, size):
    held = endpoints(count)
    size = min(size, count)
    total: Counter = Counter()
    for caller in range(callers):
        mine = aperture(held, size, caller, callers)
        assert all(0 < part <= 1 for part in mine.values())
        assert sum(mine.values()) >= size - 1e-3
        assert sum(mine.values()) == pytest.approx(width(size, count, callers) * count, abs=1e-3)
        for endpoint, part in mine.items():
            total[endpoint] += part
    each = callers * width(size, count, callers)
    assert set(total) == set(held)
    assert list(total.values()) == pytest.approx([each] * count, abs=1e-3 * callers)


@given(st.integers(2, 60), st.integers(1, 40))
def test_one_that_comes_or_goes_moves_an_arc_at_most(count, callers):
    """Who stays and was wholly inside is inside, but for one at each end."""
    held = endpoints(count)
    size = max(1, count // 3)
    for caller in range(callers):
        before = aperture(held, size, caller, callers)
        after = aperture(held[1:], size, caller, callers)
        assert len(set(before) - set(after) - {held[0]}) <= 2 + ceil(
            abs(width(size, count, callers) * count - width(size, count - 1, callers) * (count - 1))
        )


def test_the_order_is_everybodys():
    held = endpoints(30)
    shuffled = random.Random(1).sample(held, 30)
    assert aperture(held, 5, 3, 7) == aperture(shuffled, 5, 3, 7)


def test_nobody_is_there():
    assert aperture([], 5, 0, 3) == {}


def test_it_is_as_wide_as_it_must_be():
    assert width(12, 100, 10) == pytest.approx(0.2), "a tenth would be ten of them"
    assert width(10, 100, 10) == pytest.approx(0.1)
    assert width(12, 12, 5) == 1.0
    assert width(20, 12, 5) == 1.0
    assert width(1, 1000, 3) == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slow", [None, SlowStart(10.0)])
def test_who_counts_in_part_gets_that_part(kind, slow):
    held = endpoints(3)
    inner = make_picker(Balancing(kind, slow_start=slow), held, random.Random(3).random)
    made = Partial.over(inner, held, {held[0]: 0.25, held[1]: 1.0, held[2]: 0.75}, random.Random(4).random)
    counts = Counter(made.pick(CONTEXT) for _ in range(12_000))
    assert [counts[item] / 12_000 for item in held] == pytest.approx([0.125, 0.5, 0.375], abs=0.02)
    assert made.peek(CONTEXT) in held


def test_nothing_is_added_where_all_count_alike():
    held = endpoints(3)
    inner = make_picker(Balancing(), held, random.random)
    assert Partial.over(inner, held, {}, random.random) is inner
    assert Partial.over(inner, held, dict.fromkeys(held, 0.3), random.random) is inner
