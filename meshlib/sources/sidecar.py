"""The sidecar beside this process, as a source: what is carried by its own listeners, each the one endpoint of a cluster.

A cluster of a sidecar's has no policies: retries, breaking, ejection, limits and TLS are the sidecar's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.core.handoff import ALL, GRPC
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Assignment, Endpoint, Locality, LocalityEndpoints
from meshlib.model.events import SidecarChanged
from meshlib.model.listener import FilterChain, HttpManager, Listener
from meshlib.model.match import RouteMatch
from meshlib.model.route import Forward, Route, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Part
from meshlib.sources.base import Source
from meshlib.sources.static import kept
from meshlib.sources.static_routes import ANY_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshlib.model.address import Address
    from meshlib.model.sidecar import Sidecar, State
    from meshlib.runtime.worker import Worker
    from meshlib.sources.base import Sink

__all__ = ["NAME", "SidecarSource", "Watching", "build"]

NAME = "sidecar"


class Watching(Protocol):
    """What keeps the present :class:`Sidecar` (:class:`meshlib.sidecar.watch.Watch`)."""

    @property
    def current(self) -> Sidecar: ...

    def start(self, worker: Worker) -> None: ...

    def stop(self) -> None: ...

    def suspect(self) -> None: ...


def build(sidecar: Sidecar, previous: Part | None = None) -> Part:
    """What the sidecar carries, where it has listeners of its own for that. What did not change since ``previous`` is the same
    object as there.
    """
    before = Part(NAME) if previous is None else previous
    listeners: dict[str, Listener] = {}
    clusters: dict[str, Cluster] = {}
    for key, address in _listeners(sidecar):
        name = f"sidecar {sidecar.kind}" + ("" if key == ALL else f" ({key})")
        route = Route(RouteMatch(ANY_PATH), Forward(cluster=name), name=name)
        routes = RouteConfiguration(name, (VirtualHost(name, ("*",), (route,)),))
        chain = FilterChain(name=name, http=HttpManager(routes=routes))
        listener = Listener(name=name, chains=(chain,), from_file=True)
        listeners[key] = kept(listener, before.services.get(key))
        assignment = Assignment(name, (LocalityEndpoints(Locality(), (Endpoint(address),)),))
        cluster = Cluster(name=name, assignment=assignment, connect_timeout=None)
        clusters[name] = kept(cluster, before.clusters.get(name))
    return Part(NAME, services=listeners, clusters=clusters, handoff=sidecar)


def _listeners(sidecar: Sidecar) -> Iterator[tuple[str, Address]]:
    # Connections to one that is gone end with its clusters.
    if sidecar.state != "ready" or sidecar.mode in ("none", "proxyless", "transparent"):
        return
    yield from sidecar.upstreams.items()
    if sidecar.address is not None:
        yield ALL, sidecar.address
    if sidecar.grpc is not None:
        yield GRPC, sidecar.grpc


class SidecarSource(Source):
    """Publishes what is known of the sidecar, whenever that changes.

    Args:
        watch: Makes what keeps it; it is given what is called, on the worker, with each new value.
        fallback: What holds while it is gone, for those who are told.
    """

    def __init__(
        self, sink: Sink, watch: Callable[[Callable[[Sidecar], object]], Watching], fallback: str
    ) -> None:
        super().__init__(NAME, NAME, sink)
        self._fallback = fallback
        self._state: State = "absent"
        self._part: Part | None = None
        self._watch = watch(self._changed)

    @property
    def shown(self) -> bool:
        return False

    def open(self, inherited: Part | None) -> None:
        self._part = inherited  # a child has a look of its own; of its parent it has what is compiled
        self._changed(self._watch.current)

    def start(self) -> None:
        self._watch.start(self.sink.worker)

    def stop(self) -> None:
        self._watch.stop()

    def suspect(self) -> None:
        self._watch.suspect()

    @property
    def sidecar(self) -> Sidecar:
        """What is known now. From any thread."""
        return self._watch.current

    def _changed(self, sidecar: Sidecar) -> None:
        if sidecar.state != self._state:
            self._state = sidecar.state
            self.sink.tell(SidecarChanged(sidecar.kind, sidecar.mode, sidecar.state, self._fallback))
        if sidecar.state != "absent":
            self._part = build(sidecar, self._part)
            self.sink.publish(self._part)
        elif self._part is not None:
            self._part = None
            self.sink.withdraw(NAME)
