"""Attempts of one task's call beside each other: the twin of ``hosts/race.py``, for asyncio and trio.

Each attempt is a task, and the call waits for all of them: one that is overtaken is cancelled, and has let go of what it held before
the answer is the caller's. With trio that is a nursery; with asyncio plain tasks, since a group of anyio's costs five times as much.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic

from meshlib.core.attempt import Send
from meshlib.core.effects import Deliver, Rest
from meshlib.hosts.protocol import Q, R
from meshlib.hosts.race import Won
from meshlib.hosts.steps import bounds_of, failed
from meshlib.hosts.tokens import bring_async
from meshlib.runtime.signal import Signal, later, under_trio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from meshlib.core.effects import Step
    from meshlib.core.exchange import Exchange
    from meshlib.hosts.protocol import AsyncWire, Host
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.runtime import Runtime

__all__ = ["AsyncRace"]

#: Tasks that are cancelled and not over yet, whose call was cancelled once more and does not wait for them.
_ending: set[asyncio.Task[None]] = set()


class AsyncRace(Generic[Q, R]):
    """Of one call, as long as attempts of it are in flight. ``sent``: a byte of its request may have left."""

    def __init__(
        self, host: Host[Q, R], wire: AsyncWire[Q, R], request: Q, exchange: Exchange, runtime: Runtime
    ) -> None:
        self._host = host
        self._wire = wire
        self._request = request
        self._exchange = exchange
        self._clock = runtime.clock
        self._ended: list[tuple[Send, R | None, Exception | None]] = []
        self._bounds: dict[Send, Bounds] = {}
        self._until: float | None = None  # when ``woke`` is due
        self._tasks = (_TrioTasks if under_trio() else _Tasks)(runtime.clock)
        self.sent = False

    async def run(self, first: Send) -> tuple[Step, Won[R] | None]:
        """As :meth:`meshlib.hosts.race.Race.run`."""
        tasks = self._tasks
        found: tuple[Step, Won[R] | None] | None = None
        problem: Exception | None = None
        try:
            async with tasks:
                try:
                    found = await self._run(first)
                except Exception as error:  # noqa: BLE001 - raised outside of the group, which would wrap it
                    problem = error
        except BaseException:  # cancelled while the others end: nobody will read the answer
            if found is not None and found[1] is not None:
                await self._wire.discard(found[1].response)
            raise
        finally:
            self.sent = self.sent or any(bounds.sent for bounds in self._bounds.values())
            for _, response, _ in self._ended:
                if response is not None:
                    await self._wire.discard(response)
        if problem is not None:
            raise problem
        assert found is not None
        return found

    async def _run(self, first: Send) -> tuple[Step, Won[R] | None]:
        step: Step = first
        clock, exchange = self._clock, self._exchange
        while True:
            if isinstance(step, Send):
                self._bounds[step] = bounds_of(exchange, step, clock)
                self._until = step.hedge_at
                self._tasks.start(self._make, step)
            elif isinstance(step, Rest):
                self._until = step.until
            else:
                return step, None
            until = self._until
            while not self._ended and (until is None or clock.now() < until):
                await self._tasks.wait(until)
            if not self._ended:
                self._until = None
                step = exchange.woke(clock.now())
                continue
            attempt, response, error = self._ended.pop(0)
            bounds = self._bounds.pop(attempt)
            self.sent = self.sent or bounds.sent
            if response is None:
                assert error is not None
                step = failed(exchange, self._host.errors, attempt, error, bounds, clock.now())
                continue
            arrived = self._host.arrived(response)
            status, headers, protocol, peer = arrived
            step = exchange.arrived(attempt, status, headers, protocol, peer, clock.now())
            if type(step) is Deliver:
                return step, Won(response, arrived, bounds)
            await self._wire.discard(response)

    async def _make(self, attempt: Send) -> None:
        response, problem = None, None
        try:
            bounds = self._bounds[attempt]
            if attempt.token is not None:
                await bring_async(attempt, bounds)
            response = await self._wire.send(self._request, attempt, bounds)
        except Exception as error:  # noqa: BLE001 - whoever runs the race raises it unless it is an outcome
            problem = error
        self._ended.append((attempt, response, problem))
        self._tasks.wake()


class _Tasks:
    """Of an asyncio loop. Leaving it ends all that run, and waits for them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._running: list[asyncio.Task[None]] = []
        self._waiter: asyncio.Future[None] | None = None

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *error: object) -> None:
        running = [task for task in self._running if not task.done()]
        for task in running:
            task.cancel()
        if running:
            _ending.update(running)
            for task in running:
                task.add_done_callback(_ending.discard)
            await asyncio.wait(running)

    def start(self, make: Callable[[Send], Coroutine[Any, Any, None]], attempt: Send) -> None:
        self._running.append(self._loop.create_task(make(attempt)))

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self, until: float | None) -> None:
        """Until it is woken, at most until then. It may end sooner."""
        clock = self._clock
        self._waiter = self._loop.create_future()
        prevent = None if until is None else later(clock, max(0.0, until - clock.now()), self.wake)
        try:
            await self._waiter
        finally:
            if prevent is not None:
                prevent()


class _TrioTasks:
    """The same of trio's."""

    def __init__(self, clock: Clock) -> None:
        import anyio

        self._clock = clock
        self._group = anyio.create_task_group()
        self._news = Signal()

    async def __aenter__(self) -> None:
        await self._group.__aenter__()

    async def __aexit__(self, *error: object) -> Any:
        self._group.cancel_scope.cancel()
        leave: Any = self._group.__aexit__
        return await leave(*error)

    def start(self, make: Callable[[Send], Coroutine[Any, Any, None]], attempt: Send) -> None:
        self._group.start_soon(make, attempt)

    def wake(self) -> None:
        self._news.set()

    async def wait(self, until: float | None) -> None:
        if until is None:
            await self._news.wait_long()
        else:
            await self._news.wait(until, self._clock)
        self._news = Signal()
