"""A token bucket: so many calls in a time, and a burst of them at once.

Theory. The bucket has ``burst`` tokens and gets ``rate`` more a second, up to ``burst``; a call takes one or is refused. Over any time of
``t`` seconds at most ``burst + rate × t`` calls pass. Tokens are counted in parts, so that none is lost between two looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.model.policy import RateLimit

__all__ = ["Bucket"]


class Bucket:
    """Full at first. Not thread-safe. ``now`` is monotonic seconds and does not go back; ``at``: when it was last looked at; ``tokens``:
    what was in it then.
    """

    __slots__ = ("at", "limit", "tokens")

    def __init__(self, limit: RateLimit, now: float) -> None:
        self.limit = limit
        self.tokens = float(limit.burst)
        self.at = now

    def take(self, now: float, hits: float = 1.0) -> bool:
        """Whether a call may pass now, that counts as so many."""
        limit = self.limit
        self.tokens = min(limit.burst, self.tokens + (now - self.at) * limit.rate)
        self.at = now
        if self.tokens < hits:
            return False
        self.tokens -= hits
        return True

    def configure(self, limit: RateLimit) -> None:
        """Other numbers; what is in it stays, as far as it fits."""
        self.limit = limit
        self.tokens = min(self.tokens, limit.burst)
