"""OD-01 to OD-05: success rate and failure percentage, by Envoy's rule and by gRPC's, judged at sweeps."""

import math
import statistics
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meshlib.core.classify import CANCELLED, Verdict, verdict
from meshlib.core.outlier import Ejected, Ejections
from meshlib.core.tallies import Origin, Tallies, _median_without
from meshlib.core.upstream import PickContext
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.events import EndpointEjected
from meshlib.model.policy import FailurePercentage, Outlier, SlowOutlier, SuccessRate
from tests.support.live_kit import REFUSED, Watched, flat, live_endpoint

GOOD, BAD, LOCAL = Verdict(True, 200), Verdict(False, 500), Verdict(False, 503, local=True)
GRPC_GOOD, GRPC_BAD = Verdict(True, 200, grpc=True), Verdict(False, 503, grpc=True)
GRPC_LOCAL = Verdict(False, 503, local=True, grpc=True)
RATE = SuccessRate(request_volume=10)
PERCENTAGE = FailurePercentage(threshold=50.0, minimum_hosts=1, request_volume=10, enforcing=100)


class Hosts:
    """A cluster whose consecutive detectors are off."""

    def __init__(self, count=5, rand=lambda: 0.0, **fields):
        off = {
            "consecutive_5xx": 0,
            "consecutive_gateway": 0,
            "consecutive_local_origin": 0,
            "success_rate": None,
        }
        self.hosts = [live_endpoint(number) for number in range(count)]
        self.ejections = Ejections(Outlier(**{"max_ejection_percent": 100.0, **off, **fields}), rand, 0.0)

    def hear(self, number, *verdicts, now=0.0):
        for item in verdicts:
            assert self.ejections.hear(self.hosts[number], item, len(self.hosts), now) is None

    def calls(self, *failed, of=10, good=GOOD, bad=BAD, now=0.0):
        """So many calls to each host, so many of which failed."""
        for number, count in enumerate(failed):
            self.hear(number, *[good] * (of - count), *[bad] * count, now=now)

    def sweep(self, now=10.0):
        return self.ejections.sweep(now, len(self.hosts))

    @property
    def out(self):
        return [number for number, host in enumerate(self.hosts) if host.ejected]


# --- success rate -----------------------------------------------------------------------------------------------------


def test_one_that_is_far_below_the_others_is_ejected():
    """Envoy's own example: shares of 50, 100, 100, 100, 100 have the mean 90, the deviation 20 and the bound 52."""
    hosts = Hosts(success_rate=RATE)
    hosts.calls(5, 0, 0, 0, 0)
    assert hosts.out == []
    [found] = hosts.sweep()
    assert (found.endpoint, found.seconds) == (hosts.hosts[0], 30.0)
    assert found.reason == "success rate: 50.0%, the mean is 90.0%"
    assert hosts.out == [0]


@pytest.mark.parametrize(
    ("factor", "failed", "out"),
    [
        (1.9, (1, 0, 0, 0, 0), [0]),  # of five one alone is always two deviations below
        (2.1, (9, 0, 0, 0, 0), []),
        (1.9, (5, 5, 0, 0, 0), []),
        (1.9, (0, 0, 0, 0, 0), []),
        (1.9, (10, 10, 10, 10, 10), []),
        (0.0, (5, 0, 0, 0, 0), [0]),
        (1.0, (5, 5, 0, 0, 0), [0, 1]),
    ],
)
def test_the_bound_is_the_mean_less_some_deviations(factor, failed, out):
    hosts = Hosts(success_rate=SuccessRate(request_volume=10, stdev_factor=factor))
    hosts.calls(*failed)
    hosts.sweep()
    assert hosts.out == out


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_equal_shares_are_equal(factor):
    """As floats the mean of five times 0.92 is more than 0.92."""
    hosts = Hosts(success_rate=SuccessRate(request_volume=10, stdev_factor=factor))
    hosts.calls(2, 2, 2, 2, 2, of=25)
    assert hosts.sweep() == []


