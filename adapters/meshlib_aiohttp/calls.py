"""One call, driven by its plan: each attempt is a copy of the request, handed to aiohttp with the place it goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp

from meshlib.core.effects import Call, Finish, Reply
from meshlib.core.failures import not_made
from meshlib.core.plan import Plan
from meshlib.core.trace import broken
from meshlib.deadlines import current_deadline
from meshlib.errors import DeadlineExceeded, NotReady, TransportFailed
from meshlib.hosts.info import attach
from meshlib.inbound import carry
from meshlib.model.call import CallInfo, CallOptions, Outcome, OutcomeKind, Response
from meshlib.model.events import AttemptEnded, AttemptStarted
from meshlib.runtime.signal import Signal, bound, later
from meshlib.transports.face import Why, direct_info, next_key
from meshlib.transports.request import retry_of
from meshlib_aiohttp.failures import OUTCOMES, is_outcome, join, made, outcome_of
from meshlib_aiohttp.lanes import LEG, Leg, lanes_of
from meshlib_aiohttp.messages import (
    attempt_of,
    edit,
    head_of,
    headers_of,
    is_replayable,
    target_of,
    watch_body,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshlib.core.effects import Send
    from meshlib.core.resolution import Resolution
    from meshlib.errors import MeshError
    from meshlib.model.call import Head
    from meshlib.model.headers import Headers
    from meshlib.runtime.runtime import Runtime

    Handler = Callable[[Any], Awaitable[Any]]

__all__ = ["Direct", "Performance", "known", "refusal"]

#: What aiohttp itself sends once more after a broken connection (RFC 9110, 9.2.2).
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


async def known(runtime: Runtime, request: Any, wait: float) -> Resolution:
    """What the request's URL means, waited for ``wait`` seconds at most."""
    asked = target_of(request)
    resolution = runtime.view.resolve(*asked)
    if resolution.via != "wait":
        if resolution.name:
            runtime.want(resolution.name, asked[3])
        return resolution
    now, deadline = runtime.clock.now(), current_deadline(runtime.clock)
    if deadline is not None:
        wait = max(0.0, min(wait, deadline - now))
    signal = Signal()
    cancel = runtime.on_known(*asked, lambda _: signal.set())
    try:
        await signal.wait(runtime.patience(resolution, wait), runtime.clock)
    finally:
        cancel()
    return runtime.settled(*asked, now)


def refusal(resolution: Resolution, request: Any) -> MeshError:
    """The error for a call that its resolution does not let out."""
    end, info = not_made(resolution, request.headers["Host"])
    found: MeshError = made(end.failure or NotReady, end.message, info, request, sent=False)
    return found


