"""A route that has limits of its own: what is in flight by it, its breaker, its rate limit.

One lock per route. It guards the counter and the breaker, and is held as briefly as a cluster's: never during I/O, a callback
or a call. A route's state goes by its name and place, so that it outlives an update of the configuration; a route without a name
is known by its place in its virtual host.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from meshlib.core.classify import verdict
from meshlib.core.limits import reached
from meshlib.core.upstream import Refusal, RefusalKind
from meshlib.model.call import OK
from meshlib.runtime.limiter import Limiter, limiter_of
from meshlib.runtime.live_breaker import LiveBreaker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.core.breaker import Change
    from meshlib.core.breaker_saved import Saved
    from meshlib.core.loads import Metrics
    from meshlib.core.match import Match
    from meshlib.core.upstream import Pick, PickContext, Upstream
    from meshlib.model.call import Outcome
    from meshlib.model.events import Event
    from meshlib.model.policy import RouteLimits
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.live_breaker import Held

__all__ = ["LiveRoute", "LiveRoutes"]

#: Routes of which something is known. Beyond it the first that has no call is forgotten: names come from the network.
MOST = 10_000

#: Source of the part, route configuration, virtual host, route.
Key = tuple[str, str, str, str]


class LiveRoutes:
    """All of them in a process. Thread-safe; a look-up takes no lock.

    Args:
        clock: Monotonic time.
        emit: Is told of events, outside of any lock; must not raise.
    """

    def __init__(self, clock: Clock, emit: Callable[[Event], None]) -> None:
        self._clock = clock
        self._emit = emit
        self._live: dict[Key, LiveRoute] = {}
        self._restored: dict[Key, Saved] = {}  # breakers of those that are not there yet
        self._lock = threading.Lock()  # guards making and forgetting

    def of(self, part: str, match: Match, limits: RouteLimits, now: float) -> LiveRoute:
        """The route of this match. Where its numbers are others than before, they hold from now on, and what is known stays."""
        key = (part, match.config.name, match.virtual_host.name, match.name)
        found = self._live.get(key)
        if found is None:
            found = self._made(key, limits, now)
        if found.limits is not limits:
            found.put(limits, now)
        return found

    def _made(self, key: Key, limits: RouteLimits, now: float) -> LiveRoute:
        with self._lock:
            found = self._live.get(key)
            if found is None:
                if len(self._live) >= MOST:
                    idle = next((key for key, live in self._live.items() if not live.active), None)
                    if idle is not None:
                        del self._live[idle]
                found = LiveRoute(key[3], limits, self._emit, self._clock.now, now, "/".join(key))
                saved = self._restored.pop(key, None)
                if saved is not None:
                    found.restore(saved)
                self._live[key] = found
            return found

    def saved(self) -> dict[Key, dict[str, object]]:
        """What breakers know, of the routes whose breaker knows something."""
        now = self._clock.now()
        found = {key: live.saved(now) for key, live in list(self._live.items())}
        return {key: saved for key, saved in found.items() if saved is not None}

    def restore(self, saved: Mapping[Key, Saved]) -> None:
        """Have breakers go on from there; those of routes that no call came by yet, with their first."""
        with self._lock:
            self._restored = dict(saved)
            there = [(live, self._restored.pop(key)) for key, live in self._live.items() if key in saved]
        for live, one in there:
            live.restore(one)


class LiveRoute:
    """One route (:class:`meshlib.core.upstream.CallLimits`), which a storage knows by its ``place``. Thread-safe; no method blocks.

    Attributes:
        limits: Its numbers.
        active: Calls that entered and did not leave. ``overflows``: those that were refused, over all time.
        limiter: Its rate limit.
    """

    __slots__ = (
        "_breaker",
        "_clock",
        "_emit",
        "_lock",
        "_place",
        "_told",
        "active",
        "limiter",
        "limits",
        "name",
        "overflows",
    )

    def __init__(
        self,
        name: str,
        limits: RouteLimits,
        emit: Callable[[Event], None],
        clock: Callable[[], float],
        now: float,
        place: str = "",
    ) -> None:
        self.name = name
        self.active = 0
        self.overflows = 0
        self.limiter: Limiter | None = None
        self._emit = emit
        self._clock = clock
        self._lock = threading.Lock()
        self._told: list[Callable[[], None]] = []
        self._breaker: LiveBreaker | None = None
        self._place = place
        self.put(limits, now)

    def put(self, limits: RouteLimits, now: float) -> None:
        """Other numbers; what is in flight and what the breaker knows stays."""
        with self._lock:
            self.limits = limits
            config = limits.breaker
            if config is None:
                self._breaker = None
            elif self._breaker is None:
                self._breaker = LiveBreaker(
                    self.name, config, self._told.append, self._say, self._apply, self._clock, of_route=True
                )
            else:
                self._breaker.configure(config)
            self.limiter = limiter_of(limits.rate_limit, self.limiter, self._place, now)

    def saved(self, now: float) -> dict[str, object] | None:
        """What its breaker knows."""
        with self._lock:
            return None if self._breaker is None else self._breaker.saved(now)

    def restore(self, saved: Saved) -> None:
        """Have its breaker go on from there."""
        with self._lock:
            if self._breaker is not None:
                self._breaker.restore(saved)
            told = self._to_tell()
        _tell(told)

    # --- a call's side --------------------------------------------------------------------------------------------

    def enter(self) -> Refusal | None:
        """A call begins; or why it may not, and nothing is counted."""
        with self._lock:
            most = self.limits.max_requests
            if not reached(most, self.active):
                self.active += 1
                return None
            self.overflows += 1
            words = f"route {self.name} has {self.active} calls in flight, max_requests is {most}"
            return Refusal(RefusalKind.MAX_REQUESTS, words)

    def leave(self) -> None:
        """A call that entered is over."""
        with self._lock:
            self.active -= 1

    def pick(self, upstream: Upstream, context: PickContext, now: float) -> Pick | Refusal:
        """An endpoint for one attempt, where the route's breaker lets it through."""
        with self._lock:
            breaker = self._breaker
            permit = None if breaker is None else breaker.ask(now)
            told = self._to_tell()
        _tell(told)
        if breaker is None:
            return upstream.pick(context, now)
        if permit is None:
            return Refusal(RefusalKind.BREAKER, f"the breaker of route {self.name} is {breaker}")
        held = breaker, permit
        try:
            picked = upstream.pick(context, now)
        except BaseException:
            self._settle(held, None, now)
            raise
        if isinstance(picked, Refusal):
            self._settle(held, None, now)
            return picked
        with self._lock:
            breaker.before_call()
            told = self._to_tell()
        _tell(told)
        return _RoutePick(self, picked, held)

    def _settle(
        self,
        held: Held,
        good: bool | None,
        now: float,
        outcome: Outcome | None = None,
        *,
        again: bool = False,
    ) -> None:
        breaker, permit = held
        with self._lock:
            breaker.settle(permit, good, now, outcome, again=again)
            told = self._to_tell()
        _tell(told)

    # --- what is told -----------------------------------------------------------------------------------------------

    def _apply(self, move: Callable[[], Change | None]) -> None:
        """Move the breaker from outside a call: a storage or a listener said so."""
        with self._lock:
            change = move()
            if self._breaker is not None:
                self._breaker.changed(change)
            told = self._to_tell()
        _tell(told)

    def _say(self, event: Event) -> None:
        self._told.append(lambda: self._emit(event))

    def _to_tell(self) -> list[Callable[[], None]]:
        """What gathered; the caller tells it once the lock is free."""
        told = self._told[:]
        self._told.clear()
        return told

    @property
    def breaker(self) -> str:
        """The state of its breaker; of none ``"closed"``."""
        return "closed" if self._breaker is None else self._breaker.state.value


