"""Assignments that hold for some time (Envoy ``endpoint_stale_after``): gone then, stream or no stream, unless they came again.

Pure: time is passed in. A machine has one beside its cache.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from meshlib.model.endpoint import Assignment
from meshlib.xds.cache import State

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from meshlib.xds.cache import Cache

__all__ = ["Stale"]


class Stale:
    """Those of ``cache``. Not thread-safe."""

    __slots__ = ("_cache", "_until")

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._until: dict[str, tuple[float, float]] = {}  # when they end, and after how long that is

    @property
    def due(self) -> float:
        """When the first is gone (``inf``: none)."""
        return min((at for at, _ in self._until.values()), default=inf)

    def came(self, name: str) -> None:
        """It came, be it the same again: from now on it holds for as long as it says."""
        value = self._cache.value("endpoint", name)
        seconds = value.stale_after if isinstance(value, Assignment) else 0.0
        if seconds:
            self._until[name] = self._cache.now + seconds, seconds
        else:
            self._until.pop(name, None)

    def again(self, names: AbstractSet[str]) -> None:
        """They came as they were: those that hold for some time do so from now on."""
        for name in self._until.keys() & names:
            self.came(name)

    def tick(self, now: float) -> list[str]:
        """Take away those whose time is over: the names of what was there."""
        gone = []
        for name in [name for name, (at, _) in self._until.items() if at <= now]:
            _, seconds = self._until.pop(name)
            if self._cache.value("endpoint", name) is not None:
                words = f"is stale: it did not come again within {seconds:g} s (endpoint_stale_after)"
                self._cache.lose("endpoint", name, State.TIMEOUT, words, absent=False)
                gone.append(name)
        return gone
