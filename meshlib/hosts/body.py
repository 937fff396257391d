"""A call whose response the caller is reading."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from meshlib.core.trace import broken
from meshlib.errors import DeadlineExceeded, ProtocolError, TransportFailed
from meshlib.model.call import OutcomeKind

if TYPE_CHECKING:
    from meshlib.core.exchange import Exchange
    from meshlib.core.sessions import Metadata
    from meshlib.hosts.errors import ErrorTable
    from meshlib.model.call import CallInfo
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["OpenCall"]

_FAILURES = {OutcomeKind.TIMEOUT: DeadlineExceeded, OutcomeKind.PROTOCOL: ProtocolError}


class OpenCall:
    """Held by the response; one of :meth:`end`, :meth:`broken` and :meth:`abandon` ends the call, and takes effect once.

    Attributes:
        bounds: Those of the attempt that the response is of: its deadline holds for the body too.
    """

    __slots__ = ("_errors", "_exchange", "_info", "_runtime", "_status", "bounds")

    def __init__(
        self, exchange: Exchange, errors: ErrorTable, runtime: Runtime, bounds: Bounds, status: int
    ) -> None:
        self._exchange: Exchange | None = exchange
        self._errors = errors
        self._runtime = runtime
        self._status = status
        self._info: CallInfo | None = None
        self.bounds = bounds

    @property
    def info(self) -> CallInfo | None:
        """What was done up to the response's head: asked for before the call is ended."""
        if self._info is None and self._exchange is not None:
            self._info = self._exchange.info(self._runtime.clock.now())
        return self._info

    def metadata(self, found: Metadata) -> Metadata:
        """An RPC's initial metadata for its caller: asked for before the call is ended."""
        plan = None if self._exchange is None else self._exchange.plan
        return found if plan is None else plan.metadata(found, self._runtime.clock.now())

    def end(self) -> None:
        """The body is read, or given up. From any thread."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close(self._runtime.clock.now())

    def broken(self, error: BaseException) -> BaseException:
        """The body broke by ``error``: what to raise, ``error`` itself where it is the caller's own."""
        exchange = self._exchange
        outcome = self._errors.outcome(error, self.bounds)
        if exchange is None or outcome is None:
            return error
        now = self._runtime.clock.now()
        outcome.status = self._status
        info = exchange.info(now)
        self._exchange = None
        exchange.close(now, outcome)
        failure = _FAILURES.get(outcome.kind, TransportFailed)
        cluster, endpoint = (info.cluster, info.endpoint) if info is not None else ("", "")
        message = f"{cluster}: {broken(outcome, endpoint)}"
        return self._errors.made(failure, message, info=info, cause=outcome, sent=True, phase="body")

    def abandon(self) -> None:
        """For a finalizer: the collector may run in a thread that holds the locks which ending needs, so the worker ends it."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and self._runtime.worker.running:
            self._runtime.worker.post(partial(exchange.close, self._runtime.clock.now()))
