"""A pool for threads: real threads, which wait for each other's connections."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from meshlib.errors import Overloaded
from meshlib.pools import EndpointPool, PoolSettings
from meshlib.pools.endpoint import NO_TIME
from meshlib.pools.state import PoolState
from meshlib.runtime.worker import Worker
from meshlib.testing.clock import VirtualClock
from tests.support.late import again_if_late, soon
from tests.support.pool_kit import CLOCK, FakeConnection, FakeLimits, attempt

PATIENCE = 20.0


def pool(
    most: int | None = None, dial: Any = None, *, clock: Any = CLOCK, limits: Any = None, **options: Any
):
    limits = limits or FakeLimits(most)
    settings = PoolSettings(
        **{name: options.pop(name) for name in ("keepalive", "max_age") if name in options}
    )
    return EndpointPool(dial or (lambda bounds: FakeConnection()), limits, settings, clock, **options), limits


class Queue:
    """Tells when somebody has come to a pool's queue."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came = threading.Condition()
        self.joined = 0
        original = PoolState.wait

        def wait(state: Any, waiter: Any, now: float, **options: Any) -> None:
            original(state, waiter, now, **options)
            with self.came:
                self.joined += 1
                self.came.notify_all()

        monkeypatch.setattr(PoolState, "wait", wait)

    def until(self, happened: Callable[[], bool]) -> None:
        with self.came:
            assert self.came.wait_for(happened, PATIENCE), "nobody came"

    def caller(self, found: EndpointPool, bounds: Any = None) -> Caller:
        """A thread that has joined the queue, dials, or is done."""
        before = self.joined
        caller = Caller(found, bounds or attempt(), self)
        self.until(lambda: self.joined > before or caller.result is not None)
        return caller


class Caller(threading.Thread):
    """Acquires in a thread of its own. ``result``: the connection, or what it raised."""

    def __init__(self, found: EndpointPool, bounds: Any, queue: Queue) -> None:
        super().__init__(daemon=True)
        self._pool = found
        self._bounds = bounds
        self._queue = queue
        self.result: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._pool.acquire(self._bounds)
        except BaseException as error:  # noqa: BLE001 - it is what is looked at
            self.result = error
        with self._queue.came:
            self._queue.came.notify_all()

    def end(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), "it hangs"
        return self.result


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    return Queue(monkeypatch)


class TestTurns:
    @again_if_late  # who is held up by the machine loses some turns
    def test_four_threads_on_one_connection_have_a_quarter_each(self, queue):
        """Not 5,476 / 1 / 1 / 1: whoever gives it back and comes again stands behind the others."""
        found, limits = pool(1)
        calls: Counter[int] = Counter()
        barrier = threading.Barrier(4)

        def call(number: int) -> None:
            barrier.wait(PATIENCE)
            while sum(calls.values()) < 4000:
                connection = found.acquire(attempt())
                calls[number] += 1
                found.release(connection)

        threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(4)]
        held = found.acquire(attempt())
        for thread in threads:
            thread.start()
        queue.until(lambda: found.waiting == 4)
        found.release(held)
        for thread in threads:
            thread.join(PATIENCE)
        assert (found.open, found.idle, limits.count, limits.pending) == (1, 1, 1, 0)
        soon(max(calls.values()) - min(calls.values()), 6, f"turns of one more than of another, {calls}")

    def test_who_waits_is_served_in_the_order_of_coming(self, queue):
        found, limits = pool(1)
        held = found.acquire(attempt())
        callers = [queue.caller(found) for _ in range(5)]
        assert limits.pending == 5
        for caller in callers:
            found.release(held)
            assert caller.end() is held
        assert [caller.result for caller in callers] == [held] * 5

    def test_nobody_waits_for_a_place_that_a_broken_connection_left(self, queue):
        found, limits = pool(1)
        held = found.acquire(attempt())
        caller = queue.caller(found)
        held.busy = True  # its exchange broke
        found.release(held)
        assert held.closed
        assert caller.end() not in (held, None)
        assert limits.count == 1

    def test_a_connection_that_died_on_the_way_to_a_waiter_is_replaced(self, queue):
        class Dying(FakeConnection):
            def free(self) -> bool:
                return False

        connections = [Dying(), FakeConnection()]
        found, limits = pool(1, lambda bounds: connections.pop(0))
        held = found.acquire(attempt())
        callers = [queue.caller(found) for _ in range(2)]
        found.release(held)
        assert callers[0].end() is not held, "the first keeps its place"
        assert callers[1].is_alive()
        found.release(callers[0].result)
        assert callers[1].end() is callers[0].result
        assert (held.closed, limits.count, found.open) == (True, 1, 1)

    def test_idle_connections_of_no_use_are_closed_and_count_for_nothing(self):
        found, limits = pool(3)
        held = [found.acquire(attempt()) for _ in range(3)]
        for connection in held:
            found.release(connection)
        held[1].room = held[2].room = False
        limits.most_pending = 0
        assert found.acquire(attempt()) is held[0], "one is ready, so nobody is pending"
        assert [connection.closed for connection in held] == [False, True, True]
        assert limits.count == 1


