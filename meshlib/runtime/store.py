"""The configuration in force in this process: one reference, swapped by one writer.

A request reads ``store.view`` once and keeps it for the whole call; it takes no lock. A publication compiles the new
view, makes the live clusters ready for it, and only then swaps the reference, so that no call sees a route whose
cluster is not there. Clusters that left stay for ``RETIRED`` seconds, for the calls that read the view before; one that
a route in force still names was taken away, and is gone at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from meshlib.model.snapshot import EMPTY, Part, Snapshot

if TYPE_CHECKING:
    from meshlib.core.resolve import View
    from meshlib.model.cluster import Cluster
    from meshlib.runtime.clock import Clock

__all__ = ["RETIRED", "Store"]

#: Seconds for which a cluster that left the configuration can still be picked from: far longer than the moment between
#: a call's look at the view and its pick, retries included.
RETIRED = 60.0

_log = logging.getLogger("meshlib")


class Store:
    """Holds the view. ``view`` and ``snapshot`` may be read from any thread; ``publish`` is called by one writer.

    Args:
        compile_view: Makes a view of a snapshot; is given the view before.
        reconcile: Makes live clusters of a snapshot's.
        clock: What waits are measured by.
        snapshot: What is in force from the start.
        previous: A view from which the first one may take what did not change.
    """

    def __init__(
        self,
        compile_view: Callable[[Snapshot, View | None], View],
        reconcile: Callable[[Snapshot, float], object],
        clock: Clock,
        snapshot: Snapshot = EMPTY,
        previous: View | None = None,
    ) -> None:
        self._compile = compile_view
        self._reconcile = reconcile
        self._clock = clock
        self._now = clock.now
        self._lock = threading.Lock()  # guards _callbacks
        self._callbacks: dict[object, Callable[[], object]] = {}
        self._retired: dict[tuple[str, str], tuple[Cluster, float]] = {}
        self.view: View = compile_view(snapshot, previous)
        reconcile(snapshot, clock.now())

    @property
    def snapshot(self) -> Snapshot:
        """What calls go by."""
        return self.view.snapshot

    def publish(self, parts: tuple[Part, ...]) -> None:
        """Put ``parts``, in order of precedence, into force. Only the writer calls this."""
        now = self._now()
        before = self.snapshot
        snapshot = Snapshot(parts, before.version + 1)
        view = self._compile(snapshot, self.view)
        self._retire(before, snapshot, now)
        self._reconcile(self._with_retired(snapshot), now)
        self.view = view
        self.wake()

    def recompile(self) -> None:
        """Compile the same parts again: the rules changed. Only the writer calls this."""
        self.publish(self.snapshot.parts)

    def sweep(self) -> bool:
        """Let go of clusters whose time is over; whether any is still kept. Only the writer calls this."""
        now = self._now()
        kept = {key: entry for key, entry in self._retired.items() if entry[1] > now}
        if len(kept) < len(self._retired):
            self._retired = kept
            self._reconcile(self._with_retired(self.snapshot), now)
        return bool(kept)

    def on_change(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` after each publication and each ``wake``, in the writer's thread: it must be quick and must
        not raise. Returns what ends that; from any thread, more than once.
        """
        key = object()
        with self._lock:
            self._callbacks[key] = callback

        def cancel() -> None:
            with self._lock:
                self._callbacks.pop(key, None)

        return cancel

    def wait(self, ready: Callable[[View], bool], timeout: float) -> bool:
        """Block until ``ready(view)`` holds, at most ``timeout`` seconds; what it said last. Not for event loops."""
        until = self._now() + timeout
        changed = threading.Event()
        cancel = self.on_change(changed.set)
        try:
            while not ready(self.view):
                remaining = until - self._now()
                if remaining <= 0 or not self._clock.wait(changed, remaining):
                    return ready(self.view)
                changed.clear()
            return True
        finally:
            cancel()

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for a change."""
        return bool(self._callbacks)

    def wake(self) -> None:
        """Let everybody who waits look again: something else changed that they may wait for."""
        with self._lock:
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            try:
                callback()
            except Exception:  # noqa: BLE001 - logged below
                _log.exception("meshlib: a callback of a configuration change failed")

    def _retire(self, before: Snapshot, after: Snapshot, now: float) -> None:
        """What is a part's dictionary still is not gone through: an update costs what has changed."""
        parts = {part.source: part for part in after.parts}
        for part in before.parts:
            new = parts.get(part.source, Part(part.source))
            if new.clusters is not part.clusters:
                for name in part.clusters.keys() - new.clusters.keys():
                    self._retired[part.source, name] = (part.clusters[name], now + RETIRED)
        for key, (_, until) in list(self._retired.items()):
            source, name = key
            part = parts.get(source, Part(source))
            if until <= now or name in part.clusters or name in part.lacking:
                del self._retired[key]

    def _with_retired(self, snapshot: Snapshot) -> Snapshot:
        if not self._retired:
            return snapshot
        extra: dict[str, dict[str, Cluster]] = {}
        for (source, name), (cluster, _) in self._retired.items():
            extra.setdefault(source, {})[name] = cluster
        parts = [
            replace(part, clusters={**part.clusters, **extra.pop(part.source)})
            if part.source in extra
            else part
            for part in snapshot.parts
        ]
        parts.extend(Part(source, clusters=clusters) for source, clusters in extra.items())
        return Snapshot(tuple(parts), snapshot.version)

    @property
    def clusters(self) -> Mapping[str, Cluster]:
        """Every cluster in force, by name."""
        return self.snapshot.clusters
