"""One RPC for which nobody waits, of blocking and asyncio channels alike: grpc's own call for each attempt, and what is made of how
these end.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.core.attempt import Send
from meshlib.core.exchange import GRPC
from meshlib.core.plan_grpc import GrpcPlan
from meshlib.errors import DeadlineExceeded
from meshlib.hosts.grpc.errors import LATE, Ended, local_end, number
from meshlib.hosts.grpc.request import measure, metadata_of, trailers
from meshlib.hosts.run_later import LaterCall
from meshlib.model.call import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.effects import Direct
    from meshlib.core.exchange import Exchange
    from meshlib.core.upstream import Pick
    from meshlib.hosts.errors import ErrorTable
    from meshlib.hosts.grpc.request import Request
    from meshlib.hosts.grpc.subchannel import Subchannel
    from meshlib.hosts.grpc.subchannels import Subchannels
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["GrpcLater"]


class GrpcLater(LaterCall[Any]):
    """A library's own says how an attempt begins (``_begin``), which of its facts are known (``_fact``), and what error it is.

    Args:
        messages: What is sent again by each attempt, until the call is committed (``commit``); None: one message.

    Attributes:
        sub: Where the last attempt went.
        told: Who is called when it is over; None: it is.
    """

    __slots__ = ("_pick", "_request", "_silence", "_subchannels", "messages", "sub", "told")

    def __init__(
        self,
        exchange: Exchange,
        errors: ErrorTable,
        runtime: Runtime,
        subchannels: Subchannels[Any],
        request: Request,
        messages: Any,
    ) -> None:
        super().__init__(exchange, errors, runtime)
        self._subchannels = subchannels
        self._request = request
        self._pick: Pick | None = None  # the last attempt's, where somebody listens to its endpoint
        self._silence: Callable[[], object] | None = None  # prevents the alarm of the attempt
        self.messages = messages
        self.sub: Subchannel[Any] | None = None
        self.told: list[Callable[[], object]] | None = []

    def _begin(self, sub: Subchannel[Any], seconds: float | None, metadata: Any, wait: bool | None) -> Any:
        raise NotImplementedError

    def _code(self, attempt: Any) -> grpc.StatusCode:
        """The code of an attempt that is over."""
        raise NotImplementedError

    def _fact(self, attempt: Any, name: str) -> Any:
        """The same of its ``details``, ``initial_metadata``, ``trailing_metadata``."""
        raise NotImplementedError

    def _error(self, attempt: Any) -> BaseException:
        """The library's error of one that failed."""
        raise NotImplementedError

    def _open(self, step: Send | Direct, bounds: Bounds) -> Any:
        request = self._request
        seconds, wait, metadata = request.timeout, request.wait_for_ready, request.metadata or None
        if self.sub is not None:
            self.sub.users.pop(self, None)
        if request.renews:
            self._subchannels.settings.renewed(request)
        if isinstance(step, Send):
            sub = self.sub = self._subchannels.get(step, self)
            self._pick = step.pick if step.pick.listens else None
            wait = False if wait is False else None
        else:
            sub = self.sub = self._subchannels.own_for(self)
        if step.head is not None:
            seconds, metadata = bounds.left("read"), metadata_of(request, step.head.headers.raw)
        bounds.sent = True
        attempt = self._begin(sub, seconds, metadata, wait)
        if bounds.alarmed:
            self._bound(attempt, bounds)
        return attempt

    def _bound(self, attempt: Any, bounds: Bounds) -> None:
        """On a virtual clock: the end of the attempt is for this clock to say, not for grpc's."""
        assert bounds.deadline is not None
        if self._silence is not None:
            self._silence()
        self._silence = self._after(bounds.deadline - self._now(), partial(self._rang, attempt, bounds))

    def _rang(self, attempt: Any, bounds: Bounds) -> None:
        bounds.expired = True
        self.failed(attempt, Ended(OutcomeKind.TIMEOUT, TimeoutError(LATE)))
        error = self._errors.made(DeadlineExceeded, LATE, info=self.info, sent=True)
        self.overdue(attempt, error, Outcome(OutcomeKind.TIMEOUT, sent=True, detail=LATE, grpc=True))
        if attempt is not self.attempt:
            self._give_up(attempt)

    def _give_up(self, attempt: Any) -> None:
        attempt.cancel()

    def _leave(self) -> list[Callable[[], object]]:
        """It is over: who is to be called."""
        told, self.told = self.told, None
        silence, self._silence = self._silence, None
        if silence is not None:
            silence()
        if self.sub is not None:
            self.sub.users.pop(self, None)
        return told or []

    # --- what an attempt says ---------------------------------------------------------------------------------------------

    def commit(self, attempt: Any) -> None:
        """Its first message, or its metadata, is there."""
        if not self.committed:
            self._bind()
            if self.messages is not None:
                self.messages.commit()
            self.arrived(attempt, 0, None, GRPC)

    def ended(self, attempt: Any) -> None:
        """It is over. Any number of times."""
        if attempt is not self.attempt or self.over:
            return
        code = self._code(attempt)
        pick, self._pick = self._pick, None
        if pick is not None:
            measure(pick, self._fact(attempt, "trailing_metadata"))
        if code is grpc.StatusCode.OK:
            if not self.committed:
                self.arrived(attempt, 0, None, GRPC)
            self.finished()
            return
        details, sub = self._fact(attempt, "details"), self.sub
        assert sub is not None
        settings, connected = self._subchannels.settings, partial(self._subchannels.connected, sub)
        trailing = self._fact(attempt, "trailing_metadata")
        brings = settings.brings_credentials(self._request.credentials) and not trailing
        kind = local_end(code, details, connected, self.messages, credentials=brings)
        if self.committed:
            status = number(code) if kind is None else None
            said = OutcomeKind.STATUS if kind is None else kind
            self.finished(Outcome(said, status, sent=True, detail=details or "", grpc=True))
            return
        initial = self._fact(attempt, "initial_metadata")
        if initial:
            self._bind()
        if kind is None or initial:
            step = self._step
            if (
                isinstance(step, Send)
                and isinstance(plan := self._exchange.plan, GrpcPlan)
                and plan.shows_errors
            ):
                step.error = self._error(attempt)
            self.arrived(attempt, number(code), trailers(trailing), GRPC)
        else:
            words = ""
            if kind is OutcomeKind.CONNECT and sub.endpoint is not None:
                words = sub.why(details)
                self._subchannels.unconnected(sub, words)
            self.failed(attempt, Ended(kind, self._error(attempt), words))
        if attempt is self.attempt and self.committed:
            self.finished()

    def _bind(self) -> None:
        """No other attempt will be made (RT-05)."""
        if self._request.call is not None:
            self._request.call.replayable = False
