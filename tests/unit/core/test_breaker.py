"""The breaker's table, row by row, and what holds over any run of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.breaker import BreakerState, CircuitBreaker
from meshlib.model.policy import Breaker, BreakerMode

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def made(**fields):
    fields = {"consecutive_failures": 3, "open_for": 10.0, **fields}
    return CircuitBreaker(Breaker(**fields))


def call(breaker, good, now=0.0):
    permit, _ = breaker.ask(now)
    assert permit is not None
    return breaker.settle(permit, good, now)


def opened(now=0.0, **fields):
    breaker = made(**fields)
    for _ in range(2):
        assert call(breaker, False, now) is None
    assert call(breaker, False, now) == (CLOSED, OPEN)
    return breaker


def test_failures_in_a_row_open_it():
    breaker = opened()
    assert breaker.ask(0.0) == (None, None)
    assert breaker.ask(9.999) == (None, None)


def test_a_success_in_between_starts_the_count_anew():
    breaker = made()
    for good in (False, False, True, False, False):
        call(breaker, good)
    assert breaker.state is CLOSED
    assert call(breaker, False) == (CLOSED, OPEN)


def test_it_half_opens_when_its_time_is_over():
    breaker = opened(now=5.0)
    assert not breaker.would_permit(14.999)
    assert breaker.would_permit(15.0)
    permit, change = breaker.ask(15.0)
    assert permit is not None
    assert change == (OPEN, HALF_OPEN)
    assert not breaker.would_permit(15.0)


def test_probes_are_counted_out():
    breaker = opened(half_open_permits=2)
    first, _ = breaker.ask(10.0)
    second, _ = breaker.ask(10.0)
    assert first is not None
    assert second is not None
    assert breaker.ask(10.0) == (None, None)
    breaker.settle(first, None, 10.0)  # cancelled: its place is free
    assert breaker.ask(10.0)[0] is not None
    assert breaker.ask(10.0)[0] is None


def test_one_good_probe_closes_it():
    breaker = opened()
    assert call(breaker, True, 10.0) == (HALF_OPEN, CLOSED)
    assert breaker.failures == 0


def test_several_good_probes_where_so_many_are_wanted():
    breaker = opened(success_threshold=3)
    assert [call(breaker, True, 10.0) for _ in range(3)] == [None, None, (HALF_OPEN, CLOSED)]


def test_a_bad_probe_opens_it_again_for_the_whole_time():
    breaker = opened()
    assert call(breaker, False, 12.0) == (HALF_OPEN, OPEN)
    assert breaker.ask(21.999)[0] is None
    assert breaker.ask(22.0)[0] is not None


def test_a_bad_probe_after_a_good_one_opens_it_again():
    breaker = opened(success_threshold=2, half_open_permits=2)
    good, _ = breaker.ask(10.0)
    bad, _ = breaker.ask(10.0)
    assert breaker.settle(good, True, 10.0) is None
    assert breaker.settle(bad, False, 10.0) == (HALF_OPEN, OPEN)
    assert breaker.successes == 0


def test_old_permits_count_for_nothing():
    breaker = made(consecutive_failures=1)
    old, _ = breaker.ask(0.0)
    older, _ = breaker.ask(0.0)
    breaker.settle(old, False, 0.0)
    assert breaker.state is OPEN
    assert breaker.settle(older, True, 1.0) is None  # cannot close it
    probe, _ = breaker.ask(10.0)
    assert breaker.settle(older, False, 10.0) is None  # cannot open it again
    assert breaker.settle(probe, True, 10.0) == (HALF_OPEN, CLOSED)
    assert breaker.settle(older, False, 10.0) is None
    assert breaker.failures == 0


def test_cancelled_calls_count_for_nothing():
    breaker = made()
    for _ in range(10):
        assert call(breaker, None) is None
    call(breaker, False)
    call(breaker, None)
    assert breaker.failures == 1


def test_a_body_that_breaks_after_a_good_head():
    breaker = made(consecutive_failures=1)
    permit, _ = breaker.ask(0.0)
    assert breaker.settle(permit, True, 0.0) is None
    assert breaker.settle(permit, False, 1.0) == (CLOSED, OPEN)


def test_a_probe_settled_twice_gives_one_place_back():
    breaker = opened(success_threshold=5, half_open_permits=1)
    probe, _ = breaker.ask(10.0)
    breaker.settle(probe, True, 10.0)
    breaker.settle(probe, None, 10.0)
    assert breaker.ask(10.0)[0] is not None
    assert breaker.ask(10.0)[0] is None


def test_it_can_be_moved_from_outside():
    breaker = made()
    assert breaker.force(OPEN, 3.0) == (CLOSED, OPEN)
    assert breaker.ask(12.9)[0] is None
    assert breaker.force(CLOSED, 0.0) == (OPEN, CLOSED)
    assert breaker.force(CLOSED, 0.0) is None
    assert breaker.ask(0.0)[0] is not None


@pytest.mark.parametrize("permits", [0, -1])
def test_there_is_always_one_probe(permits):
    assert opened(half_open_permits=permits).ask(10.0)[0] is not None


@given(
    st.lists(st.tuples(st.sampled_from(["ask", "good", "bad", "cancel"]), st.floats(0, 6)), max_size=60),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_whatever_happens_the_table_holds(steps, failures, permits, successes):
    breaker = made(consecutive_failures=failures, half_open_permits=permits, success_threshold=successes)
    now, out, opened_at = 0.0, [], None
    legal = {(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (HALF_OPEN, CLOSED)}
    for step, wait in steps:
        now += wait
        before = breaker.state
        if step == "ask":
            would = breaker.would_permit(now)
            permit, change = breaker.ask(now)
            assert (permit is not None) is would
            if permit is not None:
                out.append(permit)
            if before is OPEN:
                assert (now >= opened_at + 10.0) is would
        elif out:
            change = breaker.settle(out.pop(0), {"good": True, "bad": False, "cancel": None}[step], now)
        else:
            continue
        assert change is None or change in legal
        assert (change is not None) is (breaker.state is not before)
        if breaker.state is OPEN and before is not OPEN:
            opened_at = now
        probes = [permit for permit in out if permit.epoch == breaker.epoch and not permit.settled]
        if breaker.state is HALF_OPEN:
            assert len(probes) <= permits
            assert breaker.would_permit(now) is (len(probes) < permits)


# --- shares of a window ------------------------------------------------------------------------------------------------


def calls(breaker, results, now=0.0, seconds=0.0):
    """Settles calls until the breaker moves; how many it took."""
    for number, good in enumerate(results, 1):
        permit, _ = breaker.ask(now)
        assert permit is not None
        if breaker.settle(permit, good, now, seconds) is not None:
            return number
    return None


def test_a_service_that_fails_three_of_ten_opens_it_though_never_in_a_row():
    """The everyday case."""
    breaker = made(consecutive_failures=5, failure_rate=0.3, window=50, minimum=20)
    pattern = [True, True, False, True, True, False, True, True, False, True] * 10
    assert calls(breaker, pattern) == 20
    assert breaker.state is OPEN
    assert calls(made(consecutive_failures=5), pattern) is None


def test_below_the_minimum_no_share_opens_it():
    breaker = made(consecutive_failures=0, failure_rate=0.5, window=50, minimum=20)
    assert calls(breaker, [False] * 19) is None
    assert calls(breaker, [False]) == 1


def test_slow_calls_open_it():
    breaker = made(consecutive_failures=0, slow_call=1.0, slow_rate=0.5, window=10, minimum=4)
    assert calls(breaker, [True] * 6, seconds=1.0) is None, "as long as that is not slow"
    assert calls(breaker, [True] * 6, seconds=1.5) == 5
    assert breaker.state is OPEN


def test_a_slow_probe_is_a_failure():
    breaker = made(consecutive_failures=1, slow_call=1.0, slow_rate=0.5)
    call(breaker, False)
    permit, _ = breaker.ask(10.0)
    assert breaker.settle(permit, True, 10.0, 5.0) == (HALF_OPEN, OPEN)
    permit, _ = breaker.ask(20.0)
    assert breaker.settle(permit, True, 20.0, 0.5) == (HALF_OPEN, CLOSED)


def test_what_was_before_it_opened_does_not_open_it_again():
    breaker = made(consecutive_failures=0, failure_rate=0.5, window=10, minimum=4)
    assert calls(breaker, [False] * 4) == 4
    call(breaker, True, 10.0)
    assert breaker.state is CLOSED
    assert calls(breaker, [False, False, False], 10.0) is None


def test_the_window_of_seconds_forgets():
    breaker = made(consecutive_failures=0, failure_rate=0.5, window_seconds=10.0, minimum=4)
    assert calls(breaker, [False] * 3, 0.0) is None
    assert calls(breaker, [True] * 3, 30.0) is None
    assert calls(breaker, [False] * 3, 30.0) == 3


def test_a_body_that_breaks_after_a_good_head_counts_once():
    breaker = made(consecutive_failures=0, failure_rate=0.5, window=10, minimum=2)
    for _ in range(2):
        permit, _ = breaker.ask(0.0)
        breaker.settle(permit, True, 0.0)
    assert breaker.settle(permit, False, 0.0, again=True) == (CLOSED, OPEN)
    assert made(consecutive_failures=0, failure_rate=0.5, window=10, minimum=2).window.total == 0


def test_numbers_change_without_losing_the_window():
    breaker = made(consecutive_failures=0, failure_rate=0.9, window=10, minimum=4)
    calls(breaker, [False, False, True, True, False, False])
    breaker.configure(Breaker(consecutive_failures=0, failure_rate=0.5, window=20, minimum=4))
    assert breaker.window.failed == 4
    assert calls(breaker, [False]) == 1
    breaker.configure(Breaker())
    assert breaker.window is None


@pytest.mark.parametrize("state", [CLOSED, OPEN, HALF_OPEN])
def test_modes(state):
    def at(mode):
        breaker = made(consecutive_failures=1, mode=mode)
        breaker.state = state
        return breaker

    off, forced = at(BreakerMode.OFF), at(BreakerMode.OPEN)
    assert forced.ask(1e9) == (None, None)
    assert not forced.would_permit(1e9)
    permit, change = off.ask(0.0)
    assert permit is not None
    assert change is None
    assert off.would_permit(0.0)
    assert off.settle(permit, False, 0.0) is None
    assert off.state is state


def test_one_that_observes_moves_and_refuses_nothing():
    breaker = made(consecutive_failures=2, mode=BreakerMode.OBSERVE)
    assert calls(breaker, [False] * 2) == 2
    for _ in range(5):
        permit, _ = breaker.ask(1.0)
        assert permit is not None
        assert breaker.settle(permit, True, 1.0) is None, "it counts nowhere"
    assert breaker.state is OPEN
    probe, change = breaker.ask(10.0)
    assert change == (OPEN, HALF_OPEN)
    beside, _ = breaker.ask(10.0)
    assert breaker.settle(beside, False, 10.0) is None
    assert breaker.settle(probe, True, 10.0) == (HALF_OPEN, CLOSED)
