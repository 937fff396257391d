from __future__ import annotations

import gc
import heapq
import logging
import threading

import pytest

from meshlib.runtime.clock import MonotonicClock
from meshlib.runtime.worker import Worker
from meshlib.testing.clock import VirtualClock
from tests.support.log import told_here


@pytest.fixture
def clock():
    return VirtualClock(100.0)


@pytest.fixture
def worker(clock):
    """Without a thread: `run_due` runs what is due."""
    return Worker(clock)


@pytest.fixture
def threaded():
    made = Worker(MonotonicClock(), name="meshlib-test-worker")
    made.start()
    yield made
    assert made.stop(5.0)


class TestOrder:
    def test_commands_run_in_the_order_in_which_they_were_posted(self, worker):
        ran = []
        for number in range(5):
            worker.post(lambda number=number: ran.append(number))
        worker.run_due()
        assert ran == [0, 1, 2, 3, 4]

    def test_a_command_may_post_another(self, worker):
        ran = []
        worker.post(lambda: worker.post(lambda: ran.append("inner")))
        worker.run_due()
        assert ran == ["inner"]

    def test_a_timer_that_another_thread_cancels_as_it_falls_due_holds_up_nobody(
        self, worker, clock, monkeypatch
    ):
        """Between the look at the timer and the moment that its command is taken."""
        ran, pop = [], heapq.heappop

        def cancelled(timers):
            timer = pop(timers)
            if timer is late:
                late.cancel()
            return timer

        monkeypatch.setattr(heapq, "heappop", cancelled)
        late = worker.later(1.0, lambda: ran.append("cancelled"))
        worker.later(2.0, lambda: ran.append("the next"))
        clock.advance(1.0)
        worker.post(lambda: ran.append("posted"))
        assert worker.run_due() == pytest.approx(1.0)
        assert ran == ["posted"]

    def test_timers_run_when_they_are_due_and_in_order(self, worker, clock):
        ran = []
        worker.later(2.0, lambda: ran.append("two"))
        worker.later(1.0, lambda: ran.append("one"))
        worker.later(1.0, lambda: ran.append("one again"))
        assert worker.run_due() == pytest.approx(1.0)
        assert ran == []
        clock.advance(1.0)
        assert worker.run_due() == pytest.approx(1.0)
        assert ran == ["one", "one again"]
        clock.advance(5.0)
        assert worker.run_due() is None
        assert ran == ["one", "one again", "two"]

    def test_a_timer_that_is_due_goes_before_what_was_posted(self, worker, clock):
        ran = []
        worker.later(1.0, lambda: ran.append("timer"))
        worker.post(lambda: ran.append("posted"))
        clock.advance(1.0)
        worker.run_due()
        assert ran == ["timer", "posted"]

    def test_a_timer_that_is_set_again_for_at_once_holds_up_nothing_that_was_posted(self, worker):
        ran = []

        def again():
            ran.append("timer")
            if len(ran) < 100:
                worker.later(0.0, again)

        worker.later(0.0, again)
        for number in range(3):
            worker.post(lambda number=number: ran.append(number))
        worker.run_due()
        assert ran[:7] == ["timer", 0, "timer", 1, "timer", 2, "timer"]
        assert len(ran) == 100

    def test_a_timer_that_a_command_sets_for_at_once_goes_before_the_next_command(self, worker):
        ran = []
        worker.post(lambda: worker.later(0.0, lambda: ran.append("timer")))
        worker.post(lambda: ran.append("posted"))
        worker.run_due()
        assert ran == ["timer", "posted"]

    def test_a_cancelled_timer_does_not_run(self, worker, clock):
        ran = []
        timer = worker.later(1.0, lambda: ran.append(1))
        timer.cancel()
        clock.advance(2.0)
        assert worker.run_due() is None
        assert ran == []

    def test_a_timer_in_the_past_is_due_now(self, worker):
        ran = []
        worker.later(-5.0, lambda: ran.append(1))
        worker.run_due()
        assert ran == [1]

    def test_a_cancelled_timer_does_not_hide_what_was_posted(self, worker, clock):
        ran = []
        worker.later(1.0, lambda: ran.append("cancelled")).cancel()
        worker.post(lambda: ran.append("posted"))
        worker.run_due()
        assert ran == ["posted"]


class TestFailure:
    def test_what_a_command_raises_is_logged_and_the_next_one_runs(self, worker, caplog):
        ran = []
        worker.post(lambda: 1 / 0)
        worker.post(lambda: ran.append(1))
        with caplog.at_level(logging.ERROR, logger="meshlib"):
            worker.run_due()
        assert ran == [1]
        assert "ZeroDivisionError" in caplog.text

    def test_what_cannot_start_since_the_process_ends_is_no_failure(self, worker, caplog):
        def start():
            raise RuntimeError("can't create new thread at interpreter shutdown")

        worker.post(start)
        with caplog.at_level(logging.WARNING, logger="meshlib"):
            worker.run_due()
        assert not told_here(caplog)

    def test_the_thread_survives_a_failing_command(self, threaded, caplog):
        threaded.post(lambda: {}[1])
        done = threading.Event()
        threaded.post(done.set)
        assert done.wait(5.0)
        assert "KeyError" in caplog.text


