"""Windows of calls: what they count is what a list of all calls says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.window import SLICES, Window

results = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


@given(results, st.integers(1, 12))
def test_of_calls_the_last_count(calls, most):
    window = Window(most)
    for failed, slow in calls:
        window.add(0.0, failed=failed, slow=slow)
    last = calls[-most:]
    assert (window.total, window.failed, window.slow) == (
        len(last),
        sum(failed for failed, _ in last),
        sum(slow for _, slow in last),
    )


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans(), st.booleans()), max_size=60))
def test_of_seconds_none_older_counts_and_nine_tenths_do(calls):
    window, now, kept = Window(0, 20.0), 0.0, []
    for later, failed, slow in calls:
        now += later
        window.add(now, failed=failed, slow=slow)
        kept.append((now, failed, slow))
    surely = [call for call in kept if call[0] > now - 18.0 + 1e-6]
    perhaps = [call for call in kept if call[0] > now - 20.0 - 1e-6]
    assert len(surely) <= window.total <= len(perhaps)
    assert sum(call[1] for call in surely) <= window.failed <= sum(call[1] for call in perhaps)
    assert sum(call[2] for call in surely) <= window.slow <= sum(call[2] for call in perhaps)
    assert len(window._kept) <= SLICES


def test_silence_forgets():
    window = Window(0, 10.0)
    window.add(0.0, failed=True, slow=True)
    window.turn(9.0)
    assert window.total == 1
    window.turn(1e9)
    assert (window.total, window.failed, window.slow) == (0, 0, 0)


@pytest.mark.parametrize("seconds", [None, 10.0])
def test_a_call_that_failed_after_all(seconds):
    window = Window(5, seconds)
    window.fail_last()
    assert window.failed == 0
    window.add(0.0, failed=False, slow=True)
    window.fail_last()
    assert (window.total, window.failed, window.slow) == (1, 1, 1)
    window.fail_last()
    assert window.failed == 1, "it cannot fail twice"


@given(results, st.integers(1, 9), st.integers(1, 9))
def test_another_size_keeps_what_fits(calls, before, after):
    window, fresh = Window(before), Window(after)
    for failed, slow in calls:
        window.add(0.0, failed=failed, slow=slow)
    for failed, slow in calls[-before:]:
        fresh.add(0.0, failed=failed, slow=slow)
    made = window.resized(after, None)
    assert (made.total, made.failed, made.slow) == (fresh.total, fresh.failed, fresh.slow)
    made.add(0.0, failed=True, slow=False)
    assert made.total == min(after, fresh.total + 1)
    assert window.resized(0, 5.0).total == 0
