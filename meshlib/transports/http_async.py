"""The async transport: the twin of ``transports/http.py``, for asyncio and trio.

Connections may not cross from one event loop to another, so everything that holds some is kept per running loop.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from meshlib.core.effects import Pass, Send
from meshlib.core.failures import not_made
from meshlib.deadlines import current_deadline
from meshlib.runtime.signal import Signal, loop_key, under_trio
from meshlib.transports.drive import drive_async
from meshlib.transports.face import Answer, Direct, Exchange, Why, broken_body, ended, patience
from meshlib.transports.pools import Pools, Settings
from meshlib.transports.request import target_of
from meshlib.transports.wire.async_pool import AsyncPool
from meshlib.transports.wire.async_stream import AsyncBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from meshlib.core.resolution import Resolution
    from meshlib.interceptors import CallPath
    from meshlib.model.call import Outcome
    from meshlib.runtime.runtime import Runtime
    from meshlib.transports.kit import Kit
    from meshlib.transports.wire.guard import Guard

__all__ = ["AsyncTransport"]

_log = logging.getLogger("meshlib")


class _Loop:
    """What one event loop holds: pools of one runtime, and the host library's own transport."""

    __slots__ = ("direct", "owner", "pools", "soon")

    def __init__(self) -> None:
        self.pools: Pools[AsyncPool] | None = None
        self.owner: Runtime | None = None
        self.direct: Any = None
        self.soon: Callable[..., object] | None = None
        if not under_trio():
            self.soon = asyncio.get_running_loop().call_soon_threadsafe


class AsyncTransport:
    """What ``AsyncTransport`` does; the class of the host library is mixed in by ``client.py``.

    Used by any number of tasks of any number of loops. Arguments as for ``SyncTransport``.
    """

    def __init__(
        self,
        kit: Kit,
        runtime: Callable[[], Runtime],
        settings: Settings,
        direct: Callable[[], Any],
        body: type,
        path: CallPath,
    ) -> None:
        self._kit = kit
        self._path = path
        self._runtime = runtime
        self._settings = settings
        self._make_direct = direct
        self._body = body
        # Looking up and setting by key is atomic; a loop's entry is used by that loop alone.
        self._loops: weakref.WeakKeyDictionary[object, _Loop] = weakref.WeakKeyDictionary()

    async def handle_async_request(self, request: Any) -> Any:
        """The host library's contract."""
        runtime = self._runtime()
        if runtime.config.disabled or self._path.intercepted():
            return await self._own().handle_async_request(request)
        scheme, host, port, authority = target_of(request)
        resolution = runtime.view.resolve(scheme, host, port, authority)
        if resolution.via == "wait":
            resolution = await self._wait_known(runtime, resolution, request, (scheme, host, port, authority))
        elif resolution.name:
            runtime.want(resolution.name, authority)
        if resolution.via == "mesh":
            return await self._call(runtime, resolution, request, host, authority)
        if resolution.plain:
            return await self._own().handle_async_request(request)
        if resolution.via != "direct":
            return ended(self._kit, runtime, *not_made(resolution, authority))
        return await self._as_it_is(
            runtime, request, authority, resolution.words, current_deadline(runtime.clock)
        )

    async def aclose(self) -> None:
        """Close what this loop holds; what is in use closes when it is done."""
        state = self._loops.pop(loop_key(), None)
        if state is None:
            return
        if state.pools is not None:
            for pool in state.pools.drain():
                await pool.aclose()
        if state.direct is not None:
            await state.direct.aclose()

    async def _wait_known(
        self, runtime: Runtime, resolution: Resolution, request: Any, asked: tuple[str, str, int | None, str]
    ) -> Resolution:
        since = runtime.clock.now()
        seconds = runtime.patience(resolution, patience(request, runtime.clock))
        signal = Signal()
        cancel = runtime.on_known(*asked, lambda _: signal.set())
        try:
            await signal.wait(seconds, runtime.clock)
        finally:
            cancel()
        return runtime.settled(*asked, since)

    async def _call(
        self, runtime: Runtime, resolution: Resolution, request: Any, host: str, authority: str
    ) -> Any:
        retry = self._settings.retry
        exchange = Exchange(self._kit, runtime, resolution, request, host, authority, retry)
        state = self._state()
        hands = _AsyncHands(exchange, await self._lanes(state, runtime))
        end, answer = await drive_async(exchange.plan, hands)
        if answer is not None:
            return exchange.response(answer, self._body(exchange, answer, state.soon))
        if isinstance(end, Pass):
            exchange.plan.close(exchange.now())
            reason = "the route goes to a pass-through cluster"
            return await self._as_it_is(runtime, request, authority, reason, end.deadline)
        return exchange.end(end)

    async def _as_it_is(
        self, runtime: Runtime, request: Any, authority: str, reason: Why, deadline: float | None
    ) -> Any:
        call = Direct(self._kit, runtime, request, authority, reason, deadline)
        try:
            response = await self._own().handle_async_request(request)
        except BaseException as error:
            raised = call.failed(error)
            if raised is error:
                raise
            raise raised from error
        return call.arrived(response)

    def _state(self) -> _Loop:
        key = loop_key()
        state = self._loops.get(key)
        if state is None:
            state = self._loops[key] = _Loop()
        return state

    def _own(self) -> Any:
        state = self._state()
        if state.direct is None:
            state.direct = self._make_direct()
        return state.direct

    async def _lanes(self, state: _Loop, runtime: Runtime) -> Pools[AsyncPool]:
        """The pools of this loop and process: those of a parent are dropped, since its sockets are the parent's."""
        pools = state.pools
        if pools is None or state.owner is not runtime:
            core = self._kit.core
            backend = AsyncBackend(core, trio=state.soon is None)
            pools = Pools(self._kit, self._settings, core.AsyncHTTPConnection, backend, AsyncPool)
            state.pools, state.owner = pools, runtime
        for finished in pools.sweep(runtime.view):
            await finished.aclose()
        return pools