class TestThread:
    def test_nothing_runs_before_start(self):
        worker = Worker(MonotonicClock())
        ran = threading.Event()
        worker.post(ran.set)
        assert not worker.running
        assert not ran.is_set()
        worker.start()
        assert ran.wait(5.0)
        assert worker.stop(5.0)

    def test_it_is_one_daemon_thread_and_everything_runs_on_it(self, threaded):
        seen = set()
        for _ in range(20):
            assert threaded.call(lambda: seen.add(threading.current_thread()), 5.0)
        assert len(seen) == 1
        assert next(iter(seen)).daemon

    def test_starting_twice_is_starting_once(self, threaded):
        before = set(threading.enumerate())
        threaded.start()
        assert set(threading.enumerate()) <= before

    def test_a_timer_fires_in_real_time(self, threaded):
        fired = threading.Event()
        threaded.later(0.01, fired.set)
        assert fired.wait(5.0)

    def test_an_earlier_timer_is_noticed_while_it_sleeps_for_a_later_one(self, threaded):
        threaded.later(3600.0, lambda: None)
        fired = threading.Event()
        threaded.later(0.0, fired.set)
        assert fired.wait(5.0)

    def test_stop_ends_the_thread_and_start_goes_on_with_what_was_left(self, threaded):
        assert threaded.stop(5.0)
        assert not threaded.running
        ran = threading.Event()
        threaded.post(ran.set)
        assert not ran.is_set()
        threaded.start()
        assert ran.wait(5.0)

    def test_stop_is_bounded_while_a_command_hangs(self):
        worker = Worker(MonotonicClock())
        release, entered = threading.Event(), threading.Event()
        worker.start()
        worker.post(lambda: (entered.set(), release.wait(10.0)))
        assert entered.wait(5.0)
        assert worker.stop(0.05) is False
        release.set()
        assert worker.stop(5.0)

    def test_a_restart_while_the_old_thread_still_hangs_leaves_one_thread(self):
        worker = Worker(MonotonicClock())
        release, entered = threading.Event(), threading.Event()
        worker.start()
        old = worker._thread
        worker.post(lambda: (entered.set(), release.wait(10.0)))
        assert entered.wait(5.0)
        assert worker.stop(0.05) is False
        worker.start()
        release.set()
        old.join(5.0)
        assert not old.is_alive()
        assert worker.running
        assert worker.stop(5.0)

    def test_posting_from_many_threads_loses_nothing(self, threaded):
        counted = []
        poster = [
            threading.Thread(target=lambda: [threaded.post(lambda: counted.append(1)) for _ in range(200)])
            for _ in range(8)
        ]
        for thread in poster:
            thread.start()
        for thread in poster:
            thread.join()
        assert threaded.call(lambda: None, 10.0)
        assert len(counted) == 1600


class TestCall:
    def test_it_waits_for_the_end(self, threaded):
        ran = []
        assert threaded.call(lambda: ran.append(threading.current_thread()), 5.0)
        assert ran
        assert ran[0] is not threading.current_thread()

    def test_it_says_when_the_command_did_not_end_in_time(self, threaded):
        release = threading.Event()
        assert threaded.call(lambda: release.wait(10.0), 0.05) is False
        release.set()

    def test_from_a_command_it_runs_at_once(self, threaded):
        ran = []
        assert threaded.call(lambda: threaded.call(lambda: ran.append(1), 5.0), 5.0)
        assert ran == [1]

    def test_without_a_thread_it_runs_here(self, worker):
        ran = []
        assert worker.call(lambda: ran.append(threading.current_thread()), 1.0)
        assert ran == [threading.current_thread()]

    def test_a_command_that_raises_is_an_end_too(self, threaded):
        assert threaded.call(lambda: 1 / 0, 5.0)


class Cyclic:
    """What only the collector ends, wherever that runs."""

    def __init__(self, ended):
        self.ended = ended
        self.itself = self

    def __del__(self):
        self.ended()


class TestFinalizers:
    """They run in any thread, under any lock that it holds."""

    def test_posting_and_timers_need_no_lock_that_the_thread_may_hold(self, worker):
        ran = []

        def end():
            worker.post(lambda: ran.append("posted"))
            worker.later(0.0, lambda: ran.append("timer"))

        def collect():
            with worker._turn:
                Cyclic(end)
                gc.collect()

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        thread.join(5.0)
        assert not thread.is_alive(), "the finalizer waits for the lock that its own thread holds"
        worker.run_due()
        assert ran == ["timer", "posted"]

    def test_what_is_posted_while_the_worker_looks_wakes_it(self, threaded):
        """The collector comes at every allocation, the worker's own among them."""
        counted, posted = [], 0
        before = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for _ in range(2000):
                Cyclic(lambda: threaded.post(lambda: counted.append(1)))
                threaded.post(lambda: Cyclic(lambda: threaded.post(lambda: counted.append(1))))
                posted += 2
        finally:
            gc.set_threshold(*before)
        assert threaded.call(gc.collect, 10.0)
        gc.collect()
        assert threaded.call(lambda: None, 10.0)
        assert len(counted) == posted

    def test_no_ring_is_missed_between_looking_and_sleeping(self, threaded):
        for _ in range(2000):
            ran = threading.Event()
            threaded.post(ran.set)
            assert ran.wait(5.0)
