"""The loop that makes calls for tasks: the twin of ``hosts/run.py``, for asyncio and trio."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from meshlib.core.attempt import Send
from meshlib.core.effects import Ask, Deliver, Direct, Fail, Reply, Sleep, Take, Wait
from meshlib.hosts.body import OpenCall
from meshlib.hosts.loops import PerLoop
from meshlib.hosts.paced import paced
from meshlib.hosts.protocol import Q, R
from meshlib.hosts.race_async import AsyncRace
from meshlib.hosts.steps import BaseCaller, bounds_of, fail, failed
from meshlib.hosts.tokens import bring_async
from meshlib.runtime.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.effects import Step
    from meshlib.hosts.protocol import AsyncWire, Host
    from meshlib.interceptors import CallPath
    from meshlib.model.policy import RetryPolicy
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["AsyncCaller"]


class AsyncCaller(BaseCaller[Q, R]):
    """For any number of tasks of any number of loops. Arguments as for :class:`meshlib.hosts.steps.BaseCaller`; ``wire`` makes
    the client's wire, in each loop anew.
    """

    def __init__(
        self,
        host: Host[Q, R],
        runtime: Callable[[], Runtime],
        wire: Callable[[Runtime], AsyncWire[Q, R]],
        path: CallPath,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(host, runtime, path, retry)
        self._here: PerLoop[_Wires] = PerLoop(partial(_Wires, wire))

    async def call(self, request: Q) -> R:
        """One call. Raises the library's errors, each of which is meshlib's too where meshlib had a part in it."""
        runtime, host = self._runtime(), self._host
        wire, errors = self.wire(runtime), host.errors
        clock = runtime.clock
        now = clock.now
        exchange = self.begin(request, runtime)
        bounds: Bounds | None = None
        step: Step | None = None
        race: AsyncRace[Q, R] | None = None
        try:
            step = exchange.start(now())
            while True:
                if type(step) is Send and step.hedge_at is not None:
                    race = AsyncRace(host, wire, request, exchange, runtime)
                    step, won = await race.run(step)
                    if won is not None:
                        status, headers, _, _ = won.arrived
                        call = OpenCall(exchange, errors, runtime, won.bounds, status)
                        answer = paced(won.response, step, clock, won.bounds)
                        return host.deliver(request, answer, exchange.response_headers(headers), call)
                elif type(step) is Send or type(step) is Direct:
                    bounds = bounds_of(exchange, step, clock)
                    try:
                        if isinstance(step, Send):
                            if step.token is not None:
                                await bring_async(step, bounds)
                            response = await wire.send(request, step, bounds)
                        else:
                            response = await wire.direct(request, step, bounds)
                    except Exception as error:  # noqa: BLE001 - raised again unless it is an outcome
                        step = failed(exchange, errors, step, error, bounds, now())
                        continue
                    arrived = host.arrived(response)
                    status, headers, protocol, peer = arrived
                    sent, step = step, exchange.arrived(step, status, headers, protocol, peer, now())
                    if type(step) is not Deliver:
                        await wire.discard(response)
                    elif isinstance(sent, Send):
                        call = OpenCall(exchange, errors, runtime, bounds, status)
                        response = paced(response, step, clock, bounds) if step.pace else response
                        return host.deliver(request, response, exchange.response_headers(headers), call)
                    else:
                        info = exchange.info(now())
                        exchange.close(now())
                        return host.direct(request, response, info)
                elif isinstance(step, Sleep | Wait | Ask | Take):
                    await _wait(runtime, step)
                    step = exchange.woke(now())
                elif isinstance(step, Reply):
                    return host.reply(request, step.response, step.info)
                else:
                    assert isinstance(step, Fail)
                    fail(exchange, errors, step, now())
        except BaseException as error:
            gone = (bounds is not None and bounds.sent) or (race is not None and race.sent)
            exchange.cancel(step, error, gone, now())
            raise

    def wire(self, runtime: Runtime) -> AsyncWire[Q, R]:
        """The client's wire in this loop."""
        return self._here.get().of(runtime)

    async def aclose(self) -> None:
        """Close what this loop holds; what is in use closes when it is done. Calls can be made again."""
        wires = self._here.take()
        if wires is not None:
            await wires.aclose()


class _Wires:
    """A loop's wire, of one runtime: a child that goes on with its parent's loop drops its parent's."""

    __slots__ = ("_make", "_owner", "_wire")

    def __init__(self, make: Callable[[Runtime], AsyncWire[Any, Any]]) -> None:
        self._make = make
        self._owner: Runtime | None = None
        self._wire: AsyncWire[Any, Any] | None = None

    def of(self, runtime: Runtime) -> AsyncWire[Any, Any]:
        wire = self._wire
        if wire is None or self._owner is not runtime:
            wire = self._wire = self._make(runtime)
            self._owner = runtime
        return wire

    async def aclose(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.aclose()


async def _changed(runtime: Runtime, step: Wait) -> None:
    """Until the configuration is what is waited for, or the time is over."""
    store, clock, signal = runtime.store, runtime.clock, Signal()

    def look() -> None:
        if step.ready(store.view):
            signal.set()

    cancel = store.on_change(look)
    try:
        if not step.ready(store.view):
            await signal.wait(step.until, clock)
    finally:
        cancel()


async def _wait(runtime: Runtime, step: Sleep | Wait | Ask | Take) -> None:
    """Until what the step waits for is there, or its time is over."""
    if isinstance(step, Sleep):
        await runtime.clock.sleep_async(step.seconds)
    elif isinstance(step, Wait):
        await _changed(runtime, step)
    else:
        from meshlib.hosts.questions import ask_async

        step.verdict = await ask_async(runtime, step)
