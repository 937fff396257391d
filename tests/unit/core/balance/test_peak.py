"""Peak EWMA: the slow are left at once and tried again in time, failures cost latency, nobody unknown is stormed."""

import random
from collections import Counter
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.balance.peak import PeakEwma
from meshlib.core.ewma import DECAY, LEAST_PENALTY, PENALTY, Ewma
from meshlib.core.upstream import PickContext
from tests.support.live_kit import live_endpoint


def known(number, seconds, *, active=0, weight=1):
    endpoint = live_endpoint(number, weight)
    endpoint.active = active
    if seconds is not None:
        endpoint.ewma = Ewma(0.0)
        endpoint.ewma.add(seconds, 0.0, good=True)
    return endpoint


def shares(endpoints, *, now=0.0, picks=4000, weighted=False):
    picker, context = PeakEwma(endpoints, random.Random(3).random, weighted=weighted), PickContext()
    context.now = now
    counts = Counter(picker.pick(context) for _ in range(picks))
    return [counts[endpoint] / picks for endpoint in endpoints]


def test_a_peak_takes_the_means_place_at_once_and_decays():
    ewma = Ewma(0.0)
    ewma.add(0.01, 0.0, good=True)
    ewma.add(1.0, 1.0, good=True)
    assert ewma.seconds == 1.0
    assert ewma.decayed(1.0 + DECAY) == pytest.approx(exp(-1))
    ewma.add(0.0, 1.0 + DECAY, good=True)
    assert ewma.seconds == pytest.approx(exp(-1))


def test_a_failure_costs_latency():
    """What fails at once must not look like the fastest."""
    ewma = Ewma(0.0)
    ewma.add(0.5, 0.0, good=True)
    ewma.add(0.001, 0.0, good=False)
    assert ewma.seconds == 0.5 * PENALTY
    fresh = Ewma(0.0)
    fresh.add(0.001, 0.0, good=False)
    assert fresh.seconds == LEAST_PENALTY


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10), st.booleans()), max_size=30))
def test_a_mean_stays_within_what_was_seen(samples):
    ewma, now, most = Ewma(0.0), 0.0, 0.0
    for seconds, later, good in samples:
        now += later
        penalised = seconds if good else max(seconds, ewma.decayed(now) * PENALTY, LEAST_PENALTY)
        most = max(most, penalised)
        ewma.add(seconds, now, good=good)
        assert 0.0 <= ewma.seconds <= most * (1 + 1e-9)


def test_the_slow_one_gets_nothing_of_two_and_a_little_of_many():
    assert shares([known(0, 0.01), known(1, 0.2)])[1] == 0.0
    many = [known(number, 0.01) for number in range(9)] + [known(9, 0.2)]
    assert shares(many)[9] == 0.0


def test_calls_in_flight_weigh():
    assert shares([known(0, 0.01, active=30), known(1, 0.2)])[1] == 1.0


def test_a_slow_one_comes_back_as_time_goes_by():
    fast, slow = known(0, None), known(1, 1.0)
    fast.ewma = Ewma(60.0)
    fast.ewma.add(0.01, 60.0, good=True)
    assert shares([fast, slow], now=1.0)[1] == 0.0
    assert shares([fast, slow], now=60.0)[1] == 1.0


def test_one_that_nobody_knows_is_tried_by_one_call_at_a_time():
    unknown = known(1, None)
    assert shares([known(0, 0.5), unknown])[1] == 1.0
    unknown.active = 1
    assert shares([known(0, 0.5), unknown])[1] == 0.0


def test_weights_divide_the_cost():
    assert shares([known(0, 0.1, weight=1), known(1, 0.2, weight=4)], weighted=True)[1] == 1.0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_two_are_drawn_that_differ(count):
    endpoints = [known(number, 0.1) for number in range(count)]
    assert min(shares(endpoints)) > 0.8 / count


def test_a_live_cluster_learns_and_an_update_keeps_what_it_learnt():
    from dataclasses import replace

    from meshlib.model.call import Outcome, OutcomeKind
    from meshlib.model.policy import Balancer, Balancing
    from tests.support.live_kit import Watched, flat

    watched = Watched(flat(2, balancing=Balancing(Balancer.PEAK_EWMA)))
    live = watched.live
    slow = None
    for _ in range(50):
        pick = live.pick(PickContext(), 0.0)
        slow = slow or pick.endpoint
        seconds = 1.0 if pick.endpoint is slow else 0.01
        pick.report(Outcome(OutcomeKind.OK, status=200, sent=True, seconds=seconds), 0.0)
        pick.release(0.0)
    assert slow.ewma.seconds == 1.0
    bigger = flat(3, balancing=Balancing(Balancer.PEAK_EWMA))
    live.update(replace(bigger, name=live.cluster.name), 0.0)
    assert slow.ewma.seconds == 1.0
    before = slow.requests
    for _ in range(30):
        live.pick(PickContext(), 0.0).release(0.0)
    assert slow.requests == before
