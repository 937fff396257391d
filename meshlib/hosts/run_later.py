"""The loop that makes calls for which no thread waits: each step is begun, and what it brings goes on with the call.

It is for libraries whose calls are objects (gRPC's futures and streams, asyncio's calls): the application holds one before
anything was sent, and need not ask it for anything. So whoever learns that something happened drives: the library's callback, a
timer, the application's thread. It holds no decision.

    begin ─► an attempt is under way ──failed, refused──► another, a sleep, a wait, the end
                 │    └──────────arrived──────────► committed: the answer is the caller's
                 └──a hedge is due──► another beside it: the first to arrive is committed, the others are given up
    anything ──cancel──► the end
    committed ──the mesh gives the answer up──► the end

Lock: ``_lock`` guards the step in which the call is, and its legs. It is held while an attempt is begun, and never while somebody is told or an attempt given up.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from meshlib.core.attempt import Send
from meshlib.core.effects import Ask, Deliver, Direct, Fail, Rest, Sleep, Take, Wait
from meshlib.hosts.legs import I, Leg, Legs
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
    from meshlib.runtime.runtime import Runtime

__all__ = ["LaterCall"]


#: Seconds after which an answer that has begun is no failure that came at once.
_SETTLED = 0.01


class LaterCall(Legs[I]):
    """One call. Driven from any thread; an event loop's from its own.

    A library's own says how an attempt is begun (``_open``) and given up (``_give_up``), how time passes (``_after``), and who is
    told of a change (``_changed``).

    Attributes:
        committed: ``attempt`` is the caller's.
        over: Nothing will come any more.
        closed: And the call is counted, traced and measured.
        error: Why, where it is not for ``attempt`` to say.
    """

    __slots__ = (
        "__weakref__",
        "_errors",
        "_exchange",
        "_hedge",
        "_lock",
        "_mark",
        "_pending",
        "_runtime",
        "_seen",
        "_step",
        "closed",
        "committed",
        "error",
        "over",
    )

    def __init__(self, exchange: Exchange, errors: ErrorTable, runtime: Runtime) -> None:
        super().__init__()
        self._exchange = exchange
        self._errors = errors
        self._runtime = runtime
        self._lock = threading.RLock()
        self._step: Step | None = None
        self._hedge: Callable[[], object] | None = None  # prevents the next one
        self._mark: object = None  # of its timer
        self._seen: I | None = None  # whose answer may have begun
        self._pending: Callable[[], object] | None = None  # ends a sleep or a wait
        self.committed = False
        self.over = self.closed = False
        self.error: BaseException | None = None

    # --- the library's ----------------------------------------------------------------------------------------------------

    def _open(self, leg: Leg[I]) -> I:
        raise NotImplementedError

    def _watch(self, attempt: I) -> None:
        """Have it told (``arrived``, ``failed``) what becomes of ``attempt``, if it is not yet."""
        raise NotImplementedError

    def _headed(self) -> I | None:
        """An attempt whose answer has begun though nobody has looked. Under the lock."""
        raise NotImplementedError

    def _room(self) -> bool:
        """Whether another attempt can be made beside those under way. Under the lock."""
        return True

    def _commit(self, attempt: I) -> None:
        """``attempt`` is to be the caller's."""
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
        begun = None
        with self._lock:
            try:
                begun = self._do(self._exchange.start(self._now()))
            except BaseException as error:  # noqa: BLE001 - the caller's, when it asks
                self._fail(error)
        self._went_on(begun)

    def arrived(
        self, attempt: I, status: int, headers: Headers | None, protocol: str, peer: str = ""
    ) -> None:
        """The head of ``attempt``'s answer is there."""
        begun = None
        with self._lock:
            leg = self.leg_of(attempt)
            if self.over or self.committed or leg is None:
                return
            now = self._now()
            try:
                begun = self._do(self._exchange.arrived(leg.step, status, headers, protocol, peer, now), leg)
            except BaseException as error:  # noqa: BLE001 - as above
                self._fail(error)
        self._went_on(begun)

    def failed(self, attempt: I, error: BaseException) -> None:
        """``attempt`` ended by ``error``."""
        begun = None
        with self._lock:
            leg = self.leg_of(attempt)
            if self.over or self.committed or leg is None:
                return
            try:
                begun = self._do(self._failed(leg, error), leg)
            except BaseException as end:  # noqa: BLE001 - as above
                self._fail(end, leg)
        self._went_on(begun)

    def finished(self, failure: Outcome | None = None) -> None:
        """The answer is read, or given up, or broke off. Effective once."""
        with self._lock:
            if self.over:
                return
            self.over = True
        self._close(failure)

    def overdue(self, attempt: I, error: BaseException, failure: Outcome) -> None:
        """The mesh gives up the answer that the caller reads, which gets ``error``."""
        with self._lock:
            if self.over or not self.committed or attempt is not self.attempt:
                return
            self.attempt, self.over, self.error = None, True, error
        self._close(failure)

    def keep(self, leg: Leg[I] | None) -> Leg[I] | None:
        """What was sent cannot be sent again: ``leg`` goes on alone, or another if that is over. Which; None: there is none."""
        with self._lock:
            if leg not in self.legs:
                leg = self._front
            if self.over or self.committed or leg is None:
                return leg
            plan = self._exchange.plan
            if plan is not None and isinstance(leg.step, Send):
                plan.keep(leg.step.number, self._now())
            if self._beside:
                self._alone(leg)
            self._time(None)
        self._went_on(None)
        return leg

    def cancel(self, error: BaseException) -> bool:
        """The caller gives up; False: it is over already. ``error``: what to say where there is no attempt to say it."""
        with self._lock:
            if self.over:
                return False
            self.over = True
            if self.attempt is None:
                self.error = error
            pending, self._pending = self._pending, None
            sent = self._sent()
            for leg in self.legs:
                self._drop(leg)
            self._time(None)
            step = None if self.committed else self._step
            self._exchange.cancel(step, error, sent, self._now())
            self.closed = True
        if pending is not None:
            pending()
        self._went_on(None)
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

    # --- the loop ---------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._runtime.clock.now()

    def _failed(self, leg: Leg[I], error: BaseException) -> Step:
        """What follows an attempt that ended by ``error``."""
        return failed(self._exchange, self._errors, leg.step, error, leg.bounds, self._now())

    def _went_on(self, begun: I | None) -> None:
        """A step was made, by which ``begun`` was."""
        if self._losers:
            with self._lock:
                losers, self._losers = self._losers, ()
            for attempt in losers:
                self._give_up(attempt)
        if begun is not None:
            self._watch(begun)
        self._changed()

    def _close(self, failure: Outcome | None) -> None:
        """Of an answer: its caller may learn that it is over, and what it reads then is counted. Without the lock: observers are told."""
        try:
            self._exchange.close(self._now(), failure)
        finally:
            self.closed = True
            self._changed()

    def _fail(self, error: BaseException, ended: Leg[I] | None = None) -> None:
        """It ends by ``error``, since ``ended`` did. Under the lock."""
        sent = self._sent()
        for leg in self.legs:
            self._drop(leg, over=leg is ended)
            self._left(leg)
        self._time(None)
        self._front, self.attempt = None, None
        self.over, self.error = True, error
        self._exchange.cancel(self._step, error, sent, self._now())
        self.closed = True

    def _do(self, step: Step, ended: Leg[I] | None = None) -> I | None:
        """Begin what ``step`` says, which follows from how ``ended`` did; what attempt that began. Under the lock."""
        exchange, clock = self._exchange, self._runtime.clock
        while True:
            self._step = step
            if isinstance(step, Deliver):
                assert ended is not None
                self.committed = True
                if self._beside:
                    self._alone(ended)
                if self._hedge is not None:
                    self._time(None)
                return None
            if ended is not None:
                self._end(ended)
                ended = None
            if isinstance(step, Rest):
                self._time(step.until)
                return None
            if not isinstance(step, Send | Direct):
                break
            leg: Leg[I] = Leg(step, bounds_of(exchange, step, clock))
            if self._front is None:
                self._front = leg
            else:
                self._beside = (*self._beside, leg)
            if isinstance(step, Send) and (step.hedge_at is not None or self._hedge is not None):
                self._time(step.hedge_at)
            try:
                if isinstance(step, Send) and step.token is not None and not step.brings:
                    if not at_hand(step.token):
                        leg.pending = self._ask(leg)
                        return None
                    bring(step)
                return self._begun(leg)
            except Exception as error:  # noqa: BLE001 - raised again unless it is an outcome
                ended, step = leg, self._failed(leg, error)
        self._pause(step)
        return None

    def _pause(self, step: Step) -> None:
        """Nothing is under way any more, up to what ``step`` waits for; it raises what the call ends by."""
        self._time(None)
        for leg in self.legs:  # of hedges that the end has overtaken
            self._drop(leg)
            self._end(leg)
        if isinstance(step, Sleep):
            self._pending = self._after(step.seconds, partial(self._woke, step))
        elif isinstance(step, Wait):
            self._pending = self._wait(step)
        elif isinstance(step, Ask | Take):
            self._pending = self._question(step)
        else:
            assert isinstance(step, Fail)
            fail(self._exchange, self._errors, step, self._now())

    def _begun(self, leg: Leg[I]) -> I:
        attempt = leg.attempt = self._open(leg)
        if leg is self._front:
            self.attempt = attempt
        return attempt

    # --- hedges ---------------------------------------------------------------------------------------------------------

    def _time(self, when: float | None) -> None:
        """Another attempt is due then, and at no other time."""
        hedge, self._hedge = self._hedge, None
        if hedge is not None:
            hedge()
        if when is not None:
            mark = object()
            prevent = self._after(max(0.0, when - self._now()), lambda: self._due(mark))
            self._hedge = prevent
            self._mark = mark

    def _due(self, mark: object) -> None:
        begun = headed = None
        with self._lock:
            if self.over or self.committed or self._hedge is None or mark is not self._mark:
                return
            self._hedge = None
            headed = self._headed()
            if headed is not None and headed is not self._seen:
                # What looks like the head of an answer may be that of a failure, whose status comes with it: it is looked at again.
                self._seen = headed
                self._time(self._now() + _SETTLED)
                return
            if headed is None and self._room():
                try:
                    begun = self._do(self._exchange.woke(self._now()))
                except BaseException as error:  # noqa: BLE001 - the caller's, when it asks
                    self._fail(error)
        if headed is not None:
            self._commit(headed)
        else:
            self._went_on(begun)

    # --- tokens, waits ----------------------------------------------------------------------------------------------------

    def _ask(self, leg: Leg[I]) -> Callable[[], object]:
        """Have the application asked for the token of an attempt, which goes on with it."""
        assert isinstance(leg.step, Send)
        assert leg.step.token is not None
        told = partial(self._answered, leg)
        forget = self._fetch(leg.step.token, lambda answer: self._soon(partial(told, answer)))
        seconds = leg.bounds.left("connect")
        if seconds is None:
            return forget
        prevent = self._after(seconds, partial(told, too_late(leg.step.token)))

        def end() -> None:
            forget()
            prevent()

        return end

    def _answered(self, leg: Leg[I], answer: str | BaseException) -> None:
        begun = None
        with self._lock:
            pending, leg.pending = leg.pending, None
            if pending is None:
                return
            pending()
            try:
                if isinstance(answer, str):
                    assert isinstance(leg.step, Send)
                    leg.step.bring(answer)
                    try:
                        begun = self._begun(leg)
                    except Exception as error:  # noqa: BLE001 - as in _do
                        begun = self._do(self._failed(leg, error), leg)
                else:
                    begun = self._do(self._failed(leg, answer), leg)
            except BaseException as error:  # noqa: BLE001 - the caller's, when it asks
                self._fail(error, leg)
        self._went_on(begun)

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
        begun = None
        with self._lock:
            if self.over or self._step is not step:
                return
            pending, self._pending = self._pending, None
            if pending is not None:
                pending()
            try:
                begun = self._do(self._exchange.woke(self._now()))
            except BaseException as error:  # noqa: BLE001 - the caller's, when it asks
                self._fail(error)
        self._went_on(begun)
