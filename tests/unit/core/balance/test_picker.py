"""Pickers: shares follow weights, whoever is made for a picker can be picked, nobody else is."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.core.balance.least import LeastRequest, WeightedLeastRequest
from meshlib.core.balance.picker import make_picker
from meshlib.core.balance.rand import Random
from meshlib.core.balance.robin import RoundRobin, WeightedRoundRobin
from meshlib.core.upstream import PickContext
from meshlib.model.policy import Balancer, Balancing
from tests.support.live_kit import live_endpoint

CONTEXT = PickContext()
#: The kinds that are made for one locality, and those of them that schedule turns.
KINDS = [kind for kind in Balancer if not Balancing(kind).consistent]
SCHEDULES = [Balancer.ROUND_ROBIN, Balancer.LEAST_REQUEST, Balancer.ORCA]
weights = st.lists(st.integers(1, 20), min_size=1, max_size=12)
seeds = st.integers(0, 2**32)


def made(kind, sizes, seed=1, **fields):
    endpoints = [live_endpoint(number, weight) for number, weight in enumerate(sizes)]
    return make_picker(Balancing(kind, **fields), endpoints, random.Random(seed).random), endpoints


@pytest.mark.parametrize(
    ("kind", "even", "uneven"),
    [
        (Balancer.ROUND_ROBIN, RoundRobin, WeightedRoundRobin),
        (Balancer.RANDOM, Random, Random),
        (Balancer.LEAST_REQUEST, LeastRequest, WeightedLeastRequest),
    ],
)
def test_weights_are_only_paid_for_where_they_differ(kind, even, uneven):
    assert type(made(kind, [3, 3])[0]) is even
    assert type(made(kind, [3, 4])[0]) is uneven


@given(st.sampled_from(KINDS), weights, seeds)
def test_a_peek_at_a_schedule_is_the_next_pick(kind, sizes, seed):
    picker, endpoints = made(kind, sizes, seed)
    for _ in range(20):
        seen = picker.peek(CONTEXT)
        picked = picker.pick(CONTEXT)
        assert picked in endpoints
        assert seen in endpoints
        if isinstance(picker, RoundRobin | WeightedRoundRobin | WeightedLeastRequest):
            assert seen is picked


@given(st.integers(1, 50), seeds)
def test_round_robin_gives_each_its_turn(count, seed):
    picker, endpoints = made(Balancer.ROUND_ROBIN, [1] * count, seed)
    picked = [picker.pick(CONTEXT) for _ in range(3 * count)]
    assert picked[:count] == picked[count : 2 * count] == picked[2 * count :]
    assert set(picked) == set(endpoints)


def test_round_robin_starts_anywhere():  # LB-01
    starts = {made(Balancer.ROUND_ROBIN, [1] * 4, seed)[0].pick(CONTEXT).name for seed in range(40)}
    assert len(starts) == 4


@given(weights, seeds, st.integers(1, 200))
def test_weighted_round_robin_keeps_to_the_share_at_every_moment(sizes, seed, picks):
    """Between any two moments an endpoint has its share of the turns to within one turn for each member."""
    picker, endpoints = made(Balancer.ROUND_ROBIN, [*sizes, 21], seed)
    counts = Counter(picker.pick(CONTEXT) for _ in range(picks))
    total = sum(endpoint.weight for endpoint in endpoints)
    for endpoint in endpoints:
        assert abs(counts[endpoint] - picks * endpoint.weight / total) <= len(endpoints)


@given(weights, seeds)
def test_weighted_round_robin_is_exact_over_a_round(sizes, seed):
    picker, endpoints = made(Balancer.ROUND_ROBIN, [*sizes, 21], seed)
    total = sum(endpoint.weight for endpoint in endpoints)
    counts = Counter(picker.pick(CONTEXT) for _ in range(10 * total))
    for endpoint in endpoints:
        assert abs(counts[endpoint] - 10 * endpoint.weight) <= 1


def test_a_heavy_endpoint_does_not_come_in_bunches():
    picker, endpoints = made(Balancer.ROUND_ROBIN, [5, 1, 1, 1, 1, 1])
    picked = "".join("H" if picker.pick(CONTEXT) is endpoints[0] else "l" for _ in range(300))
    assert "HHHH" not in picked


@settings(max_examples=25)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), seeds)
def test_random_draws_each_alike_whatever_the_weights(sizes, seed):  # LB-12
    picker, endpoints = made(Balancer.RANDOM, [*sizes, 21], seed)
    counts = Counter(picker.pick(CONTEXT) for _ in range(4000))
    share = 1 / len(endpoints)
    for endpoint in endpoints:
        # Six standard deviations: one failure in half a billion.
        assert abs(counts[endpoint] - 4000 * share) <= 6 * (4000 * share * (1 - share)) ** 0.5 + 1


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0 - 2**-53])
@pytest.mark.parametrize("sizes", [[1], [1, 1, 1], [1, 2, 3], [2**32 - 1, 1]])
@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_chance_stay_inside(kind, sizes, chance):
    endpoints = [live_endpoint(number, weight) for number, weight in enumerate(sizes)]
    picker = make_picker(Balancing(kind), endpoints, lambda: chance)
    assert all(picker.pick(CONTEXT) in endpoints for _ in range(5))


@given(st.lists(st.integers(0, 50), min_size=2, max_size=10), seeds)
def test_of_two_choices_the_less_busy_is_taken(active, seed):
    drawn = []

    def watched():
        drawn.append(source.random())
        return drawn[-1]

    source = random.Random(seed)
    endpoints = [live_endpoint(number) for number in range(len(active))]
    for endpoint, busy in zip(endpoints, active, strict=True):
        endpoint.active = busy
    picker = LeastRequest(endpoints, watched, 2)
    picked = picker.pick(CONTEXT)
    choices = [endpoints[int(point * len(endpoints))] for point in drawn]
    assert len(choices) == 2
    assert picked.active == min(choice.active for choice in choices)


def test_choices_from_the_network_are_bounded():
    calls = 0

    def rand():
        nonlocal calls
        calls += 1
        return 0.5

    LeastRequest([live_endpoint(0), live_endpoint(1)], rand, 2**32 - 1).pick(CONTEXT)
    assert calls <= 32


def test_least_request_keeps_the_queues_level():
    """Held calls, one endpoint never answers: it must not collect them."""
    picker, endpoints = made(Balancer.LEAST_REQUEST, [1] * 10)
    endpoints[3].active = 100
    for _ in range(1000):
        picked = picker.pick(CONTEXT)
        picked.active += 1
    assert endpoints[3].active < 120
    others = [endpoint.active for endpoint in endpoints if endpoint is not endpoints[3]]
    assert max(others) - min(others) <= 8


def test_weighted_least_request_shuns_the_busy():  # LB-06
    shares = {}
    for bias in (0.0, 1.0, 2.0):
        picker, endpoints = made(Balancer.LEAST_REQUEST, [2, 1, 1], active_request_bias=bias)
        endpoints[0].active = 3
        counts = Counter(picker.pick(CONTEXT).name for _ in range(4000))
        shares[bias] = counts[endpoints[0].name] / 4000
    assert shares[0.0] == pytest.approx(2 / 4, abs=0.01)
    assert shares[1.0] == pytest.approx(0.5 / 2.5, abs=0.01)
    assert shares[2.0] == pytest.approx(0.125 / 2.125, abs=0.01)


def test_a_bias_beyond_floats_starves_nobody_else():
    picker, endpoints = made(Balancer.LEAST_REQUEST, [2, 1], active_request_bias=1e6)
    endpoints[0].active = 1000
    assert {picker.pick(CONTEXT) for _ in range(100)} >= {endpoints[1]}


@pytest.mark.parametrize("kind", [*SCHEDULES, Balancer.RANDOM])
def test_ten_thousand_endpoints_all_get_calls(kind):
    picker, endpoints = made(kind, [1 + number % 2 for number in range(10_000)])
    picked = {picker.pick(CONTEXT).name for _ in range(30_000)}
    assert len(picked) > (9_000 if kind is Balancer.RANDOM else 9_999)
    assert picked <= {endpoint.name for endpoint in endpoints}
