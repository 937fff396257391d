"""The clusters of one process: a registry that follows the configuration.

``upstream`` is a dictionary lookup without a lock: the writer makes new dictionaries and swaps one reference to both.
Names are (source of the part, cluster), since two sources may use one name for two things.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from meshlib.model.snapshot import ANY_CLUSTER
from meshlib.runtime.live import LiveCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.model.events import Event
    from meshlib.model.snapshot import Snapshot
    from meshlib.model.status import ClusterStatus
    from meshlib.runtime.clock import Clock

__all__ = ["Clusters", "LiveCluster"]

_log = logging.getLogger("meshlib")


class Clusters:
    """All live clusters. Thread-safe but for ``reconcile``, which belongs to one writer.

    Args:
        clock: Monotonic time.
        random: Floats in [0, 1); thread-safe (a ``random.Random``'s method is).
        give_way: Called at each endpoint of a cluster that comes or changes.
    """

    def __init__(
        self, clock: Clock, random: Callable[[], float], give_way: Callable[[], object] = bool
    ) -> None:
        self._clock = clock
        self._give_way = give_way
        self._random = random
        # Those that are there, and why others of a part are not.
        self._known: tuple[Mapping[tuple[str, str], LiveCluster], Mapping[str, Mapping[str, str]]] = ({}, {})
        self._lock = threading.Lock()  # guards who observes
        self._observers: tuple[Callable[[Event], None], ...] = ()

    def get(self, part: str, cluster: str) -> LiveCluster | None:
        """The cluster of that name in that part."""
        return self._known[0].get((part, cluster))

    def upstream(self, part: str, cluster: str) -> LiveCluster | str:
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
        old, _ = self._known
        live: dict[tuple[str, str], LiveCluster] = {}
        for part in snapshot.parts:
            for name, cluster in part.clusters.items():
                known = old.get((part.source, name))
                if known is None:
                    known = LiveCluster(
                        cluster, self._random, self._emit, self._clock.now, now, self._give_way
                    )
                elif known.cluster is not cluster:
                    known.update(cluster, now)
                live[part.source, name] = known
        self._known = (live, {part.source: part.lacking for part in snapshot.parts if part.lacking})
        for key, gone in old.items():
            if key not in live:
                gone.retire()

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

    def _emit(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # noqa: BLE001 - an observer must not fail a call
                _log.exception("meshlib: an observer failed")
