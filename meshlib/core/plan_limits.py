"""What a plan does with a call that may be one too many: of its route, by its listener's filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.effects import Ask, Effect, Reply
from meshlib.core.failures import TEXT
from meshlib.core.limiting import Limiting
from meshlib.core.plan_hedges import HedgedPlan
from meshlib.model.call import Response

if TYPE_CHECKING:
    from meshlib.core.limiting import Limited
    from meshlib.core.match import Match
    from meshlib.core.upstream import Refusal
    from meshlib.model.call import Outcome
    from meshlib.model.policy import RouteLimits

__all__ = ["LimitedPlan"]


class LimitedPlan(HedgedPlan):
    """The part of :class:`meshlib.core.plan.Plan` that only calls with such limits come to."""

    __slots__ = ()

    def _own_answer(self, response: Response, words: str) -> Effect:
        raise NotImplementedError

    def _told(self, response: Response, flags: str) -> Response:
        raise NotImplementedError

    def _refused(self, refusal: Refusal, now: float) -> Effect:
        raise NotImplementedError

    def _out_of_time(self, outcome: Outcome | None, where: str = "") -> Effect:
        raise NotImplementedError

    def _refused_by_filter(self, limited: Limited) -> Effect:
        return Reply(self._told(limited.response, limited.flags))

    def _enter(self, match: Match, policy: RouteLimits, now: float) -> Effect | None:
        """What the route's own limits make of the call; None: it is counted in them until it closes."""
        find = self._env.limits
        assert find is not None
        limits = find(self._call.resolution.part, match, policy, now)
        if limits.limiter is not None and not limits.limiter.take(now):
            return self._limited(f"the rate limit of route {match.name} is reached: 429")
        refusal = limits.enter()
        if refusal is not None:
            return self._refused(refusal, now)
        self._by_route = limits
        return None

    def _limit_rates(self, match: Match, now: float) -> Effect | None:
        """What the listener's filters make of the call; None: it may pass."""
        limiting = self._limiting
        if limiting is None:
            limiting = self._limiting = Limiting(self._call, self._env, match, self._weight, self.cluster)
        elif limiting.asked is not None and self.deadline is not None and now >= self.deadline:
            return self._out_of_time(None)
        found = limiting.go(now)
        if found is None:
            return None
        if isinstance(found, Ask):
            if self.deadline is not None:
                found.seconds = max(0.0, min(found.seconds, self.deadline - now))
            return found
        self._words.append(found.words)
        return self._refused_by_filter(found)

    def _limited(self, words: str) -> Effect:
        self._words.append(words)
        return self._own_answer(self._told(Response(429, TEXT, b"local_rate_limited"), "RL"), words)
