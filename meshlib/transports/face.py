"""What the sync and the async transport of one host library have in common."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meshlib.core.effects import Finish, Pass, Reply, Send
from meshlib.core.plan import Plan
from meshlib.core.trace import broken
from meshlib.deadlines import current_deadline
from meshlib.errors import (
    DeadlineExceeded,
    MeshError,
    TransportFailed,
)
from meshlib.hosts.info import attach
from meshlib.model.call import Attempt, CallInfo, Outcome, OutcomeKind, Response
from meshlib.model.events import AttemptEnded, AttemptStarted
from meshlib.model.headers import Headers
from meshlib.transports.request import (
    HostDefault,
    connect_patience,
    head_of,
    is_replayable,
    new_call,
    options_of,
    timeouts_of,
)
from meshlib.transports.wire.guard import Guard
from meshlib.transports.wire.message import Message, Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.core.resolution import Resolution
    from meshlib.model.policy import RetryPolicy
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.runtime import Runtime
    from meshlib.transports.kit import Kit
    from meshlib.transports.pools import Lane

__all__ = [
    "Answer",
    "Exchange",
    "Why",
    "broken_body",
    "direct_info",
    "ended",
    "next_key",
    "patience",
]

#: Why a call went directly: in words, or what gives a trace's lines when they are asked for.
Why = str | Callable[[], tuple[str, ...]]

#: Pairs the events of one attempt; one counter for all transports of a process.
next_key = itertools.count(1).__next__


class Answer:
    """An open response of one attempt, with the connection that it is read from."""

    __slots__ = ("connection", "guard", "headers", "pool", "response")

    def __init__(self, response: Any, connection: Any, pool: Any, guard: Guard) -> None:
        self.response = response
        self.headers = Headers(response.headers)
        self.connection = connection
        self.pool = pool
        self.guard = guard


class Exchange:
    """One call as a transport performs it: the request, its plan, and the parts of an attempt that need no I/O."""

    __slots__ = (
        "authority",
        "emit",
        "host",
        "key",
        "kit",
        "now",
        "plan",
        "request",
        "runtime",
        "scheme",
        "seen",
        "timeouts",
    )

    def __init__(
        self,
        kit: Kit,
        runtime: Runtime,
        resolution: Resolution,
        request: Any,
        host: str,
        authority: str,
        default_retry: RetryPolicy | None,
    ) -> None:
        self.kit = kit
        self.runtime = runtime
        self.request = request
        self.host = host
        self.authority = authority
        self.timeouts = timeouts_of(request)
        self.now: Callable[[], float] = runtime.clock.now
        self.seen = runtime.view
        self.emit = runtime.env.emit
        self.key = 0
        head = head_of(request, authority)
        self.scheme = head.scheme
        call = new_call(
            resolution,
            request,
            head,
            options_of(request),
            replayable=is_replayable(request.stream, kit.httpx),
            default_retry=default_retry,
            clock=runtime.clock,
        )
        self.plan = Plan(call, runtime.env)

    def guard(self, effect: Send) -> Guard:
        """The bounds of an attempt: the host library's default gives way to what the mesh orders."""
        timeouts = self.timeouts
        if isinstance(timeouts, HostDefault):
            timeouts = _without_default(timeouts, effect)
        clock = self.runtime.clock
        alarm = clock.alarm if clock.virtual else None
        return Guard(self.now, effect.deadline, timeouts, effect.connect_timeout, alarm)

    def core_request(self, effect: Send, lane: Lane[Any], guard: Guard) -> Message:
        """The attempt as the core's connections read it."""
        head, request = effect.head, self.request
        extensions: dict[str, Any] = {"timeout": guard}
        if lane.sni:
            extensions["sni_hostname"] = request.extensions.get("sni_hostname") or lane.sni
        trace = request.extensions.get("trace")
        if trace is not None:
            extensions["trace"] = trace
        return Message(
            head.method.encode("ascii"),
            Target(lane.origin, head.path.encode("latin-1")),
            [(b"Host", head.authority.encode("latin-1")), *head.headers.raw],
            request.stream,
            extensions,
        )

    def started(self, effect: Send) -> None:
        """Tell observers that an attempt begins."""
        if self.emit is not None:
            self.key = next_key()
            self.emit(
                AttemptStarted(
                    key=self.key,
                    number=effect.number,
                    head=effect.head,
                    asked=self.authority,
                    scheme=self.scheme,
                    url=str(self.request.url),
                    endpoint=effect.endpoint.name,
                    cluster=self.plan.cluster,
                    route=self.plan.route,
                    via="mesh",
                )
            )

    def arrived(self, effect: Send, answer: Answer, since: float) -> Outcome:
        """The outcome of a head that arrived."""
        response = answer.response
        outcome = Outcome(OutcomeKind.OK, response.status, answer.headers, True, self.now() - since)
        if self.emit is not None:
            self._tell(effect, outcome, response)
        return outcome

    def failed(self, effect: Send, error: BaseException, guard: Guard, since: float) -> Outcome:
        """The outcome of an error of the core, or of waiting for a connection."""
        seconds = self.now() - since
        if isinstance(error, self.kit.errors):
            outcome = self.kit.outcome(error, guard, seconds)
        else:
            kind = OutcomeKind.NO_TIME if guard.expired else OutcomeKind.OVERFLOW
            outcome = Outcome(kind, seconds=seconds, error=error, detail=str(error))
        self._tell(effect, outcome, None)
        return outcome

    def abandoned(self, effect: Send, error: BaseException, guard: Guard, since: float) -> None:
        """The attempt ends by something that is not the upstream's: only observers hear of it."""
        if self.emit is not None:
            outcome = Outcome(OutcomeKind.CANCELLED, sent=guard.sent, seconds=self.now() - since, error=error)
            self._tell(effect, outcome, None)

    def _tell(self, effect: Send, outcome: Outcome, response: Any) -> None:
        if self.emit is not None:
            version = response.extensions.get("http_version", b"HTTP/1.1") if response is not None else b""
            protocol = version.decode("ascii").removeprefix("HTTP/")
            self.emit(AttemptEnded(self.key, effect.number, outcome, protocol))

    def response(self, answer: Answer, body: Any) -> Any:
        """The host library's response to an answer whose body is ``body``."""
        core = answer.response
        edited = self.plan.response_headers(answer.headers)
        core.extensions["meshlib"] = self.plan.info(self.now())
        return self.kit.Response(
            status_code=core.status,
            headers=core.headers if edited is None else edited.raw,
            stream=body,
            extensions=core.extensions,
        )

    def end(self, end: Finish | Reply | Pass) -> Any:
        """The host library's response to an end without an answer; raises where it is a failure."""
        now = self.now()
        self.plan.close(now)
        info = self.plan.info(now)
        if isinstance(end, Reply):
            return ordered(self.kit, end.response, info)
        assert isinstance(end, Finish)
        return ended(self.kit, self.runtime, end, info)


