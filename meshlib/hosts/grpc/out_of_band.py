"""What an endpoint says of its load on a stream beside its calls: ORCA out of band (gRFC A51, OR-02).

Theory. The stream is one of the subchannel's own channel, so that it goes over the connection that calls go over, and it waits for
that to stand. Who hears of the endpoint's load says how often at least; the shortest interval of all is asked for.

    state      event                         then       what is done
    ---------  ----------------------------  ---------  ------------------------------------------------------
    idle       somebody asks                 streaming  a stream is begun
    streaming  a report                      streaming  who asked is told
    streaming  another interval is wanted    streaming  it is ended, and begun anew
    streaming  it ended: UNIMPLEMENTED       refused    nothing more: the endpoint has no such service
    streaming  it ended otherwise            waiting    it is begun anew after the delay of ST-04, which a report resets
    any        nobody asks any more          idle       what is under way is ended
    any        the subchannel is closed      closed     the same, for good

Reports come in a thread of the stream's own, or in its channel's loop. ``_lock`` guards the state; nobody is told under it.
"""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from meshlib.xds.backoff import reconnect

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.upstream import Reports

__all__ = ["Begin", "LoadStream"]


class _State(Enum):
    IDLE = "idle"
    STREAMING = "streaming"
    WAITING = "waiting"
    REFUSED = "refused"
    CLOSED = "closed"


class Begin(Protocol):
    """Begins a stream with that request: ``heard`` gets its messages, ``ended`` whether the server has no such method. Gives what ends
    it. Called from any thread, and does not block.
    """

    def __call__(
        self, request: bytes, heard: Callable[[bytes], object], ended: Callable[[bool], object]
    ) -> Callable[[], object]: ...


class LoadStream:
    """To one endpoint. ``later``: calls something some seconds from now; ``random``: floats in [0, 1)."""

    __slots__ = (
        "__weakref__",
        "_begin",
        "_cancel",
        "_endpoint",
        "_every",
        "_failures",
        "_later",
        "_lock",
        "_random",
        "_reports",
        "_state",
        "_stream",
    )

    def __init__(
        self,
        reports: Reports,
        endpoint: LiveEndpoint,
        begin: Begin,
        later: Callable[[float, Callable[[], object]], object],
        random: Callable[[], float],
    ) -> None:
        self._reports = reports
        self._endpoint = endpoint
        self._begin = begin
        self._later = later
        self._random = random
        self._lock = threading.Lock()
        self._state = _State.IDLE
        self._every: float | None = None
        self._failures = 0
        self._stream = 0  # which: what an earlier one says is passed over
        self._cancel: Callable[[], object] | None = None
        reports.follow(self.adapt)
        self.adapt()

    def adapt(self) -> None:
        """Do as is wanted now."""
        every = self._reports.every
        with self._lock:
            if self._state is _State.CLOSED or every == self._every:
                return
            self._every = every
            cancel, self._cancel = self._cancel, None
            self._stream += 1
            if self._state is not _State.REFUSED:
                self._state = _State.IDLE
        if cancel is not None:
            cancel()
        self._go(self._stream)

    def close(self) -> None:
        """For good."""
        self._reports.unfollow(self.adapt)
        with self._lock:
            self._state = _State.CLOSED
            self._stream += 1
            cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()

    def _go(self, stream: int) -> None:
        """Begin it, if that is what is wanted still."""
        with self._lock:
            if (
                stream != self._stream
                or self._every is None
                or self._state not in (_State.IDLE, _State.WAITING)
            ):
                return
            self._state = _State.STREAMING
            self._stream = stream = stream + 1
            every = self._every
        cancel = self._begin(
            _request(every), lambda raw: self._heard(stream, raw), lambda no: self._ended(stream, no)
        )
        with self._lock:
            if stream == self._stream:
                self._cancel = cancel
                return
        cancel()

    def _heard(self, stream: int, raw: bytes) -> None:
        from meshlib.xds.orca import of_bytes

        with self._lock:
            if stream != self._stream:
                return
            self._failures = 0
        metrics = of_bytes(raw)
        if metrics is not None:
            self._reports.reported(self._endpoint, metrics)

    def _ended(self, stream: int, unimplemented: bool) -> None:
        with self._lock:
            if stream != self._stream:
                return
            self._cancel = None
            self._stream = stream = stream + 1
            self._state = _State.REFUSED if unimplemented else _State.WAITING
            delay = reconnect(self._failures, self._random)
            self._failures += 1
        if not unimplemented:
            self._later(delay, lambda: self._go(stream))


def _request(every: float) -> bytes:
    from meshlib.xds import schema

    made = schema.message("xds.service.orca.v3.OrcaLoadReportRequest")()
    made.report_interval.FromNanoseconds(int(every * 1e9))
    return bytes(made.SerializeToString())
