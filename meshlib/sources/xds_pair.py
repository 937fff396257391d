"""A control plane asked in both views: as an Envoy would ask it, and as a gRPC client would.

Theory. The two ask differently for the same type of resource: an Envoy wants every listener and every cluster there is
(a wildcard), a gRPC client names what it wants. State-of-the-world lets one request do both only by listing ``*`` beside
names, and servers disagree on that: go-control-plane takes ``*`` for a name, Istio's generators answer one or the other.
So each view has a stream of its own, on which it looks like the client that servers know:

    sidecar view   opened at the start, wildcards        ─┐
                                                          ├─► one part, one status
    target view    opened when a name is first wanted     ─┘

One server gives both, so a cluster of the same name in both is the same cluster; the target view's stands. So of TLS Envoy's verdicts
hold in both: what gRPC refuses of a newer version would leave an older one, which may be plain text, in force.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from meshlib.model.snapshot import Part
from meshlib.model.status import SourceStatus, XdsClientStatus
from meshlib.sources.base import Source, State
from meshlib.sources.node import node_message
from meshlib.sources.stream import GrpcStream
from meshlib.sources.xds import XdsSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.model.cluster import Cluster
    from meshlib.model.events import Event
    from meshlib.runtime.runtime import Runtime
    from meshlib.runtime.worker import Worker
    from meshlib.sources.last_good import LastGood
    from meshlib.sources.merge import Merge
    from meshlib.sources.stream import Opener
    from meshlib.xds.bootstrap import Bootstrap
    from meshlib.xds.csds import Client

__all__ = ["XdsPair", "xds_source"]

#: What of two states is said of both: the best.
_BEST = (State.READY, State.STALE, State.CONNECTING, State.FAILED, State.IDLE)


def xds_source(
    merge: Merge,
    bootstrap: Bootstrap,
    view: str,
    open_stream: Opener = GrpcStream,
    *,
    protocol: str = "auto",
    last_good: LastGood | None = None,
) -> Source:
    """The source for ``xds.view`` and ``xds.protocol``. The view ``auto`` is both, or the target view alone where the node
    asks for Istio's generator for gRPC, which has nothing made for an Envoy.
    """
    from meshlib.xds.session import wants_grpc

    if view != "auto":
        return XdsSource(merge, bootstrap, view, open_stream, protocol=protocol, last_good=last_good)
    if wants_grpc(node_message(bootstrap.node)):
        return XdsSource(merge, bootstrap, "target", open_stream, protocol=protocol, last_good=last_good)
    return XdsPair(merge, bootstrap, open_stream, protocol=protocol, last_good=last_good)


class _Side:
    """One view's sink: what it says goes to the pair."""

    def __init__(self, pair: XdsPair, merge: Merge, view: str) -> None:
        self._pair = pair
        self._merge = merge
        self.parts = {"xds": Part("xds")}
        self.view = view

    @property
    def runtime(self) -> Runtime:
        return self._merge.runtime

    @property
    def worker(self) -> Worker:
        return self._merge.worker

    def tell(self, event: Event) -> None:
        self._merge.tell(event)

    def publish(self, part: Part) -> None:
        self.parts[part.source] = part
        self._pair.compose(part.source)

    def withdraw(self, source: str) -> None:
        self.parts.pop(source, None)
        self._pair.compose(source)

    def changed(self, source: Source) -> None:
        self._pair.note(source)


