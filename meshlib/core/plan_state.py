"""What a plan knows of its call, and what it tells of it. What is done with it is the plan's (:mod:`meshlib.core.plan`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from meshlib.core.failures import mesh_info, versions
from meshlib.core.rewrite import ResponseContext
from meshlib.model.call import CallInfo

if TYPE_CHECKING:
    from meshlib.core.attempt import Record, Send
    from meshlib.core.destination import Bound
    from meshlib.core.effects import Call, Env, Take
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.faults import Injected
    from meshlib.core.hashing import Hashed
    from meshlib.core.hedging import Hedging
    from meshlib.core.limiting import Limiting
    from meshlib.core.match import Match
    from meshlib.core.override import Named
    from meshlib.core.redirects import Followed
    from meshlib.core.retry import Deciding
    from meshlib.core.sessions import Held, Metadata
    from meshlib.core.stages import StreamLimits
    from meshlib.core.upstream import CallLimits, RetryPermit, Upstream
    from meshlib.model.call import Outcome
    from meshlib.model.cluster import Cluster
    from meshlib.model.headers import Headers
    from meshlib.model.policy import RetryPolicy
    from meshlib.model.route import ClusterWeight

__all__ = ["PlanState"]


class PlanState:
    """Of one call. Its attributes are the plan's to change.

    Attributes:
        cluster: Where the call goes, ``""`` while that is not known.
        deadline: When the call's time is over (absolute), as far as it is known yet.
        pace: With how many bytes a second the caller is to have the response, by a fault; 0: as they come.
        spent: Another attempt was due, and none was left, or no time for it.
        started: When it began, monotonic seconds.
        tried: Every endpoint that was picked, the last one last.
    """

    __slots__ = (
        "_answered",
        "_attempts",
        "_by_route",
        "_call",
        "_env",
        "_fault",
        "_flight",
        "_followed",
        "_hash",
        "_hedging",
        "_last",
        "_limit",
        "_limit_seconds",
        "_limiting",
        "_limits",
        "_match",
        "_now",
        "_open",
        "_overrides",
        "_per_try",
        "_permit",
        "_policy",
        "_retries",
        "_session",
        "_status",
        "_taken",
        "_upstream",
        "_weight",
        "_words",
        "cluster",
        "deadline",
        "pace",
        "spent",
        "started",
        "tried",
    )

    def __init__(self, call: Call, env: Env) -> None:
        self._call = call
        self._env = env
        self._attempts: list[Record] = []  # that are over, by their numbers' order
        self._flight: dict[int, Send] = {}  # by number: of which nothing was heard yet
        self._answered: Send | None = None  # whose response the caller reads
        self.tried: tuple[LiveEndpoint, ...] = call.tried
        self._match: Match | None = None
        self._weight: ClusterWeight | None = None
        self._upstream: Upstream | None = None
        self._permit: RetryPermit | None = None
        self._policy: RetryPolicy | None = None
        self._retries: Deciding | None = None
        self._per_try: float | None = None
        self.deadline = call.deadline
        self._limit = call.limit
        self._limit_seconds: float | None = None
        self._limits: StreamLimits | None = None
        self._last: Outcome | None = None
        self._hash: Hashed | None = None
        self._session: Held | None = None
        self._overrides: tuple[Held | Named | Bound, ...] = ()
        self._hedging: Hedging | None = None
        self._words: list[str] = []
        self._open = [None]  # emptied by whoever closes: taking the last item is atomic
        self.cluster = ""
        self.spent = False
        self.pace = 0
        self.started = 0.0
        self._status = 0
        self._now = 0.0  # when something went wrong last
        self._fault: Injected | None = None  # that delays the call now
        self._followed: Followed | None = None  # redirects
        self._limiting: Limiting | None = None  # of filters
        self._taken: Take | None = None  # that a storage decides now
        self._by_route: CallLimits | None = None  # what the call entered

    @property
    def final(self) -> bool:
        """Whether a library above must not make the call again: others make the retries, or it was sent and must not be twice."""
        call = self._call
        if self._policy is not None or call.retry is False or call.resolution.handed is not None:
            return True
        once = call.idempotent is False or not call.replayable
        return once and any(record.outcome.sent for record in self._attempts)

    @property
    def shows_errors(self) -> bool:
        """Whether the retries look at what the library raises (``Send.error``)."""
        return self._policy is not None and self._policy.retry is not None

    @property
    def route(self) -> str:
        return self._match.name if self._match is not None else ""

    def _ready_by(self) -> float:
        """Until when the call may wait for its configuration; what it waited to be resolved counts."""
        until = self.started + self._call.wait - self._call.resolution.waited
        return until if self.deadline is None else min(until, self.deadline)

    def _limit_words(self) -> str:
        """What bounds the call, in words."""
        seconds = "" if self._limit_seconds is None else f" of {self._limit_seconds:g} s"
        return f"{self._limit or 'the deadline'}{seconds}"

    def response_headers(self, headers: Headers) -> Headers | None:
        """The response's header lines as the routes and their listener edit them, or None for no change."""
        departure = self._call.resolution.departure
        if departure is None:
            return self._limited_response(headers)
        edited = self._limited_response(headers) or headers.copy()
        departure.mark(edited.raw, self._answered.head if self._answered is not None else None)
        return edited

    def _limited_response(self, headers: Headers) -> Headers | None:
        more = self._limiting.response if self._limiting is not None else None
        if not more:
            return self._edited_response(headers)
        added = headers.copy()
        added.raw.extend(more)
        return self._edited_response(added) or added

    def _edited_response(self, headers: Headers) -> Headers | None:
        attempt, cookie = self._answered, "" if self._hash is None else self._hash.cookie
        session = self._session
        if self._match is None or not (self._match.compiled.edits_responses or cookie):
            return (
                None
                if session is None or attempt is None
                else session.edited(headers, attempt.endpoint, self.cluster)
            )
        context = ResponseContext(
            attempt.head if attempt is not None else None,
            status=self._status,
            cluster=self.cluster,
            endpoint=attempt.endpoint.name if attempt is not None else "",
            attempts=len(self._attempts) - (self._followed.attempts if self._followed is not None else 0),
            cookie=cookie,
        )
        edited = self._match.compiled.response_edits(self._weight, headers, context)
        if session is None or attempt is None:
            return edited
        # As Envoy: its filter comes after the router's edits.
        return session.edited(edited or headers, attempt.endpoint, self.cluster) or edited

    def metadata(self, found: Metadata, now: float) -> Metadata:
        """As ``response_headers``, of an RPC: its initial metadata, which a session alone edits."""
        session, attempt = self._session, self._answered
        if session is None or attempt is None:
            return found
        return session.metadata(found, attempt.endpoint, self.cluster, now)

    def info(self, now: float) -> CallInfo:
        """What has been done so far."""
        call, attempts = self._call, tuple(self._attempts)
        last, upstream = self._told_of.attempt if attempts else None, self._upstream
        found = upstream.cluster if last is None and upstream is not None else None
        # Holds what is told and not the plan: a response may be kept for long.
        make = partial(
            mesh_info,
            call.resolution,
            call.head,
            self._match,
            self.cluster,
            self._weight,
            found if last is None else last.cluster,  # as it found it
            attempts,
            self._words,
            now - self.started,
            "" if last is None else last.endpoint.name,
        )
        # Few are asked for; but an error holds the frames that it went through.
        return CallInfo.later(make) if len(attempts) == 1 and attempts[0].outcome.error is None else make()

    def versions(self, settings: Cluster) -> dict[str, str]:
        """As ``CallInfo.versions``, of an attempt that found the cluster so."""
        return versions(self._call.resolution.listener, self._match, settings)

    @property
    def in_flight(self) -> tuple[Send, ...]:
        """The attempts of which nothing was heard yet."""
        return tuple(self._flight.values())

    @property
    def _told_of(self) -> Record:
        """The attempt that is the call's answer, or the last that is over."""
        answered, attempts = self._answered, self._attempts
        if self._hedging is None or answered is None:
            return attempts[-1]
        return next(each for each in attempts if each.attempt is answered)
