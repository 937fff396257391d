"""One control plane: the stream to it, its tries, and how it is. What it says goes to the session, which it shares with others.

Theory. Everything here runs on the worker, but for the stream's own thread.

    start ──► connecting ──ready──► session.opened, requests written ──message──► session.received, requests written
                  │                                      │
                  └──────────────── end ◄────────────────┘──► session.closed gives the seconds until the next try

Which protocol a stream speaks is decided when it is opened (`meshlib.sources.protocol`). Where the server has nothing new to
say it may be silent: then the stream is good once it has stood for a moment.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol

from meshlib.model.events import ControlPlaneLost, ResourcesReceived
from meshlib.model.status import Ignored
from meshlib.sources.base import Source, State
from meshlib.sources.protocol import SILENT, note_without_delta
from meshlib.sources.stream import GrpcStream

if TYPE_CHECKING:
    from meshlib.model.events import Event
    from meshlib.runtime.worker import Timer, Worker
    from meshlib.sources.stream import AdsStream, Opener
    from meshlib.xds.bootstrap import Server
    from meshlib.xds.session import Session
    from meshlib.xds.values import Received

__all__ = ["Owner", "XdsServer"]

_log = logging.getLogger("meshlib")


class Owner(Protocol):
    """The source of a view, to which the server's stream belongs."""

    @property
    def worker(self) -> Worker: ...

    @property
    def session(self) -> Session: ...

    @property
    def running(self) -> bool: ...

    def spoken(self, server: Server) -> str:
        """What the next stream to it speaks."""
        ...

    def refuses(self) -> str:
        """Why no stream may be opened in this process, or ``""``."""
        ...

    def settle(self) -> bool:
        """Open and close streams as the session says, publish, and write requests; whether any was."""
        ...

    def publish(self) -> None:
        """Publish what the session has put together."""
        ...

    def flush(self) -> bool:
        """Write what the session has to say; whether anything was."""
        ...

    def keep(self) -> None:
        """What is in force may be kept."""
        ...

    def changed(self, source: Source) -> None: ...

    def tell(self, event: Event) -> None: ...

    def withdraw(self, source: str) -> None: ...

    def emit(self, event: Event) -> None: ...


