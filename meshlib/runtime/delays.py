"""How long first attempts took lately, of the clusters whose calls are hedged at a share of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from meshlib.core.hedging import Quantile

if TYPE_CHECKING:
    from meshlib.core.upstream import Upstream

__all__ = ["LiveDelays"]


class LiveDelays:
    """:class:`meshlib.core.upstream.Delays`. A cluster that is gone is forgotten.

    Lock: ``_lock`` guards the table and all that is in it, for microseconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: WeakKeyDictionary[Upstream, dict[float, Quantile]] = WeakKeyDictionary()

    def add(self, upstream: Upstream, quantile: float, seconds: float, now: float) -> None:
        with self._lock:
            known = self._of.setdefault(upstream, {})
            found = known.get(quantile)
            if found is None:
                found = known[quantile] = Quantile(quantile, now)
            found.add(seconds, now)

    def after(self, upstream: Upstream, quantile: float, now: float) -> float | None:
        with self._lock:
            found = self._of.get(upstream, {}).get(quantile)
            return None if found is None else found.value(now)