class TestDials:
    def test_nobody_holds_the_pool_while_it_dials(self, queue):
        entered, go_on = threading.Event(), threading.Event()

        def dial(bounds: Any) -> FakeConnection:
            entered.set()
            assert go_on.wait(PATIENCE)
            return FakeConnection()

        found, _ = pool(2, dial)
        first = queue.caller(found)
        assert entered.wait(PATIENCE)
        assert (found.open, found.idle, found.waiting) == (1, 0, 0)
        second = queue.caller(found)
        go_on.set()
        assert first.end() is not second.end()

    def test_many_threads_wait_for_one_dial_and_share_it(self, queue):
        go_on, dials = threading.Event(), []

        def dial(bounds: Any) -> FakeConnection:
            dials.append(1)
            assert go_on.wait(PATIENCE)
            return FakeConnection(streams=100)

        found, limits = pool(None, dial, multiplexed=True)
        callers = [queue.caller(found) for _ in range(20)]
        assert found.waiting == 19
        assert limits.pending == 20
        go_on.set()
        assert len({caller.end() for caller in callers}) == 1
        assert (len(dials), limits.count, limits.pending) == (1, 1, 0)
        for caller in callers:
            found.release(caller.result)
        assert (found.open, found.idle) == (1, 1)

    @pytest.mark.parametrize("multiplexed", [True, False])
    def test_a_dial_that_fails_hangs_nobody(self, multiplexed, queue):
        go_on = threading.Event()

        def dial(bounds: Any) -> FakeConnection:
            assert go_on.wait(PATIENCE)
            raise ConnectionRefusedError("nobody there")

        found, limits = pool(3, dial, multiplexed=multiplexed)
        callers = [queue.caller(found) for _ in range(10)]
        go_on.set()
        assert {type(caller.end()) for caller in callers} == {ConnectionRefusedError}
        assert (found.open, found.waiting, limits.count, limits.pending) == (0, 0, 0, 0)

    def test_one_whose_dialer_is_interrupted_is_the_next_ones(self, queue):
        go_on, dials = threading.Event(), []

        def dial(bounds: Any) -> FakeConnection:
            dials.append(1)
            if len(dials) == 1:
                assert go_on.wait(PATIENCE)
                raise KeyboardInterrupt
            return FakeConnection(streams=100)

        found, limits = pool(None, dial, multiplexed=True)
        callers = [queue.caller(found) for _ in range(5)]
        go_on.set()
        ends = [caller.end() for caller in callers]
        assert isinstance(ends[0], KeyboardInterrupt)
        assert len(set(ends[1:])) == 1
        assert (len(dials), limits.count, limits.pending) == (2, 1, 0)

    def test_a_connection_knows_when_it_was_dialed_and_came_back(self):
        clock = VirtualClock(500.0)
        found, _ = pool(clock=clock)
        connection = found.acquire(attempt(clock=clock))
        clock.advance(2.0)
        found.release(connection)
        assert (connection.born, connection.rested, found.used) == (500.0, 502.0, 502.0)


