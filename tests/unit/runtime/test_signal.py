"""An alarm rings when the time that was set last is over, and takes few timers for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

from meshlib.runtime.clock import MonotonicClock
from meshlib.runtime.signal import Alarm
from meshlib.testing.clock import VirtualClock


class Counting(VirtualClock):
    """Counts the timers that were wanted."""

    made = 0

    def alarm(self, when: float, call: Callable[[], object]) -> Callable[[], bool]:
        self.made += 1
        return super().alarm(when, call)


async def advanced(clock: VirtualClock, seconds: float) -> None:
    clock.advance(seconds)
    await asyncio.sleep(0)  # what a clock calls, the loop does in its next turn
    await asyncio.sleep(0)


async def test_times_that_follow_each_other_take_one_timer() -> None:
    clock, rung = Counting(0.0), []
    alarm = Alarm(clock, lambda: rung.append(clock.now()))
    for _ in range(80):
        alarm.set(clock.now() + 15.0)
        await advanced(clock, 0.125)
        alarm.set(inf)
    assert clock.made == 1

    alarm.set(30.0)
    await advanced(clock, 5.0)  # the timer runs out, too early
    assert clock.made == 2
    await advanced(clock, 14.9)
    assert not rung
    await advanced(clock, 0.2)
    assert len(rung) == 1
    await advanced(clock, 100.0)
    assert len(rung) == 1


async def test_a_nearer_time_is_not_waited_for_by_the_timer_of_a_later_one() -> None:
    clock, rung = VirtualClock(0.0), []
    alarm = Alarm(clock, lambda: rung.append(clock.now()))
    alarm.set(60.0)
    alarm.set(1.0)
    await advanced(clock, 1.0)
    assert rung == [1.0]
    await advanced(clock, 100.0)
    assert rung == [1.0]


async def test_what_is_taken_back_does_not_ring_and_what_ends_leaves_no_timer() -> None:
    clock, rung = VirtualClock(0.0), []
    alarm = Alarm(clock, lambda: rung.append(clock.now()))
    alarm.set(1.0)
    alarm.set(inf)
    await advanced(clock, 2.0)
    assert not rung

    alarm.set(10.0)
    alarm.end()
    await advanced(clock, 20.0)
    assert not rung
    alarm.set(30.0)
    await advanced(clock, 10.0)
    assert rung == [32.0]


async def test_it_rings_by_the_loop_where_the_clock_moves_by_itself() -> None:
    clock, rung = MonotonicClock(), asyncio.Event()
    alarm = Alarm(clock, rung.set)
    alarm.set(clock.now() + 0.01)
    alarm.set(clock.now() + 0.02)
    await asyncio.wait_for(rung.wait(), 30)
