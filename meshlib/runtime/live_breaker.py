"""The breakers of a live cluster or of a live route: the machines, and what of them is pybreaker's. All of it is under its owner's lock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from meshlib.core.breaker import CircuitBreaker
from meshlib.core.breaker_saved import put, take
from meshlib.model.events import BreakerChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from meshlib.core.breaker import BreakerState, Change, Permit
    from meshlib.core.breaker_saved import Saved
    from meshlib.core.endpoint import EndpointBreaker, LiveEndpoint
    from meshlib.core.locality import Balance
    from meshlib.core.subsets import SubsetBalance
    from meshlib.core.upstream import PickContext
    from meshlib.model.call import Outcome
    from meshlib.model.events import Event
    from meshlib.model.policy import Breaker
    from meshlib.runtime.pybreaker_bridge import Bridge

__all__ = ["Breakers", "Held", "LiveBreaker"]

#: Leave for one attempt, and whose it is.
Held = tuple["EndpointBreaker", "Permit"]

#: Endpoints that are picked for one whose own breaker is not open, before it is looked for.
_MOST_PICKS = 4


class LiveBreaker:
    """Of one cluster, of one of its endpoints, or of one route.

    Args:
        name: The cluster's or the route's.
        config: Its numbers.
        later: Has something done once the lock is free.
        say: Tells an event, likewise.
        apply: Runs a function on the machine under the lock, and tells of the change that it answers.
        clock: Monotonic seconds.
        endpoint: The endpoint's name, where it is of one.
        of_route: ``name`` is a route's.
    """

    __slots__ = (
        "_apply",
        "_bridge",
        "_clock",
        "_endpoint",
        "_later",
        "_machine",
        "_name",
        "_of_route",
        "_say",
    )

    def __init__(
        self,
        name: str,
        config: Breaker,
        later: Callable[[Callable[[], None]], object],
        say: Callable[[Event], object],
        apply: Callable[[Callable[[], Change | None]], None],
        clock: Callable[[], float],
        endpoint: str = "",
        *,
        of_route: bool = False,
    ) -> None:
        self._name = name
        self._of_route = of_route
        self._later = later
        self._say = say
        self._apply = apply
        self._clock = clock
        self._endpoint = endpoint
        self._machine = CircuitBreaker(config)
        self._bridge: Bridge | None = None
        self._bind(config)

    @property
    def state(self) -> BreakerState:
        return self._machine.state

    def __str__(self) -> str:
        return self._machine.state.value.replace("_", " ")

    def configure(self, config: Breaker) -> None:
        """Other numbers."""
        before = self._machine.config
        if before == config:
            return
        self._machine.configure(config)
        if (before.listeners, before.storage) != (config.listeners, config.storage):
            self._bind(config)

    def _bind(self, config: Breaker) -> None:
        self._bridge = None
        if (config.listeners or config.storage is not None) and not self._endpoint:
            from meshlib.runtime.pybreaker_bridge import Bridge

            self._bridge = Bridge(self._name, self._machine, self._apply, self._clock)

    def ask(self, now: float) -> Permit | None:
        """A permit, or None: the call is refused."""
        bridge = self._bridge
        if bridge is not None:
            self.changed(bridge.look(now))
        permit, change = self._machine.ask(now)
        if change is not None:
            if bridge is not None:
                bridge.changed(change[1])
            self.changed(change)
        return permit

    def would_permit(self, now: float) -> bool:
        """Whether ``ask`` would give one."""
        return self._machine.would_permit(now)

    def saved(self, now: float) -> dict[str, object] | None:
        """What it knows, as a value (:mod:`meshlib.core.breaker_saved`); None: nothing, or a storage keeps it."""
        return take(self._machine, now) if self._machine.config.storage is None else None

    def restore(self, saved: Saved) -> None:
        """Go on from there, unless it has heard of calls already, or a storage says."""
        machine = self._machine
        if machine.config.storage is None and not machine.epoch and not machine.failures:
            old = machine.state
            put(machine, saved)
            if machine.state is not old:
                self.changed((old, machine.state))

    def before_call(self) -> None:
        """A call is about to be sent."""
        if self._bridge is not None:
            self._later(self._bridge.before_call)

    def settle(
        self,
        permit: Permit,
        good: bool | None,
        now: float,
        outcome: Outcome | None = None,
        *,
        again: bool = False,
    ) -> None:
        """What came of a call; ``good`` None: nothing that counts. ``again``: as of the machine."""
        machine, bridge = self._machine, self._bridge
        counted = bridge is not None and permit.epoch == machine.epoch
        seconds = 0.0 if outcome is None else outcome.seconds
        change = machine.settle(permit, good, now, seconds, again=again)
        if bridge is not None and good is not None and counted and outcome is not None:
            bridge.settled(good, change)
            self._later(partial(bridge.told, good, outcome))
        if change is not None:
            self.changed(change)

    def changed(self, change: Change | None) -> None:
        """Tell of it."""
        if change is None:
            return
        old, new = change
        if self._bridge is not None:
            self._later(partial(self._bridge.state_change, old, new))
        name, route = ("", self._name) if self._of_route else (self._name, "")
        self._say(BreakerChanged(name, old.value, new.value, self._endpoint, route))


class Breakers:
    """Those of one cluster: its own, and one of each endpoint, made when it is first picked.

    Args:
        make: Makes one of these numbers, of the endpoint of that name or, ``""``, of the cluster.

    Attributes:
        one: The cluster's own; None: it has none. ``each``: the numbers of its endpoints'; None: they have none.
    """

    __slots__ = ("_make", "_restored", "each", "one")

    def __init__(self, make: Callable[[Breaker, str], LiveBreaker]) -> None:
        self._make = make
        self._restored: dict[str, Saved] = {}  # for those that are not there yet, by endpoint
        self.one: LiveBreaker | None = None
        self.each: Breaker | None = None

    def put(self, one: Breaker | None, each: Breaker | None, endpoints: Iterable[LiveEndpoint]) -> None:
        """Other numbers. A breaker that is there keeps what it knows."""
        if one is None:
            self.one = None
        elif self.one is None:
            self.one = self._new(one, "")
        else:
            self.one.configure(one)
        if each is self.each:
            return
        self.each = each
        for endpoint in endpoints:
            if each is None:
                endpoint.breaker = None
            elif endpoint.breaker is not None:
                endpoint.breaker.configure(each)

    def _new(self, config: Breaker, endpoint: str) -> LiveBreaker:
        made = self._make(config, endpoint)
        saved = self._restored.pop(endpoint, None) if self._restored else None
        if saved is not None:
            made.restore(saved)
        return made

    def saved(self, endpoints: Iterable[LiveEndpoint], now: float) -> dict[str, dict[str, object]]:
        """What those know that know something, by endpoint; ``""``: the cluster's own."""
        found = {"": None if self.one is None else self.one.saved(now)}
        for endpoint in endpoints:
            if endpoint.breaker is not None:
                found[endpoint.name] = endpoint.breaker.saved(now)
        return {name: saved for name, saved in found.items() if saved is not None}

    def restore(self, saved: Mapping[str, Saved], endpoints: Iterable[LiveEndpoint]) -> None:
        """Have each go on from there; those that are not there yet, once they are made."""
        self._restored = dict(saved)
        there: list[tuple[str, EndpointBreaker | None]] = [("", self.one)]
        there.extend((endpoint.name, endpoint.breaker) for endpoint in endpoints)
        for name, breaker in there:
            if breaker is not None and name in self._restored:
                breaker.restore(self._restored.pop(name))

    def permitted(
        self,
        picked: LiveEndpoint,
        balance: Balance | SubsetBalance,
        context: PickContext,
        endpoints: Iterable[LiveEndpoint],
        now: float,
    ) -> tuple[LiveEndpoint | None, Held | None]:
        """An endpoint whose own breaker lets the call through: ``picked``, or another that ``balance`` picks, or whoever there is of
        ``endpoints``; None: nobody's does.
        """
        each = self.each
        assert each is not None
        for endpoint in _in_turn(picked, balance, context, endpoints):
            breaker = endpoint.breaker
            if breaker is None:
                breaker = endpoint.breaker = self._new(each, endpoint.name)
            permit = breaker.ask(now)
            if permit is not None:
                return endpoint, (breaker, permit)
        return None, None


def _in_turn(
    picked: LiveEndpoint,
    balance: Balance | SubsetBalance,
    context: PickContext,
    endpoints: Iterable[LiveEndpoint],
) -> Iterator[LiveEndpoint]:
    yield picked
    if context.override is not None and context.override.strict:
        return
    tried, seen = context.tried, [picked]
    for _ in range(_MOST_PICKS):
        context.tried = (*tried, *seen)
        other = balance.pick(context)
        context.tried = tried
        if other is None or other in seen:
            break
        seen.append(other)
        yield other
    for endpoint in endpoints:
        if not endpoint.down and endpoint not in seen:
            yield endpoint
