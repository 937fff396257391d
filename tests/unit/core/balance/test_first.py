"""Pick first (LB-09): one endpoint, the next only while that may not be called."""

import random
from collections import Counter

from meshlib.core.balance.first import First
from meshlib.core.upstream import PickContext
from meshlib.model.policy import Balancer, Balancing
from tests.support.live_kit import REFUSED, Watched, flat, live_endpoint

CONTEXT = PickContext()


def test_the_first_is_taken_and_another_by_a_second_attempt():
    endpoints = [live_endpoint(number) for number in range(3)]
    picker = First(endpoints, None)
    assert {picker.pick(CONTEXT) for _ in range(10)} == {endpoints[0]}
    assert picker.pick(PickContext(tried=(endpoints[0],))) is endpoints[1]
    assert picker.pick(PickContext(tried=tuple(endpoints))) is endpoints[0]


def test_callers_that_shuffle_spread_and_each_stays():
    endpoints = [live_endpoint(number) for number in range(5)]
    chosen = Counter(First(endpoints, seed).pick(CONTEXT) for seed in range(400))
    assert set(chosen) == set(endpoints)
    assert max(chosen.values()) < 140
    for seed in range(20):
        first = First(endpoints, seed).pick(CONTEXT)
        rest = [endpoint for endpoint in endpoints if endpoint is first or random.random() < 0.5]
        assert First(rest, seed).pick(CONTEXT) is first


def test_a_live_cluster_goes_to_the_next_while_the_first_is_ejected():
    from meshlib.model.policy import Outlier

    outlier = Outlier(consecutive_5xx=1, max_ejection_percent=50.0, base_ejection=30.0)
    watched = Watched(flat(2, balancing=Balancing(Balancer.PICK_FIRST), outlier=outlier))
    first, second = watched.live.endpoints
    pick = watched.live.pick(CONTEXT, 0.0)
    assert pick.endpoint is first
    pick.report(REFUSED, 0.0)
    pick.release(0.0)
    assert watched.live.pick(CONTEXT, 1.0).endpoint is second
    assert watched.live.pick(CONTEXT, 50.0).endpoint is first


def test_grpc_goes_past_one_that_cannot_be_connected_to_and_back():
    watched = Watched(flat(2, balancing=Balancing(Balancer.PICK_FIRST)))
    first, second = watched.live.endpoints
    watched.live.mark_reached(first, 1)
    assert watched.live.pick(PickContext(grpc=True), 0.0).endpoint is second
    watched.live.mark_reached(first, -1)
    assert watched.live.pick(PickContext(grpc=True), 0.0).endpoint is first
