"""A view of the control plane: drives the pure session over a stream to each server, and publishes what it puts together.

Theory. Everything here runs on the worker. The session says to which servers there are to be streams (`meshlib.xds.federation`);
each of those is driven by an `XdsServer`. Whatever the session was told, streams are opened and closed, its requests are written and its
timer is set anew after it (``settle``). What it has put together is published when it changed, and before the response that brought
it is acknowledged.

The state is ready as soon as one server is; there is an outage once no server that is relied on can be reached.

Nobody waits for what will not come: while the control plane cannot be reached, the part says so (``unreached``). Names
are asked for all the same, and known once it answers. Where it has not answered anything, a name whose time is over is
not known to be absent either.

What an earlier process left in a file (`last_good`) is put into the session before its first stream, and stands there until the
server says what it has: resource by resource, by the rules of the protocol.

After a fork the parent's part stays in force until the new session knows as much (``_kept_back``).
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from meshlib.model.snapshot import Part
from meshlib.model.status import Ignored, SourceStatus, XdsClientStatus
from meshlib.sources.base import Sink, Source, State
from meshlib.sources.channel import refusal
from meshlib.sources.node import node_message
from meshlib.sources.parts import over, unreached
from meshlib.sources.protocol import OVER_GRPC, protocol_of
from meshlib.sources.stream import GrpcStream
from meshlib.sources.xds_server import XdsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.model.events import Event
    from meshlib.runtime.runtime import Runtime
    from meshlib.runtime.worker import Timer, Worker
    from meshlib.sources.last_good import LastGood
    from meshlib.sources.stream import Opener
    from meshlib.xds.bootstrap import Bootstrap, Server
    from meshlib.xds.csds import Client
    from meshlib.xds.session import Session

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
    """The control plane of a mesh in one view. ``open_stream`` makes streams; default: over grpc. ``protocol``: of the
    configuration. ``last_good``: what keeps the state on disk. ``envoy_tls``: Envoy's verdicts of TLS hold in the target view, too.
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
        envoy_tls: bool = False,
    ) -> None:
        super().__init__("xds", "xds", sink)
        self._envoy_tls = envoy_tls
        self._over_grpc = protocol in OVER_GRPC
        self._random = sink.runtime.random
        self._emit = sink.runtime.emit
        self._bootstrap = bootstrap
        self._server = bootstrap.servers[0]
        self._view = view
        self._protocol = protocol
        self._open_stream = open_stream
        self._session: Session | None = None
        self._servers: tuple[XdsServer, ...] = ()
        self.running = False
        self._tick: Timer | None = None
        self._last_good = last_good
        self._restored = False  # whether something of it is in the session
        self._silence_tells = False
        self._told_away = ""  # what another view's outage was
        self._inherited: Part | None = None
        self._patience = 0.0  # for how long a parent's part may stay in force
        self._until: float | None = None
        self._made_of: tuple[object, ...] = ()  # what was last published
        self._made_from: tuple[object, ...] = ()  # and held, so that nothing else can get its identity
        self._more: frozenset[str] = frozenset()  # the parts beside the first that are published
        self._lacking: frozenset[str] = frozenset()
        self._refusal = ""
        self._last = super().status()

    # --- Source -------------------------------------------------------------------------------------------------

    def open(self, inherited: Part | None) -> None:
        self._refusal = self._refuses()
        if inherited is not None:
            self._inherited, self._patience = inherited, WARM
            self._was_good = True
            # The parent may have had parts of any depth.
            self._more = frozenset(
                f"{self.name} {level}" for level in range(1, len(self._bootstrap.all_servers))
            )

    def start(self) -> None:
        if self.refuses():
            self.trouble(self._refusal)
            return
        self.running = True
        if self._session is None:
            self._session = self._new_session()
            self._meet()
            if self._told_away:
                self._servers[0].trouble(self._told_away)
            self._restore(self._session)
        self._open_and_close()
        if self._told_away:
            self.changed(self._servers[0])

    def stop(self) -> None:
        self.running = False
        if self._tick is not None:
            self._tick.cancel()
        self._tick = None
        for server in self._servers:
            server.stop()
        self.rest()

    def want(self, name: str, authority: str) -> None:
        if not name or self._session is None:
            return
        self._session.want(name, authority, self._now)
        self.settle()

    def forget(self, name: str) -> None:
        if self._session is None:
            return
        self._session.forget(name, self._now)
        self.settle()

    @property
    def streaming(self) -> bool:
        return self._over_grpc and any(server.stream is not None for server in self._servers)

    @property
    def refusal(self) -> str:
        return self._refusal

    def pending(self, name: str) -> str:
        lacks, at = self._asked(lambda session: (session.pending(name), session.relied_on(name)), ("", 0))
        server = self._servers[at] if self._servers else self
        for each in (self, server):
            if each.state in (State.FAILED, State.STALE) and each.last_error:
                return f"control plane {self._uri(at)} not reachable: {each.last_error}"
        return f"{lacks} (control plane {self._uri(at)}: {server.state.value})" if lacks else ""

    def _uri(self, at: int) -> str:
        return self._servers[at].server.uri if self._servers else self._server.uri

    def status(self) -> SourceStatus:
        self._last = self._asked(self._status, self._last)
        return replace(
            self._last,
            server=self._server.uri,
            state=self.state.value,
            since=self.seconds,
            last_error=self.last_error or self._last.last_error,
        )

    def others(self) -> tuple[SourceStatus, ...]:
        """Of each server, where there are several."""
        if len(self._servers) < 2:
            return ()
        none: tuple[SourceStatus, ...] = ()
        return self._asked(
            lambda session: tuple(self._status_of(session, server) for server in self._servers), none
        )

    def xds_clients(self) -> tuple[XdsClientStatus, ...]:
        if not self.running or all(server.connected is None for server in self._servers):
            return ()
        nothing: list[Mapping[tuple[str, str, str], int]] = [{}] * len(self._servers)
        found = self._asked(lambda session: [session.census(server.at) for server in self._servers], nothing)
        return tuple(
            XdsClientStatus(server.server.uri, server.connected, held)
            for server, held in zip(self._servers, found, strict=True)
            if server.connected is not None
        )

    def xds_states(self) -> tuple[Client, ...]:
        clock = self.sink.worker.clock
        none: tuple[Client, ...] = ()
        return self._asked(lambda session: session.look(clock.wall() - clock.now()), none)

    def held(self) -> Mapping[str, frozenset[str]]:
        """The names of the resources that it has, by type."""
        nothing: Mapping[str, frozenset[str]] = {}
        return self._asked(lambda session: session.held(), nothing)

    def held_by(self) -> Mapping[str, Mapping[str, frozenset[str]]]:
        """The same of each server, by the name of its status."""
        nothing: Mapping[str, Mapping[str, frozenset[str]]] = {}
        return self._asked(
            lambda session: {server.name: session.held(server.at) for server in self._servers}, nothing
        )

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
            self.publish()

    def believe_silence(self) -> None:
        """The server answers another view: what an earlier process left stands only for as long as any resource has to come."""
        self._silence_tells = True
        if self._session is not None:
            self._session.believe_silence()

    def believe_away(self, error: str) -> None:
        """The server cannot be reached by another view: nobody shall wait until this one finds that out, too."""
        self._told_away = error

    @property
    def first_answers(self) -> bool:
        """Whether the server that is asked first does answer."""
        return bool(self._servers) and self._servers[0].state is State.READY

    # --- the session --------------------------------------------------------------------------------------------

    def _new_session(self) -> Session:
        if self._over_grpc:
            # Loaded here and not by the stream's thread: a module whose import a fork cuts off stays locked in the child.
            import grpc  # noqa: F401

        from meshlib.xds.session import Session

        return Session(
            node_message(self._bootstrap.node),
            view=self._view,
            protocol=self.spoken(self._server),
            jitter=self._random,
            bootstrap=self._bootstrap,
            give_way=self.sink.worker.give_way,
            load_reports=self._over_grpc,
            there=os.path.exists,
            envoy_tls=self._envoy_tls,
        )

    def _refuses(self) -> str:
        return refusal() if self._over_grpc else ""

    # --- Owner: what its servers are given ------------------------------------------------------------------------

    @property
    def worker(self) -> Worker:
        return self.sink.worker

    @property
    def session(self) -> Session:
        assert self._session is not None
        return self._session

    @property
    def _now(self) -> float:
        return self.sink.worker.clock.now()

    def refuses(self) -> str:
        self._refusal = self._refuses()
        return self._refusal

    def spoken(self, server: Server) -> str:
        from meshlib.xds.session import wants_grpc

        generates_grpc = wants_grpc(node_message(self._bootstrap.node))
        return protocol_of(self._protocol, server.uri, generates_grpc=generates_grpc)

    def emit(self, event: Event) -> None:
        self._emit(event)

    def tell(self, event: Event) -> None:
        self.sink.tell(event)

    def withdraw(self, source: str) -> None:
        self.sink.withdraw(source)

    def changed(self, source: Source) -> None:
        """A server is in another state: the best of them, or an outage, is the state of all."""
        if not self.running:
            return
        if len(self._servers) > 1:
            self.sink.changed(source)
        runs = [server for server in self._servers if server.runs]
        out = [server for server in runs if server.away and self.session.relies_on(server.at)]
        if any(server.state is State.READY for server in runs):
            self.good()
        elif out and all(server.away or server in out for server in runs):
            self.trouble(out[0].last_error)
        elif runs:
            self.away = False
            self.begin()

    def settle(self) -> bool:
        self._open_and_close()
        self.publish()
        return self.flush()

    def keep(self) -> None:
        if self._last_good is not None:
            self._last_good.due()

    def _meet(self) -> None:
        """The servers that the session has by now: a resource may name another."""
        auto = self._protocol == "auto"
        new = list(enumerate(self.session.servers))[len(self._servers) :]
        made = (XdsServer(self, at, server, self._open_stream, auto=auto) for at, server in new)
        self._servers = (*self._servers, *made)

    def _open_and_close(self) -> None:
        if not self.running:
            return
        self._meet()
        wanted = self.session.open
        for server in self._servers:
            if server.at in wanted:
                server.start()
        for server in self._servers:
            if server.at not in wanted:
                server.stop(0.0)  # the others' answers do not wait for its end

    def flush(self) -> bool:
        """Write what the session has to say, and be there when its next timer is due. Whether anything was written."""
        written = [server.write() for server in self._servers]
        if self._tick is not None:
            self._tick.cancel()
        due = self.session.next_timer() if self.running else None
        self._tick = None if due is None else self.sink.worker.later(due - self._now, self._on_tick)
        return any(written)

    def _on_tick(self) -> None:
        if self.session.tick(self._now):
            for server in self._servers:
                server.stands(server.stream)  # what was awaited may be known not to come
        self.settle()
        self.keep()

    # --- publishing ---------------------------------------------------------------------------------------------

    def publish(self) -> None:
        session = self.session
        parts = session.parts
        part: Part = parts[0]
        inherited = self._inherited if self._kept_back(session) else None
        hopeless = self.away and session.exhausted
        # By identity: to compare what is in parts would go through every endpoint.
        made_of = (*map(id, parts), id(inherited), session.seen, self.last_error if hopeless else None)
        if made_of == self._made_of or not (session.seen or self.away or inherited or self._restored):
            return
        self._made_of, self._made_from = made_of, (*parts, inherited)
        if inherited is not None:
            part = over(inherited, part)
        elif not session.seen:
            part = replace(part, absent={})
        if hopeless:
            part = unreached(part, self.last_error)
        self.sink.publish(part)
        if inherited is None:
            self._publish_more(parts[1:])
        self._tell_lacking(session)
        if self.away and self._last_good is not None and self._restored and not session.seen:
            self._last_good.serves(self.last_error)

    def _publish_more(self, parts: tuple[Part, ...]) -> None:
        """What has to be taken from other servers than the first."""
        now = frozenset(part.source for part in parts)
        for part in parts:
            self.sink.publish(part)
        for gone in self._more - now:
            self.sink.withdraw(gone)
        self._more = now

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
            self.sink.worker.later(self._patience, self.publish)
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
        self.sink.worker.call(lambda: answers.append(question(self.session)), 1.0)
        return answers[0] if answers else default

    def _status(self, session: Session) -> SourceStatus:
        now = session.status(self._now)
        skipped = (Ignored("", "bootstrap", path, "") for path in self._bootstrap.skipped)
        left_out = (each for server in self._servers for each in server.left_out)
        return SourceStatus(
            name=self.name,
            kind=self.kind,
            versions=dict(now.versions),
            resources=dict(now.resources),
            waiting=tuple(dict.fromkeys((*session.waiting(), *now.waiting))),
            last_error=now.last_error,
            rejected=now.rejected,
            ignored=(*skipped, *left_out, *now.ignored),
            missing=session.lacking(),
        )

    def _status_of(self, session: Session, server: XdsServer) -> SourceStatus:
        now = session.status(self._now, server.at)
        return replace(
            server.status(),
            server=server.server.uri,
            versions=dict(now.versions),
            resources=dict(now.resources),
            waiting=now.waiting if server.runs else (),
            rejected=now.rejected,
        )
