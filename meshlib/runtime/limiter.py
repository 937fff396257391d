"""The rate limit of a live cluster, with a lock of its own: who is refused disturbs no call."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from meshlib.core.bucket import Bucket

if TYPE_CHECKING:
    from meshlib.model.policy import RateLimit

__all__ = ["Limiter", "limiter_of"]


def limiter_of(limit: RateLimit | None, before: Limiter | None, now: float) -> Limiter | None:
    """The limiter of a cluster whose configuration may be another than ``before``."""
    if limit is None or before is None:
        return None if limit is None else Limiter(limit, now)
    before.configure(limit)
    return before


class Limiter:
    """Thread-safe. ``_lock`` guards the bucket."""

    __slots__ = ("_bucket", "_lock")

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._bucket = Bucket(limit, now)
        self._lock = threading.Lock()

    def take(self, now: float) -> bool:
        """Whether a call may pass now. Threads that come at once may be a little out of order."""
        with self._lock:
            return self._bucket.take(max(now, self._bucket.at))

    def configure(self, limit: RateLimit) -> None:
        """Other numbers."""
        with self._lock:
            self._bucket.configure(limit)