def test_who_is_out_is_no_part_of_the_mean():
    hosts = Hosts(6, consecutive_5xx=10, success_rate=RATE)
    hosts.calls(5, 0, 0, 0, 0)
    hosts.hear(5, *[BAD] * 9)
    assert hosts.ejections.hear(hosts.hosts[5], BAD, 6, 0.0) is not None
    assert [item.reason for item in hosts.sweep()] == ["success rate: 50.0%, the mean is 90.0%"]


def test_who_has_too_few_calls_is_not_looked_at():
    hosts = Hosts(6, success_rate=RATE)
    hosts.calls(0, 0, 0, 0, 5)
    hosts.hear(5, *[BAD] * 9)
    [found] = hosts.sweep()
    assert (found.endpoint, found.reason) == (hosts.hosts[4], "success rate: 50.0%, the mean is 90.0%")


def test_where_too_few_have_enough_calls_nobody_is_looked_at():
    hosts = Hosts(6, success_rate=RATE)
    hosts.calls(9, 0, 0, 0)
    hosts.hear(4, *[GOOD] * 9)
    assert hosts.sweep() == []


def test_each_host_counts_once_however_many_calls_it_had():
    hosts = Hosts(success_rate=RATE)
    hosts.calls(5, 0, 0, 0, 0)
    hosts.hear(1, *[GOOD] * 1000)
    assert [item.reason for item in hosts.sweep()] == ["success rate: 50.0%, the mean is 90.0%"]


# --- failure percentage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failed", "threshold", "envoy", "grpc"),
    [(4, 50.0, 0, 0), (5, 50.0, 1, 0), (6, 50.0, 1, 1), (10, 100.0, 1, 0), (0, 0.0, 1, 0), (1, 0.0, 1, 1)],
)
def test_envoy_ejects_at_the_threshold_and_grpc_above_it(failed, threshold, envoy, grpc):  # OD-04, DV-05
    config = FailurePercentage(threshold, minimum_hosts=1, request_volume=10, enforcing=100)
    hosts = Hosts(failure_percentage=config)
    hosts.calls(failed)
    assert len(hosts.sweep()) == envoy
    hosts = Hosts(failure_percentage=config)
    hosts.calls(failed, good=GRPC_GOOD, bad=GRPC_BAD)
    assert len(hosts.sweep()) == grpc


def test_a_threshold_between_two_floats_is_met_exactly():
    hosts = Hosts(failure_percentage=FailurePercentage(7.0, 1, 10, enforcing=100))
    hosts.calls(7, of=100)
    assert [item.reason for item in hosts.sweep()] == ["failure percentage: 7 of 100"]


def test_minimum_hosts_are_those_with_enough_calls():
    for busy, out in ((2, []), (3, [0])):
        hosts = Hosts(failure_percentage=FailurePercentage(50.0, 3, 10, enforcing=100))
        hosts.calls(10, *[0] * (busy - 1))
        hosts.hear(4, *[BAD] * 9)
        hosts.sweep()
        assert hosts.out == out


@pytest.mark.parametrize(("chance", "out"), [(0.0, [0]), (0.29, [0]), (0.30, []), (0.9, [])])
def test_enforcing_is_a_chance(chance, out):
    for fields in (
        {"failure_percentage": FailurePercentage(50.0, 1, 10, enforcing=30)},
        {"success_rate": SuccessRate(request_volume=10, enforcing=30)},
    ):
        hosts = Hosts(rand=lambda: chance, **fields)
        hosts.calls(9, 0, 0, 0, 0)
        hosts.sweep()
        assert hosts.out == out


# --- intervals --------------------------------------------------------------------------------------------------------


def test_each_interval_starts_from_nothing():
    hosts = Hosts(failure_percentage=PERCENTAGE)
    hosts.calls(5, of=5)
    assert hosts.sweep(10.0) == []
    hosts.calls(5, of=5, now=11.0)
    assert hosts.sweep(20.0) == []
    hosts.calls(10, now=21.0)
    assert len(hosts.sweep(30.0)) == 1


