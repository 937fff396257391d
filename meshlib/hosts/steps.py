"""What the two loops do alike: the bounds of an attempt, what its failure means, and what a failed call raises."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Generic, NoReturn

from meshlib.core.attempt import Send
from meshlib.core.exchange import Exchange
from meshlib.errors import DeadlineExceeded
from meshlib.hosts.info import attach
from meshlib.hosts.protocol import Q, R
from meshlib.hosts.tokens import NoToken
from meshlib.model.call import Outcome, OutcomeKind, TimeLimit
from meshlib.pools.bounds import Bounds, HedgedBounds, StreamBounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.core.effects import Direct, Fail, Step
    from meshlib.hosts.errors import ErrorTable
    from meshlib.hosts.protocol import Host
    from meshlib.interceptors import CallPath
    from meshlib.model.policy import RetryPolicy
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.runtime import Runtime

__all__ = ["BaseCaller", "bounds_of", "fail", "failed", "hedged_bounds_of"]


class BaseCaller(Generic[Q, R]):
    """What makes the calls of one client, or transport, of a host library.

    Args:
        host: The library.
        runtime: Gives this process's runtime of the mesh.
        path: What a call of the library comes by (see :mod:`meshlib.interceptors`).
        retry: The retries that the client was told to make where nobody orders any.
    """

    def __init__(
        self, host: Host[Q, R], runtime: Callable[[], Runtime], path: CallPath, retry: RetryPolicy | None
    ) -> None:
        self._host = host
        self._runtime = runtime
        self._path = path
        self._retry = retry

    def begin(self, request: Q, runtime: Runtime) -> Exchange:
        """The exchange of one call, which is to be finished."""
        host = self._host
        read = partial(host.read, request, runtime.clock, self._retry)
        return Exchange(runtime, host.place(request), read, plain=self._path.intercepted())


def bounds_of(exchange: Exchange, step: Send | Direct, clock: Clock) -> Bounds:
    """The bounds of an attempt. The host library's default timeouts give way to what the mesh orders."""
    if type(step) is Send:
        timeouts = _timeouts(exchange, step)
        if step.limits is not None or step.try_idle is not None:
            return StreamBounds(clock, step, timeouts)
        return Bounds(clock, step.deadline, timeouts, step.connect_timeout)
    if step.head is None:
        return Bounds(clock)
    return Bounds(clock, step.deadline, exchange.call.timeouts)


def hedged_bounds_of(exchange: Exchange, step: Send, clock: Clock) -> HedgedBounds:
    """The same of an attempt that another may overtake."""
    return HedgedBounds(clock, step, _timeouts(exchange, step))


def _timeouts(exchange: Exchange, step: Send) -> Mapping[str, float | None]:
    call = exchange.call
    timeouts = call.timeouts
    if call.defaults:
        kept = dict(timeouts)
        if step.connect_timeout is not None:
            kept["connect"] = None
        if step.deadline is not None or (step.limits is not None and step.limits.idle is not None):
            kept["read"] = kept["write"] = None
        timeouts = kept
    return timeouts


def failed(
    exchange: Exchange,
    errors: ErrorTable,
    step: Send | Direct,
    error: BaseException,
    bounds: Bounds,
    now: float,
) -> Step:
    """What follows an attempt that ended by ``error``; raises it where it says nothing of the upstream."""
    if type(step) is not Send and step.head is None:
        raise error
    if isinstance(error, NoToken):
        outcome: Outcome | None = Outcome(OutcomeKind.NO_TOKEN, error=error, detail=str(error))
    else:
        outcome = errors.outcome(error, bounds)
    if outcome is None:
        own = errors.own(error)
        if own is error:
            raise error
        raise own from error
    if outcome.kind is OutcomeKind.TIMEOUT:
        bounds.timed_out()
        outcome.limit = bounds.limit
        if outcome.limit is TimeLimit.REQUEST:  # the caller's slowness
            outcome.kind = OutcomeKind.NO_TIME
    outcome.late = bounds.expired
    return exchange.failed(step, outcome, now)


def fail(exchange: Exchange, errors: ErrorTable, step: Fail, now: float) -> NoReturn:
    """Raise what a call that failed raises."""
    info = step.info if step.info is not None else exchange.info(now)
    outcome = step.outcome
    cause = outcome.error if outcome is not None else None
    if step.failure is None:
        # The library's own error of a call that went to its URL as it is.
        assert cause is not None
        if info is not None:
            attach(cause, info)
        raise cause
    sent = info is not None and any(attempt.sent for attempt in info.attempts)
    phase = "connect" if step.failure is DeadlineExceeded and not sent else None
    error = errors.made(step.failure, step.message, info=info, cause=outcome, sent=sent, phase=phase)
    if error is cause:
        raise error
    raise error from cause
