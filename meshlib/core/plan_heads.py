"""The heads that a plan sends: as the route makes them, with what an attempt adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.attempt import tell, tell_deadline, tell_timeout_retry
from meshlib.core.destination import bound_for
from meshlib.core.handoff import for_sidecar
from meshlib.core.plan_state import PlanState
from meshlib.model.call import OutcomeKind

if TYPE_CHECKING:
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.match import Match
    from meshlib.model.call import Head
    from meshlib.model.cluster import Cluster

__all__ = ["HeadsPlan"]


class HeadsPlan(PlanState):
    """The part of :class:`meshlib.core.plan.Plan` that writes heads."""

    __slots__ = ()

    def _is_bound(self, match: Match, cluster: Cluster) -> bool:
        """Of a pass-through cluster: whether the call goes to another place than its URL; where is noted."""
        rule = cluster.destination
        bound = None if rule is None else bound_for(rule, self._made_head(match))
        if bound is not None:
            self._overrides = (bound,)
        return bound is not None

    def _made_head(self, match: Match) -> Head:
        """The head as the route sends it, before an endpoint is chosen. Each attempt's is its own: observers add lines to it."""
        resolution = self._call.resolution
        head = match.compiled.request_head(self._weight, self._call.head, cluster=self.cluster)
        if resolution.router is not None and resolution.router.suppresses:
            resolution.router.unmark(head.headers.raw, self._call.head.headers.raw)
        return head if resolution.handed is None else for_sidecar(resolution.handed, head, grpc=False)

    def _head(
        self, match: Match, number: int, endpoint: LiveEndpoint, deadline: float | None, now: float
    ) -> Head:
        call, router, host = self._call, self._call.resolution.router, match.virtual_host
        head = match.compiled.auto_host(self._made_head(match), endpoint.hostname)
        left = None if deadline is None else deadline - now
        if router is not None and router.suppresses:
            router.unmark(head.headers.raw, call.head.headers.raw)
            left = None
        if self._followed is not None:  # as a call of its own
            number -= self._followed.attempts
        counted = host.include_attempt_count or (call.counted and call.resolution.handed is None)
        tell(head, left, number if counted else None)
        if number > 1 and host.tells_timeout_retries:
            tell_timeout_retry(head, after=self._follows_timeout())
        if self._env.deadlines and deadline is not None:
            tell_deadline(head, deadline - now, self._env.wall(), self._env.deadlines)
        return head

    def _follows_timeout(self) -> bool:
        """Whether the attempt that is being made is one more because another took too long: that one is given up, or still in flight."""
        return bool(self._flight) or self._attempts[-1].outcome.kind is OutcomeKind.TIMEOUT
