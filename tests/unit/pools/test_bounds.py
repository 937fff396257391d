"""The bounds of one attempt on a virtual clock."""

from __future__ import annotations

import pytest

from meshlib.pools.bounds import Bounds
from meshlib.testing import VirtualClock


class Hasty(VirtualClock):
    """Moves on by itself as soon as an alarm is wanted: as where a test moves it between a look at the time and the alarm."""

    def alarm(self, when, call):
        self.advance(5.0)
        return super().alarm(when, call)


def test_time_that_is_over_stops_what_blocks():
    clock, stopped = VirtualClock(), []
    bounds = Bounds(clock, clock.now() + 5.0)

    def block() -> None:
        with bounds.ringing(lambda: stopped.append(1)):
            clock.advance(4.9)
            assert not stopped
            clock.advance(0.1)
            assert stopped == [1]

    with pytest.raises(TimeoutError):
        block()
    assert bounds.expired


def test_what_ends_in_time_is_not_stopped():
    clock, stopped = VirtualClock(), []
    bounds = Bounds(clock, clock.now() + 5.0)
    with bounds.ringing(lambda: stopped.append(1)):
        clock.advance(4.9)
    clock.advance(9.0)
    assert (stopped, bounds.expired) == ([], False)


@pytest.mark.parametrize("moves", [VirtualClock, Hasty])
def test_time_that_is_over_already_stops_it_before_it_blocks(moves):
    """Nobody may move the clock any more."""
    clock, stopped = moves(), []
    bounds = Bounds(clock, clock.now() + (5.0 if moves is Hasty else 0.0))
    with pytest.raises(TimeoutError, match="deadline"), bounds.ringing(lambda: stopped.append(1)):
        pytest.fail("it would block for ever")
    assert (stopped, bounds.expired) == ([1], True)