class Performance:
    """The hands of one plan (see ``drive.AsyncHands``) and what its end is to aiohttp. One task's."""

    __slots__ = (
        "_body",
        "_connector",
        "_deadline",
        "_emit",
        "_failure",
        "_handler",
        "_key",
        "_request",
        "_resend",
        "_runtime",
        "_seen",
        "_timer",
        "expired",
        "leg",
        "now",
        "plan",
    )

    def __init__(
        self,
        runtime: Runtime,
        resolution: Resolution,
        request: Any,
        handler: Handler | None,
        connector: Any,
        *,
        options: CallOptions,
        wait: float,
        resend: bool,
    ) -> None:
        self._runtime = runtime
        self._request = request
        self._handler = handler
        self._connector = connector
        self._resend = resend and request.method in _IDEMPOTENT
        self._emit = runtime.env.emit
        self._key = 0
        self._seen = runtime.view
        self.leg: Leg | None = None
        self._timer: Callable[[], object] | None = None
        self._body: Any = None
        self.expired = False
        self._deadline: float | None = None  # of the attempt
        self._failure: Outcome | None = None
        self.now = runtime.clock.now
        deadline, head = current_deadline(runtime.clock), head_of(request)
        call = Call(
            resolution,
            head,
            deadline=deadline,
            limit="the deadline" if deadline is not None else "",
            timeout=options.timeout,
            retry=retry_of(options),
            idempotent=options.idempotent,
            hash_key=options.hash_key,
            replayable=is_replayable(request),
            wait=wait,
            counted=carry(head.headers),
        )
        self.plan = Plan(call, runtime.env)

    # --- hands ----------------------------------------------------------------------------------------------------

    async def send(self, effect: Send) -> tuple[Outcome, Any]:
        since = self.now()
        self.started(effect)
        try:
            response = await self._attempt(effect)
        except OUTCOMES as error:
            if not (self.expired or is_outcome(error)):
                self.ended(effect, Outcome(OutcomeKind.CANCELLED, seconds=self.now() - since, error=error))
                attach(error, self.plan.info(self.now()))
                raise
            return self.failed(effect, error, since), None
        except BaseException as error:
            self.ended(effect, Outcome(OutcomeKind.CANCELLED, seconds=self.now() - since, error=error))
            raise
        return self.arrived(effect, response.status, headers_of(response.headers.items()), since), response

    async def discard(self, response: Any) -> None:
        response.close()
        await response.wait_for_close()

    async def sleep(self, seconds: float) -> None:
        await self._runtime.clock.sleep_async(seconds)

    async def changed(self, until: float) -> None:
        store, signal = self._runtime.store, Signal()
        cancel = store.on_change(signal.set)
        try:
            if store.view is self._seen:
                await signal.wait(until - self.now(), self._runtime.clock)
        finally:
            cancel()
        self._seen = store.view

    async def _attempt(self, effect: Send) -> Any:
        assert self._handler is not None
        self.begin(effect)
        while True:
            request = attempt_of(self._request, effect.head)
            leg = self.leg = lanes_of(self._connector).leg(self._runtime, effect)
            setattr(request, LEG, leg)
            seconds = None if effect.deadline is None else max(0.0, effect.deadline - self.now())
            within = bound(self._runtime.clock, seconds)
            try:
                async with within:
                    return await self._handler(request)
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
                if not self._stale(leg, error, request):
                    raise
            except TimeoutError:
                self.expired = within.expired()
                raise
            # The body's writer still holds what it reads from.
            await request.close()

    def _stale(self, leg: Leg, error: BaseException, request: Any) -> bool:
        """Whether a kept connection turned out to be closed: aiohttp's own client sends such a request once more."""
        if not (self._resend and leg.reused) or isinstance(error, aiohttp.ClientConnectorError):
            return False
        return request._body is None or not request._body.consumed

    # --- what an attempt means ------------------------------------------------------------------------------------

    def begin(self, effect: Send) -> None:
        """An attempt begins: its bound is not reached."""
        self.expired = False
        self._deadline = effect.deadline

    def started(self, effect: Send) -> None:
        if self._emit is not None:
            self._key = next_key()
            self._emit(
                AttemptStarted(
                    key=self._key,
                    number=effect.number,
                    head=effect.head,
                    asked=self._request.headers["Host"],
                    scheme=effect.head.scheme,
                    url=str(self._request.url),
                    endpoint=effect.endpoint.name,
                    cluster=self.plan.cluster,
                    route=self.plan.route,
                    via="mesh",
                )
            )

    def ended(self, effect: Send, outcome: Outcome) -> None:
        if self._emit is not None:
            self._emit(AttemptEnded(self._key, effect.number, outcome, "1.1"))

    def arrived(self, effect: Send, status: int, headers: Headers, since: float) -> Outcome:
        outcome = Outcome(OutcomeKind.OK, status, headers, True, self.now() - since)
        self.ended(effect, outcome)
        return outcome

    def failed(self, effect: Send, error: BaseException, since: float) -> Outcome:
        leg = self.leg
        assert leg is not None
        outcome = outcome_of(error, dialed=leg.dialed, sent=leg.sent, seconds=self.now() - since)
        self.ended(effect, outcome)
        return outcome

    # --- ends -----------------------------------------------------------------------------------------------------

    async def finish(self, end: Finish | Reply, response: Any) -> Any:
        """Aiohttp's response at the end of the plan; raises where it is a failure."""
        if response is not None:
            assert isinstance(end, Finish)
            assert end.outcome is not None
            assert end.outcome.headers is not None
            edited = self.plan.response_headers(end.outcome.headers)
            if edited is not None:
                edit(response, edited)
            response._request_info = self._request.request_info
            response._cache.pop("request_info", None)
            attach(response, self.plan.info(self.now()))
            if response.connection is None:
                self.plan.close(self.now())
            else:
                self.hold(response.connection)
                self.watch(response.content, response.status)
            return response
        self.plan.close(self.now())
        info = self.plan.info(self.now())
        ordered = self.ordered(end, info)
        assert self._handler is not None
        request = attempt_of(self._request, head_of(self._request))
        setattr(request, LEG, Leg(self._runtime, None, None, ordered))
        response = await self._handler(request)
        attach(response, info)
        return response

    def ordered(self, end: Finish | Reply, info: CallInfo) -> Response:
        """The response that nobody sends; raises where the end is a failure and to be told as one."""
        if isinstance(end, Reply):
            return end.response
        assert end.failure is not None
        if self._runtime.config.failures == "respond" and end.response is not None:
            return end.response
        raise self.error(end, info)

    def error(self, end: Finish, info: CallInfo) -> Any:
        assert end.failure is not None
        sent = any(attempt.sent for attempt in info.attempts)
        cause = end.outcome.error if end.outcome is not None else None
        timed = end.failure is DeadlineExceeded and not isinstance(cause, aiohttp.ServerTimeoutError)
        if isinstance(cause, aiohttp.ClientError) and not timed:
            return join(cause, end.failure, end.message, info, sent=sent)
        unconnected = not info.attempts or not info.attempts[-1].sent
        error = made(end.failure, end.message, info, self._request, sent=sent, connected=not unconnected)
        error.__cause__ = cause
        return error

    # --- the body -------------------------------------------------------------------------------------------------

    def hold(self, connection: Any) -> None:
        """From here on the call ends with its connection: read, given up, or broken; and with the attempt's deadline."""
        protocol = connection.protocol
        if self._deadline is not None:
            left = max(0.0, self._deadline - self.now())
            self._timer = later(self._runtime.clock, left, self._expire, protocol)

        def released() -> None:
            self._disarm()
            protocol.__dict__.pop("_meshlib_broken", None)
            self.plan.close(self.now(), self._failure)

        connection.add_callback(released)

    def watch(self, body: Any, status: int) -> None:
        """The head arrived: ``body`` follows it."""
        self._body = body
        watch_body(body, self._broken)
        if status == 101:
            self._disarm()  # what was agreed on has no end

    def _expire(self, protocol: Any) -> None:
        self.expired = True
        body = self._body
        error = aiohttp.SocketTimeoutError("the deadline is over")
        protocol.set_exception(error)
        if body is not None and not body.is_eof():
            body.set_exception(error)
        transport = protocol.transport
        if transport is not None:
            transport.abort()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer()
            self._timer = None

    def _broken(self, error: BaseException) -> BaseException:
        if self._failure is not None:  # the connection breaks after its deadline, too
            return self._failure.error or error
        outcome = outcome_of(error, dialed=True, sent=True, seconds=self.now() - self.plan.started)
        info = self.plan.info(self.now())
        kind = DeadlineExceeded if outcome.kind is OutcomeKind.TIMEOUT else TransportFailed
        message = f"{info.cluster}: {broken(outcome, info.endpoint)}"
        outcome.error = join(error, kind, message, info, sent=True, phase="body")
        self._failure = outcome
        found: BaseException = outcome.error
        return found