class TestOutOfTime:
    def test_waiting_for_one_of_our_own_is_overloaded_and_no_timeout_of_the_endpoint(self):
        found, limits = pool(1)
        found.acquire(attempt())
        bounds = attempt(pool=0.01)
        with pytest.raises(Overloaded, match=NO_TIME):
            found.acquire(bounds)
        assert (bounds.expired, bounds.sent) == (False, False)
        assert (found.waiting, limits.pending, limits.count) == (0, 0, 1)

    def test_the_deadline_is_a_timeout_and_says_so(self):
        found, limits = pool(1)
        found.acquire(attempt())
        bounds = attempt(0.01, pool=PATIENCE)
        with pytest.raises(TimeoutError, match="deadline"):
            found.acquire(bounds)
        assert bounds.expired
        assert (found.waiting, limits.pending) == (0, 0)

    def test_a_deadline_that_is_over_takes_no_place(self):
        found, limits = pool(1)
        with pytest.raises(TimeoutError):
            found.acquire(attempt(-1.0))
        assert (found.open, limits.count, limits.pending) == (0, 0, 0)

    def test_too_many_pending_are_refused_at_once_and_count_nothing(self):  # CB-02
        found, limits = pool(limits=FakeLimits(9, 0))
        with pytest.raises(Overloaded, match="max_pending"):
            found.acquire(attempt())
        assert (found.open, limits.count, limits.pending) == (0, 0, 0)

    def test_who_dials_is_pending_as_who_waits_is(self):  # CB-02, measured with Envoy 1.40
        seen = []
        found, limits = pool(9, lambda bounds: seen.append(limits.pending) or FakeConnection())
        found.release(found.acquire(attempt()))
        assert (seen, limits.pending) == ([1], 0)

    def test_a_virtual_clock_ends_the_wait_when_it_is_moved(self, queue):
        clock = VirtualClock()
        found, limits = pool(1, clock=clock)
        held = found.acquire(attempt(clock=clock))
        early, late = (
            queue.caller(found, attempt(5.0, clock=clock)),
            queue.caller(found, attempt(50.0, clock=clock)),
        )
        clock.advance(4.0)
        assert found.waiting == 2
        clock.advance(1.0)
        assert isinstance(early.end(), TimeoutError)
        found.release(held)
        assert late.end() is held
        assert limits.pending == 0


class TestReaper:
    """On the runtime's worker, without a thread of its own."""

    @pytest.fixture
    def clock(self):
        return VirtualClock()

    @pytest.fixture
    def worker(self, clock):
        made = Worker(clock)
        made.start()
        yield made
        assert made.stop(PATIENCE)

    def test_20_of_20_end_by_themselves_at_keep_alives_end(self, clock, worker):
        found, limits = pool(clock=clock, worker=worker, keepalive=5.0)
        threads = set(threading.enumerate())
        held = [found.acquire(attempt(clock=clock)) for _ in range(20)]
        for connection in held:
            found.release(connection)
        clock.advance(4.9)
        assert found.idle == 20
        clock.advance(0.1)
        assert (found.idle, found.open, limits.count) == (0, 0, 0)
        assert all(connection.closed for connection in held)
        assert set(threading.enumerate()) <= threads

    def test_each_at_its_own_time_and_again_after_a_rest(self, clock, worker):
        found, _ = pool(clock=clock, worker=worker, keepalive=5.0)
        for _ in range(3):
            first, second = found.acquire(attempt(clock=clock)), found.acquire(attempt(clock=clock))
            found.release(first)
            clock.advance(3.0)
            found.release(second)
            clock.advance(2.0)
            assert (first.closed, second.closed) == (True, False)
            clock.advance(3.0)
            assert second.closed

    def test_many_pools_have_one_timer_among_them(self, clock, worker):
        pools = [pool(clock=clock, worker=worker, keepalive=5.0)[0] for _ in range(200)]
        for _ in range(50):
            for found in pools:
                found.release(found.acquire(attempt(clock=clock)))
            clock.advance(0.3)
        worker.call(lambda: None, PATIENCE)
        assert len([timer for timer in worker._timers if timer.command]) <= 1
        clock.advance(5.2)
        assert sum(found.open for found in pools) == 0

    def test_other_settings_hold_for_what_is_idle_already(self, clock, worker):
        found, _ = pool(clock=clock, worker=worker, keepalive=None)
        found.release(found.acquire(attempt(clock=clock)))
        clock.advance(1000.0)
        assert found.idle == 1
        for _ in range(20):
            found.configure(PoolSettings(keepalive=1002.0))
        clock.advance(2.0)
        assert found.idle == 0

    def test_what_is_idle_ends_when_its_worker_stops_and_nothing_is_kept_then(self, clock):
        worker = Worker(clock)
        worker.start()
        found, limits = pool(clock=clock, worker=worker, keepalive=5.0)
        busy, idle = found.acquire(attempt(clock=clock)), found.acquire(attempt(clock=clock))
        found.release(idle)
        assert worker.stop(PATIENCE)  # the mesh is closed, or pauses for a fork
        assert (idle.closed, busy.closed) == (True, False)
        found.release(busy)
        assert busy.closed
        assert (found.open, limits.count) == (0, 0)
        worker.start()
        kept = found.acquire(attempt(clock=clock))
        found.release(kept)
        assert found.idle == 1
        clock.advance(5.2)
        assert kept.closed
        assert worker.stop(PATIENCE)

    def test_the_worker_keeps_no_pool_that_nobody_has(self, clock, worker):
        found, _ = pool(clock=clock, worker=worker)
        found.release(found.acquire(attempt(clock=clock)))
        gone = weakref.ref(found)
        del found
        gc.collect()
        assert gone() is None


