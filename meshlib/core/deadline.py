"""How much time a call has: the nearest of what the route, the call and its surroundings allow, and whose it is.

All times are seconds; points in time are of the caller's monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NONE", "Deadline", "nearest"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """``at``: when time is over, None for never. ``limit`` says whose limit it is, for the words of an error
    (``"the route's timeout of 15 s"``).
    """

    at: float | None = None
    limit: str = ""

    def over(self, now: float) -> bool:
        return self.at is not None and now >= self.at

    def left(self, now: float) -> float | None:
        """Seconds left, never negative; None: without end."""
        return None if self.at is None else max(0.0, self.at - now)

    def allows(self, now: float, seconds: float) -> bool:
        """Whether something that takes so long would end in time."""
        return self.at is None or now + seconds < self.at

    def within(self, now: float, seconds: float | None, limit: str) -> Deadline:
        """The nearer of this and ``seconds`` from now. None sets no limit; a tie stays with this one."""
        if seconds is None or not self.allows(now, seconds):
            return self
        return Deadline(now + seconds, f"{limit} of {seconds:g} s")


NONE = Deadline()


def nearest(
    now: float, *, context: Deadline = NONE, route: float | None = None, option: float | None = None
) -> Deadline:
    """The deadline of a call that starts now.

    Args:
        now: The start.
        context: The application's own (``meshlib.deadline``, an inbound call's).
        route: The route's timeout; None and 0: none (TO-02).
        option: ``CallOptions.timeout``; 0 switches the route's off and sets none.
    """
    if option == 0:
        route = None
    found = context.within(now, option or None, "the call's timeout")
    return found.within(now, route or None, "the route's timeout")
