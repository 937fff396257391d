"""Deterministic aperture: each of many callers calls a few endpoints, and all endpoints get the same from all callers together.

Theory (Finagle's). Endpoints and callers both stand evenly around a circle: an endpoint has an arc of 1 / endpoints, a caller begins at
its number of all. A caller's aperture is an arc that has at least ``size`` endpoints' width, rounded up to whole arcs of callers: so
the apertures of all callers cover each place of the circle equally often, and an endpoint at the edge of one, of which a caller has
only a part, is the next caller's for the rest. It gets that part of an endpoint's share.

Callers must agree on who stands where: endpoints are in the order of hashes of their addresses, which nobody draws. One that comes or
goes moves each arc by less than its own width. Random subsetting (`subset`) needs no numbers and leaves more to chance; this needs
them to be right: numbers from 0, each once, and how many there are.

A dozen endpoints (Finagle's least) are so many that a few that fail, or that have different weights, are no matter.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from meshlib.core.hashing import hash_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from meshlib.core.balance.warming import AnyPicker
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import PickContext

__all__ = ["Partial", "aperture", "width"]

#: Picks that are made again at most.
_MOST_PICKS = 16
#: Less of an endpoint than this is none: rounding makes such edges (Finagle's).
_LEAST = 1e-6


def width(size: int, endpoints: int, callers: int) -> float:
    """Of the aperture, where the circle is 1."""
    turns = ceil(size / endpoints * callers - _LEAST)
    return min(1.0, turns / callers)


def aperture(
    endpoints: Iterable[LiveEndpoint], size: int, caller: int, callers: int
) -> dict[LiveEndpoint, float]:
    """Whom ``caller`` of ``callers``, counted from 0, calls, and how much of each is its: above 0, at most 1."""
    order = sorted(endpoints, key=lambda endpoint: (hash_bytes(endpoint.name.encode()), endpoint.name))
    count = len(order)
    if not count:
        return {}
    # In arcs of endpoints.
    begin = caller % callers / callers * count
    end = begin + width(size, count, callers) * count
    found: dict[LiveEndpoint, float] = {}
    for place in range(int(begin), ceil(end)):
        part = min(end, place + 1) - max(begin, place)
        if part > _LEAST:
            endpoint = order[place % count]
            found[endpoint] = min(1.0, found.get(endpoint, 0.0) + part)
    return found


class Partial:
    """``inner``, of whose endpoints some count only in part: a pick of one is accepted with that probability, else made again. So
    shares are as if the weights were less, whoever picks.
    """

    __slots__ = ("_inner", "_parts", "_random")

    def __init__(
        self, inner: AnyPicker, parts: Mapping[LiveEndpoint, float], random: Callable[[], float]
    ) -> None:
        self._inner = inner
        self._parts = parts
        self._random = random

    @classmethod
    def over(
        cls,
        inner: AnyPicker,
        endpoints: Sequence[LiveEndpoint],
        parts: Mapping[LiveEndpoint, float],
        random: Callable[[], float],
    ) -> AnyPicker:
        """``inner`` itself, where all of ``endpoints`` count alike."""
        held = {endpoint: parts.get(endpoint, 1.0) for endpoint in endpoints}
        most = max(held.values())
        less = {endpoint: part / most for endpoint, part in held.items() if part < most}
        return cls(inner, less, random) if less else inner

    def pick(self, context: PickContext) -> LiveEndpoint:
        parts = self._parts
        picked = self._inner.pick(context)
        for _ in range(_MOST_PICKS):
            part = parts.get(picked)
            if part is None or self._random() < part:
                break
            picked = self._inner.pick(context)
        return picked

    def peek(self, context: PickContext) -> LiveEndpoint:
        return self._inner.peek(context)
