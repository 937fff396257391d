"""OD-01 to OD-06: consecutive failures, Envoy's percentages, times that grow and fall, lazy sweeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.classify import CANCELLED, Verdict
from meshlib.core.endpoint import Down
from meshlib.core.outlier import Ejections
from meshlib.model.policy import Outlier
from tests.support.live_kit import live_endpoint

GOOD, ERROR, GATEWAY = Verdict(True, 200), Verdict(False, 500), Verdict(False, 503)
LOCAL = Verdict(False, 503, local=True)


class Hosts:
    def __init__(self, count=10, rand=lambda: 0.0, **fields):
        self.hosts = [live_endpoint(number) for number in range(count)]
        self.ejections = Ejections(Outlier(**{"max_ejection_percent": 100.0, **fields}), rand, 0.0)

    def hear(self, number, *verdicts, now=0.0):
        found = [self.ejections.hear(self.hosts[number], item, len(self.hosts), now) for item in verdicts]
        assert all(item is None for item in found[:-1])
        return found[-1]

    def sweep(self, now):
        return self.ejections.sweep(now, len(self.hosts))

    @property
    def out(self):
        return [number for number, host in enumerate(self.hosts) if host.ejected]


def test_five_failures_in_a_row_eject():  # OD-06
    hosts = Hosts()
    found = hosts.hear(0, *[ERROR] * 5)
    assert (found.endpoint, found.seconds) == (hosts.hosts[0], 30.0)
    assert found.reason == "5 5xx or lost connections in a row"
    assert hosts.out == [0]
    assert hosts.ejections.ejected == 1


def test_a_good_answer_in_between_forgives():
    hosts = Hosts()
    assert hosts.hear(0, ERROR, ERROR, ERROR, ERROR, GOOD, ERROR, ERROR, ERROR, ERROR) is None
    assert hosts.hear(0, ERROR) is not None


def test_cancelled_attempts_neither_count_nor_forgive():
    hosts = Hosts()
    assert hosts.hear(0, ERROR, CANCELLED, ERROR, CANCELLED, ERROR, ERROR) is None
    assert hosts.hear(0, CANCELLED) is None
    assert hosts.hear(0, ERROR) is not None


def test_hosts_are_counted_apart():
    hosts = Hosts()
    for number in range(4):
        assert hosts.hear(number, *[ERROR] * 4) is None
    assert hosts.out == []


def test_gateway_failures_are_off_unless_enforced():
    assert Hosts(consecutive_5xx=0).hear(0, *[GATEWAY] * 30) is None
    found = Hosts(consecutive_5xx=0, consecutive_gateway=3, enforcing_gateway=100).hear(0, *[GATEWAY] * 3)
    assert found.reason == "3 gateway failures in a row"


def test_another_5xx_breaks_a_row_of_gateway_failures():
    hosts = Hosts(consecutive_5xx=0, consecutive_gateway=3, enforcing_gateway=100)
    assert hosts.hear(0, GATEWAY, GATEWAY, ERROR, GATEWAY, GATEWAY) is None
    assert hosts.hear(0, GATEWAY) is not None


def test_a_detector_of_zero_is_off():
    assert (
        Hosts(consecutive_5xx=0, consecutive_gateway=0, enforcing_gateway=100).hear(0, *[GATEWAY] * 50)
        is None
    )


def test_local_failures_count_as_what_envoy_would_answer():
    assert Hosts().hear(0, *[LOCAL] * 5) is not None
    assert (
        Hosts(consecutive_5xx=0, consecutive_gateway=2, enforcing_gateway=100).hear(0, LOCAL, LOCAL)
        is not None
    )


def test_local_failures_apart():
    hosts = Hosts(split_local_origin=True, consecutive_local_origin=3)
    assert hosts.hear(0, ERROR, ERROR, ERROR, ERROR, LOCAL, LOCAL) is None
    assert hosts.hear(0, LOCAL).reason == "3 local failures in a row"
    assert Hosts(split_local_origin=True, enforcing_local_origin=0).hear(0, *[LOCAL] * 50) is None


def test_an_answer_ends_a_row_of_local_failures():
    hosts = Hosts(split_local_origin=True, consecutive_local_origin=2)
    assert hosts.hear(0, LOCAL, ERROR, LOCAL, GOOD, LOCAL) is None


@pytest.mark.parametrize(("chance", "ejected"), [(0.0, True), (0.29, True), (0.30, False), (0.9, False)])
def test_enforcing_is_a_chance(chance, ejected):
    found = Hosts(rand=lambda: chance, enforcing_5xx=30).hear(0, *[ERROR] * 5)
    assert (found is not None) is ejected


def test_a_row_that_was_not_enforced_starts_anew():
    hosts = Hosts(rand=iter([0.9, 0.0, 0.0]).__next__, enforcing_5xx=50)
    assert hosts.hear(0, *[ERROR] * 9) is None
    assert hosts.hear(0, ERROR) is not None


def test_who_is_found_and_stays_is_told_with_the_reason():
    hosts = Hosts(5, rand=iter([0.9, 0.0, 0.0]).__next__, enforcing_5xx=50, max_ejection_percent=10.0)
    hosts.hear(0, *[ERROR] * 5)
    hosts.hear(1, *[ERROR] * 5)
    told = [(one.endpoint, one.method, one.reason) for one in hosts.ejections.spared]
    assert told == [
        (hosts.hosts[0], "consecutive_5xx", "enforcement_percentage"),
        (hosts.hosts[1], "consecutive_5xx", "max_ejection_overflow"),
    ]


@pytest.mark.parametrize(
    ("count", "percent", "goes"),
    [
        (5, 10.0, 0),
        (5, 20.0, 1),
        (10, 10.0, 1),
        (10, 19.9, 1),
        (10, 50.0, 5),
        (3, 34.0, 1),
        (3, 33.0, 0),
        (4, 100.0, 4),
    ],
)
def test_never_more_than_the_percentage(count, percent, goes):  # OD-04, as Envoy
    hosts = Hosts(count, max_ejection_percent=percent)
    for number in range(count):
        hosts.hear(number, *[ERROR] * 5)
    assert len(hosts.out) == hosts.ejections.ejected == goes


def test_always_eject_one():
    hosts = Hosts(5, always_eject_one=True, max_ejection_percent=10.0)
    assert hosts.hear(0, *[ERROR] * 5) is not None
    assert hosts.hear(1, *[ERROR] * 5) is None


def test_a_host_that_is_out_is_not_counted():
    hosts = Hosts()
    hosts.hear(0, *[ERROR] * 5)
    assert hosts.hear(0, *[ERROR] * 50) is None
    assert hosts.ejections.ejected == 1


def test_it_returns_in_the_first_sweep_after_its_time():  # OD-03
    hosts = Hosts(base_ejection=25.0)
    hosts.hear(0, *[ERROR] * 5, now=1.0)  # until 26
    assert hosts.sweep(9.0) == []
    for now in (10.0, 20.0, 29.9):
        assert hosts.sweep(now) == []
    assert hosts.sweep(30.0) == [hosts.hosts[0]]
    assert hosts.out == []
    assert hosts.ejections.ejected == 0


def test_it_returns_with_a_clean_record():
    hosts = Hosts(consecutive_gateway=9, enforcing_gateway=100)
    hosts.hear(0, *[GATEWAY] * 5)
    hosts.sweep(30.0)
    assert hosts.hear(0, *[ERROR] * 4, now=31.0) is None
    assert hosts.hear(0, ERROR, now=31.0) is not None


def test_each_time_is_longer_and_the_longest_is_bounded():
    hosts = Hosts(base_ejection=30.0, max_ejection=100.0)
    now, lengths = 0.0, []
    for _ in range(6):
        found = hosts.hear(0, *[ERROR] * 5, now=now)
        lengths.append(found.seconds)
        now += found.seconds
        while hosts.out:  # exactly the sweep at which it returns, so that no healthy one follows
            now = max(now, hosts.ejections.next_sweep)
            hosts.sweep(now)
    assert lengths == [30.0, 60.0, 90.0, 100.0, 100.0, 100.0]


def test_the_multiplier_falls_with_each_healthy_sweep():
    hosts = Hosts(base_ejection=30.0)
    hosts.hear(0, *[ERROR] * 5)
    hosts.sweep(30.0)
    assert hosts.hear(0, *[ERROR] * 5, now=30.0).seconds == 60.0
    hosts.sweep(90.0)
    hosts.sweep(100.0)  # healthy once: 2 -> 1
    assert hosts.hear(0, *[ERROR] * 5, now=100.0).seconds == 60.0
    hosts.sweep(160.0)
    for now in (170.0, 180.0):
        hosts.sweep(now)
    assert hosts.hear(0, *[ERROR] * 5, now=180.0).seconds == 30.0


def test_a_base_beyond_the_longest_holds():
    assert Hosts(base_ejection=500.0, max_ejection=300.0).hear(0, *[ERROR] * 5).seconds == 500.0


def test_jitter_comes_on_top():
    hosts = Hosts(rand=iter([0.0, 0.5]).__next__, jitter=4.0)
    assert hosts.hear(0, *[ERROR] * 5).seconds == 32.0


def test_other_reasons_stay():
    hosts = Hosts()
    hosts.hear(0, *[ERROR] * 5)
    hosts.hosts[0].down |= Down.CONTROL_PLANE
    hosts.sweep(30.0)
    assert hosts.hosts[0].down == Down.CONTROL_PLANE


def test_switched_off_all_return_at_once():  # OD-03
    hosts = Hosts()
    for number in (0, 1):
        hosts.hear(number, *[ERROR] * 5)
    assert hosts.ejections.clear() == [hosts.hosts[0], hosts.hosts[1]]
    assert hosts.out == []
    assert hosts.ejections.ejected == 0


def test_who_left_makes_room():
    hosts = Hosts(10, max_ejection_percent=10.0)
    hosts.hear(0, *[ERROR] * 5)
    hosts.ejections.forget(hosts.hosts[0])
    hosts.hosts[0].gone = True
    assert hosts.ejections.ejected == 0
    assert hosts.hear(1, *[ERROR] * 5) is not None
    assert hosts.hear(0, *[ERROR] * 5) is None
    assert hosts.sweep(1000.0) == [hosts.hosts[1]]


def test_a_shorter_interval_holds_at_once():
    hosts = Hosts(interval=1000.0)
    hosts.ejections.configure(Outlier(interval=1.0), 5.0)
    assert hosts.ejections.next_sweep == 6.0


def test_no_interval_at_all_is_no_division_by_nothing():
    hosts = Hosts(interval=0.0)
    hosts.hear(0, *[ERROR] * 5)
    assert hosts.sweep(1e6) == [hosts.hosts[0]]


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 6), st.floats(0.0, 45.0)),
        min_size=1,
        max_size=30,
    )
)
def test_sweeps_that_were_missed_change_nothing(steps):
    """Lazily swept, only when something happens, or punctually each interval: the same hosts are out."""
    lazy, punctual = Hosts(5), Hosts(5)
    now = 0.0
    for number, failures, wait in steps:
        now += wait
        lazy.sweep(now)
        while punctual.ejections.next_sweep <= now:
            punctual.sweep(punctual.ejections.next_sweep)
        assert lazy.out == punctual.out
        for hosts in (lazy, punctual):
            for _ in range(failures):
                hosts.ejections.hear(hosts.hosts[number], ERROR, 5, now)
        assert lazy.out == punctual.out
        assert lazy.ejections.ejected == len(lazy.out)
        assert [host.record for host in lazy.hosts] == [host.record for host in punctual.hosts]
