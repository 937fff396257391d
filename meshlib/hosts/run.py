"""The loop that makes blocking calls: what an exchange asks for is done, what came of it is told, until it ends.

It holds no decision. Whatever ends it otherwise (an interrupt, a killed greenlet, an error of the caller's own body) is told
to the exchange, which lets go of everything that it holds.
"""

from __future__ import annotations

import threading
from os import getpid
from typing import TYPE_CHECKING

from meshlib.core.attempt import Send
from meshlib.core.effects import Ask, Deliver, Direct, Fail, Reply, Sleep, Take, Wait
from meshlib.hosts.body import OpenCall
from meshlib.hosts.paced import paced
from meshlib.hosts.protocol import Q, R
from meshlib.hosts.race import Race
from meshlib.hosts.steps import BaseCaller, bounds_of, fail, failed
from meshlib.hosts.tokens import bring
from meshlib.runtime.process import Local

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.effects import Step
    from meshlib.core.exchange import Exchange
    from meshlib.hosts.protocol import Host, Wire
    from meshlib.interceptors import CallPath
    from meshlib.model.policy import RetryPolicy
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["Caller"]


class Caller(BaseCaller[Q, R]):
    """For blocking calls. Thread-safe. Arguments as for :class:`meshlib.hosts.steps.BaseCaller`; ``wire`` makes the client's
    wire, in each process anew.

    A library that orders calls by what became of the last one begins and finishes each by itself.
    """

    def __init__(
        self,
        host: Host[Q, R],
        runtime: Callable[[], Runtime],
        wire: Callable[[Runtime], Wire[Q, R]],
        path: CallPath,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(host, runtime, path, retry)
        self._make_wire = wire
        self._making = Local(threading.Lock)  # guards making the wire
        # Replaced whole. A child's runtime is another: it drops the wire of its parent, whose sockets are the parent's.
        self._mine: tuple[Runtime, Wire[Q, R], int] | None = None

    def call(self, request: Q) -> R:
        """One call. Raises the library's errors, each of which is meshlib's too where meshlib had a part in it."""
        runtime = self._runtime()
        return self.finish(request, runtime, self.begin(request, runtime))

    def finish(self, request: Q, runtime: Runtime, exchange: Exchange) -> R:
        """Make the call that was begun. Raises as ``call``."""
        host = self._host
        wire, errors = self.wire(runtime), host.errors
        clock = runtime.clock
        now = clock.now
        bounds: Bounds | None = None
        step: Step | None = None
        race: Race[Q, R] | None = None
        try:
            step = exchange.start(now())
            while True:
                if type(step) is Send and step.hedge_at is not None:
                    race = Race(host, wire, request, exchange, runtime)
                    step, won = race.run(step)
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
                                bring(step)
                            response = wire.send(request, step, bounds)
                        else:
                            response = wire.direct(request, step, bounds)
                    except Exception as error:  # noqa: BLE001 - raised again unless it is an outcome
                        step = failed(exchange, errors, step, error, bounds, now())
                        continue
                    arrived = host.arrived(response)
                    status, headers, protocol, peer = arrived
                    sent, step = step, exchange.arrived(step, status, headers, protocol, peer, now())
                    if type(step) is not Deliver:
                        wire.discard(response)
                    elif isinstance(sent, Send):
                        call = OpenCall(exchange, errors, runtime, bounds, status)
                        response = paced(response, step, clock, bounds) if step.pace else response
                        return host.deliver(request, response, exchange.response_headers(headers), call)
                    else:
                        info = exchange.info(now())
                        exchange.close(now())
                        return host.direct(request, response, info)
                elif isinstance(step, Sleep | Wait | Ask | Take):
                    _wait(runtime, step)
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

    def wire(self, runtime: Runtime) -> Wire[Q, R]:
        """The client's wire in this process."""
        mine = self._mine
        if mine is None or mine[0] is not runtime:
            with self._making.get():
                mine = self._mine
                if mine is None or mine[0] is not runtime:
                    mine = self._mine = runtime, self._make_wire(runtime), getpid()
        return mine[1]

    def close(self) -> None:
        """Close what is idle now, and what is in use when it is done. Calls can be made again."""
        mine = self._mine
        if mine is not None and mine[2] == getpid():
            mine[1].close()


def _wait(runtime: Runtime, step: Sleep | Wait | Ask | Take) -> None:
    """Until what the step waits for is there, or its time is over."""
    if isinstance(step, Sleep):
        runtime.clock.sleep(step.seconds)
    elif isinstance(step, Wait):
        runtime.store.wait(step.ready, step.until - runtime.clock.now())
    else:
        from meshlib.hosts.questions import ask

        step.verdict = ask(runtime, step)
