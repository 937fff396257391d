"""The control plane: drives the pure session over a stream, and publishes what it puts together.

Theory. Everything here runs on the worker, but for the stream's own thread.

    start ──► connecting ──ready──► session.opened, requests written ──message──► session.received, requests written
                  │                                      │
                  └──────────────── end ◄────────────────┘──► session.closed gives the seconds until the next try

Which protocol a stream speaks is decided when it is opened (`meshlib.sources.protocol`). Where the server has nothing new to
say it may be silent: then the stream is good once it has stood for a moment.

Whatever the session was told, its requests are written and its timer is set anew after it (``_flush``). What it has put
together is published when it changed, and before the response that brought it is acknowledged.

Nobody waits for what will not come: while the control plane cannot be reached, the part says so (``unreached``). Names
are asked for all the same, and known once it answers. Where it has not answered anything, a name whose time is over is
not known to be absent either.

What an earlier process left in a file (`last_good`) is put into the session before its first stream, and stands there until the
server says what it has: resource by resource, by the rules of the protocol.

After a fork the parent's part stays in force until the new session knows as much (``_kept_back``).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from meshlib.model.events import ControlPlaneLost, ResourcesReceived
from meshlib.model.snapshot import Part
from meshlib.model.status import Ignored, SourceStatus, XdsClientStatus
from meshlib.sources.base import Sink, Source, State
from meshlib.sources.channel import refusal
from meshlib.sources.node import node_message
from meshlib.sources.parts import over, unreached
from meshlib.sources.protocol import OVER_GRPC, SILENT, note_without_delta, protocol_of
from meshlib.sources.stream import GrpcStream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.runtime.runtime import Runtime
    from meshlib.runtime.worker import Timer
    from meshlib.sources.last_good import LastGood
    from meshlib.sources.stream import AdsStream, Opener
    from meshlib.xds.bootstrap import Bootstrap
    from meshlib.xds.session import Session
    from meshlib.xds.values import Received

__all__ = ["XdsSink", "XdsSource"]

#: Seconds from the first response on for which a child serves what its parent knew while its own session is not complete
#: (EX-01: what does not come within 15 s does not exist).
WARM = 15.0
#: Clusters that are not there though a route names them: so many are named in one line of the log.
_TOLD = 10

_log = logging.getLogger("meshlib")

T = TypeVar("T")


class XdsSink(Sink, Protocol):
    """Where it publishes; ``runtime.random`` is what its backoff draws from; ``runtime.emit``: who is told of what comes."""

    @property
    def runtime(self) -> Runtime: ...


class XdsSource(Source):
    """The control plane of a mesh. ``open_stream`` makes streams; default: over grpc. ``protocol``: of the configuration.
    ``last_good``: what keeps the state on disk.
    """

    def __init__(
        self,
        sink: XdsSink,
        bootstrap: Bootstrap,
        view: str,
        open_stream: Opener = GrpcStream,
        *,
        protocol: str = "auto",
        last_good: LastGood | None = None,
    ) -> None:
        super().__init__("xds", "xds", sink)
        self._over_grpc = protocol in OVER_GRPC
        self._random = sink.runtime.random
        self._emit = sink.runtime.emit
        self._bootstrap = bootstrap
        self._server = bootstrap.servers[0]
        self._view = view
        self._protocol = protocol
        self._open_stream = open_stream
        self._session: Session | None = None
        self._stream: AdsStream | None = None
        self._running = False
        self._retry: Timer | None = None
        self._tick: Timer | None = None
        self._last_good = last_good
        self._restored = False  # whether something of it is in the session
        self._silence_tells = False
        self._inherited: Part | None = None
        self._patience = 0.0  # for how long a parent's part may stay in force
        self._until: float | None = None
        self._made_of: tuple[object, ...] = ()  # what was last published
        self._lacking: frozenset[str] = frozenset()
        self._rejected: dict[tuple[str, str], tuple[str, ...]] = {}
        self._refusal = ""
        self._answering = False  # a response is to be acknowledged: nothing is written before that
        self._connected: bool | None = None  # None: no stream was made yet
        self._hindrance = ""  # what a stream that lives says is wrong
        self._left_out: tuple[Ignored, ...] = ()  # what it has read and the session never saw
        self._last = super().status()

    # --- Source -------------------------------------------------------------------------------------------------

    def open(self, inherited: Part | None) -> None:
        self._refusal = self._refuses()
        if inherited is not None:
            self._inherited, self._patience = inherited, WARM
            self._was_good = True

    def start(self) -> None:
        self._refusal = self._refuses()
        if self._refusal:
            self.trouble(self._refusal)
            return
        self._running = True
        if self._session is None:
            self._session = self._new_session()
            self._restore(self._session)
        self._connect()

    def stop(self) -> None:
        self._running = False
        for timer in (self._retry, self._tick):
            if timer is not None:
                timer.cancel()
        self._retry = self._tick = None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
            self._alive.closed(self._now)
        self.rest()

    def want(self, name: str, authority: str) -> None:
        if not name or self._session is None:
            return
        self._session.want(name, authority)
        self._publish()
        self._flush()

    def forget(self, name: str) -> None:
        if self._session is None:
            return
        self._session.forget(name)
        self._publish()
        self._flush()

    @property
    def streaming(self) -> bool:
        return self._stream is not None and self._over_grpc

    @property
    def refusal(self) -> str:
        return self._refusal

    def pending(self, name: str) -> str:
        lacks = self._asked(lambda session: session.pending(name), "")
        if self.state in (State.FAILED, State.STALE) and self.last_error:
            return f"control plane {self._server.uri} not reachable: {self.last_error}"
        return f"{lacks} (control plane {self._server.uri}: {self.state.value})" if lacks else ""

    def status(self) -> SourceStatus:
        self._last = self._asked(self._status, self._last)
        return replace(
            self._last,
            server=self._server.uri,
            state=self.state.value,
            since=self.seconds,
            last_error=self.last_error or self._last.last_error,
        )

    def xds_clients(self) -> tuple[XdsClientStatus, ...]:
        connected = self._connected
        if not self._running or connected is None:
            return ()
        none: Mapping[tuple[str, str, str], int] = {}
        found = self._asked(lambda session: session.census(), none)
        return (XdsClientStatus(self._server.uri, connected, found),)

    def held(self) -> Mapping[str, frozenset[str]]:
        """The names of the resources that it has, by type."""

        def names(session: Session) -> Mapping[str, frozenset[str]]:
            return {
                kind: frozenset(session.cache.names(kind)) for kind in session.status(self._now).resources
            }

        return self._asked(names, {})

    def _restore(self, session: Session) -> None:
        """Take up what is on disk, unless a parent left more, and have the session's state kept there."""
        if self._last_good is None:
            return
        give_way = self.sink.worker.give_way
        self._last_good.keep(session.view, lambda: session.contents(give_way))
        held = self._last_good.take_up() if self._inherited is None else None
        if held is None:
            return
        found, refused = session.restore(held, self._now, give_way)
        self._last_good.took(found, refused)
        if any(found.values()):
            self._restored = self._was_good = True
            if self._silence_tells:
                session.believe_silence()
            if self.away:
                self.trouble(self.last_error)
            self._publish()

    def believe_silence(self) -> None:
        """The server answers another view: what an earlier process left stands only for as long as any resource has to come."""
        self._silence_tells = True
        if self._session is not None:
            self._session.believe_silence()

    # --- the session --------------------------------------------------------------------------------------------

    def _new_session(self) -> Session:
        if self._over_grpc:
            # Loaded here and not by the stream's thread: a module whose import a fork cuts off stays locked in the child.
            import grpc  # noqa: F401

        from meshlib.xds.session import ServerFeatures, Session

        return Session(
            node_message(self._bootstrap.node),
            view=self._view,
            protocol=self._spoken(),
            jitter=self._random,
            features=ServerFeatures.of(feature.value for feature in self._server.features),
            server=self._server.uri,
            give_way=self.sink.worker.give_way,
        )

    def _refuses(self) -> str:
        return refusal() if self._over_grpc else ""

    def _spoken(self) -> str:
        from meshlib.xds.session import wants_grpc

        generates_grpc = wants_grpc(node_message(self._bootstrap.node))
        return protocol_of(self._protocol, self._server.uri, generates_grpc=generates_grpc)

    @property
    def _alive(self) -> Session:
        assert self._session is not None
        return self._session

    @property
    def _now(self) -> float:
        return self.sink.worker.clock.now()

    def _connect(self) -> None:
        self._retry = None
        if not self._running or self._stream is not None:
            return
        self._refusal = self._refuses()
        if self._refusal:  # gevent has patched the process since the last stream
            self.trouble(self._refusal)
            self._publish()
            return
        if self.state is State.IDLE:
            self.begin()
        if self._connected is None:
            self._connected = True
        self._hindrance = ""
        self._alive.speak(self._spoken())
        self._stream = self._open_stream(self._server, self, self.sink.worker.post, self._alive.protocol)

    def on_ready(self, stream: AdsStream) -> None:
        if stream is self._stream:
            self._alive.opened(self._now)
            if not self._flush():
                # Nothing is wanted by name yet, so nothing will be said: whoever waits for this source would wait for ever.
                self.good()
                self._publish()
            self.sink.worker.later(SILENT, lambda: self._stands(stream))

    def _stands(self, stream: AdsStream | None) -> None:
        if stream is not None and stream is self._stream and self._alive.complete and not self._hindrance:
            self._connected = True
            self._alive.stands()
            if self.state is not State.READY:
                self.good()
                self._publish()

    def on_message(self, stream: AdsStream, raw: bytes) -> None:
        if stream is not self._stream:
            return
        try:
            self._note(self._alive.received(raw, self._now))
            self._publish()
        finally:
            # What is published is put into force by the worker's next commands, and is acknowledged after that: whoever hears of
            # it may count on it.
            self._answering = True
            self.sink.worker.post(lambda: self._answer(stream))

    def _answer(self, stream: AdsStream) -> None:
        self._answering = False
        try:
            if stream is self._stream:
                self._flush()
                self._keep()
        finally:
            stream.consumed()

    def _keep(self) -> None:
        if self._last_good is not None:
            self._last_good.due()

    def on_end(self, stream: AdsStream, error: str, *, unimplemented: bool = False) -> None:
        if stream is not self._stream:
            return
        self._stream = None
        stream.cancel()  # its thread is about to end: whoever closes the mesh next shall find none
        answered = self._alive.status(self._now).answered
        delay = self._alive.closed(self._now, error or "the control plane closed the stream")
        if unimplemented and not answered and self._alive.protocol == "delta":
            if self._protocol == "auto":
                note_without_delta(self._server.uri)
                self._connect()
                return
            error = f'{error}: the control plane does not have xds.protocol = "delta"; "auto" does without'
        if not answered:  # ST-05: a stream that had an answer may end; one that had none is an outage
            self._lose(error or "the control plane closed the stream without an answer")
        if self._running:
            self._retry = self.sink.worker.later(delay, self._connect)

    def on_state(self, stream: AdsStream, error: str, ignored: tuple[Ignored, ...] = ()) -> None:
        if stream is not self._stream:
            return
        self._hindrance, self._left_out = error, ignored
        if error:
            self._lose(error)
        else:
            self._connected = True
            self.good()
            self._publish()

    def _lose(self, error: str) -> None:
        if self._connected:
            self._connected = False
            self._emit(ControlPlaneLost(self._server.uri))
        self.trouble(error)
        self._publish()
        if self._last_good is not None and self._restored and not self._alive.seen:
            self._last_good.serves(error)

    def _flush(self) -> bool:
        """Write what the session has to say, and be there when its next timer is due. Whether anything was written."""
        if self._answering:
            return False
        session, stream = self._alive, self._stream
        written = False
        if stream is not None:
            for raw in session.outgoing(self._now):
                stream.send(raw)
                written = True
        if self._tick is not None:
            self._tick.cancel()
        due = session.next_timer() if self._running else None
        self._tick = None if due is None else self.sink.worker.later(due - self._now, self._on_tick)
        return written

    def _on_tick(self) -> None:
        if self._alive.tick(self._now):
            self._stands(self._stream)  # what was awaited may be known not to come
        self._publish()
        self._flush()
        self._keep()

    def _note(self, received: Received) -> None:
        """What a response did to the source's state, and to its log."""
        if received.rejected:
            self._tell_rejected()
        if received.type:
            self._connected = not self._hindrance
            invalid = len(received.rejected)
            told = ResourcesReceived(self._server.uri, received.full_name, received.valid, invalid)
            self._emit(told)
            if self._hindrance:  # one type of several cannot be had
                self.trouble(self._hindrance)
            else:
                self.good()
        elif received.error:
            self.trouble(received.error)

    def _tell_rejected(self) -> None:
        """Each refusal once: a server may send the same again and again (CP-07)."""
        now = {(item.type, item.resource): item.problems for item in self._alive.status(self._now).rejected}
        for (kind, name), problems in now.items():
            if self._rejected.get((kind, name)) != problems:
                _log.warning(
                    "meshlib: %s: %s %r is refused: %s", self._server.uri, kind, name, "; ".join(problems)
                )
        self._rejected = now

    # --- publishing ---------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        session = self._alive
        part: Part = session.part
        inherited = self._inherited if self._kept_back(session) else None
        made_of = (part, session.seen, inherited, self.last_error if self.away else None)
        if made_of == self._made_of or not (session.seen or self.away or inherited or self._restored):
            return
        self._made_of = made_of
        if inherited is not None:
            part = over(inherited, part)
        elif not session.seen:
            part = replace(part, absent={})
        if self.away:
            part = unreached(part, self.last_error)
        self.sink.publish(part)
        self._tell_lacking(session)

    def _tell_lacking(self, session: Session) -> None:
        """Each cluster that calls fail for want of, once for as long as it lacks."""
        now = frozenset(session.lacking())
        new = sorted(now - self._lacking)
        self._lacking = now
        if new:
            more = f" and {len(new) - _TOLD} more" if len(new) > _TOLD else ""
            words = "; ".join(new[:_TOLD]) + more
            _log.warning("meshlib: %s: routes name clusters that are not there: %s", self._server.uri, words)

    def _kept_back(self, session: Session) -> bool:
        """Whether what is in force is better than what the session has yet."""
        if not self._patience:
            return False
        if not session.seen:
            return True
        if self._until is None:
            self._until = self._now + self._patience
            self.sink.worker.later(self._patience, self._publish)
        if self._now < self._until and not session.complete:
            return True
        self._patience, self._inherited = 0.0, None
        return False

    # --- asked by other threads ---------------------------------------------------------------------------------

    def _asked(self, question: Callable[[Session], T], default: T) -> T:
        """The session's answer, given on the worker; ``default`` where there is none within a second."""
        if self._session is None:
            return default
        answers: list[T] = []
        self.sink.worker.call(lambda: answers.append(question(self._alive)), 1.0)
        return answers[0] if answers else default

    def _status(self, session: Session) -> SourceStatus:
        now = session.status(self._now)
        return SourceStatus(
            name=self.name,
            kind=self.kind,
            versions=dict(now.versions),
            resources=dict(now.resources),
            waiting=tuple(dict.fromkeys((*session.waiting(), *now.waiting))),
            last_error=now.last_error,
            rejected=now.rejected,
            ignored=(*self._unused(), *self._left_out, *now.ignored),
            missing=session.lacking(),
        )

    def _unused(self) -> tuple[Ignored, ...]:
        """What the bootstrap says and nobody does yet."""
        others = self._bootstrap.servers[1:]
        servers = (
            Ignored("", "bootstrap", f"xds_servers[{index}]", server.uri)
            for index, server in enumerate(others, 1)
        )
        skipped = (Ignored("", "bootstrap", path, "") for path in self._bootstrap.skipped)
        return (*servers, *skipped)
