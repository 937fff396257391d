"""Time moves when it is told to, and each timer runs at its own time."""

import asyncio
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.runtime.clock import ring_at
from meshlib.runtime.worker import Worker
from meshlib.testing import VirtualClock


def test_it_stands_still_until_advanced():
    clock = VirtualClock(5.0)
    assert (clock.now(), clock()) == (5.0, 5.0)
    clock.advance(1.5)
    clock.advance(0)
    assert clock.now() == 6.5


@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan")])
def test_it_does_not_go_back(seconds):
    with pytest.raises(ValueError, match="does not go back"):
        VirtualClock().advance(seconds)


def test_timers_run_at_their_own_time_and_in_order():
    clock, seen = VirtualClock(0.0), []
    for delay in (3, 1, 2, 1):
        clock.call_later(delay, lambda delay=delay: seen.append((delay, clock.now())))
    clock.advance(2.5)
    assert seen == [(1, 1.0), (1, 1.0), (2, 2.0)]
    assert [timer.when for timer in clock.timers] == [3.0]
    clock.advance(0.5)
    assert seen[-1] == (3, 3.0)


def test_a_timer_that_a_timer_starts_runs_in_the_same_advance():
    clock, seen = VirtualClock(0.0), []

    def tick():
        seen.append(clock.now())
        clock.call_later(1, tick)

    clock.call_later(1, tick)
    clock.advance(3.5)
    assert seen == [1.0, 2.0, 3.0]
    assert clock.now() == 3.5


def test_a_cancelled_timer_does_not_run():
    clock, seen = VirtualClock(), []
    timer = clock.call_later(1, lambda: seen.append(1))
    assert timer.pending
    assert timer.cancel()
    assert not timer.cancel()
    clock.advance(2)
    assert seen == []
    assert not timer.pending


def test_what_a_timer_raises_comes_out_where_it_happened():
    clock = VirtualClock(0.0)
    clock.call_later(1, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clock.advance(5)
    assert clock.now() == 1.0
    clock.advance(1)
    assert clock.now() == 2.0


@given(st.lists(st.floats(0, 100), max_size=20), st.lists(st.floats(0, 50), max_size=10))
def test_every_due_timer_runs_once_never_early(delays, steps):
    clock, seen = VirtualClock(0.0), []
    for index, delay in enumerate(delays):
        clock.call_later(delay, lambda index=index: seen.append((index, clock.now())))
    for step in steps:
        clock.advance(step)
    assert all(at == delays[index] for index, at in seen)
    assert sorted(index for index, _ in seen) == [
        i for i, delay in enumerate(delays) if steps and delay <= clock.now()
    ]


def test_threads_sleep_until_their_time():
    clock, woke = VirtualClock(0.0), []
    threads = [
        threading.Thread(target=lambda s=seconds: (clock.sleep(s), woke.append(s))) for seconds in (2.0, 1.0)
    ]
    for thread in threads:
        thread.start()
    clock.wait_for_sleepers(2)
    clock.advance(1)
    threads[1].join(5)
    assert woke == [1.0]
    assert clock.sleepers == 1
    clock.advance(1)
    threads[0].join(5)
    assert woke == [1.0, 2.0]
    assert clock.sleepers == 0


def test_waiting_for_sleepers_that_do_not_come():
    with pytest.raises(TimeoutError, match="0 of 1 sleepers"):
        VirtualClock().wait_for_sleepers(timeout=0.01)


async def test_tasks_sleep_until_their_time():
    clock = VirtualClock(0.0)
    task = asyncio.create_task(clock.sleep_async(2))
    await asyncio.sleep(0)
    assert clock.sleepers == 1
    clock.advance(1)
    await asyncio.sleep(0)
    assert not task.done()
    clock.advance(1)
    await asyncio.wait_for(task, 5)
    assert clock.sleepers == 0


async def test_a_cancelled_sleep_leaves_nothing():
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep_async(2))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.sleepers == 0
    assert clock.timers == ()


