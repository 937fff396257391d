"""Slow start with every picker: the share of a new endpoint grows as Envoy's factor says, and nobody pays once it is whole."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from meshlib.core.balance.picker import make_picker
from meshlib.core.balance.warming import Warming
from meshlib.core.upstream import PickContext
from meshlib.model.policy import Balancer, Balancing, SlowStart
from tests.support.live_kit import Watched, endpoint, flat, live_endpoint, locality

KINDS = [Balancer.ROUND_ROBIN, Balancer.RANDOM, Balancer.LEAST_REQUEST, Balancer.PEAK_EWMA, Balancer.ORCA]


def share(kind, age, *, slow, weights=(1, 1, 1), picks=8000):
    """The part of the calls that the last of the endpoints gets, which came ``age`` seconds ago."""
    endpoints = [live_endpoint(number, weight) for number, weight in enumerate(weights)]
    endpoints[-1].since = 100.0
    picker = make_picker(Balancing(kind, slow_start=slow), endpoints, random.Random(7).random)
    context = PickContext()
    context.now = 100.0 + age
    return Counter(picker.pick(context) for _ in range(picks))[endpoints[-1]] / picks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("age", "aggression", "factor"), [(0.0, 1.0, 0.1), (5.0, 1.0, 0.5), (2.5, 2.0, 0.5), (10.0, 1.0, 1.0)]
)
def test_the_share_grows(kind, age, aggression, factor):
    found = share(kind, age, slow=SlowStart(10.0, aggression))
    assert found == pytest.approx(factor / (2 + factor), abs=0.02)


def test_weights_count_beside():
    found = share(Balancer.ROUND_ROBIN, 5.0, slow=SlowStart(10.0), weights=(1, 1, 4))
    assert found == pytest.approx(2 / 4, abs=0.02)


def test_a_least_part_of_nothing_still_ends():
    assert share(Balancer.RANDOM, 0.0, slow=SlowStart(10.0, least=0.0)) < 0.01
    alone = live_endpoint(0)
    alone.since = 5.0
    picker = make_picker(Balancing(slow_start=SlowStart(10.0, least=0.0)), [alone], lambda: 0.99)
    context = PickContext()
    context.now = 5.0
    assert picker.pick(context) is alone


def test_where_all_came_at_once_nobody_is_new():
    endpoints = [live_endpoint(number) for number in range(3)]
    for each in endpoints:
        each.since = 50.0
    picker = make_picker(Balancing(slow_start=SlowStart(10.0)), endpoints, lambda: 0.999)
    assert isinstance(picker, Warming)
    context = PickContext()
    context.now = 50.0
    assert len({picker.pick(context) for _ in range(3)}) == 3


def test_an_update_of_a_live_cluster_brings_a_new_one_slowly():
    slow = Balancing(slow_start=SlowStart(10.0))
    watched = Watched(flat(2, balancing=slow), now=100.0)
    live = watched.live
    three = replace(
        flat(2, balancing=slow),
        assignment=flat(3).assignment,
    )
    live.update(three, 200.0)
    new = live.endpoints[2]

    def part(now):
        counts = Counter()
        for _ in range(3000):
            pick = live.pick(PickContext(), now)
            counts[pick.endpoint] += 1
            pick.release(now)
        return counts[new] / 3000

    assert part(200.0) == pytest.approx(0.1 / 2.1, abs=0.02)
    assert part(205.0) == pytest.approx(0.5 / 2.5, abs=0.02)
    live.update(replace(three, limits=replace(three.limits, max_requests=99)), 206.0)
    assert part(206.0) == pytest.approx(0.6 / 2.6, abs=0.02), "an update is no new beginning"
    assert part(210.0) == pytest.approx(1 / 3, abs=0.02)


def test_slow_start_that_is_switched_on_finds_nobody_new():
    watched = Watched(flat(2), now=100.0)
    watched.live.update(flat(2, balancing=Balancing(slow_start=SlowStart(10.0))), 200.0)
    with_one_more = replace(
        flat(2, balancing=Balancing(slow_start=SlowStart(10.0))),
        assignment=replace(flat(2).assignment, localities=(locality(*(endpoint(n) for n in range(3))),)),
    )
    assert all(each.since < 0 for each in watched.live.endpoints)
    watched.live.update(with_one_more, 300.0)
    assert [each.since for each in watched.live.endpoints][2] == 300.0