def test_a_late_sweep_ejects_as_of_the_time_that_it_was_due():
    hosts = Hosts(failure_percentage=PERCENTAGE)
    hosts.calls(10)
    [found] = hosts.sweep(35.0)
    assert found.seconds == 30.0
    assert hosts.ejections.left(hosts.hosts[0], 35.0) == 5.0  # from 10 to 40
    assert hosts.sweep(40.0) == [hosts.hosts[0]]


def test_a_very_late_sweep_tells_of_both():
    hosts = Hosts(failure_percentage=PERCENTAGE)
    hosts.calls(10)
    ejected, returned = hosts.sweep(1000.0)
    assert isinstance(ejected, Ejected)
    assert ejected.endpoint is returned is hosts.hosts[0]
    assert hosts.out == []
    hosts.calls(10, now=1000.0)
    assert hosts.sweep(1010.0)[0].seconds == 30.0  # the healthy sweeps since brought the multiplier down


def test_a_host_that_returns_makes_room_in_the_same_sweep():
    hosts = Hosts(max_ejection_percent=20.0, base_ejection=10.0, failure_percentage=PERCENTAGE)
    hosts.calls(10)
    hosts.sweep(10.0)
    hosts.calls(0, 10, now=11.0)
    back, ejected = hosts.sweep(20.0)
    assert (back, ejected.endpoint) == (hosts.hosts[0], hosts.hosts[1])


def test_a_host_that_fails_while_it_is_out_does_not_return_for_long():
    """In panic mode it is called all the same."""
    hosts = Hosts(base_ejection=10.0, failure_percentage=PERCENTAGE)
    hosts.calls(10)
    hosts.sweep(10.0)
    hosts.calls(10, now=11.0)
    back, again = hosts.sweep(20.0)
    assert (back, again.endpoint, again.seconds) == (hosts.hosts[0], hosts.hosts[0], 20.0)


def test_an_ejection_at_a_sweep_finds_the_multiplier_as_it_was():
    hosts = Hosts(base_ejection=10.0, failure_percentage=PERCENTAGE)
    seconds = []
    for start in (0.0, 20.0, 50.0):
        hosts.calls(10, now=start)
        found = [item for item in hosts.sweep(start + 10.0) if isinstance(item, Ejected)]
        seconds.append(found[0].seconds)
        hosts.sweep(start + 10.0 + seconds[-1])
    assert seconds == [10.0, 20.0, 30.0]


def test_who_is_out_is_not_judged_and_not_ejected_twice():
    hosts = Hosts(consecutive_5xx=3, success_rate=RATE, failure_percentage=PERCENTAGE)
    hosts.calls(2, 0, 0, 0, 0)
    assert hosts.ejections.hear(hosts.hosts[0], BAD, 5, 1.0) is not None
    hosts.hear(0, *[BAD] * 50)
    assert hosts.sweep() == []
    hosts = Hosts(success_rate=RATE, failure_percentage=PERCENTAGE)
    hosts.calls(9, 0, 0, 0, 0)
    assert len(hosts.sweep()) == hosts.ejections.ejected == 1


def test_who_left_is_not_judged():
    hosts = Hosts(failure_percentage=PERCENTAGE)
    hosts.calls(10, 10)
    hosts.ejections.forget(hosts.hosts[0])
    hosts.hosts[0].gone = True
    hosts.hear(0, *[BAD] * 20)
    assert [item.endpoint for item in hosts.sweep()] == [hosts.hosts[1]]


def test_detectors_that_are_switched_on_and_off():
    hosts = Hosts()
    on = Outlier(
        consecutive_5xx=0, max_ejection_percent=100.0, success_rate=None, failure_percentage=PERCENTAGE
    )
    off = Outlier(consecutive_5xx=0, max_ejection_percent=100.0, success_rate=None)
    hosts.calls(10)
    hosts.ejections.configure(on, 1.0)
    assert hosts.sweep(10.0) == []  # what went before is not known
    hosts.calls(5, of=5, now=11.0)
    hosts.ejections.configure(Outlier(**{**_fields(on), "success_rate": RATE}), 12.0)
    hosts.calls(5, of=5, now=13.0)
    assert len(hosts.sweep(20.0)) == 1  # what was counted stays
    hosts.calls(0, 10, now=21.0)
    hosts.ejections.configure(off, 22.0)
    assert hosts.sweep(30.0) == []
    assert hosts.out == [0]