def ordered(kit: Kit, response: Response, info: CallInfo) -> Any:
    """A response that nobody sent."""
    return kit.Response(
        status_code=response.status,
        headers=list(response.headers),
        content=response.body,
        extensions={"meshlib": info},
    )


def ended(kit: Kit, runtime: Runtime, end: Finish, info: CallInfo) -> Any:
    """A failure: raised, or told as the response that a sidecar gives (``failures = "respond"``)."""
    assert end.failure is not None
    if runtime.config.failures == "respond" and end.response is not None:
        return ordered(kit, end.response, info)
    outcome = end.outcome
    cause = outcome.error if outcome is not None else None
    raise kit.error(
        end.failure,
        end.message,
        info=info,
        cause=cause,
        host=_timeout_host(kit, end, info),
        sent=any(attempt.sent for attempt in info.attempts),
    )


def _timeout_host(kit: Kit, end: Finish, info: CallInfo) -> str:
    """What a time that is over is to the host library: before anything was connected its connect timeout, while the
    request was written its write timeout, else its read timeout.
    """
    if end.failure is not DeadlineExceeded:
        return ""
    if end.outcome is not None and isinstance(end.outcome.error, kit.core.WriteTimeout):
        return "WriteTimeout"
    unconnected = not info.attempts or info.attempts[-1].outcome == OutcomeKind.CONNECT.value
    return "ConnectTimeout" if unconnected else "ReadTimeout"


def broken_body(exchange: Exchange, answer: Answer, error: BaseException) -> tuple[Outcome, MeshError]:
    """A response that broke in its body: what the plan hears of it, and what the caller gets."""
    kit, guard = exchange.kit, answer.guard
    outcome = kit.outcome(error, guard, exchange.now() - exchange.plan.started)
    outcome.status = answer.response.status
    info = exchange.plan.info(exchange.now())
    timed_out = outcome.kind is OutcomeKind.TIMEOUT
    failure = DeadlineExceeded if timed_out else TransportFailed
    message = f"{info.cluster}: {broken(outcome, info.endpoint)}"
    raised = kit.error(failure, message, info=info, cause=error, sent=True, phase="body")
    return outcome, raised


def patience(request: Any, clock: Clock) -> float:
    """Seconds for which this call may wait for the control plane: its connect timeout, or its deadline."""
    seconds = connect_patience(timeouts_of(request))
    deadline = current_deadline(clock)
    return seconds if deadline is None else max(0.0, min(seconds, deadline - clock.now()))


