"""The bounds of one attempt on a virtual clock."""

from __future__ import annotations

import pytest

from meshlib.core.stages import StreamLimits
from meshlib.model.call import TimeLimit
from meshlib.pools.bounds import Bounds, StreamBounds
from meshlib.testing import VirtualClock


class Attempt:
    """What of a `Send` bounds it."""

    def __init__(self, *, deadline=None, idle=None, written_by=None, try_idle=None):
        self.deadline, self.connect_timeout = deadline, None
        self.limits = StreamLimits(idle, written_by)
        self.try_idle = try_idle


@pytest.mark.parametrize(
    ("limits", "timeouts", "read", "write"),
    [
        ({"idle": 3.0}, {}, (3.0, TimeLimit.IDLE), (3.0, TimeLimit.IDLE)),
        ({"idle": 3.0}, {"read": 2.0}, (2.0, None), (3.0, TimeLimit.IDLE)),
        ({"idle": 3.0, "try_idle": 2.0}, {}, (2.0, None), (2.0, None)),
        ({"idle": 3.0, "try_idle": 4.0}, {}, (3.0, TimeLimit.IDLE), (3.0, TimeLimit.IDLE)),
        ({"written_by": 5.0}, {"write": 9.0}, (None, None), (5.0, TimeLimit.REQUEST)),
        ({"written_by": 5.0, "idle": 3.0}, {}, (3.0, TimeLimit.IDLE), (3.0, TimeLimit.IDLE)),
        ({"written_by": 5.0, "try_idle": 9.0}, {"write": 2.0}, (9.0, None), (2.0, None)),
    ],
)
def test_the_nearest_limit_of_a_stream(limits, timeouts, read, write):
    clock = VirtualClock()
    if "written_by" in limits:
        limits = limits | {"written_by": clock.now() + limits["written_by"]}
    bounds = StreamBounds(clock, Attempt(**limits), timeouts)
    assert (bounds.left("read"), bounds.limit) == read
    assert (bounds.left("write"), bounds.limit) == write
    assert bounds.left("pool") is None


def test_a_request_whose_time_is_over():
    clock = VirtualClock()
    bounds = StreamBounds(clock, Attempt(written_by=clock.now() + 5.0))
    clock.advance(5.0)
    with pytest.raises(TimeoutError, match="not sent in time"):
        bounds.left("write")
    assert (bounds.limit, bounds.expired) == (TimeLimit.REQUEST, False)
    assert bounds.left("read") is None


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
