"""Admission by the share of good calls: who fails gets fewer calls, before they are sent.

Theory. The caller itself throttles (Google's SRE book, chapter 21, *client-side throttling*; Envoy's ``admission_control``). Of the calls in
a window so many were asked for and so many were good:

    probability = ((total - good / threshold) / (total + 1)) ^ (1 / aggression)    0 where good / threshold is all, at most ``most``

A call that is refused is not counted, so that what is let through says how the service is, and enough is: the probability is never 1.

Not thread-safe. ``now`` is monotonic seconds and does not go back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.window import Window
from meshlib.model.call import OK, OutcomeKind

if TYPE_CHECKING:
    from meshlib.model.call import Outcome
    from meshlib.model.limits import Admission

__all__ = ["AdmissionControl", "good"]


class AdmissionControl:
    """Of one filter at one place."""

    __slots__ = ("_window", "policy")

    def __init__(self, policy: Admission) -> None:
        self.policy = policy
        self._window = Window(0, policy.window)

    def configure(self, policy: Admission) -> None:
        """Other numbers; what is known stays, unless the window is another."""
        if policy.window != self.policy.window:
            self._window = Window(0, policy.window)
        self.policy = policy

    def probability(self, now: float) -> float:
        """That a call now is refused."""
        policy, window = self.policy, self._window
        window.turn(now)
        total = window.total
        if total < policy.least_rate * policy.window:
            return 0.0
        succeeded = (total - window.failed) / policy.threshold
        share = max(0.0, (total - succeeded) / (total + 1.0))
        return float(min(share ** (1.0 / policy.aggression), policy.most))

    def add(self, now: float, *, failed: bool) -> None:
        """A call that was let through is over."""
        self._window.add(now, failed=failed, slow=False)


def good(policy: Admission, outcome: Outcome) -> bool | None:
    """Whether it counts as good; None: it does not count, since its caller gave it up."""
    if outcome.kind is OutcomeKind.CANCELLED:
        return None
    if outcome.kind is not OK:
        return False
    status = outcome.status or 0
    if outcome.grpc:
        return status in policy.codes
    return any(start <= status < end for start, end in policy.statuses)
