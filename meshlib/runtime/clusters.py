"""The clusters of one process: a registry that follows the configuration.

``upstream`` is a dictionary lookup without a lock: the writer makes new dictionaries and swaps one reference to both.
Names are (source of the part, cluster), since two sources may use one name for two things.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Protocol

from meshlib.core.zones import Caller, fleet_of
from meshlib.model.cluster import Discovery
from meshlib.model.endpoint import NOWHERE, Locality
from meshlib.model.events import EndpointChecked, EndpointEjected
from meshlib.model.snapshot import ANY_CLUSTER
from meshlib.runtime.aggregate import LiveAggregate
from meshlib.runtime.delays import LiveDelays
from meshlib.runtime.known import Known
from meshlib.runtime.live import LiveCluster
from meshlib.runtime.live_original import LiveOriginal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from meshlib.core.breaker_saved import Saved
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.loads import Loads
    from meshlib.model.cluster import Cluster
    from meshlib.model.events import Event
    from meshlib.model.snapshot import Part, Snapshot
    from meshlib.model.status import ClusterStatus
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.live_health import Asker

__all__ = ["Clusters", "LiveCluster", "tell_all"]

_log = logging.getLogger("meshlib")


class Clusters:
    """All live clusters. Thread-safe but for ``reconcile``, which belongs to one writer.

    Args:
        clock: Monotonic time.
        random: Floats in [0, 1); thread-safe (a ``random.Random``'s method is).
        give_way: Called at each endpoint of a cluster that comes or changes.
        locality: This process's, where its parts do not say another.
        checks: Who has endpoints' health asked for.

    Attributes:
        delays: How long attempts took lately, where calls are hedged by that.
        holders: Who has connections to their endpoints.
    """

    def __init__(
        self,
        clock: Clock,
        random: Callable[[], float],
        give_way: Callable[[], object] = bool,
        locality: Locality = NOWHERE,
        checks: Asker | None = None,
    ) -> None:
        self._checks = checks
        self._clock = clock
        self._locality = locality
        self._callers: dict[
            str, tuple[Cluster | None, Caller | None]
        ] = {}  # by source, with the local cluster
        self._give_way = give_way
        self._random = random
        self._parts: Mapping[str, Mapping[str, Cluster]] = {}  # what was reconciled last, by source
        # Those that are there, and why others of a part are not.
        self._known: tuple[
            Mapping[tuple[str, str], LiveCluster | LiveAggregate], Mapping[str, Mapping[str, str]]
        ] = ({}, {})
        self._aggregates: dict[tuple[str, str], LiveAggregate] = {}  # of those that are there; the writer's
        # Breakers of those that are not there yet.
        self._restored: dict[tuple[str, str], Mapping[str, Saved]] = {}
        self.delays = LiveDelays()
        self._lock = threading.Lock()  # guards who observes
        self._observers: tuple[Callable[[Event], None], ...] = ()
        self.holders: Known[Holder] = Known()

    def get(self, part: str, cluster: str) -> LiveCluster | LiveAggregate | None:
        """The cluster of that name in that part."""
        return self._known[0].get((part, cluster))

    def upstream(self, part: str, cluster: str) -> LiveCluster | LiveAggregate | str:
        """The cluster, or why it is not there, in words; ``""`` while it may come."""
        live, lacking = self._known
        found = live.get((part, cluster))
        if found is not None:
            return found
        why = lacking.get(part, {})
        return why[cluster] if cluster in why else why.get(ANY_CLUSTER, "is not known")

    def reconcile(self, snapshot: Snapshot, now: float) -> None:
        """Follow ``snapshot``. A cluster that is the same object as before costs nothing; one that changed keeps what
        is counted of it; one that left refuses whoever still holds it.
        """
        live = dict(self._known[0])
        parts = {part.source: part.clusters for part in snapshot.parts}
        left: list[LiveCluster | LiveAggregate] = []
        for part in snapshot.parts:
            source, clusters, before = part.source, part.clusters, self._parts.get(part.source, {})
            moved, caller = self._caller(part)
            if clusters is before and not moved:
                continue
            for name, cluster in clusters.items():
                known = live.get((source, name))
                if isinstance(known, LiveCluster) and known.cluster is cluster and not moved:
                    continue
                if known is not None and _class_of(cluster) is not type(known):
                    left.append(known)
                    self._aggregates.pop((source, name), None)
                    known = None
                if known is None:
                    live[source, name] = made = self._made((source, name), cluster, now, caller)
                    if (source, name) in self._restored and isinstance(made, LiveCluster):
                        made.restore(self._restored.pop((source, name)))
                elif isinstance(known, LiveAggregate):
                    known.update(cluster)
                else:
                    known.update(cluster, now, caller)
        for source, clusters in self._parts.items():
            now_there = parts.get(source, {})
            if now_there is not clusters:
                for name in clusters.keys() - now_there.keys():
                    left.append(live.pop((source, name)))
                    self._aggregates.pop((source, name), None)
        lacking = {part.source: part.lacking for part in snapshot.parts if part.lacking}
        for (source, _), aggregate in self._aggregates.items():
            aggregate.bind(partial(_leaf, live, source), lacking.get(source, {}))
        self._known = (live, lacking)
        self._parts = parts
        for gone in left:
            gone.retire()

    def _caller(self, part: Part) -> tuple[bool, Caller | None]:
        """This process as ``part`` tells of it, and whether that is another than before."""
        known, before = self._callers.get(part.source, (None, None))
        locality = self._locality if part.locality == NOWHERE else part.locality
        local = part.clusters.get(part.local_cluster) if part.local_cluster else None
        if locality == NOWHERE:
            caller = None
        elif before is not None and local is known and before.locality == locality:
            caller = before
        else:
            caller = Caller(locality, None if local is None else fleet_of(local))
        self._callers[part.source] = (local, caller)
        return caller != before, caller

    def _made(
        self, key: tuple[str, str], cluster: Cluster, now: float, caller: Caller | None
    ) -> LiveCluster | LiveAggregate:
        if _is_aggregate(cluster):
            made = self._aggregates[key] = LiveAggregate(cluster, self._random, self._clock.now)
            return made
        make = LiveOriginal if cluster.discovery is Discovery.ORIGINAL_DST else LiveCluster
        return make(
            cluster, self._random, self.tell, self._clock.now, now, self._give_way, caller, self._checks
        )

    def saved(self) -> dict[tuple[str, str], dict[str, dict[str, object]]]:
        """What breakers know, of the clusters whose breakers know something."""
        now = self._clock.now()
        known = self._known[0].items()
        found = {key: live.saved(now) for key, live in known if isinstance(live, LiveCluster)}
        return {key: saved for key, saved in found.items() if saved}

    def restore(self, saved: Mapping[tuple[str, str], Mapping[str, Saved]]) -> None:
        """Have breakers go on from there; those of clusters that are not there yet, once they are."""
        self._restored = dict(saved)
        for key, live in self._known[0].items():
            if key in self._restored and isinstance(live, LiveCluster):
                live.restore(self._restored.pop(key))

    def loads(self) -> list[Loads]:
        """What is counted for load reports, of the clusters that ask for some."""
        found = (live.loads.loads for live in self._known[0].values() if isinstance(live, LiveCluster))
        return [loads for loads in found if loads is not None]

    def status(self) -> dict[str, ClusterStatus]:
        """Every cluster by name; where two parts share one, the later's is ``part/name``."""
        now = self._clock.now()
        found: dict[str, ClusterStatus] = {}
        for (part, name), live in self._known[0].items():
            found[name if name not in found else f"{part}/{name}"] = live.status(now)
        return found

    def subscribe(self, observer: Callable[[Event], None]) -> Callable[[], None]:
        """Tell ``observer`` of ejections and breakers, in the thread where they happen; what it raises is logged.
        Answers what ends that.
        """
        with self._lock:
            self._observers = (*self._observers, observer)

        def cancel() -> None:
            with self._lock:
                self._observers = tuple(other for other in self._observers if other is not observer)

        return cancel

    def tell(self, event: Event) -> None:
        """Tell whoever observes. Never raises."""
        if isinstance(event, EndpointEjected) or (isinstance(event, EndpointChecked) and event.edge):
            self._drain(event.cluster, event.endpoint)
        tell_all(self._observers, event)

    def _drain(self, cluster: str, name: str) -> None:
        """An endpoint failed, where it is called no more: who holds connections to it is told."""
        for (_, known), live in self._known[0].items():
            if known == cluster and isinstance(live, LiveCluster) and live.cluster.drains:
                for endpoint in live.endpoints:
                    if endpoint.name == name and endpoint.down:
                        for holder in self.holders:
                            holder.failed(endpoint)


class Holder(Protocol):
    """Who has connections to endpoints."""

    def failed(self, endpoint: LiveEndpoint) -> None:
        """Its health failed. On any thread; blocks for nothing."""
        ...


def tell_all(observers: Iterable[Callable[[Event], None]], event: Event) -> None:
    """Tell each of ``observers``; what one raises is logged."""
    for observer in observers:
        try:
            observer(event)
        except Exception:  # noqa: BLE001 - an observer must not fail a call
            _log.exception("meshlib: an observer failed")


def _class_of(cluster: Cluster) -> type:
    if _is_aggregate(cluster):
        return LiveAggregate
    return LiveOriginal if cluster.discovery is Discovery.ORIGINAL_DST else LiveCluster


def _is_aggregate(cluster: Cluster) -> bool:
    return cluster.discovery is Discovery.AGGREGATE


def _leaf(
    live: Mapping[tuple[str, str], LiveCluster | LiveAggregate], source: str, name: str
) -> LiveCluster | None:
    found = live.get((source, name))
    return found if isinstance(found, LiveCluster) else None
