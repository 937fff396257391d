"""Attempts of one blocking call beside each other.

The caller's thread makes the first, as if it were alone; a timer of the worker's begins another in a thread of its own when it is due.
Whoever learns what became of an attempt drives the exchange. The first answer that is the call's ends the race: the other attempts are
stopped where they wait, and what they hold goes back in their own threads.

    caller ──send────────────────────────► answered: the call's, the others are stopped
       │       timer ──► thread ──send───► answered: the caller's own attempt is stopped, and the caller has the answer
       └── its attempt failed, others are under way: it waits for them, and makes what is due next

Measured (docs/decisions/0063): so a call that is answered before its time pays for a timer; handing each call to a thread cost more.

Lock: ``_there`` guards the race and its exchange. It is held while the exchange decides, and never while anybody waits for a socket.
"""

from __future__ import annotations

import contextvars
import threading
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple

from meshlib.core.attempt import Send
from meshlib.core.effects import Deliver, Rest
from meshlib.hosts.protocol import Q, R
from meshlib.hosts.steps import failed, hedged_bounds_of
from meshlib.hosts.tokens import bring
from meshlib.runtime import threads
from meshlib.runtime.process import Local

if TYPE_CHECKING:
    from meshlib.core.effects import Step
    from meshlib.core.exchange import Exchange
    from meshlib.hosts.protocol import Arrived, Host, Wire
    from meshlib.pools.bounds import Bounds, HedgedBounds
    from meshlib.runtime.runtime import Runtime
    from meshlib.runtime.worker import Timer

__all__ = ["Race", "Won", "hedge_slots"]

#: Threads of attempts beside others in this process; where so many run no other is begun.
MOST_THREADS = 256

_threads: Local[threading.Semaphore] = Local(lambda: threading.Semaphore(MOST_THREADS))


def hedge_slots() -> threading.Semaphore:
    """Of this process: whoever begins a thread for a hedge acquires one, and does without where there is none."""
    return _threads.get()


class Won(NamedTuple, Generic[R]):
    """The response that is the call's, its head, and its attempt's bounds."""

    response: R
    arrived: Arrived
    bounds: Bounds