class Direct:
    """A call to the URL as it is, told to observers and bounded by the deadline like any other."""

    def __init__(self, runtime: Runtime, request: Any, reason: Why, deadline: float | None) -> None:
        self._runtime = runtime
        self._request = request
        self._reason = reason
        self._deadline = deadline
        self._since = runtime.clock.now()
        self._emit = runtime.env.emit
        self._key = 0

    async def run(self, handler: Handler) -> Any:
        now = self._runtime.clock.now
        left = None if self._deadline is None else self._deadline - now()
        if left is not None and left <= 0:
            info = direct_info(self._reason, Outcome(OutcomeKind.TIMEOUT))
            raise made(
                DeadlineExceeded, "the deadline is over", info, self._request, sent=False, connected=False
            )
        self._started()
        within = bound(self._runtime.clock, left)
        try:
            async with within:
                response = await handler(self._request)
        except BaseException as error:
            raised = self._failed(error, expired=within.expired())
            if raised is error:
                raise
            raise raised from error
        outcome = Outcome(OutcomeKind.OK, response.status, None, True, now() - self._since)
        self._tell(outcome)
        attach(response, direct_info(self._reason, outcome, endpoint=_peer(response)))
        self._bound_body(response)
        return response

    def _started(self) -> None:
        if self._emit is None:
            return
        self._key = next_key()
        head: Head = head_of(self._request)
        before = list(head.headers.raw)
        authority, url = head.authority, str(self._request.url)
        self._emit(AttemptStarted(self._key, 1, head, authority, head.scheme, url, "", "", "", "direct"))
        headers = self._request.headers
        after = head.headers.raw
        for name in {name for name, _ in before} - {name for name, _ in after}:
            headers.popall(name.decode("latin-1"), None)
        for name, value in after:
            if (name, value) not in before:
                headers[name.decode("latin-1")] = value.decode("latin-1")

    def _failed(self, error: BaseException, *, expired: bool) -> BaseException:
        seconds = self._runtime.clock.now() - self._since
        if isinstance(error, OUTCOMES) and (expired or is_outcome(error)):
            outcome = outcome_of(error, dialed=True, sent=True, seconds=seconds)
        else:
            outcome = Outcome(OutcomeKind.CANCELLED, sent=True, seconds=seconds, error=error)
        self._tell(outcome)
        info = direct_info(self._reason, outcome)
        if expired:
            late: BaseException = made(
                DeadlineExceeded, "the deadline is over", info, self._request, sent=True
            )
            return late
        attach(error, info)
        return error

    def _tell(self, outcome: Outcome) -> None:
        if self._emit is not None:
            self._emit(AttemptEnded(self._key, 1, outcome, "1.1"))

    def _bound_body(self, response: Any) -> None:
        connection = response.connection
        if self._deadline is None or connection is None or response.status == 101:
            return
        left = max(0.0, self._deadline - self._runtime.clock.now())
        info = direct_info(self._reason, Outcome(OutcomeKind.TIMEOUT, sent=True))

        def expire() -> None:
            error = made(DeadlineExceeded, "the deadline is over", info, self._request, sent=True)
            response.content.set_exception(error)
            connection.close()

        connection.add_callback(later(self._runtime.clock, left, expire))


def _peer(response: Any) -> str:
    connection = response.connection
    transport = connection.transport if connection is not None else None
    address = transport.get_extra_info("peername") if transport is not None else None
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[0], address[1]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return ""