class _RoutePick:
    """A pick that the route's breaker hears of, too (:class:`meshlib.core.upstream.Pick`)."""

    __slots__ = ("_held", "_pick", "_reported", "_route", "endpoint", "upstream")

    def __init__(self, route: LiveRoute, pick: Pick, held: Held) -> None:
        self.endpoint = pick.endpoint
        self.upstream = pick.upstream
        self._pick = pick
        self._route = route
        self._held: Held | None = held
        self._reported = False

    @property
    def listens(self) -> bool:
        return self._pick.listens

    def measured(self, metrics: Metrics | None) -> None:
        self._pick.measured(metrics)

    def give_up(self) -> None:
        self._pick.give_up()

    def report(self, outcome: Outcome, now: float) -> None:
        self._pick.report(outcome, now)
        held = self._held
        if held is not None and not self._reported:
            self._reported = True
            self._route._settle(held, verdict(outcome).good, now, outcome)

    def release(self, now: float, failure: Outcome | None = None) -> None:
        self._pick.release(now, failure)
        held, self._held = self._held, None
        if held is None:
            return
        if failure is not None and failure.kind is not OK:
            self._route._settle(held, verdict(failure).good, now, failure, again=self._reported)
        elif not self._reported:
            self._route._settle(held, None, now)


def _tell(told: list[Callable[[], None]]) -> None:
    for tell in told:
        tell()