class XdsPair(Source):
    """Both views of one control plane, as one source."""

    def __init__(
        self,
        merge: Merge,
        bootstrap: Bootstrap,
        open_stream: Opener = GrpcStream,
        *,
        protocol: str = "auto",
        last_good: LastGood | None = None,
    ) -> None:
        super().__init__("xds", "xds", merge)
        self._from_sidecar = _Side(self, merge, "sidecar")
        self._from_target = _Side(self, merge, "target")
        made = partial(
            XdsSource, bootstrap=bootstrap, open_stream=open_stream, protocol=protocol, last_good=last_good
        )
        self._sidecar = made(self._from_sidecar, view="sidecar")
        self._target = made(self._from_target, view="target", envoy_tls=True)
        self._both = (self._sidecar, self._target)
        self._started = False
        self._asked_by_name = False  # whether a name was ever wanted

    # --- Source -------------------------------------------------------------------------------------------------

    def open(self, inherited: Part | None) -> None:
        if inherited is None:
            self._sidecar.open(None)
            self._target.open(None)
            return
        self._was_good = True
        inherited = replace(inherited, unreached="")
        wild = replace(inherited, targets={}, absent={})
        named = replace(inherited, sidecar=(), listed=False)
        self._from_sidecar.parts["xds"], self._from_target.parts["xds"] = wild, named
        self._sidecar.open(wild)
        self._target.open(named)

    def start(self) -> None:
        self._started = True
        self._sidecar.start()
        if self._asked_by_name:
            self._start_target()

    def _start_target(self) -> None:
        if self._sidecar.away:
            self._target.believe_away(self._sidecar.last_error)
        self._target.start()

    def stop(self) -> None:
        self._started = False
        for source in self._both:
            source.stop()

    def want(self, name: str, authority: str) -> None:
        if not name:
            return
        if not self._asked_by_name:
            self._asked_by_name = True
            if self._started:
                self._start_target()
        self._target.want(name, authority)

    def forget(self, name: str) -> None:
        self._target.forget(name)

    @property
    def streaming(self) -> bool:
        return any(source.streaming for source in self._both)

    @property
    def refusal(self) -> str:
        return self._sidecar.refusal or self._target.refusal

    def pending(self, name: str) -> str:
        return self._target.pending(name)

    def status(self) -> SourceStatus:
        wild, named = self._sidecar.status(), self._target.status()
        return replace(
            named,
            state=self.state.value,
            since=self.seconds,
            versions={**wild.versions, **named.versions},
            resources=_counts(self._sidecar.held(), self._target.held()),
            waiting=tuple(dict.fromkeys((*named.waiting, *wild.waiting))),
            last_error=self.last_error or self._ready_error(named) or self._ready_error(wild),
            rejected=tuple(dict.fromkeys((*wild.rejected, *named.rejected))),
            ignored=tuple(dict.fromkeys((*wild.ignored, *named.ignored))),
            missing=tuple(dict.fromkeys((*wild.missing, *named.missing))),
        )

    def others(self) -> tuple[SourceStatus, ...]:
        wild, named = ({each.name: each for each in source.others()} for source in self._both)
        counts = [source.held_by() for source in self._both] if wild or named else [{}, {}]
        return tuple(
            _together(wild.get(name), named.get(name), *(each.get(name, {}) for each in counts))
            for name in {**wild, **named}
        )

    def xds_clients(self) -> tuple[XdsClientStatus, ...]:
        return tuple(found for source in self._both for found in source.xds_clients())

    def xds_states(self) -> tuple[Client, ...]:
        return tuple(found for source in self._both for found in source.xds_states())

    def _ready_error(self, status: SourceStatus) -> str:
        """What a view says went wrong; one that is still on its way back, while the other is there, says nothing."""
        on_its_way = self.state is State.READY and status.state != State.READY.value
        return "" if on_its_way else status.last_error

    # --- what the views say -------------------------------------------------------------------------------------

    def compose(self, source: str) -> None:
        """Publish what both views have under that name as one part."""
        wild, named = (side.parts.get(source) for side in (self._from_sidecar, self._from_target))
        if wild is None and named is None:
            self.sink.withdraw(source)
            return
        wild, named = wild or Part(source), named or Part(source)
        clusters = {**wild.clusters, **named.clusters}
        self.sink.publish(
            replace(
                named,
                sidecar=wild.sidecar,
                listed=wild.listed,
                clusters=clusters,
                lacking=_lacking(wild.lacking, named.lacking, clusters),
                awaited={**wild.awaited, **named.awaited},
                identified=named.identified | (wild.identified - named.clusters.keys()),
                unreached=named.unreached or ("" if wild.listed else wild.unreached),
            )
        )

    def note(self, source: Source) -> None:
        """A view is in another state, or a server of one is."""
        if source not in self._both:
            self.sink.changed(source)
            return
        if source is self._sidecar and self._sidecar.first_answers:
            self._target.believe_silence()
        states = [each.state for each in self._both if each is not self._target or self._asked_by_name]
        best = next(state for state in _BEST if state in states)
        if best is State.READY:
            self._was_good = True
        told = source.last_error if best is not State.READY else ""
        self._move(best, told)


def _together(
    wild: SourceStatus | None,
    named: SourceStatus | None,
    wild_held: Mapping[str, frozenset[str]],
    named_held: Mapping[str, frozenset[str]],
) -> SourceStatus:
    """A server as both views have it."""
    if wild is None or named is None:
        found = wild or named
        assert found is not None
        return found
    best, other = sorted((named, wild), key=lambda status: _BEST.index(State(status.state)))
    return replace(
        best,
        versions={**wild.versions, **named.versions},
        resources=_counts(wild_held, named_held),
        waiting=tuple(dict.fromkeys((*named.waiting, *wild.waiting))),
        last_error=best.last_error or (other.last_error if best.state != State.READY.value else ""),
        rejected=tuple(dict.fromkeys((*wild.rejected, *named.rejected))),
    )


def _lacking(
    wild: Mapping[str, str], named: Mapping[str, str], clusters: Mapping[str, Cluster]
) -> dict[str, str]:
    """What lacks in both; what may still come in one of them is waited for."""
    both = {**wild, **named}
    both.update((name, "") for name, why in wild.items() if not why)
    return {name: why for name, why in both.items() if name not in clusters}


def _counts(wild: Mapping[str, frozenset[str]], named: Mapping[str, frozenset[str]]) -> dict[str, int]:
    """How many resources there are of each type; one that both views have is one."""
    return {
        kind: len(wild.get(kind, frozenset()) | named.get(kind, frozenset())) for kind in {**wild, **named}
    }
