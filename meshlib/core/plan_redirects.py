"""What a plan does with a response that leads elsewhere, where the route has it followed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.answers import own_answer
from meshlib.core.effects import Effect, Sleep
from meshlib.core.plan_limits import LimitedPlan
from meshlib.core.redirects import Followed, accepts, led_to
from meshlib.model.cluster import Discovery
from meshlib.model.route import Forward

if TYPE_CHECKING:
    from meshlib.core.attempt import Send
    from meshlib.core.match import Match
    from meshlib.model.call import Head, Outcome

__all__ = ["RedirectedPlan"]


class RedirectedPlan(LimitedPlan):
    """The part of :class:`meshlib.core.plan.Plan` that only responses of 301 to 308 come to."""

    __slots__ = ()

    def _hold_session(self, match: Match, now: float) -> None:
        raise NotImplementedError

    def _time_limits(self, action: Forward, now: float) -> None:
        raise NotImplementedError

    def _led(self, attempt: Send, outcome: Outcome, now: float) -> Effect | None:
        """What follows a response that the route has followed; None: it is the caller's."""
        call, match = self._call, self._match
        assert match is not None
        action = match.route.action
        policy = action.redirects if isinstance(action, Forward) else None
        status = outcome.status or 0
        if policy is None or status not in policy.statuses:
            return None
        followed = self._followed = self._followed or Followed()
        found: Head | str
        if followed.count >= policy.most:
            found = f"{followed.count} were followed"
        elif not call.replayable or self._hedging is not None:
            found = "the request cannot be sent again"
        else:
            found = led_to(policy, self._made_head(match), attempt.head, status, outcome.headers)
        target = None if isinstance(found, str) else self._target(found)
        if isinstance(found, str) or target is None:
            why = found if isinstance(found, str) else f"no route is for {found.authority}{found.path}"
            self._words.append(f"the redirect ({status}) is not followed: {why}")
            return None
        names = (match.route.name, target.route.name)
        if not accepts(policy.predicates, followed, names, (attempt.head.scheme, found.scheme)):
            self._words.append(
                f"the redirect ({status}) to route {target.name} is not followed: a predicate refuses it"
            )
            return None
        self._words.append(
            f"the redirect ({status}) to {found.authority}{found.path} is followed: route {target.name}"
        )
        return self._turn(attempt, found, target, now)

    def _target(self, head: Head) -> Match | None:
        """The route of the call's own listener for it, unless that goes to the call's URL as it is, which is another."""
        resolution, random = self._call.resolution, self._env.random
        match = resolution.routes.match(head, random) if resolution.routes is not None else None
        if match is None or not isinstance(match.route.action, Forward):
            return match
        upstream = self._env.upstream(resolution.part, match.compiled.choose_cluster(head, random)[0])
        passes = not isinstance(upstream, str) and upstream.cluster.discovery is Discovery.ORIGINAL_DST
        return None if passes else match

    def _turn(self, attempt: Send, head: Head, match: Match, now: float) -> Effect:
        """Go on with that head by that route: as a call that begins now, but for its own time and its attempts."""
        call, followed = self._call, self._followed
        assert followed is not None
        attempt.release(now)
        followed.count += 1
        followed.attempts = len(self._attempts)
        if self._by_route is not None:
            self._by_route.leave()
        self._by_route = self._upstream = self._policy = self._retries = self._per_try = None
        self._hash = self._session = self._last = None
        self._overrides, self.tried = (), ()
        call.head, self._match = head, match
        self.cluster, self._weight = match.compiled.choose_cluster(head, self._env.random)
        answer = own_answer(call.resolution, head, head, match, self._weight)
        if answer is not None:
            self._words.append(answer[1])
            return self._own_answer(*answer)
        if call.resolution.sessions:
            self._hold_session(match, now)
        action = match.route.action
        assert isinstance(action, Forward)
        self.deadline, self._limit, self._limit_seconds = call.deadline, call.limit, None
        self._time_limits(action, now)
        if call.timeout:
            own = self.started + call.timeout
            self.deadline = own if self.deadline is None else min(self.deadline, own)
        return Sleep(0.0)
