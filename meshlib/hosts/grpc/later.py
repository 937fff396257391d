"""One RPC for which nobody waits, of blocking and asyncio channels alike: grpc's own call for each attempt, and what is made of how
these end.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from meshlib.core.attempt import Send
from meshlib.core.exchange import GRPC
from meshlib.core.hedging import UNREACHED
from meshlib.errors import DeadlineExceeded
from meshlib.hosts.grpc.errors import LATE, Ended, local_end, number
from meshlib.hosts.grpc.request import measure, metadata_of, trailers
from meshlib.hosts.run_later import LaterCall
from meshlib.model.call import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.exchange import Exchange
    from meshlib.hosts.errors import ErrorTable
    from meshlib.hosts.grpc.request import Request
    from meshlib.hosts.grpc.subchannel import Subchannel
    from meshlib.hosts.grpc.subchannels import Subchannels
    from meshlib.hosts.legs import Leg
    from meshlib.pools.bounds import Bounds
    from meshlib.runtime.runtime import Runtime

__all__ = ["GrpcLater"]


class GrpcLater(LaterCall[Any]):
    """A library's own says how an attempt begins (``_begin``), which of its facts are known (``_fact``), and what error it is.

    Args:
        messages: What is sent again by each attempt, until the call is committed (``commit``); None: one message.

    Attributes:
        told: Who is called when it is over; None: it is.
    """

    __slots__ = ("_request", "_subchannels", "messages", "told")

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
        self.messages = messages
        if messages is not None:
            messages.alone = self.keep
        self.told: list[Callable[[], object]] | None = []

    def _begin(
        self, leg: Leg[Any], sub: Subchannel[Any], seconds: float | None, metadata: Any, wait: bool | None
    ) -> Any:
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

    def _open(self, leg: Leg[Any]) -> Any:
        request, step, bounds = self._request, leg.step, leg.bounds
        seconds, wait, metadata = request.timeout, request.wait_for_ready, request.metadata or None
        if request.renews:
            self._subchannels.settings.renewed(request)
        if isinstance(step, Send):
            sub = leg.sub = self._subchannels.get(step, leg)
            if step.pick.listens:
                leg.pick = step.pick
            wait = False if wait is False else None
        else:
            sub = leg.sub = self._subchannels.own_for(leg)
        if step.head is not None:
            seconds, metadata = bounds.left("read"), metadata_of(request, step.head.headers.raw)
        bounds.sent = True
        attempt = self._begin(leg, sub, seconds, metadata, wait)
        if bounds.alarmed:
            # On a virtual clock: the end of the attempt is for this clock to say, not for grpc's.
            assert bounds.deadline is not None
            rang = partial(self._rang, attempt, bounds)
            leg.silence = self._after(bounds.deadline - self._now(), rang)
        return attempt

    def _rang(self, attempt: Any, bounds: Bounds) -> None:
        bounds.expired = True
        self.failed(attempt, Ended(OutcomeKind.TIMEOUT, TimeoutError(LATE)))
        error = self._errors.made(DeadlineExceeded, LATE, info=self.info, sent=True)
        self.overdue(attempt, error, Outcome(OutcomeKind.TIMEOUT, sent=True, detail=LATE, grpc=True))
        if attempt is not self.attempt:
            self._give_up(attempt)

    def _give_up(self, attempt: Any) -> None:
        attempt.cancel()

    def _left(self, leg: Leg[Any]) -> None:
        if leg.sub is not None:
            leg.sub.users.pop(leg, None)
            if leg.silence is not None:
                leg.silence()
        if self.messages is not None:
            self.messages.drop(leg)

    def _leave(self) -> list[Callable[[], object]]:
        """It is over: who is to be called."""
        told, self.told = self.told, None
        front = self._front
        if front is not None:
            self._left(front)
        for leg in self._beside:
            self._left(leg)
        if self.messages is not None:
            self.messages.alone = None  # it holds this call
        return told or []

    # --- what an attempt says ---------------------------------------------------------------------------------------------

    def commit(self, attempt: Any) -> None:
        """Its first message, or its metadata, is there. It may be that another attempt is the caller's."""
        if not self.committed:
            self.arrived(attempt, 0, None, GRPC)
            if self.committed and attempt is self.attempt:
                self._bind()
                if self.messages is not None:
                    self.messages.commit(self._front)

    _commit = commit

    def ended(self, attempt: Any) -> None:
        """It is over. Any number of times."""
        leg = None if self.over else self.leg_of(attempt)
        if leg is None:
            return
        code, pick = self._code(attempt), leg.pick
        if pick is not None:
            leg.pick = None
            measure(pick, self._fact(attempt, "trailing_metadata"))
        if code is grpc.StatusCode.OK:
            if not self.committed:
                self.arrived(attempt, 0, None, GRPC)
            self._finish(attempt)
            return
        details, sub = self._fact(attempt, "details"), leg.sub
        settings, connected = self._subchannels.settings, partial(self._subchannels.connected, sub)
        trailing = self._fact(attempt, "trailing_metadata")
        brings = settings.brings_credentials(self._request.credentials) and not trailing
        kind = local_end(code, details, connected, self.messages, credentials=brings)
        if self.committed:
            status = number(code) if kind is None else None
            said = OutcomeKind.STATUS if kind is None else kind
            self._finish(attempt, Outcome(said, status, sent=True, detail=details or "", grpc=True))
            return
        initial = self._fact(attempt, "initial_metadata")
        if initial:
            self._bind()
        if kind is None or initial:
            plan, step = self._exchange.plan, leg.step
            if isinstance(step, Send) and plan is not None and plan.shows_errors:
                step.error = self._error(attempt)
            self.arrived(attempt, number(code), trailers(trailing), GRPC)
        else:
            words = ""
            if kind in UNREACHED and sub.endpoint is not None:
                words = sub.why(details)
                self._subchannels.unconnected(sub, words, kind)
            self.failed(attempt, Ended(kind, self._error(attempt), words))
        if self.committed:
            self._finish(attempt)

    def _finish(self, attempt: Any, failure: Outcome | None = None) -> None:
        """The answer of ``attempt`` is over; of one that is not the caller's nothing is."""
        if attempt is self.attempt:
            self.finished(failure)

    def _bind(self) -> None:
        """No other attempt will be made (RT-05)."""
        if self._request.call is not None:
            self._request.call.replayable = False