def _fields(config):
    return {name: getattr(config, name) for name in config.__slots__}


# --- room -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "envoy", "grpc"), [(0.0, 0, 0), (10.0, 0, 1), (20.0, 1, 1), (21.0, 1, 2), (100.0, 4, 4)]
)
@pytest.mark.parametrize("detector", ["success rate", "failure percentage", "consecutive"])
def test_how_many_may_go(percent, envoy, grpc, detector):  # OD-04, DV-05
    fields = {
        "success rate": {"success_rate": SuccessRate(request_volume=10, stdev_factor=0.1)},
        "failure percentage": {"failure_percentage": PERCENTAGE},
        "consecutive": {"consecutive_5xx": 5},
    }[detector]
    for good, bad, goes in ((GOOD, BAD, envoy), (GRPC_GOOD, GRPC_BAD, grpc)):
        hosts = Hosts(max_ejection_percent=percent, **fields)
        for number, count in enumerate((9, 9, 9, 9, 0)):
            for item in [good] * (10 - count) + [bad] * count:
                hosts.ejections.hear(hosts.hosts[number], item, 5, 0.0)
        hosts.sweep()
        assert len(hosts.out) == hosts.ejections.ejected == goes


def test_where_not_all_may_go_the_worst_goes():
    hosts = Hosts(max_ejection_percent=20.0, failure_percentage=PERCENTAGE)
    hosts.calls(6, 7, 9, 8, 5)
    hosts.sweep()
    assert hosts.out == [2]


def test_always_eject_one():
    hosts = Hosts(always_eject_one=True, max_ejection_percent=10.0, failure_percentage=PERCENTAGE)
    hosts.calls(9, 9)
    hosts.sweep()
    assert hosts.out == [0]


# --- local origin -----------------------------------------------------------------------------------------------------


def test_what_was_not_answered_failed():
    hosts = Hosts(failure_percentage=PERCENTAGE)
    hosts.calls(3, 2)
    hosts.hear(0, LOCAL, LOCAL, LOCAL, LOCAL)  # 7 of 14
    hosts.hear(1, LOCAL, LOCAL, LOCAL, LOCAL)  # 6 of 14
    assert [item.reason for item in hosts.sweep()] == ["failure percentage: 7 of 14"]


SPLIT = FailurePercentage(50.0, 1, 10, enforcing=100, enforcing_local_origin=100)


def test_apart_what_was_not_answered_is_judged_by_itself():
    hosts = Hosts(split_local_origin=True, failure_percentage=SPLIT)
    hosts.calls(5, 4, 10, 0)
    hosts.hear(1, *[LOCAL] * 9)  # 4 of 10 answered badly; 9 of 19 not answered
    hosts.hear(2, *[LOCAL] * 11)  # it is out already when it is judged again
    hosts.hear(3, *[LOCAL] * 10)
    hosts.hear(4, *[LOCAL] * 10)  # none was answered
    assert {(item.endpoint, item.reason) for item in hosts.sweep()} == {
        (hosts.hosts[0], "failure percentage: 5 of 10"),
        (hosts.hosts[2], "failure percentage: 10 of 10"),
        (hosts.hosts[3], "local failure percentage: 10 of 20"),
        (hosts.hosts[4], "local failure percentage: 10 of 10"),
    }


@pytest.mark.parametrize(("enforcing", "local", "out"), [(100, 0, [0]), (0, 100, [1]), (100, 100, [0, 1])])
def test_apart_each_has_its_own_enforcing(enforcing, local, out):
    for fields in (
        {"failure_percentage": FailurePercentage(50.0, 1, 10, enforcing, local)},
        {"success_rate": SuccessRate(5, 10, 0.9, enforcing, local)},
    ):
        hosts = Hosts(6, split_local_origin=True, **fields)
        hosts.calls(8, 0, 0, 0, 0, 0)
        hosts.hear(1, *[LOCAL] * 30)
        hosts.sweep()
        assert hosts.out == out


