"""Slow start: an endpoint that is new gets its share of the calls little by little, whoever picks.

Theory (Envoy's). In the ``window`` seconds after it came, an endpoint counts as a part of its weight: the share of the window that is over,
to the power of 1 / ``aggression``, at least ``least``. Whatever the picker is, it is asked as always, and a pick of a new endpoint is
accepted with that probability, else made again: so shares are as if the weights were less, of schedules as of draws. Once nobody is new
a pick costs one comparison more.

With consistent hashing (`consistent`) the choice is not chance's but the hash's: a new endpoint has the keys whose own number is below its
part, so that each key moves there once, and those of nobody else move.

Where all are new, as when the cluster itself is, they share as always.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext
    from meshlib.model.policy import SlowStart

__all__ = ["AnyPicker", "Warming", "part_of", "warm_at"]

#: Picks that are made again at most.
_MOST_PICKS = 16
#: Envoy: the least time that counts, seconds.
_LEAST = 0.001


class AnyPicker(Protocol):
    """:class:`meshlib.core.balance.picker.Picker`."""

    def pick(self, context: PickContext) -> LiveEndpoint: ...

    def peek(self, context: PickContext) -> LiveEndpoint: ...


class Warming:
    """``inner`` over ``endpoints``, of which some may be new."""

    __slots__ = ("_inner", "_random", "_slow", "_until")

    def __init__(
        self,
        inner: AnyPicker,
        endpoints: Sequence[LiveEndpoint],
        slow: SlowStart,
        random: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._slow = slow
        self._random = random
        self._until = warm_at(endpoints, slow)

    def pick(self, context: PickContext) -> LiveEndpoint:
        picked = self._inner.pick(context)
        if context.now >= self._until:
            return picked
        for _ in range(_MOST_PICKS):
            part = part_of(picked, self._slow, context.now)
            if part >= 1.0 or self._random() < part:
                break
            picked = self._inner.pick(context)
        return picked

    def peek(self, context: PickContext) -> LiveEndpoint:
        return self._inner.peek(context)


def warm_at(endpoints: Sequence[LiveEndpoint], slow: SlowStart) -> float:
    """When none of them is new any more; 0: none is now."""
    came = [endpoint.since for endpoint in endpoints]
    return max(came) + slow.window if len(set(came)) > 1 else 0.0


def part_of(endpoint: LiveEndpoint, slow: SlowStart, now: float) -> float:
    """What ``endpoint`` counts of its weight."""
    age = now - endpoint.since
    if age >= slow.window:
        return 1.0
    part = max(age, _LEAST) / slow.window
    if slow.aggression != 1.0:
        part **= 1.0 / slow.aggression
    return max(part, slow.least)
