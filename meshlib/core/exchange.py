"""One application call from first to last: who carries it, what observers hear of it, and how it ends.

Theory. An exchange stands between the loop of a host library and the call plan. It answers one question that the plan does
not ask, who carries the call, and does for every carrier what is the same:

    start ─► disabled, bypass, off, a tool in charge ─────► Direct (plain)      as if meshlib were not there
         ├─► observed, outside of the share ──────────────► Direct, then compared with what the mesh would have done
         ├─► redirected to a sidecar ─────────────────────► Direct
         ├─► the control plane has not said yet ─► Wait ──► (as start, with what holds then)
         ├─► of the mesh ─► the plan ──► Send, Sleep, Wait, and its ends
         │                         └──► a pass-through cluster ─► Direct
         ├─► refused, failed ────────────────────────────► Fail, or Reply
         └─► nobody knows the host ──────────────────────► Direct
    Send, Direct ──outcome──► the plan's next effect; Deliver: the response at hand is the caller's
         └── a sidecar that cannot be connected to: nothing was sent ─► Wait, for what is then known of it ─► once more

This is the only place where ``via`` is decided, and the only one that tells observers of attempts: each begins once and ends
once, whoever carries it and however it ends (those that a hedge overtook by the plan's word). So does an RPC as a whole, by ``CallStarted`` and ``CallEnded``: it has an end of its
own, which comes after the head of its response, and with it ends the attempt that the caller reads.

Pure: time is passed in, and what is asked of the process comes by ``Surroundings``.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from meshlib.core.effects import DELIVER, Deliver, Direct, Fail, Finish, Pass, Reply, Send, Wait
from meshlib.core.failures import SPENT, broken_handoff, direct_info, not_made, not_ready, say_spent
from meshlib.core.plan import Plan
from meshlib.core.plan_grpc import GrpcPlan
from meshlib.errors import DeadlineExceeded
from meshlib.model.call import OK, CallInfo, Outcome, OutcomeKind
from meshlib.model.endpoint import NOWHERE
from meshlib.model.events import AttemptEnded, AttemptStarted, CallEnded, CallStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meshlib.core.attempt import Shadow
    from meshlib.core.effects import Call, Effect, Env, Step
    from meshlib.core.resolution import Resolution
    from meshlib.core.resolve import View
    from meshlib.core.tokens import Tokens
    from meshlib.model.endpoint import Locality
    from meshlib.model.headers import Headers
    from meshlib.model.sidecar import Sidecar

__all__ = ["GRPC", "Exchange", "Place", "Surroundings"]

#: The protocol of answers whose status is a gRPC code.
GRPC = "grpc"

#: Seconds after which a call that waits for a control plane looks again, whether it was woken or not.
_LOOK = 60.0
#: Seconds within which it is known whether a sidecar that could not be connected to is there.
_VERDICT = 1.0

#: Scheme, host as it goes out, port as written, and the authority asked for (Host).
Place = tuple[str, str, int | None, str]

_PASSED = "the route goes to a pass-through cluster"

#: Pairs the events of one attempt; one counter for all calls of a process.
_next_key = itertools.count(1).__next__


class Surroundings(Protocol):
    """What an exchange asks of the process that it runs in (:class:`meshlib.runtime.runtime.Runtime`). Nothing blocks."""

    config: Any
    env: Env
    tokens: Tokens

    @property
    def view(self) -> View: ...

    def want(self, name: str, authority: str = "") -> None: ...

    def patience(self, resolution: Resolution, timeout: float) -> float: ...

    def known(self, view: View, place: Place) -> bool:
        """Whether waiting for the control plane does not help any more."""
        ...

    def settled(
        self, scheme: str, host: str, port: int | None, authority: str, since: float = 0.0
    ) -> Resolution: ...

    def suspect(self) -> None:
        """A call could not be handed to the sidecar, or broke there."""
        ...

    def mirror(self, shadows: tuple[Shadow, ...], read: Any) -> object:
        """A call is to go elsewhere, too. ``read``: what reads its request, a partial of a host's method."""
        ...

    def compare(self, place: Place, call: Call, peer: str, outcome: Outcome) -> None:
        """A call went the old way, and ended: what would the mesh have made of it?"""
        ...