def test_grpc_never_has_local_origin_apart():  # A50
    hosts = Hosts(split_local_origin=True, failure_percentage=SPLIT)
    hosts.calls(3, good=GRPC_GOOD, bad=GRPC_BAD)
    hosts.hear(0, *[GRPC_LOCAL] * 6)  # 9 of 16; by themselves 3 of 10 and 6 of 16
    assert [item.reason for item in hosts.sweep()] == ["failure percentage: 9 of 16"]


# --- gRPC -------------------------------------------------------------------------------------------------------------


def test_every_code_but_ok_is_a_failure():  # OD-05
    for code in range(18):
        hosts = Hosts(consecutive_5xx=20, failure_percentage=PERCENTAGE)
        heard = verdict(Outcome(OutcomeKind.OK, status=code, sent=True, grpc=True))
        hosts.hear(0, *[heard] * 10)
        assert len(hosts.sweep()) == (code != 0), code
    hosts = Hosts(failure_percentage=PERCENTAGE)
    hosts.hear(0, *[Verdict(True, 404)] * 10)  # HTTP's 4xx is none
    assert hosts.sweep() == []


def test_one_call_of_grpcs_makes_it_grpcs_interval_and_no_other():
    hosts = Hosts(base_ejection=10.0, failure_percentage=PERCENTAGE)
    hosts.calls(5, of=9)
    hosts.hear(0, GRPC_GOOD)
    assert hosts.sweep(10.0) == []
    hosts.calls(5, now=11.0)
    assert len(hosts.sweep(20.0)) == 1


def test_a_cancelled_call_says_nothing():
    hosts = Hosts(failure_percentage=PERCENTAGE)
    hosts.calls(5, of=9)
    hosts.hear(0, *[CANCELLED] * 10)
    assert hosts.sweep() == []


# --- against a plain account of the rules -----------------------------------------------------------------------------

tallies = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=8)


@given(tallies, st.sampled_from([0, 500, 1000, 1900, 2000]), st.integers(0, 6), st.integers(1, 14))
def test_success_rate_is_what_exact_numbers_say(counts, factor, least, volume):
    hosts = Hosts(len(counts), success_rate=SuccessRate(least, volume, factor / 1000))
    for number, (good, bad) in enumerate(counts):
        hosts.hear(number, *[GOOD] * good, *[BAD] * bad)
    hosts.sweep()
    rates = {n: Fraction(good, good + bad) for n, (good, bad) in enumerate(counts) if good + bad >= volume}
    expected = []
    if len(rates) >= max(1, least):
        mean = sum(rates.values()) / len(rates)
        variance = sum((rate - mean) ** 2 for rate in rates.values()) / len(rates)
        below = {n: mean - rate for n, rate in rates.items()}
        bound = factor / 1000 * math.sqrt(variance)
        assume(all(abs(by - bound) > 1e-6 or by <= 0 for by in below.values()))
        expected = [n for n, by in below.items() if by > 0 and by**2 > Fraction(factor, 1000) ** 2 * variance]
    assert hosts.out == expected


steps = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.lists(st.sampled_from([GOOD, BAD, BAD, LOCAL, GRPC_BAD]), max_size=8),
        st.floats(0.0, 45.0),
    ),
    min_size=1,
    max_size=30,
)


@given(steps, st.sampled_from([20.0, 60.0, 100.0]), st.booleans(), st.sampled_from([0, 3]))
def test_sweeps_that_were_missed_change_nothing(steps, percent, split, in_a_row):
    """Lazily swept, only when something happens, or punctually each interval: the same hosts are out, for as long."""
    fields = {
        "max_ejection_percent": percent,
        "split_local_origin": split,
        "consecutive_5xx": in_a_row,
        "success_rate": SuccessRate(2, 2, 0.5),
        "failure_percentage": FailurePercentage(60.0, 1, 3, 100, 100),
    }
    lazy, punctual = Hosts(**fields), Hosts(**fields)
    now = 0.0
    for number, verdicts, wait in steps:
        now += wait
        changes = lazy.sweep(now)
        in_time = []
        while punctual.ejections.next_sweep <= now:
            in_time += punctual.sweep(punctual.ejections.next_sweep)
        assert _told(lazy, changes) == _told(punctual, in_time)
        for hosts in (lazy, punctual):
            for item in verdicts:
                hosts.ejections.hear(hosts.hosts[number], item, 5, now)
        assert lazy.out == punctual.out
        assert lazy.ejections.ejected == len(lazy.out)
        assert [host.record for host in lazy.hosts] == [host.record for host in punctual.hosts]