class Race(Generic[Q, R]):
    """Of one call, as long as attempts of it are in flight. ``sent``: a byte of its request may have left."""

    def __init__(
        self, host: Host[Q, R], wire: Wire[Q, R], request: Q, exchange: Exchange, runtime: Runtime
    ) -> None:
        self._host = host
        self._wire = wire
        self._request = request
        self._exchange = exchange
        self._runtime = runtime
        self._now = runtime.clock.now
        self._there = threading.Condition(threading.Lock())
        self._context = contextvars.copy_context()
        self._running: dict[Send, HedgedBounds] = {}
        self._timer: Timer | None = None
        self._until: float | None = None  # when ``woke`` is due
        self._idle = False  # the caller's thread waits
        self._due = False  # and has something to make
        self._over = False
        self._step: Step | None = None
        self._won: Won[R] | None = None
        self._error: BaseException | None = None
        self.sent = False

    def run(self, first: Send) -> tuple[Step, Won[R] | None]:
        """Until nothing is in flight any more: what is to be done next, and of ``Deliver`` the response. Raises what the exchange raises,
        and what the caller is interrupted by.
        """
        try:
            with self._there:
                mine = self._follow(first)
            while mine is not None:
                mine = self._make(mine) or self._await()
        except BaseException:  # interrupted: nobody will read an answer that is there
            if self._won is not None:
                self._wire.discard(self._won.response)
            raise
        finally:
            self._end()
        if self._error is not None:
            raise self._error
        assert self._step is not None
        return self._step, self._won

    def _make(self, attempt: Send) -> Send | None:
        """Make an attempt; another that this thread is to make then."""
        bounds, response, error, arrived = self._running.get(attempt), None, None, None
        if bounds is None:  # another goes on alone
            return None
        try:
            if attempt.token is not None:
                bring(attempt)
            response = self._wire.send(self._request, attempt, bounds)
        except Exception as problem:  # noqa: BLE001 - raised again unless it is an outcome
            error = problem
        then = None
        with self._there:
            self.sent = self.sent or bounds.sent
            wanted = False
            if not self._over and attempt in self._running:
                del self._running[attempt]
                exchange, now = self._exchange, self._now()
                if error is not None:
                    step = failed(exchange, self._host.errors, attempt, error, bounds, now)
                else:
                    assert response is not None
                    arrived = self._host.arrived(response)
                    status, headers, protocol, peer = arrived
                    step = exchange.arrived(attempt, status, headers, protocol, peer, now)
                wanted = type(step) is Deliver
                if wanted:
                    assert response is not None
                    assert arrived is not None
                    bounds.win()
                    self._land(step, Won(response, arrived, bounds))
                else:
                    then = self._follow(step)
        if response is not None and not wanted:
            self._wire.discard(response)
        return then

    def _keep(self, bounds: HedgedBounds) -> HedgedBounds | None:
        """What was sent cannot be sent again: the attempt of ``bounds`` goes on alone, or another if that is over. Which; None: there is none. By any
        thread.
        """
        with self._there:
            plan = self._exchange.plan
            if self._over or not self._running or plan is None:
                return None
            running = self._running
            kept = next((attempt for attempt, its in running.items() if its is bounds), next(iter(running)))
            self._time(None)
            plan.keep(kept.number, self._now())
            for attempt in [attempt for attempt in running if attempt is not kept]:
                running.pop(attempt).stop()
            return running[kept]

    def _follow(self, step: Step) -> Send | None:
        """Do what the exchange says; an attempt that this thread is to make. Under the lock."""
        if isinstance(step, Send):
            bounds = self._running[step] = hedged_bounds_of(self._exchange, step, self._runtime.clock)
            bounds.keep = partial(self._keep, bounds)
            self._time(step.hedge_at)
            return step
        if isinstance(step, Rest):
            self._time(step.until)
        else:
            self._land(step)
        return None

    def _land(self, step: Step | None = None, won: Won[R] | None = None) -> None:
        """Under the lock. It is over."""
        self._over, self._step, self._won = True, step, won
        self._there.notify_all()
        if self._timer is not None:
            self._timer.cancel()
        for bounds in self._running.values():
            bounds.stop()

    def _await(self) -> Send | None:
        """The caller has nothing to make: wait for the others. What it makes then, None: it is over."""
        with self._there:
            while not self._over:
                until = None if self._runtime.clock.virtual else self._until
                self._idle = True
                self._there.wait(None if until is None else max(0.0, until - self._now()))
                self._idle = False
                due = self._due or (until is not None and until == self._until and self._now() >= until)
                if due and not self._over:
                    self._due = False
                    self._time(None)
                    then = self._follow(self._exchange.woke(self._now()))
                    if then is not None:
                        return then
        return None

    def _end(self) -> None:
        """The caller leaves, perhaps because it was interrupted: nobody touches the exchange any more."""
        with self._there:
            if not self._over:
                self._land()
                self.sent = self.sent or any(bounds.sent for bounds in self._running.values())

    # --- beside the caller ------------------------------------------------------------------------------------------------

    def _time(self, when: float | None) -> None:
        """Under the lock. ``woke`` is due then, and at no other time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._until = when
        if when is not None:
            self._timer = self._runtime.worker.later(when - self._now(), self._rang)

    def _rang(self) -> None:
        """By the worker."""
        slots = _threads.get()
        with self._there:
            timer = self._timer
            if self._over or timer is None or timer.command is not None:  # another was set meanwhile
                return
            if self._idle:
                self._due = True
                self._there.notify_all()
                return
        if slots.acquire(blocking=False):
            run = (self._run_beside, slots)
            try:
                thread = threading.Thread(
                    target=self._context.copy().run, args=run, name="meshlib-hedge", daemon=True
                )
                threads.start(thread)
            except RuntimeError:  # the system has no more threads: the call goes on as it is
                slots.release()

    def _run_beside(self, slots: threading.Semaphore) -> None:
        try:
            with self._there:
                mine = None if self._over else self._follow(self._exchange.woke(self._now()))
            while mine is not None:
                mine = self._make(mine)
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            with self._there:
                if not self._over:
                    self._error = error
                    self._land()
        finally:
            slots.release()