class Exchange:
    """One call. Driven by one thread or task at a time; only ``close`` may come from another.

    Args:
        around: The process.
        place: What the call is for.
        read: Reads the request for the plan. Asked once, and not at all for a plain call.
        plain: A tool is in charge of the library's calls: meshlib is not to be seen.
    """

    __slots__ = (
        "_around",
        "_begun",
        "_beside",
        "_call",
        "_direct",
        "_emit",
        "_ended",
        "_handed",
        "_place",
        "_plain",
        "_plan",
        "_read",
        "_reading",
        "_seen",
        "_since",
        "_words",
    )

    def __init__(
        self, around: Surroundings, place: Place, read: Callable[[Resolution], Call], *, plain: bool
    ) -> None:
        self._around = around
        self._place = place
        self._read = read
        self._plain = plain or around.config.disabled
        self._emit = around.env.emit
        self._call: Call | None = None
        self._plan: Plan | None = None
        self._direct: Direct | None = None
        # What came of the last attempt, where the plan is not alone to know: a direct call's, an RPC's.
        self._ended: Outcome | None = None
        self._begun: Sequence[None] = ()  # of an RPC that was told of: emptied by whoever tells of its end
        self._reading: Send | Direct | None = None  # its attempt that the caller reads
        self._beside = False  # the service has not joined, and the call goes the old way
        self._handed = True  # to a sidecar, the first time
        self._words: Any = ()
        self._seen: View | None = None
        self._since = 0.0

    # --- events ---------------------------------------------------------------------------------------------------

    def start(self, now: float) -> Step:
        """The first effect. ``now``: monotonic seconds, here and below."""
        self._since = now
        if self._plain:
            return Direct(None, None)
        around, place = self._around, self._place
        view = self._seen = around.view
        resolution = view.resolve(*place)
        joining = resolution.joining
        if joining is not None and not joining.includes(
            view.rules.adoption.text_of(self._asked(resolution).head)
        ):
            around.want(resolution.name, place[3])
            self._beside = True
            return self._directly(joining.words, self.call.deadline, now)
        if resolution.via == "wait":
            return self._unknown(resolution, now)
        if resolution.name:
            around.want(resolution.name, place[3])
        return self._carry(resolution, now)

    def woke(self, now: float) -> Step:
        """A ``Sleep`` or a ``Wait`` is over."""
        self._seen = self._around.view
        if self._plan is not None:
            return self._step(self._plan.woke(now), now)
        call = self._call
        if call is not None and call.grpc and call.deadline is not None and now >= call.deadline:
            return Fail(DeadlineExceeded, f"{call.limit} is over: {call.resolution.reason}", None)
        if call is not None and call.patient:
            still = self._seen.resolve(*self._place)
            if still.via == "wait":
                return self._unknown(still, now)
        return self._carry(self._around.settled(*self._place, self._since), now)

    def arrived(
        self,
        effect: Send | Direct,
        status: int,
        headers: Headers | None,
        protocol: str,
        peer: str,
        now: float,
    ) -> Step:
        """The head of a response is there. ``protocol``: ``"1.1"``, ``"2"``; ``peer``: who sent it, of a direct call."""
        outcome = Outcome(OK, status, headers, True, now - effect.began)
        if type(effect) is Send:
            effect.withhold()
        if protocol == GRPC:
            outcome.grpc = True
            self._ended = outcome
        if self._emit is not None and effect.key:
            if protocol == GRPC and status == 0:
                self._reading = effect
            else:
                self._emit(AttemptEnded(effect.key, effect.number, outcome, protocol))
        if type(effect) is Direct:
            effect.peer = peer
            self._ended = outcome
            self._tell_beside(outcome, peer)
            return DELIVER
        assert self._plan is not None
        return self._step(self._plan.outcome(outcome, now, effect.number), now)

    def failed(self, effect: Send | Direct, outcome: Outcome, now: float) -> Step:
        """An attempt failed, by what is an outcome to the host library's error table."""
        outcome.seconds = now - effect.began
        if type(effect) is Send:
            effect.withhold()
        if self._emit is not None and effect.key:
            self._emit(AttemptEnded(effect.key, effect.number, outcome))
        if type(effect) is Direct:
            self._ended = outcome
            self._tell_beside(outcome, "")
            if effect.handed is not None:
                again = self._lost(outcome, now)
                return again if again is not None else Fail(*broken_handoff(effect.handed, outcome))
            late = effect.deadline is not None and outcome.kind is OutcomeKind.TIMEOUT and outcome.late
            return Fail(DeadlineExceeded if late else None, "the deadline is over", outcome)
        assert self._plan is not None
        return self._step(self._plan.outcome(outcome, now, effect.number), now)

    def cancel(self, effect: Step | None, error: BaseException, sent: bool, now: float) -> None:
        """The caller gave up, or something broke that is not the upstream's, while ``effect`` was done."""
        outcome = Outcome(OutcomeKind.CANCELLED, sent=sent, error=error)
        plan, direct = self._plan, isinstance(effect, Direct)
        under_way: tuple[Any, ...] = (effect,) if direct else () if plan is None else plan.in_flight
        for attempt in under_way:
            outcome.seconds = now - attempt.began
            if self._emit is not None and attempt.key:
                self._emit(AttemptEnded(attempt.key, attempt.number, replace(outcome)))
                attempt.key = 0
            if isinstance(attempt, Send):
                attempt.withhold()
        self._ended = outcome if direct else self._ended
        if plan is not None:
            plan.cancel(outcome, now)
        if self._begun:
            if isinstance(effect, Fail):  # it is what this raised
                kind = OutcomeKind.REFUSED if effect.outcome is None else effect.outcome.kind
                outcome = Outcome(kind, sent=sent, error=error, grpc=True)
            self._tell_end(outcome, now)

    def close(self, now: float, failure: Outcome | None = None) -> None:
        """The call is over, its body read, given up or (``failure``) broken. Effective once; safe from any thread."""
        if self._plan is not None:
            self._plan.close(now, failure)
        if self._begun:
            self._tell_end(failure or self._ended, now)

    # --- facts ----------------------------------------------------------------------------------------------------

    @property
    def call(self) -> Call:
        """What the application asked."""
        assert self._call is not None
        return self._call

    @property
    def plan(self) -> Plan | None:
        """The plan, where the call is the mesh's."""
        return self._plan

    @property
    def deadline(self) -> float | None:
        """When the call's time is over (absolute)."""
        if self._plan is not None:
            return self._plan.deadline
        return None if self._direct is None else self._direct.deadline

    def response_headers(self, headers: Headers | None) -> Headers | None:
        """The response's lines as the routes edit them, or None for no change."""
        plan = self._plan
        if headers is None or plan is None or self._direct is not None:
            return None
        edited = plan.response_headers(headers)
        if self._tells_spent():
            edited = headers.copy() if edited is None else edited
            edited.set(*SPENT)
        return edited

    def info(self, now: float) -> CallInfo | None:
        """What has been done so far; None of a plain call."""
        direct = self._direct
        if direct is not None:
            outcome = self._ended or Outcome(OutcomeKind.TIMEOUT, seconds=now - direct.began)
            via = "direct" if direct.handed is None else "sidecar"
            return direct_info(self._words, outcome, direct.peer, via)
        return self._plan.info(now) if self._plan is not None else None

    # --- who carries it -------------------------------------------------------------------------------------------

    def _unknown(self, resolution: Resolution, now: float) -> Step:
        around, place = self._around, self._place
        call = self._call or self._asked(resolution)
        if call.patient and not (resolution.open and around.known(around.view, place)):
            around.want(resolution.name, place[3])
            until = now + _LOOK if call.deadline is None else min(call.deadline, now + _LOOK)
            return Wait(until, lambda view: view.resolve(*place).via != "wait")
        seconds = around.patience(resolution, call.wait)
        if call.deadline is not None:
            seconds = min(seconds, call.deadline - now)
        around.want(resolution.name, place[3])
        if seconds > 0:
            return Wait(now + seconds, lambda view: around.known(view, place))
        return self._carry(around.settled(*place, now), now)

    def _asked(self, resolution: Resolution) -> Call:
        call = self._call = self._read(resolution)
        call.chained = call.chained and self._around.config.retry_chains == "stop"
        if self._emit is not None and call.grpc:
            call.key = _next_key()
            self._begun = [None]
            method = call.head.path.removeprefix("/")
            self._emit(CallStarted(call.key, method, call.registered, call.target, self._place[3]))
        return call

    def _carry(self, resolution: Resolution, now: float) -> Step:
        if resolution.plain:
            return Direct(None, None)
        via = resolution.via
        call = self._call
        if call is None:
            call = self._asked(resolution)
        if via == "mesh":
            call.resolution = resolution
            self._plan = (GrpcPlan if call.grpc else Plan)(call, self._around.env)
            return self._step(self._plan.start(now), now)
        if via == "sidecar":
            return self._directly(resolution.words, call.deadline, now, resolution.handed)
        if via == "direct":
            if resolution.unanswered and call.grpc:
                return self._failure(*not_ready(resolution, self._place[3]))
            if not call.strict:
                return self._directly(resolution.words, call.deadline, now)
        end, info = not_made(resolution, self._place[3])
        return self._failure(end, info)

    def _directly(
        self, words: Any, deadline: float | None, now: float, handed: Sidecar | None = None
    ) -> Step:
        self._words = words
        call = self.call
        direct = self._direct = Direct(call.head, deadline, now, handed)
        if deadline is not None and now >= deadline:
            self._ended = Outcome(OutcomeKind.NO_TIME)
            return Fail(DeadlineExceeded, "the deadline is over", self._ended)
        if self._emit is not None:
            direct.before = list(call.head.headers.raw)
            direct.key = _next_key()
            self._tell(direct, "", "", "", "direct" if handed is None else "sidecar", NOWHERE, {})
        return direct

    def _lost(self, outcome: Outcome, now: float) -> Wait | None:
        """The sidecar did not carry the call. One that could not be connected to got nothing of it: once it is known whether it is
        there, the call is carried by what holds then. Once: None is the end.
        """
        if outcome.kind not in (OutcomeKind.CONNECT, OutcomeKind.RESET):
            return None
        self._around.suspect()
        if outcome.kind is OutcomeKind.RESET or outcome.sent or not self._handed:
            return None
        self._handed = False
        if self._plan is not None:
            self._plan.leave(now)
        self._plan = self._direct = self._ended = None
        until, deadline, seen = now + _VERDICT, self.call.deadline, self._seen
        return Wait(until if deadline is None else min(until, deadline), lambda view: view is not seen)

    # --- what the plan says ---------------------------------------------------------------------------------------

    def _step(self, effect: Effect, now: float) -> Step:
        """The plan's effect, as the loop does it."""
        kind = type(effect)
        if kind is Send:
            assert isinstance(effect, Send)
            if self._emit is not None:
                assert self._plan is not None
                effect.key = _next_key()
                endpoint = effect.endpoint
                via = "mesh" if self.call.resolution.handed is None else "sidecar"
                place = (effect.cluster.name, self._plan.route, via, endpoint.locality)
                self._tell(effect, endpoint.name, *place, self._plan.versions(effect.cluster))
            if effect.mirrors:
                self._around.mirror(effect.mirrors, self._read)
            # Observers have seen its head: what is added now they do not.
            if effect.cluster.token or self._around.tokens.given:
                self._want_token(effect)
            return effect
        if kind is Finish:
            assert isinstance(effect, Finish)
            if effect.failure is None:
                assert self._plan is not None
                pace = self._plan.pace
                return Deliver(pace) if pace else DELIVER
            if effect.outcome is not None and self.call.resolution.handed is not None:
                again = self._lost(effect.outcome, now)
                if again is not None:
                    return again
            return self._failure(effect, None, now)
        if kind is Wait:
            assert isinstance(effect, Wait)
            seen = self._seen
            reached = effect.reached
            if reached is None:
                effect.ready = lambda view: view is not seen
            else:
                effect.ready = lambda view: view is not seen or reached()
            return effect
        assert self._plan is not None
        if kind is Pass:
            assert isinstance(effect, Pass)
            self._plan.close(now)
            return self._directly(_PASSED, effect.deadline, now)
        if kind is Reply:
            assert isinstance(effect, Reply)
            self._plan.close(now)
            effect.info = self._plan.info(now)
        return effect  # type: ignore[return-value]

    def _want_token(self, attempt: Send) -> None:
        call = self.call
        if not call.credentials:
            # Where both demand TLS, HTTP's goes by the mesh's rules and gRPC's by the credentials of the channel.
            https = (call.head.scheme if call.grpc else self._place[0]) == "https"
            own = https and (call.grpc or attempt.endpoint.tls is None)
            attempt.token = self._around.tokens.demand(
                self._place, attempt.cluster, attempt.endpoint, attempt.head, own=own
            )

    def _failure(self, end: Finish, info: CallInfo | None, now: float = 0.0) -> Step:
        if self._plan is not None:
            self._plan.close(now)
            info = self._plan.info(now)
        call = self._call
        responds = self._around.config.failures == "respond" and (call is None or not call.grpc)
        if responds and end.response is not None:
            return Reply(say_spent(end.response) if self._tells_spent() else end.response, info)
        return Fail(end.failure, end.message, end.outcome, info)

    def _tells_spent(self) -> bool:
        """Whether the answer says that the mesh has made all the attempts that it makes."""
        plan = self._plan
        return plan is not None and plan.spent and self._around.config.spent_retries == "tell"

    def _tell(
        self,
        effect: Send | Direct,
        endpoint: str,
        cluster: str,
        route: str,
        via: str,
        locality: Locality,
        versions: Mapping[str, str],
    ) -> None:
        call, place = self.call, self._place
        assert self._emit is not None
        assert effect.head is not None
        url = call.url() if callable(call.url) else call.url
        where = (endpoint, cluster, route, via, call.key, locality, versions)
        self._emit(AttemptStarted(effect.key, effect.number, effect.head, place[3], place[0], url, *where))

    def _tell_beside(self, outcome: Outcome, peer: str) -> None:
        """A direct call ended: where the service has not joined, what of it the mesh would have made otherwise is reported."""
        if self._beside:
            self._around.compare(self._place, self.call, peer, outcome)

    def _tell_end(self, outcome: Outcome | None, now: float) -> None:
        """Tell of the end of an RPC, and of the attempt that the caller read. Once, whichever thread is the first."""
        begun, call, reading = self._begun, self.call, self._reading
        assert isinstance(begun, list)
        assert self._emit is not None
        try:
            begun.pop()
        except IndexError:
            return
        if reading is not None and outcome is not None:
            over = replace(outcome, seconds=now - reading.began)
            self._emit(AttemptEnded(reading.key, reading.number, over, GRPC))
        self._emit(CallEnded(self.info(now), call.key, outcome, now - self._since))
