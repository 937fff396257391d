"""Load reports to control planes: drives a pure machine (`meshlib.xds.lrs`) over a stream to each server that a cluster names.

Theory. Everything here runs on the worker, but for the streams' own threads. The configuration says which clusters are reported, and
to whom; what they count is looked up after each publication:

    a cluster names a server ──► a stream to it, as long as there is anything to report (LR-01)
    no cluster does any more ──► what was counted last goes out with one more report, then the stream is closed

The stream is one of its own, as discovery's is: with a channel and a thread, closed before a fork and made anew after it, tried again
after the delay of ST-04. Where it cannot be had calls go on, and what was counted meanwhile is in the next report. It is no
source of configuration, and no status has it: what goes wrong is in the log, at DEBUG.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from meshlib.model.events import ConfigurationChanged
from meshlib.sources.base import Source
from meshlib.sources.channel import refusal
from meshlib.sources.node import node_message
from meshlib.sources.stream import GrpcStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshlib.core.loads import ClusterLoad, Loads
    from meshlib.model.events import Event
    from meshlib.model.status import Ignored
    from meshlib.runtime.worker import Timer
    from meshlib.sources.merge import Merge
    from meshlib.sources.stream import AdsStream, Ears, Opener
    from meshlib.xds.bootstrap import Bootstrap, Server

__all__ = ["LoadReports"]

_log = logging.getLogger("meshlib")


def _open(
    server: Server, ears: Ears, post: Callable[[Callable[[], object]], None], protocol: str
) -> AdsStream:
    from meshlib.xds.schema import LRS

    return GrpcStream(server, ears, post, protocol, method=LRS)


class LoadReports(Source):
    """Of one mesh. It publishes nothing. ``open_stream`` makes streams; default: over grpc."""

    def __init__(self, merge: Merge, bootstrap: Bootstrap, open_stream: Opener = _open) -> None:
        super().__init__("lrs", "lrs", merge)
        self.merge = merge
        self.bootstrap = bootstrap
        self.open_stream = open_stream
        self._servers: dict[str, _Reports] = {}
        self._forget: Callable[[], None] | None = None

    @property
    def shown(self) -> bool:
        return False

    @property
    def streaming(self) -> bool:
        return any(server.stream is not None for server in tuple(self._servers.values()))

    def start(self) -> None:
        if self._forget is None:
            self._forget = self.merge.runtime.observe(self._heard, calls=False)
        self._look()

    def stop(self) -> None:
        forget, self._forget = self._forget, None
        if forget is not None:
            forget()
        for server in self._servers.values():
            server.stop()
        self._servers.clear()

    def _heard(self, event: Event) -> None:
        if type(event) is ConfigurationChanged:
            self._look()

    def _look(self) -> None:
        """Who is reported to whom now."""
        found: dict[str, list[Loads]] = {}
        for loads in self.merge.runtime.clusters.loads():
            found.setdefault(loads.report.server, []).append(loads)
        for uri in found.keys() - self._servers.keys():
            server = _server(self.bootstrap, uri)
            if server is not None:
                self._servers[uri] = _Reports(self, server)
        for uri, reports in list(self._servers.items()):
            reports.count(found.get(uri, ()))
            self.tidy(uri)

    def tidy(self, uri: str) -> None:
        """Close what has nothing more to report."""
        reports = self._servers.get(uri)
        if reports is not None and reports.over:
            del self._servers[uri]
            reports.stop()


def _server(bootstrap: Bootstrap, uri: str) -> Server | None:
    authorities = (authority.servers for authority in bootstrap.authorities.values())
    everyone = (server for servers in (bootstrap.servers, *authorities) for server in servers)
    return next((server for server in everyone if server.uri == uri), None)


class _Reports:
    """To one server (:class:`meshlib.sources.stream.Ears`)."""

    def __init__(self, owner: LoadReports, server: Server) -> None:
        from meshlib.xds.lrs import LoadMachine

        runtime = owner.merge.runtime
        self._owner = owner
        self._server = server
        self._worker = runtime.worker
        self._machine = LoadMachine(node_message(owner.bootstrap.node), runtime.random)
        self._counted: dict[Loads, None] = {}
        self._leaving: dict[
            Loads, bool
        ] = {}  # of clusters that are not reported any more; whether they were once more
        self._timer: Timer | None = None
        self._opened = False  # the first request was written
        self._stopped = False
        self.stream: AdsStream | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing more to report, or nobody who wants to hear of the rest."""
        told = self._machine.next_timer() is not None
        return not (self._counted or (self._leaving and told))

    def count(self, found: Iterable[Loads]) -> None:
        """These are reported now; others once more."""
        now = dict.fromkeys(found)
        self._leaving.update((loads, False) for loads in self._counted if loads not in now)
        for loads in now:
            self._leaving.pop(loads, None)
        self._counted = now
        if self.stream is None and self._timer is None and not self.over:
            self._connect()

    def stop(self) -> None:
        self._stopped = True
        self._later(None)
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.cancel()

    # --- the stream -----------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._timer = None
        if self._stopped or refusal():
            return
        self._opened = False
        self.stream = self._owner.open_stream(self._server, self, self._worker.post, "sotw")

    def on_ready(self, stream: AdsStream) -> None:
        """Late: that the connection stands is looked for now and then, and a server may speak first."""
        if stream is self.stream and not self._opened:
            self._opened = True
            stream.send(self._machine.opened())

    def on_message(self, stream: AdsStream, raw: bytes) -> None:
        self.on_ready(stream)
        if stream is self.stream:
            problem = self._machine.received(raw, self._now)
            if problem:
                _log.debug("meshlib: load reports to %s: %s", self._server.uri, problem)
            self._set_timer()
        stream.consumed()

    def on_end(self, stream: AdsStream, error: str, *, unimplemented: bool = False) -> None:
        del unimplemented  # a server may get what it has not
        if stream is not self.stream:
            return
        self.stream = None
        stream.cancel()
        delay = self._machine.closed()
        _log.debug(
            "meshlib: load reports to %s: the stream ended: %s", self._server.uri, error or "without an error"
        )
        if not self._stopped:
            self._later(delay, self._connect)

    def on_state(self, stream: AdsStream, error: str, ignored: tuple[Ignored, ...] = ()) -> None:
        """A stream of grpc says none."""

    # --- reports --------------------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> float:
        return self._worker.clock.now()

    def _set_timer(self) -> None:
        due = self._machine.next_timer()
        self._later(None if due is None else due - self._now, self._report)

    def _later(self, seconds: float | None, command: Callable[[], object] = bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._worker.later(seconds, command)

    def _report(self) -> None:
        self._timer = None
        stream = self.stream
        if stream is None:
            return
        for raw in self._machine.tick(self._now, self._take, self._worker.give_way):
            stream.send(raw)
        self._set_timer()
        self._owner.tidy(self._server.uri)

    def _take(self) -> list[ClusterLoad]:
        # The stream is closed a report later than the last one was written: what is written just before an end may be lost.
        self._leaving = {loads: True for loads, told in self._leaving.items() if loads.active or not told}
        found = []
        for loads in (*self._counted, *self._leaving):
            self._worker.give_way()
            found.append(loads.take(self._now))
        return found
