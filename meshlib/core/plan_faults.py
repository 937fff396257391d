"""What a plan does to a call on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.effects import Effect, Sleep
from meshlib.core.failures import TEXT
from meshlib.core.faults import drawn, in_force
from meshlib.core.plan_redirects import RedirectedPlan
from meshlib.model.call import Response

if TYPE_CHECKING:
    from meshlib.core.faults import Injected
    from meshlib.core.match import Match
    from meshlib.model.route import Forward

__all__ = ["FaultedPlan"]


class FaultedPlan(RedirectedPlan):
    """The part of :class:`meshlib.core.plan.Plan` that only calls come to for which there is a fault."""

    __slots__ = ()

    def _faulted(self, match: Match, action: Forward, now: float) -> Effect | None:
        """What is done to the call on purpose, if it was drawn."""
        call, env = self._call, self._env
        fault = in_force(call.resolution.faults, match, self._weight, action)
        found = None if fault is None else drawn(fault, call.head, self.cluster, env.random)
        if fault is None or found is None:
            return None
        if found.rate:
            self.pace = found.rate
            self._words.append(f"a fault holds the response up: {found.rate} bytes a second")
        if found.delay and (fault.most is None or len(env.delayed) < fault.most):
            self._words.append(f"a fault delays the call by {found.delay:g} s")
            self._fault = found
            env.delayed.append(None)
            return Sleep(found.delay if self.deadline is None else min(found.delay, self.deadline - now))
        return self._aborted(found) if found.status else None

    def _undelay(self) -> None:
        self._fault = None
        self._env.delayed.pop()

    def _aborted(self, fault: Injected) -> Effect:
        words = f"a fault answers {fault.status if fault.code is None else f'gRPC code {fault.code}'}"
        self._words.append(words)
        return self._own_answer(self._told(Response(fault.status, TEXT, b"fault filter abort"), "FI"), words)