def direct_info(why: Why, outcome: Outcome, *, endpoint: str = "") -> CallInfo:
    """The CallInfo of a call that went to the URL as it is."""
    lines = (why,) if isinstance(why, str) else why
    attempt = Attempt(1, endpoint, outcome.kind.value, outcome.status, outcome.sent, outcome.seconds)
    return CallInfo(
        via="direct", endpoint=endpoint, attempts=(attempt,), seconds=outcome.seconds, lines=lines
    )


def _without_default(timeouts: Mapping[str, float | None], effect: Send) -> Mapping[str, float | None]:
    kept = dict(timeouts)
    if effect.connect_timeout is not None:
        kept["connect"] = None
    if effect.deadline is not None:
        kept["read"] = kept["write"] = None
    return kept


class DirectTimeouts(dict[str, float | None]):
    """Timeouts for a transport of the host library, cut to what is left of a deadline when they are looked up."""

    def __init__(
        self, timeouts: Mapping[str, float | None], deadline: float, now: Callable[[], float]
    ) -> None:
        super().__init__(timeouts)
        self._deadline = deadline
        self._now = now

    def get(self, key: str, default: Any = None) -> Any:
        """The nearer of the timeout and what is left; a spent deadline gives the shortest timeout that is one."""
        own = super().get(key, default)
        left = max(self._deadline - self._now(), 1e-6)
        return left if own is None else min(own, left)


class Direct:
    """A call to the URL as it is, told to observers and bounded by the deadline like any other."""

    __slots__ = ("emit", "head", "key", "kit", "reason", "request", "runtime", "since", "timed")

    def __init__(
        self, kit: Kit, runtime: Runtime, request: Any, authority: str, reason: Why, deadline: float | None
    ) -> None:
        self.kit = kit
        self.runtime = runtime
        self.request = request
        self.reason = reason
        self.since = runtime.clock.now()
        self.emit = runtime.env.emit
        self.key = 0
        self.timed = deadline
        self.check()
        if deadline is not None:
            timeouts = DirectTimeouts(timeouts_of(request), deadline, runtime.clock.now)
            request.extensions = {**request.extensions, "timeout": timeouts}
        if self.emit is not None:
            self._started(authority)

    def check(self) -> None:
        """Raise where the deadline is over already."""
        if self.timed is not None and self.since >= self.timed:
            info = direct_info(self.reason, Outcome(OutcomeKind.TIMEOUT))
            raise self.kit.error(DeadlineExceeded, "the deadline is over", info=info, host="ConnectTimeout")

    def _started(self, authority: str) -> None:
        self.key = next_key()
        head = head_of(self.request, authority)
        before = list(head.headers.raw)
        assert self.emit is not None
        self.emit(
            AttemptStarted(
                self.key, 1, head, authority, head.scheme, str(self.request.url), "", "", "", "direct"
            )
        )
        after = head.headers.raw
        for name in {name for name, _ in before} - {name for name, _ in after}:
            del self.request.headers[name.decode("latin-1")]
        for name, value in after:
            if (name, value) not in before:
                self.request.headers[name.decode("latin-1")] = value.decode("latin-1")

    def arrived(self, response: Any) -> Any:
        """Note what became of it on the response."""
        outcome = Outcome(
            OutcomeKind.OK, response.status_code, None, True, self.runtime.clock.now() - self.since
        )
        self._tell(outcome, response.http_version)
        response.extensions["meshlib"] = direct_info(self.reason, outcome, endpoint=_peer(response))
        return response

    def failed(self, error: BaseException) -> BaseException:
        """What to raise for ``error``: itself, told what it was, or DeadlineExceeded where it was the deadline's."""
        httpx, now = self.kit.httpx, self.runtime.clock.now()
        outcome = Outcome(_direct_kind(httpx, error), sent=True, seconds=now - self.since, error=error)
        self._tell(outcome, "")
        info = direct_info(self.reason, outcome)
        if outcome.kind is OutcomeKind.TIMEOUT and self.timed is not None and now >= self.timed - 0.001:
            host = type(error).__name__
            return self.kit.error(
                DeadlineExceeded, "the deadline is over", info=info, cause=error, host=host, sent=True
            )
        attach(error, info)
        return error

    def _tell(self, outcome: Outcome, version: str) -> None:
        if self.emit is not None:
            self.emit(AttemptEnded(self.key, 1, outcome, version.removeprefix("HTTP/")))


def _direct_kind(httpx: Any, error: BaseException) -> OutcomeKind:
    if isinstance(error, httpx.TimeoutException):
        return OutcomeKind.TIMEOUT
    if isinstance(error, httpx.ConnectError):
        return OutcomeKind.CONNECT
    return OutcomeKind.RESET if isinstance(error, httpx.TransportError) else OutcomeKind.CANCELLED


def _peer(response: Any) -> str:
    """The address that answered, where the transport tells it."""
    stream = response.extensions.get("network_stream")
    if stream is None:
        return ""
    address = stream.get_extra_info("server_addr")
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[0], address[1]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return ""
