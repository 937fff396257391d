"""The blocking transport: an httpx request in, an httpx response out, the mesh in between."""

from __future__ import annotations

import threading
from functools import partial
from os import getpid
from typing import TYPE_CHECKING, Any

from meshlib.core.effects import Pass, Send
from meshlib.core.failures import not_made
from meshlib.deadlines import current_deadline
from meshlib.transports.drive import drive
from meshlib.transports.face import Answer, Direct, Exchange, Why, broken_body, ended, patience
from meshlib.transports.pools import Pools, Settings
from meshlib.transports.request import target_of
from meshlib.transports.wire.pool import Pool
from meshlib.transports.wire.sync_stream import SyncBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshlib.core.resolution import Resolution
    from meshlib.interceptors import CallPath
    from meshlib.model.call import Outcome
    from meshlib.runtime.runtime import Runtime
    from meshlib.transports.kit import Kit
    from meshlib.transports.wire.guard import Guard

__all__ = ["SyncTransport"]


class _Mine:
    """What one process holds. ``lock`` guards making the rest."""

    __slots__ = ("direct", "lock", "owner", "pid", "pools")

    def __init__(self) -> None:
        self.pid = getpid()
        self.lock = threading.Lock()
        self.direct: Any = None
        self.pools: Pools[Pool] | None = None
        self.owner: Runtime | None = None


class SyncTransport:
    """What ``Transport`` does; the class of the host library is mixed in by ``client.py``.

    Thread-safe. ``runtime`` gives this process's runtime; ``direct`` makes the host library's own transport, for
    calls that are not of the mesh; ``path`` is what those come by.
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
        # A child drops what its parent had, and closes nothing of it: sockets and held locks are the parent's. Two threads
        # that come first at once may each make one; then one call's connection is not kept.
        self._mine = _Mine()

    def handle_request(self, request: Any) -> Any:
        """The host library's contract."""
        runtime = self._runtime()
        if runtime.config.disabled or self._path.intercepted():
            return self._own().handle_request(request)
        scheme, host, port, authority = target_of(request)
        resolution = runtime.view.resolve(scheme, host, port, authority)
        if resolution.via == "wait":
            seconds = patience(request, runtime.clock)
            resolution = runtime.wait_known(scheme, host, port, authority, seconds)
        elif resolution.name:
            runtime.want(resolution.name, authority)
        if resolution.via == "mesh":
            return self._call(runtime, resolution, request, host, authority)
        if resolution.plain:
            return self._own().handle_request(request)
        if resolution.via != "direct":
            return ended(self._kit, runtime, *not_made(resolution, authority))
        return self._as_it_is(runtime, request, authority, resolution.words, current_deadline(runtime.clock))

    def close(self) -> None:
        """Close what is idle now, and what is in use when it is done."""
        mine = self._here()
        with mine.lock:
            pools, direct = mine.pools, mine.direct
        if pools is not None:
            for pool in pools.drain():
                pool.close()
        if direct is not None:
            direct.close()

    def _call(self, runtime: Runtime, resolution: Resolution, request: Any, host: str, authority: str) -> Any:
        retry = self._settings.retry
        exchange = Exchange(self._kit, runtime, resolution, request, host, authority, retry)
        hands = _Hands(exchange, self._lanes(runtime))
        end, answer = drive(exchange.plan, hands)
        if answer is not None:
            return exchange.response(answer, self._body(exchange, answer))
        if isinstance(end, Pass):
            exchange.plan.close(exchange.now())
            return self._as_it_is(
                runtime, request, authority, "the route goes to a pass-through cluster", end.deadline
            )
        return exchange.end(end)

    def _as_it_is(
        self, runtime: Runtime, request: Any, authority: str, reason: Why, deadline: float | None
    ) -> Any:
        call = Direct(self._kit, runtime, request, authority, reason, deadline)
        try:
            response = self._own().handle_request(request)
        except BaseException as error:
            raised = call.failed(error)
            if raised is error:
                raise
            raise raised from error
        return call.arrived(response)

    def _here(self) -> _Mine:
        mine = self._mine
        if mine.pid != getpid():
            mine = self._mine = _Mine()
        return mine

    def _own(self) -> Any:
        mine = self._here()
        direct = mine.direct
        if direct is None:
            with mine.lock:
                if mine.direct is None:
                    mine.direct = self._make_direct()
                direct = mine.direct
        return direct

    def _lanes(self, runtime: Runtime) -> Pools[Pool]:
        mine = self._here()
        pools = mine.pools
        if pools is None or runtime is not mine.owner:
            with mine.lock:
                pools = mine.pools
                if pools is None or runtime is not mine.owner:
                    core = self._kit.core
                    pools = Pools(self._kit, self._settings, core.HTTPConnection, SyncBackend(core), Pool)
                    mine.pools, mine.owner = pools, runtime
        for finished in pools.sweep(runtime.view):
            finished.close()
        return pools


