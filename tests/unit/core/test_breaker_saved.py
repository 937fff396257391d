"""What a breaker knows outlives its process: the next one decides as it would have, and believes nothing that is no such value."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.core.breaker import BreakerState, CircuitBreaker
from meshlib.core.breaker_saved import put, read, take
from meshlib.model.policy import Breaker

CONFIGS = [
    Breaker(consecutive_failures=3, open_for=10.0),
    Breaker(consecutive_failures=0, failure_rate=0.5, window=8, minimum=4, open_for=5.0),
    Breaker(
        consecutive_failures=0, failure_rate=0.5, slow_call=1.0, slow_rate=0.5, window_seconds=20.0, minimum=3
    ),
]
EVENTS = st.lists(
    st.tuples(st.floats(0, 4), st.booleans(), st.sampled_from([0.1, 2.0])), min_size=0, max_size=40
)


def drive(machine, events, now):
    """So many calls, and what became of each."""
    heard = []
    for later, good, seconds in events:
        now += later
        permit, _ = machine.ask(now)
        heard.append((permit is not None, machine.state))
        if permit is not None:
            machine.settle(permit, good, now, seconds)
    return heard, now


@given(st.sampled_from(CONFIGS), EVENTS, EVENTS, st.floats(0, 30), st.floats(-1e6, 1e6))
def test_the_next_one_decides_as_it_would_have(config, before, after, gone, other_clock):
    old = CircuitBreaker(config)
    _, now = drive(old, before, 1000.0)
    kept = json.loads(json.dumps(take(old, now)))
    new = CircuitBreaker(config)
    if kept is not None:
        put(new, read(kept, "b", other_clock))
    heard, _ = drive(old, after, now + gone)
    again, _ = drive(new, after, other_clock + gone)
    if old.window is None or old.window.seconds is None:
        assert again == heard
    else:  # the end of a slice may fall on either side of a call by rounding
        assert new.config is config


def test_what_was_half_open_is_taken_on_as_one_whose_time_is_over():
    old = CircuitBreaker(CONFIGS[0])
    drive(old, [(0.0, False, 0.1)] * 3, 0.0)
    old.ask(10.0)
    assert old.state is BreakerState.HALF_OPEN
    new = CircuitBreaker(CONFIGS[0])
    put(new, read(take(old, 11.0), "b", 50.0))
    assert new.state is BreakerState.OPEN
    permit, change = new.ask(50.0)
    assert permit is not None
    assert change == (BreakerState.OPEN, BreakerState.HALF_OPEN)


def test_other_numbers_keep_what_fits():
    old = CircuitBreaker(CONFIGS[1])
    drive(old, [(0.0, True, 0.1)] * 3 + [(0.0, False, 0.1)] * 2, 0.0)
    kept = read(take(old, 0.0), "b", 0.0)
    longer = CircuitBreaker(Breaker(consecutive_failures=0, failure_rate=0.5, window=3, minimum=3))
    put(longer, kept)
    assert (longer.window.total, longer.window.failed) == (3, 2)
    put(timed := CircuitBreaker(CONFIGS[2]), kept)
    assert timed.window.total == 0


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([], "b: must be a mapping"),
        ({"state": "ajar"}, "b.state"),
        ({"state": "closed", "failures": -1}, "b.failures"),
        ({"state": "closed", "failures": True}, "b.failures"),
        ({"state": "open", "opened": float("nan")}, "b.opened"),
        ({"state": "open", "opened": float("inf")}, "b.opened"),
        ({"state": "open", "opened": "now"}, "b.opened"),
        ({"state": "closed", "window": "0129"}, "b.window"),
        ({"state": "closed", "window": [[1, 2, 0]]}, "b.window[0]"),
        ({"state": "closed", "window": [[1, 0]]}, "b.window[0]"),
        ({"state": "closed", "window": [[1, 0, 0]] * 11}, "b.window"),
        ({"state": "closed", "window": [[1, 0, 0]], "turns": -1}, "b.window.turns"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(value, place):
    with pytest.raises(ValueError, match=place.replace("[", r"\[").replace("]", r"\]")):
        read(value, "b", 0.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["state", "failures", "opened", "window", "turns"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_comes_is_taken_on_or_refused(value):
    try:
        saved = read(value, "b", 0.0)
    except ValueError:
        return
    for config in CONFIGS:
        machine = CircuitBreaker(config)
        put(machine, saved)
        drive(machine, [(1.0, True, 0.1), (1e9, False, 2.0)], 0.0)