async def test_auto_moves_the_time_itself():
    clock, seen = VirtualClock(0.0, auto=True), []
    clock.call_later(1, lambda: seen.append(clock.now()))
    clock.sleep(2)
    await clock.sleep_async(3)
    clock.sleep(-1)
    assert clock.now() == 5.0
    assert seen == [1.0]


async def test_sleeping_for_nothing_returns():
    clock = VirtualClock(0.0)
    clock.sleep(0)
    await clock.sleep_async(0)
    assert clock.now() == 0.0


class TestForAMesh:
    """What a whole mesh asks of a clock."""

    def test_a_wait_ends_with_its_event_or_its_time(self):
        clock, results = VirtualClock(), []
        for set_it in (True, False):
            event = threading.Event()
            thread = threading.Thread(target=lambda event=event: results.append(clock.wait(event, 10.0)))
            thread.start()
            clock.wait_for_sleepers(1)
            if set_it:
                event.set()
            else:
                clock.advance(9.9)
                assert clock.sleepers == 1
                clock.advance(0.1)
            thread.join(10.0)
            assert clock.sleepers == 0
        assert results == [True, False]
        assert clock.wait(threading.Event(), 0.0) is False

    def test_what_the_time_was(self):
        clock = VirtualClock(100.0)
        first = time.monotonic()
        clock.advance(5.0)
        second = time.monotonic()
        clock.advance(0.0)
        clock.advance(5.0)
        assert [clock.instant(moment) for moment in (-1e9, first, second, time.monotonic())] == [
            100.0,
            100.0,
            105.0,
            110.0,
        ]

    def test_an_alarm_can_be_prevented(self):
        clock, rung = VirtualClock(100.0), []
        clock.alarm(105.0, lambda: rung.append(1))
        prevent = clock.alarm(105.0, lambda: rung.append(2))
        clock.alarm(99.0, lambda: rung.append(0))
        assert prevent()
        assert rung == []
        clock.advance(0.0)
        assert rung == [0]
        clock.advance(5.0)
        assert rung == [0, 1]

    def test_who_blocks_until_an_alarm_rings_is_rung_where_its_time_has_come(self):
        clock, rung = VirtualClock(100.0), []
        for when in (99.0, 100.0, 101.0):
            ring_at(clock, when, lambda when=when: rung.append(when))
        assert rung == [99.0, 100.0]
        clock.advance(1.0)
        assert rung == [99.0, 100.0, 101.0]

    def test_an_alarm_that_is_set_while_time_moves_to_it_rings(self):
        """Set before the time is there it is found; set after that it is known to be late. There is nothing in between."""
        rung = []

        class Between(VirtualClock):
            def _due(self, goal):
                found = super()._due(goal)
                if found is None:  # nothing is left to be done on the way
                    ring_at(self, goal, lambda: rung.append(goal))
                return found

        Between(100.0).advance(1.0)
        assert rung == [101.0]

    def test_time_waits_for_a_worker(self):
        clock, ran = VirtualClock(), []
        worker = Worker(clock)
        worker.start()
        try:
            for seconds in (1.0, 2.0, 3.0):
                worker.later(seconds, lambda: ran.append(clock.now()))
            worker.later(1.5, lambda: worker.later(1.0, lambda: ran.append(clock.now())))
            began = clock.now()
            clock.advance(10.0)
            assert ran == [began + 1.0, began + 2.0, began + 2.5, began + 3.0]
        finally:
            worker.stop()
        worker.later(1.0, lambda: ran.append("late"))
        clock.advance(10.0)  # nobody runs it, and nobody waits for that
        assert "late" not in ran

    def test_a_command_may_move_the_time(self):
        clock = VirtualClock()
        worker = Worker(clock)
        worker.start()
        done = threading.Event()
        try:
            worker.later(1.0, done.set)
            worker.post(lambda: clock.advance(2.0))
            assert done.wait(10.0)
        finally:
            worker.stop()
