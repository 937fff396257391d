"""A pool for tasks: asyncio's and trio's, each case in both."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from collections import Counter
from typing import Any

import anyio
import pytest

from meshlib.errors import Overloaded
from meshlib.pools import AsyncEndpointPool, PoolSettings
from meshlib.pools.endpoint import NO_TIME
from meshlib.runtime.worker import Worker
from meshlib.testing.clock import VirtualClock
from tests.support.pool_kit import CLOCK, FakeConnection, FakeLimits, attempt

PATIENCE = 20.0

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def run(backend: str, test: Any) -> None:
    anyio.run(test, backend=backend)


def pool(
    most: int | None = None, dial: Any = None, *, clock: Any = CLOCK, limits: Any = None, **options: Any
):
    async def simply(bounds: Any) -> FakeConnection:
        await anyio.lowlevel.checkpoint()
        return FakeConnection()

    limits = limits or FakeLimits(most)
    settings = PoolSettings(
        **{name: options.pop(name) for name in ("keepalive", "max_age") if name in options}
    )
    return AsyncEndpointPool(dial or simply, limits, settings, clock, **options), limits


async def settle() -> None:
    """Every task that can run has run up to where it waits."""
    await anyio.wait_all_tasks_blocked()


class Caller:
    """Acquires in a task of its own. ``result``: the connection, or what it raised."""

    def __init__(self, group: Any, found: AsyncEndpointPool, bounds: Any = None) -> None:
        self.result: Any = None
        self.scope = anyio.CancelScope()
        group.start_soon(self._run, found, bounds or attempt())

    async def _run(self, found: AsyncEndpointPool, bounds: Any) -> None:
        with self.scope:
            try:
                self.result = await found.acquire(bounds)
            except Exception as error:  # noqa: BLE001 - it is what is looked at
                self.result = error


@both
class TestTurns:
    def test_four_tasks_on_one_connection_have_a_quarter_each(self, backend):
        async def main() -> None:
            found, limits = pool(1)
            calls: Counter[int] = Counter()

            async def call(number: int) -> None:
                while sum(calls.values()) < 4000:
                    connection = await found.acquire(attempt())
                    calls[number] += 1
                    await anyio.lowlevel.checkpoint()
                    found.release(connection)

            async with anyio.create_task_group() as group:
                for number in range(4):
                    group.start_soon(call, number)
            assert max(calls.values()) - min(calls.values()) <= 1, calls
            assert (found.open, found.idle, limits.count, limits.pending) == (1, 1, 1, 0)

        run(backend, main)

    def test_who_waits_is_served_in_the_order_of_coming_and_newcomers_join_the_queue(self, backend):
        async def main() -> None:
            found, limits = pool(1)
            held = await found.acquire(attempt())
            async with anyio.create_task_group() as group:
                first = Caller(group, found)
                await settle()
                second = Caller(group, found)
                await settle()
                assert (found.waiting, limits.pending) == (2, 2)
                found.release(held)  # the newcomer comes before the first has run
                newcomer = Caller(group, found)
                await settle()
                assert [caller.result for caller in (first, second, newcomer)] == [held, None, None]
                found.release(held)
                await settle()
                assert [caller.result for caller in (second, newcomer)] == [held, None]
                found.release(held)
            assert newcomer.result is held

        run(backend, main)

    def test_who_is_cancelled_in_any_state_hands_its_turn_on(self, backend):
        async def main() -> None:
            found, limits = pool(1)
            held = await found.acquire(attempt())
            async with anyio.create_task_group() as group:
                waits = Caller(group, found)
                await settle()
                served = Caller(group, found)
                await settle()
                last = Caller(group, found)
                await settle()
                waits.scope.cancel()
                await settle()
                assert found.waiting == 2
                found.release(held)
                served.scope.cancel()  # its turn has come, and it has not run yet
                await settle()
                assert served.result in (None, held)
                if served.result is held:
                    found.release(held)
            assert last.result is held
            assert (found.waiting, limits.count, limits.pending) == (0, 1, 0)

        run(backend, main)

    def test_thousands_of_tasks_that_are_cancelled_at_random_points_leak_nothing(self, backend):
        async def main() -> None:
            chance = random.Random(7)

            async def dial(bounds: Any) -> FakeConnection:
                for _ in range(chance.randrange(3)):
                    await anyio.lowlevel.checkpoint()
                if chance.random() < 0.1:
                    raise ConnectionRefusedError
                return FakeConnection(chance.choice([1, 1, 3]))

            found, limits = pool(5, dial, multiplexed=True)

            async def call(scope: Any) -> None:
                with scope:
                    try:
                        connection = await found.acquire(attempt())
                    except ConnectionRefusedError:
                        return
                    try:
                        for _ in range(chance.randrange(3)):
                            await anyio.lowlevel.checkpoint()
                    finally:
                        connection.room = chance.random() > 0.05
                        found.release(connection)

            for _ in range(24):
                async with anyio.create_task_group() as group:
                    scopes = [anyio.CancelScope() for _ in range(100 if backend == "trio" else 1000)]
                    for scope in scopes:
                        group.start_soon(call, scope)
                    while scopes:
                        scopes.pop(chance.randrange(len(scopes))).cancel()
                        if chance.random() < 0.1:
                            await anyio.lowlevel.checkpoint()
            assert (found.waiting, limits.pending) == (0, 0)
            assert found.open == found.idle == limits.count
            found.close()
            assert limits.count == 0

        run(backend, main)


@both
class TestDials:
    def test_many_tasks_share_one_dial(self, backend):
        async def main() -> None:
            go_on, dials = anyio.Event(), []

            async def dial(bounds: Any) -> FakeConnection:
                dials.append(1)
                await go_on.wait()
                return FakeConnection(100)

            found, limits = pool(None, dial, multiplexed=True)
            async with anyio.create_task_group() as group:
                callers = [Caller(group, found) for _ in range(50)]
                await settle()
                assert (found.waiting, limits.pending) == (49, 50)
                go_on.set()
            assert len({caller.result for caller in callers}) == 1
            assert (len(dials), limits.count, limits.pending) == (1, 1, 0)

        run(backend, main)

    @pytest.mark.parametrize("multiplexed", [True, False])
    def test_a_dial_that_fails_hangs_nobody(self, backend, multiplexed):
        async def main() -> None:
            async def dial(bounds: Any) -> FakeConnection:
                await anyio.lowlevel.checkpoint()
                raise ConnectionRefusedError

            found, limits = pool(3, dial, multiplexed=multiplexed)
            async with anyio.create_task_group() as group:
                callers = [Caller(group, found) for _ in range(20)]
            assert {type(caller.result) for caller in callers} == {ConnectionRefusedError}
            assert (found.open, found.waiting, limits.count, limits.pending) == (0, 0, 0, 0)

        run(backend, main)

    def test_a_dial_that_is_cancelled_is_the_next_ones(self, backend):
        async def main() -> None:
            dials: list[Any] = []

            async def dial(bounds: Any) -> FakeConnection:
                dials.append(1)
                if len(dials) == 1:
                    await anyio.sleep_forever()
                return FakeConnection(100)

            found, limits = pool(None, dial, multiplexed=True)
            async with anyio.create_task_group() as group:
                dialing = Caller(group, found)
                await settle()
                others = [Caller(group, found) for _ in range(4)]
                await settle()
                dialing.scope.cancel()
            assert len({caller.result for caller in others}) == 1
            assert (len(dials), limits.count, limits.pending) == (2, 1, 0)

        run(backend, main)


@both
class TestOutOfTime:
    def test_waiting_for_one_of_our_own_is_overloaded_and_no_timeout_of_the_endpoint(self, backend):
        async def main() -> None:
            found, limits = pool(1)
            await found.acquire(attempt())
            bounds = attempt(pool=0.01)
            with pytest.raises(Overloaded, match=NO_TIME):
                await found.acquire(bounds)
            assert not bounds.expired
            assert (found.waiting, limits.pending) == (0, 0)

        run(backend, main)

    def test_the_deadline_is_a_timeout_and_says_so(self, backend):
        async def main() -> None:
            found, limits = pool(1)
            await found.acquire(attempt())
            bounds = attempt(0.01, pool=PATIENCE)
            with pytest.raises(TimeoutError, match="deadline"):
                await found.acquire(bounds)
            assert bounds.expired
            assert (found.waiting, limits.pending) == (0, 0)

        run(backend, main)

    def test_too_many_pending_are_refused_at_once_and_count_nothing(self, backend):  # CB-02
        async def main() -> None:
            found, limits = pool(limits=FakeLimits(9, 0))
            with pytest.raises(Overloaded, match="max_pending"):
                await found.acquire(attempt())
            assert (found.open, limits.count) == (0, 0)

        run(backend, main)

    def test_a_virtual_clock_ends_the_wait_when_it_is_moved(self, backend):
        async def main() -> None:
            clock = VirtualClock()
            found, limits = pool(1, clock=clock)
            held = await found.acquire(attempt(clock=clock))
            async with anyio.create_task_group() as group:
                early = Caller(group, found, attempt(5.0, clock=clock))
                await settle()
                late = Caller(group, found, attempt(50.0, clock=clock))
                await settle()
                await anyio.to_thread.run_sync(clock.advance, 5.0)
                await settle()
                assert isinstance(early.result, TimeoutError)
                assert found.waiting == 1
                found.release(held)
            assert late.result is held
            assert limits.pending == 0

        run(backend, main)


class TestIdle:
    def test_20_of_20_end_by_themselves_by_the_loops_own_timer(self):
        async def main() -> None:
            found, limits = pool(keepalive=0.05)
            held = [await found.acquire(attempt()) for _ in range(20)]
            over = asyncio.Event()
            last = held[-1]
            last.close = lambda: (setattr(last, "closed", True), over.set())  # type: ignore[method-assign]
            for connection in held:
                found.release(connection)
            threads = set(threading.enumerate())
            await asyncio.wait_for(over.wait(), PATIENCE)
            assert (found.open, limits.count) == (0, 0)
            assert all(connection.closed for connection in held)
            assert set(threading.enumerate()) <= threads

        asyncio.run(main())

    def test_a_loop_that_is_done_does_not_wait_for_its_idle_connections(self):
        loops = []

        async def main() -> Any:
            found, _ = pool(keepalive=3600.0)
            found.release(await found.acquire(attempt()))
            loops.append(weakref.ref(asyncio.get_running_loop()))

        for _ in range(30):
            asyncio.run(main())
        gc.collect()
        assert [loop() for loop in loops] == [None] * 30, "the pool keeps its loop"

    @both
    def test_on_a_virtual_clock_when_that_is_moved(self, backend):
        clock = VirtualClock()
        worker = Worker(clock)
        worker.start()

        async def main() -> None:
            found, limits = pool(clock=clock, worker=worker, keepalive=5.0)
            connection = await found.acquire(attempt(clock=clock))
            found.release(connection)
            await anyio.to_thread.run_sync(clock.advance, 4.9)
            await settle()
            assert found.idle == 1
            await anyio.to_thread.run_sync(clock.advance, 0.1)
            await settle()
            assert (found.idle, connection.closed, limits.count) == (0, True, 0)

        run(backend, main)
        assert worker.stop(PATIENCE)

    def test_other_settings_hold_for_what_is_idle_already(self):
        async def main() -> None:
            found, _ = pool(keepalive=None)
            connection = await found.acquire(attempt())
            found.release(connection)
            for _ in range(3):
                found.configure(PoolSettings(keepalive=3600.0))
            assert found.idle == 1
            found.configure(PoolSettings(keepalive=0.0))
            assert connection.closed

        asyncio.run(main())


@both
class TestEnds:
    def test_abandoned_by_another_thread_it_is_closed_in_the_loop_and_who_waits_is_woken(self, backend):
        async def main() -> None:
            found, limits = pool(1)
            held = await found.acquire(attempt())
            closed_in: list[int] = []
            held.close = lambda: closed_in.append(threading.get_ident())
            async with anyio.create_task_group() as group:
                caller = Caller(group, found)
                await settle()
                await anyio.to_thread.run_sync(found.abandon, held)
            assert caller.result not in (held, None)
            assert closed_in == [threading.get_ident()]
            assert limits.count == 1

        run(backend, main)

    def test_abandoned_while_others_share_it_it_takes_nobody_new(self, backend):
        async def main() -> None:
            async def dial(bounds: Any) -> FakeConnection:
                return FakeConnection(100)

            found, limits = pool(None, dial, multiplexed=True)
            shared = await found.acquire(attempt())
            assert await found.acquire(attempt()) is shared
            found.abandon(shared)
            await settle()
            assert not shared.closed
            assert await found.acquire(attempt()) is not shared
            found.release(shared)
            assert shared.closed, "a request that nobody reads is still on it"
            assert limits.count == found.open == 1

        run(backend, main)

    def test_abandoned_after_its_loop_ended_it_is_let_go(self, backend):
        async def main() -> None:
            found, _ = pool(1)
            kept.append((found, await found.acquire(attempt())))

        kept: list[Any] = []
        run(backend, main)
        found, held = kept.pop()
        found.abandon(held)
        found.forget()
        assert not held.closed

    def test_put_back_twice_is_refused_and_harms_nothing(self, backend):
        async def main() -> None:
            found, limits = pool(2)
            connection = await found.acquire(attempt())
            found.release(connection)
            with pytest.raises(RuntimeError, match="put back twice"):
                found.release(connection)
            assert (found.idle, connection.closed, limits.count) == (1, False, 1)

        run(backend, main)

    def test_closing_ends_what_is_idle_and_calls_may_go_on(self, backend):
        async def main() -> None:
            found, limits = pool(2)
            idle, busy = await found.acquire(attempt()), await found.acquire(attempt())
            found.release(idle)
            found.close()
            assert (idle.closed, busy.closed) == (True, False)
            found.release(busy)
            late = await found.acquire(attempt())
            found.release(late)
            assert (busy.closed, late.closed, limits.count) == (True, True, 0)

        run(backend, main)
