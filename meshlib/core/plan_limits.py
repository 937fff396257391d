"""What a plan does with a call that may be one too many: of its route, by its listener's filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.effects import Ask, Effect, Reply, Take
from meshlib.core.failures import TEXT
from meshlib.core.limiting import Limiting
from meshlib.core.plan_hedges import HedgedPlan
from meshlib.model.call import Response

if TYPE_CHECKING:
    from meshlib.core.limiting import Limited
    from meshlib.core.match import Match
    from meshlib.core.upstream import Limiter, Refusal, Upstream
    from meshlib.model.call import Outcome
    from meshlib.model.policy import RouteLimits

__all__ = ["LimitedPlan"]

#: How long a call waits for the storage of a rate limit.
SECONDS = 0.25


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

    def _enter(
        self, match: Match, policy: RouteLimits | None, upstream: Upstream, now: float
    ) -> Effect | None:
        """What the limits of the route and the rate limit of the cluster make of the call; None: it is counted, by the route until it
        closes. Called again when a storage has decided.
        """
        taken, self._taken = self._taken, None
        if policy is not None and self._by_route is None:
            find = self._env.limits
            assert find is not None
            limits = find(self._call.resolution.part, match, policy, now)
            if limits.limiter is not None:
                limited = self._take(limits.limiter, taken, f"route {match.name}", now)
                if limited is not None:
                    return limited
            refusal = limits.enter()
            if refusal is not None:
                return self._refused(refusal, now)
            self._by_route = limits
        if upstream.limiter is not None:
            return self._take(upstream.limiter, taken, f"cluster {self.cluster!r}", now)
        return None

    def _take(self, limiter: Limiter, taken: Take | None, whose: str, now: float) -> Effect | None:
        """What a rate limit makes of the call; ``taken``: what its storage said of it, if that was asked. Without an answer this process
        decides for itself.
        """
        if taken is not None and taken.limiter is limiter:
            granted = limiter.take(now) if taken.verdict is None else taken.verdict
        elif limiter.shared:
            left = SECONDS if self.deadline is None else self.deadline - now
            self._taken = Take(limiter, max(0.0, min(SECONDS, left)))
            return self._taken
        else:
            granted = limiter.take(now)
        return None if granted else self._limited(f"the rate limit of {whose} is reached: 429")

    def _limit_rates(self, match: Match, now: float) -> Effect | None:
        """What the listener's filters make of the call; None: it may pass."""
        limiting = self._limiting
        if limiting is None:
            limiting = self._limiting = Limiting(self._call, self._env, match, self._weight, self.cluster)
        elif limiting.asked is not None and self.deadline is not None and now >= self.deadline:
            self._now = now
            return self._out_of_time(None)
        found = limiting.go(now)
        if found is None:
            return None
        if isinstance(found, Ask):
            if self.deadline is not None:
                found.seconds = max(0.0, min(found.seconds, self.deadline - now))
            return found
        self._now = now
        self._words.append(found.words)
        return self._refused_by_filter(found)

    def _limited(self, words: str) -> Effect:
        self._words.append(words)
        return self._own_answer(self._told(Response(429, TEXT, b"local_rate_limited"), "RL"), words)