class TestFinalizers:
    def test_abandoning_takes_no_lock_and_wakes_who_waits(self, queue):
        worker = Worker(CLOCK)
        worker.start()
        found, limits = pool(1, worker=worker)
        held = found.acquire(attempt())
        caller = queue.caller(found)

        def abandon() -> None:
            with found._lock:
                thread = threading.Thread(target=found.abandon, args=(held,), daemon=True)
                thread.start()
                thread.join(PATIENCE)
                assert not thread.is_alive(), "it waits for the lock"
                done.append(1)

        done: list[int] = []
        abandon()
        assert caller.end() not in (held, None)
        assert worker.call(lambda: None, PATIENCE)  # it closes one after its place is another's
        assert (done, held.closed, limits.count) == ([1], True, 1)
        assert worker.stop(PATIENCE)

    def test_without_a_worker_the_next_caller_does_the_work(self):
        found, limits = pool(1)
        held = found.acquire(attempt())
        found.abandon(held)
        assert found.acquire(attempt(pool=PATIENCE)) is not held
        assert (held.closed, limits.count, found.open) == (True, 1, 1)

    def test_what_others_share_takes_nobody_new_and_ends_with_its_last_request(self):
        found, limits = pool(None, lambda bounds: FakeConnection(streams=100), multiplexed=True)
        shared = found.acquire(attempt())
        assert found.acquire(attempt()) is shared
        found.abandon(shared)
        other = found.acquire(attempt())
        assert (other is shared, shared.closed) == (False, False)
        found.release(shared)
        assert shared.closed, "a request that nobody reads is still on it"
        assert limits.count == found.open

    def test_abandoning_twice_harms_nobody(self, caplog):
        found, _ = pool(1)
        held = found.acquire(attempt())
        found.abandon(held)
        found.abandon(held)
        other = found.acquire(attempt())
        assert not other.closed
        assert "twice" in caplog.text

    def test_a_call_from_a_finalizer_under_the_pools_own_lock_does_not_hang(self):
        found, _ = pool(2)

        def inside() -> None:
            with found._lock:
                found.release(found.acquire(attempt(pool=1.0)))

        thread = threading.Thread(target=inside, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()


class TestEnds:
    def test_put_back_twice_is_refused_and_harms_nothing(self):
        found, limits = pool(2)
        connection = found.acquire(attempt())
        found.release(connection)
        with pytest.raises(RuntimeError, match="put back twice"):
            found.release(connection)
        assert (found.idle, connection.closed, limits.count) == (1, False, 1)
        first, second = found.acquire(attempt()), found.acquire(attempt())
        assert first is not second

    def test_closing_ends_what_is_idle_and_calls_may_go_on(self):
        found, limits = pool(2)
        idle, busy = found.acquire(attempt()), found.acquire(attempt())
        found.release(idle)
        found.close()
        assert (idle.closed, busy.closed) == (True, False)
        found.release(busy)
        assert (busy.closed, limits.count) == (True, 0)
        late = found.acquire(attempt())
        found.release(late)
        assert late.closed

    def test_a_connection_that_was_handed_over_counts_until_it_is_closed(self, queue):
        """An upgrade, CONNECT, bare TCP: whoever holds it gives it back when it is over."""
        found, limits = pool(1)
        taken = found.acquire(attempt())
        caller = queue.caller(found)
        assert (found.open, limits.count, found.waiting) == (1, 1, 1)
        taken.close()
        found.release(taken)
        assert caller.end() is not taken