class _Hands:
    """One call's hands (see ``drive.Hands``)."""

    __slots__ = ("_exchange", "_pools", "now", "sleep")

    def __init__(self, exchange: Exchange, pools: Pools[Pool]) -> None:
        self._exchange = exchange
        self._pools = pools
        self.now = exchange.now
        self.sleep = exchange.runtime.clock.sleep

    def send(self, effect: Send) -> tuple[Outcome, Answer | None]:
        exchange = self._exchange
        kit, now = exchange.kit, exchange.now
        guard, since = exchange.guard(effect), now()
        exchange.started(effect)
        try:
            answer = self._attempt(effect, guard)
        except kit.outcomes as error:
            return exchange.failed(effect, error, guard, since), None
        except BaseException as error:
            exchange.abandoned(effect, error, guard, since)
            own = kit.host_class(error)
            if own is None:
                raise
            raise own(str(error)) from error
        return exchange.arrived(effect, answer, since), answer

    def _attempt(self, effect: Send, guard: Guard) -> Answer:
        exchange = self._exchange
        lane = self._pools.lane(effect, exchange.scheme, exchange.host)
        pool = lane.pool
        while True:
            connection = pool.acquire(guard)
            try:
                response = connection.handle_request(exchange.core_request(effect, lane, guard))
            except BaseException as error:
                pool.release(connection)
                if not isinstance(error, exchange.kit.NotAvailable):
                    raise
            else:
                return Answer(response, connection, pool, guard)
            finally:
                guard.end_pending()

    def discard(self, answer: Answer) -> None:
        answer.response.stream.close()
        answer.pool.release(answer.connection)

    def changed(self, until: float) -> None:
        exchange = self._exchange
        seen, store = exchange.seen, exchange.runtime.store
        store.wait(lambda view: view is not seen, until - exchange.now())
        exchange.seen = store.view


class BodyLogic:
    """A response's body. Closing it, reading it to its end or losing it gives the connection and the pick back."""

    _held: tuple[Exchange, Answer] | None = None

    def __init__(self, exchange: Exchange, answer: Answer) -> None:
        # Let go once it is closed: a response that is kept shall not keep connections, plans and requests.
        self._held = (exchange, answer)

    def __iter__(self) -> Iterator[bytes]:
        if self._held is None:
            return
        exchange, answer = self._held
        try:
            yield from answer.response.stream
        except exchange.kit.errors as error:
            outcome, raised = broken_body(exchange, answer, error)
            self._end(outcome)
            raise raised from error

    def close(self) -> None:
        self._end(None)

    def _end(self, failure: Outcome | None) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        exchange, answer = held
        try:
            answer.response.stream.close()
        finally:
            answer.pool.release(answer.connection)
            exchange.plan.close(exchange.now(), failure)

    def __del__(self) -> None:
        """A response that was never closed. The collector runs anywhere, also in a thread that holds the locks which
        this needs: the worker does it.
        """
        if self._held is not None:
            exchange, answer = self._held
            if exchange.runtime.worker.running:
                exchange.runtime.worker.post(partial(_abandon, exchange, answer))
            else:
                answer.connection.close()


def _abandon(exchange: Exchange, answer: Answer) -> None:
    try:
        answer.response.stream.close()
    finally:
        answer.pool.release(answer.connection)
        exchange.plan.close(exchange.now())