class XdsServer(Source):
    """``at``: its place among the session's servers. ``auto``: whether it is asked for state of the world where it has no delta."""

    def __init__(self, owner: Owner, at: int, server: Server, open_stream: Opener, *, auto: bool) -> None:
        super().__init__(f"xds {server.uri}", "xds", owner)  # type: ignore[arg-type]  # what it publishes the owner does
        self._owner = owner
        self.at = at
        self.server = server
        self._open_stream = open_stream
        self._auto = auto
        self.stream: AdsStream | None = None
        self._retry: Timer | None = None
        self._rejected: dict[tuple[str, str], tuple[str, ...]] = {}
        self._answering = False  # a response is to be acknowledged: nothing is written before that
        self._connected: bool | None = None  # None: no stream was made yet
        self._hindrance = ""  # what a stream that lives says is wrong
        self.left_out: tuple[Ignored, ...] = ()  # what it has read and the session never saw
        self._runs = False

    # --- Source -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        if not self._runs:
            self._runs = True
            self._connect()

    def stop(self, timeout: float = 0.5) -> None:
        """End its stream, and wait for the stream's thread at most that many seconds."""
        if not self._runs:
            return
        self._runs = False
        if self._retry is not None:
            self._retry.cancel()
        self._retry = None
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.cancel(timeout)
        self._owner.session.shut(self._now, self.at)
        self.rest()

    @property
    def runs(self) -> bool:
        """Whether there is a stream to it, or a try for one."""
        return self._runs

    @property
    def connected(self) -> bool | None:
        """Whether it can be had, as gRFC A57 judges; None before its first stream."""
        return self._connected if self._runs else None

    # --- the stream ---------------------------------------------------------------------------------------------

    @property
    def _now(self) -> float:
        return self._owner.worker.clock.now()

    def _connect(self) -> None:
        self._retry = None
        if not self._runs or not self._owner.running or self.stream is not None:
            return
        refusal = self._owner.refuses()
        if refusal:  # gevent has patched the process since the last stream
            self.trouble(refusal)
            self._owner.publish()
            return
        if self.state is State.IDLE:
            self.begin()
        if self._connected is None:
            self._connected = True
        self._hindrance = ""
        session = self._owner.session
        session.speak(self._owner.spoken(self.server), self.at)
        open_stream, service = self._open_stream, session.method(self.at)
        if service and open_stream is GrpcStream:
            open_stream = partial(GrpcStream, method=service)
        self.stream = open_stream(self.server, self, self._owner.worker.post, session.protocol(self.at))

    def on_ready(self, stream: AdsStream) -> None:
        if stream is self.stream:
            self._owner.session.opened(self._now, self.at)
            if not self._owner.flush():
                # Nothing is wanted by name yet, so nothing will be said: whoever waits for this source would wait for ever.
                self.good()
                self._owner.publish()
            self._owner.worker.later(SILENT, lambda: self.stands(stream))

    def stands(self, stream: AdsStream | None) -> None:
        """Nothing is awaited of a stream that is up: it is good."""
        session = self._owner.session
        if stream is not None and stream is self.stream and session.quiet(self.at) and not self._hindrance:
            self._connected = True
            session.stands(self._now, self.at)
            if self.state is not State.READY:
                self.good()
                self._owner.settle()

    def on_message(self, stream: AdsStream, raw: bytes) -> None:
        if stream is not self.stream:
            return
        try:
            self._note(self._owner.session.received(raw, self._now, self.at))
            self._owner.publish()
        finally:
            # What is published is put into force by the worker's next commands, and is acknowledged after that: whoever hears of
            # it may count on it.
            self._answering = True
            self._owner.worker.post(lambda: self._answer(stream))

    def _answer(self, stream: AdsStream) -> None:
        self._answering = False
        try:
            if stream is self.stream:
                self._owner.settle()
                self._owner.keep()
        finally:
            stream.consumed()

    def write(self) -> bool:
        """Write what the session has to say to it; whether anything was."""
        written = False
        if self.stream is not None and not self._answering:
            for raw in self._owner.session.outgoing(self._now, self.at):
                self.stream.send(raw)
                written = True
        return written

    def on_end(self, stream: AdsStream, error: str, *, unimplemented: bool = False) -> None:
        if stream is not self.stream:
            return
        self.stream = None
        stream.cancel()  # its thread is about to end: whoever closes the mesh next shall find none
        session = self._owner.session
        answered = session.status(self._now, self.at).answered
        if unimplemented and not answered and session.protocol(self.at) == "delta":
            if self._auto:
                note_without_delta(self.server.uri)
                session.shut(self._now, self.at)
                self._connect()
                return
            error = f'{error}: the control plane does not have xds.protocol = "delta"; "auto" does without'
        delay = session.closed(self._now, error or "the control plane closed the stream", self.at)
        if not answered:  # ST-05: a stream that had an answer may end; one that had none is an outage
            self._lose(error or "the control plane closed the stream without an answer")
        if self._runs:
            self._retry = self._owner.worker.later(delay, self._connect)
        self._owner.settle()

    def on_state(self, stream: AdsStream, error: str, ignored: tuple[Ignored, ...] = ()) -> None:
        if stream is not self.stream:
            return
        self._hindrance, self.left_out = error, ignored
        if error:
            self._lose(error)
        else:
            self._connected = True
            self.good()
        self._owner.settle()

    def _lose(self, error: str) -> None:
        if self._connected:
            self._connected = False
            self._owner.emit(ControlPlaneLost(self.server.uri))
        self.trouble(error)

    def _note(self, received: Received) -> None:
        """What a response did to the server's state, and to its log."""
        if received.rejected:
            self._tell_rejected()
        if received.type:
            self._connected = not self._hindrance
            invalid = len(received.rejected)
            told = ResourcesReceived(self.server.uri, received.full_name, received.valid, invalid)
            self._owner.emit(told)
            if self._hindrance:  # one type of several cannot be had
                self.trouble(self._hindrance)
            else:
                self.good()
        elif received.error:
            self.trouble(received.error)

    def _tell_rejected(self) -> None:
        """Each refusal once: a server may send the same again and again (CP-07)."""
        status = self._owner.session.status(self._now, self.at)
        now = {(item.type, item.resource): item.problems for item in status.rejected}
        for (kind, name), problems in now.items():
            if self._rejected.get((kind, name)) != problems:
                _log.warning(
                    "meshlib: %s: %s %r is refused: %s", self.server.uri, kind, name, "; ".join(problems)
                )
        self._rejected = now