class _AsyncHands:
    """One call's hands (see ``drive.AsyncHands``)."""

    __slots__ = ("_exchange", "_pools", "now")

    def __init__(self, exchange: Exchange, pools: Pools[AsyncPool]) -> None:
        self._exchange = exchange
        self._pools = pools
        self.now = exchange.now

    async def send(self, effect: Send) -> tuple[Outcome, Answer | None]:
        exchange = self._exchange
        kit, now = exchange.kit, exchange.now
        guard, since = exchange.guard(effect), now()
        exchange.started(effect)
        try:
            answer = await self._attempt(effect, guard)
        except kit.outcomes as error:
            return exchange.failed(effect, error, guard, since), None
        except BaseException as error:
            exchange.abandoned(effect, error, guard, since)
            own = kit.host_class(error)
            if own is None:
                raise
            raise own(str(error)) from error
        return exchange.arrived(effect, answer, since), answer

    async def _attempt(self, effect: Send, guard: Guard) -> Answer:
        exchange = self._exchange
        lane = self._pools.lane(effect, exchange.scheme, exchange.host)
        pool = lane.pool
        while True:
            connection = await pool.acquire(guard)
            try:
                response = await connection.handle_async_request(exchange.core_request(effect, lane, guard))
            except BaseException as error:
                await _release(pool, connection)
                if not isinstance(error, exchange.kit.NotAvailable):
                    raise
            else:
                return Answer(response, connection, pool, guard)
            finally:
                guard.end_pending()

    async def discard(self, answer: Answer) -> None:
        try:
            await answer.response.stream.aclose()
        finally:
            await _release(answer.pool, answer.connection)

    async def sleep(self, seconds: float) -> None:
        await self._exchange.runtime.clock.sleep_async(seconds)

    async def changed(self, until: float) -> None:
        exchange = self._exchange
        store, signal = exchange.runtime.store, Signal()
        cancel = store.on_change(signal.set)
        try:
            if store.view is exchange.seen:
                await signal.wait(until - exchange.now(), exchange.runtime.clock)
        finally:
            cancel()
        exchange.seen = store.view


async def _release(pool: AsyncPool, connection: Any) -> None:
    """Give a connection back; a task that is being cancelled still closes what is not kept."""
    if not pool.give_back(connection):
        import anyio

        with anyio.CancelScope(shield=True):
            await connection.aclose()


_closing: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly


def _close_abandoned(pool: AsyncPool, connection: Any) -> None:
    task = asyncio.get_running_loop().create_task(_release(pool, connection))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


class AsyncBodyLogic:
    """A response's body (see ``http.BodyLogic``). ``soon`` schedules a function in its loop; None under trio."""

    _held: tuple[Exchange, Answer] | None = None

    def __init__(self, exchange: Exchange, answer: Answer, soon: Callable[..., object] | None) -> None:
        self._held = (exchange, answer)
        self._soon = soon

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._held is None:
            return
        exchange, answer = self._held
        try:
            async for part in answer.response.stream:
                yield part
        except exchange.kit.errors as error:
            outcome, raised = broken_body(exchange, answer, error)
            await self._end(outcome)
            raise raised from error

    async def aclose(self) -> None:
        await self._end(None)

    async def _end(self, failure: Outcome | None) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        exchange, answer = held
        try:
            await answer.response.stream.aclose()
        finally:
            exchange.plan.close(exchange.now(), failure)
            await _release(answer.pool, answer.connection)

    def __del__(self) -> None:
        """A response that was never closed: its connection is closed by its loop, its pick given back by the worker,
        since the collector may run in a thread that holds the locks which this needs.
        """
        if self._held is None:
            return
        exchange, answer = self._held
        if exchange.runtime.worker.running:
            exchange.runtime.worker.post(partial(exchange.plan.close, exchange.now()))
        if self._soon is not None:
            try:
                self._soon(_close_abandoned, answer.pool, answer.connection)
            except RuntimeError as error:
                _log.debug("meshlib: a response was collected after its loop had ended: %s", error)