def _told(hosts, changes):
    """What is told of each host, in order."""
    told = [[] for _ in hosts.hosts]
    for change in changes:
        if isinstance(change, Ejected):
            told[hosts.hosts.index(change.endpoint)].append((change.reason, change.seconds))
        else:
            told[hosts.hosts.index(change)].append("returned")
    return told


# --- latency -----------------------------------------------------------------------------------------------------------


def slow_ones(means, factor=3.0, answers=20, volume=20):
    config = Outlier(success_rate=None, latency=SlowOutlier(factor, volume))
    counted = Tallies()
    endpoints = [live_endpoint(number) for number in range(len(means))]
    for endpoint, mean in zip(endpoints, means, strict=True):
        for number in range(answers):
            # Around the mean, so that it is a mean that is judged.
            counted.count(endpoint, GOOD, mean * (0.5 + number / (answers - 1)))
    return [endpoints.index(found.endpoint) for found in counted.suspects(config, Origin.ANY)]


@pytest.mark.parametrize(
    ("means", "found"),
    [
        ([0.1, 0.1, 0.1, 0.31], [3]),
        ([0.1, 0.1, 0.1, 0.29], []),
        ([0.1, 0.5], [1]),
        ([0.5], []),
        ([0.1, 0.1, 0.1, 0.5, 0.9], [4, 3]),
        ([0.1, 0.1, 0.9, 0.9], [2, 3]),  # of the others more are quick; how many may go is said elsewhere
        ([0.0, 0.0, 0.5], []),  # of nothing there is no multiple
    ],
)
def test_who_takes_far_longer_than_the_others(means, found):
    assert slow_ones(means) == found


def test_few_answers_say_nothing_of_latency():
    assert slow_ones([0.1, 0.1, 9.0], answers=19) == []
    assert slow_ones([0.1, 0.1, 9.0], answers=5, volume=5) == [2]


@given(st.lists(st.floats(0.001, 10.0), min_size=2, max_size=9))
def test_the_others_median_is_that_of_the_list_without_one(values):
    ordered = sorted(values, reverse=True)
    for index in range(len(ordered)):
        expected = statistics.median(ordered[:index] + ordered[index + 1 :])
        assert _median_without(ordered, index) == pytest.approx(expected)


def test_what_was_not_answered_has_no_latency():
    config = Outlier(success_rate=None, latency=SlowOutlier(2.0, 1))
    counted = Tallies()
    quick, broken = live_endpoint(0), live_endpoint(1)
    counted.count(quick, GOOD, 0.1)
    counted.count(broken, verdict(REFUSED), 30.0)
    assert counted.suspects(config, Origin.ANY) == []
    assert counted.suspects(config, Origin.LOCAL) == []


def test_a_live_cluster_ejects_the_slow_one():
    outlier = Outlier(
        success_rate=None,
        latency=SlowOutlier(3.0, 5),
        interval=10.0,
        always_eject_one=True,
        max_ejection_percent=50.0,
    )
    watched = Watched(flat(3, outlier=outlier))
    slow = watched.live.endpoints[1]
    for _ in range(30):
        pick = watched.live.pick(PickContext(), 1.0)
        seconds = 2.0 if pick.endpoint is slow else 0.1
        pick.report(Outcome(OutcomeKind.OK, status=200, sent=True, seconds=seconds), 1.0)
        pick.release(1.0)
    watched.live.pick(PickContext(), 11.0).release(11.0)
    assert slow.ejected
    [told] = [event for event in watched.events if isinstance(event, EndpointEjected)]
    assert (told.method, told.endpoint) == ("latency", slow.name)
    assert told.reason.startswith("latency: 2 s in the mean, the others 0.1 s")
