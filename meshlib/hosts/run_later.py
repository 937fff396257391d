"""The loop that makes calls for which no thread waits: each step is begun, and what it brings goes on with the call.

It is for libraries whose calls are objects (gRPC's futures and streams, asyncio's calls): the application holds one before
anything was sent, and need not ask it for anything. So whoever learns that something happened drives: the library's callback, a
timer, the application's thread. It holds no decision.

    begin ─► an attempt is under way ──failed, refused──► another, a sleep, a wait, the end
                      └──────────arrived──────────► committed: the answer is the caller's
    anything ──cancel──► the end
    committed ──the mesh gives the answer up──► the end

Lock: ``_lock`` guards the step in which the call is. It is held while an attempt is begun, and never while somebody is told.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshlib.core.attempt import Send
from meshlib.core.effects import Ask, Deliver, Direct, Fail, Sleep, Take, Wait
from meshlib.hosts.steps import bounds_of, fail, failed
from meshlib.hosts.tokens import at_hand, bring, too_late

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.effects import Step
    from meshlib.core.exchange import Exchange
    from meshlib.core.sessions import Metadata
    from meshlib.core.tokens import Demand
    from meshlib.hosts.errors import ErrorTable
    from meshlib.model.call import CallInfo, Outcome
    from meshlib.model.headers import Headers
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["LaterCall"]

I = TypeVar("I")  # noqa: E741 - the library's call of one attempt


class LaterCall(Generic[I]):
    """One call. Driven from any thread; an event loop's from its own.

    A library's own says how an attempt is begun (``_open``) and given up (``_give_up``), how time passes (``_after``), and who is
    told of a change (``_changed``).

    Attributes:
        attempt: The attempt that is under way, or whose answer the caller reads.
        committed: ``attempt`` is the caller's.
        over: Nothing will come any more.
        error: Why, where it is not for ``attempt`` to say.
    """

    __slots__ = (
        "__weakref__",
        "_bounds",
        "_errors",
        "_exchange",
        "_lock",
        "_pending",
        "_runtime",
        "_step",
        "attempt",
        "committed",
        "error",
        "over",
    )

    def __init__(self, exchange: Exchange, errors: ErrorTable, runtime: Runtime) -> None:
        self._exchange = exchange
        self._errors = errors
        self._runtime = runtime
        self._lock = threading.RLock()
        self._step: Step | None = None
        self._bounds: Bounds | None = None
        self._pending: Callable[[], object] | None = None  # ends a sleep or a wait
        self.attempt: I | None = None
        self.committed = False
        self.over = False
        self.error: BaseException | None = None

    # --- the library's ----------------------------------------------------------------------------------------------------

    def _open(self, step: Send | Direct, bounds: Bounds) -> I:
        raise NotImplementedError

    def _watch(self, attempt: I) -> None:
        """Have it told (``arrived``, ``failed``) what becomes of ``attempt``, if it is not yet."""
        raise NotImplementedError

    def _give_up(self, attempt: I) -> None:
        raise NotImplementedError

    def _after(self, seconds: float, then: Callable[[], object]) -> Callable[[], object]:
        """Call ``then`` that many seconds from now; gives what prevents it."""
        raise NotImplementedError

    def _soon(self, then: Callable[[], object]) -> None:
        """Call ``then``, from the writer's thread, where calls are driven."""
        raise NotImplementedError

    def _fetch(self, demand: Demand, then: Callable[[str | BaseException], object]) -> Callable[[], object]:
        """Ask the application for a token, which ``then`` gets, or why there is none; gives what ends that."""
        raise NotImplementedError

    def _changed(self) -> None:
        """There is an attempt, or it is over. Called without the lock."""
        raise NotImplementedError

    # --- events -----------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The first step."""
        with self._lock:
            try:
                self._do(self._exchange.start(self._now()))
            except BaseException as error:  # noqa: BLE001 - the caller's, when it asks
                self._fail(error)
        self._went_on(None)

    def arrived(
        self, attempt: I, status: int, headers: Headers | None, protocol: str, peer: str = ""
    ) -> None:
        """The head of ``attempt``'s answer is there."""
        with self._lock:
            step = self._step
            if self.over or self.committed or attempt is not self.attempt:
                return
            assert isinstance(step, Send | Direct)
            try:
                self._do(self._exchange.arrived(step, status, headers, protocol, peer, self._now()))
            except BaseException as error:  # noqa: BLE001 - as above
                self._fail(error)
        self._went_on(attempt)

    def failed(self, attempt: I, error: BaseException) -> None:
        """``attempt`` ended by ``error``."""
        with self._lock:
            step, bounds = self._step, self._bounds
            if self.over or self.committed or attempt is not self.attempt:
                return
            assert isinstance(step, Send | Direct)
            assert bounds is not None
            try:
                self._do(failed(self._exchange, self._errors, step, error, bounds, self._now()))
            except BaseException as end:  # noqa: BLE001 - as above
                self._fail(end)
        self._went_on(attempt)

    def finished(self, failure: Outcome | None = None) -> None:
        """The answer is read, or given up, or broke off. Effective once."""
        with self._lock:
            if self.over:
                return
            self.over = True
        self._exchange.close(self._now(), failure)
        self._changed()

    def overdue(self, attempt: I, error: BaseException, failure: Outcome) -> None:
        """The mesh gives up the answer that the caller reads, which gets ``error``."""
        with self._lock:
            if self.over or not self.committed or attempt is not self.attempt:
                return
            self.attempt, self.over, self.error = None, True, error
        self._exchange.close(self._now(), failure)
        self._changed()

    def cancel(self, error: BaseException) -> bool:
        """The caller gives up; False: it is over already. ``error``: what to say where there is no attempt to say it."""
        with self._lock:
            if self.over:
                return False
            self.over = True
            attempt = self.attempt
            if attempt is None:
                self.error = error
            pending, self._pending = self._pending, None
            step = None if self.committed else self._step
            self._exchange.cancel(step, error, self._sent(), self._now())
        if pending is not None:
            pending()
        if attempt is not None:
            self._give_up(attempt)
        self._changed()
        return True

    # --- facts ------------------------------------------------------------------------------------------------------------

    def metadata(self, found: Metadata) -> Metadata:
        """The initial metadata of the answer that the caller reads, for that."""
        plan = self._exchange.plan
        return found if plan is None else plan.metadata(found, self._now())

    @property
    def info(self) -> CallInfo | None:
        """What was done so far."""
        return self._exchange.info(self._now())

    @property
    def bounds(self) -> Bounds:
        """The attempt's."""
        assert self._bounds is not None
        return self._bounds

    # --- the loop ---------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._runtime.clock.now()

    def _went_on(self, before: I | None) -> None:
        """A step was made, from ``before`` on."""
        attempt = self.attempt
        if attempt is not None and attempt is not before and not (self.committed or self.over):
            self._watch(attempt)
        self._changed()

    def _fail(self, error: BaseException) -> None:
        """It ends by ``error``. Under the lock."""
        self.attempt, self.over, self.error = None, True, error
        self._exchange.cancel(self._step, error, self._sent(), self._now())

    def _do(self, step: Step) -> None:
        exchange, clock = self._exchange, self._runtime.clock
        while True:
            self._step = step
            if isinstance(step, Deliver):
                self.committed = True
                return
            self.attempt = None
            if not isinstance(step, Send | Direct):
                break
            bounds = self._bounds = bounds_of(exchange, step, clock)
            try:
                if isinstance(step, Send) and step.token is not None and not step.brings:
                    if not at_hand(step.token):
                        self._pending = self._ask(step, bounds)
                        return
                    bring(step)
                self.attempt = self._open(step, bounds)
            except Exception as error:  # noqa: BLE001 - raised again unless it is an outcome
                step = failed(exchange, self._errors, step, error, bounds, clock.now())
            else:
                return
        if isinstance(step, Sleep):
            self._pending = self._after(step.seconds, partial(self._woke, step))
        elif isinstance(step, Wait):
            self._pending = self._wait(step)
        elif isinstance(step, Ask | Take):
            self._pending = self._question(step)
        else:
            assert isinstance(step, Fail)
            fail(exchange, self._errors, step, clock.now())

    def _ask(self, step: Send, bounds: Bounds) -> Callable[[], object]:
        """Have the application asked for the token of an attempt, which goes on with it."""
        assert step.token is not None
        told = partial(self._answered, step)
        forget = self._fetch(step.token, lambda answer: self._soon(partial(told, answer)))
        seconds = bounds.left("connect")
        if seconds is None:
            return forget
        prevent = self._after(seconds, partial(told, too_late(step.token)))

        def end() -> None:
            forget()
            prevent()

        return end

    def _answered(self, step: Send, answer: str | BaseException) -> None:
        with self._lock:
            if self.over or self._step is not step or step.brings or self._pending is None:
                return
            pending, self._pending = self._pending, None
            pending()
            try:
                if isinstance(answer, str):
                    step.bring(answer)
                    self._do(step)
                else:
                    bounds, now = self.bounds, self._now()
                    self._do(failed(self._exchange, self._errors, step, answer, bounds, now))
            except BaseException as error:  # noqa: BLE001 - the caller's, when it asks
                self._fail(error)
        self._went_on(None)

    def _question(self, step: Ask | Take) -> Callable[[], object]:
        from meshlib.hosts.questions import ask_later

        def told(verdict: Any) -> None:
            step.verdict = verdict
            self._soon(partial(self._woke, step))

        end = ask_later(self._runtime, step, told)
        return end if isinstance(step, Ask) else self._after(step.seconds, partial(self._woke, step))

    def _wait(self, step: Wait) -> Callable[[], object]:
        store = self._runtime.store

        def look() -> None:
            if step.ready(store.view):
                self._soon(partial(self._woke, step))

        forget = store.on_change(look)
        prevent = self._after(step.until - self._now(), partial(self._woke, step))
        look()

        def end() -> None:
            forget()
            prevent()

        return end

    def _woke(self, step: Step) -> None:
        with self._lock:
            if self.over or self._step is not step:
                return
            pending, self._pending = self._pending, None
            if pending is not None:
                pending()
            try:
                self._do(self._exchange.woke(self._now()))
            except BaseException as error:  # noqa: BLE001 - the caller's, when it asks
                self._fail(error)
        self._went_on(None)

    def _sent(self) -> bool:
        return self._bounds is not None and self._bounds.sent
