"""All sources of a mesh as one: what each says, in order of precedence.

    static ─┐
    file   ─┼─► names resolved (dns) ─► linked with identity ─► parts in order ─► the store
    xds    ─┘

A part replaces the one that its source gave before; the parts of other sources stay as they are. Which source is asked
first for a host is ``ORDER`` (rules 3 to 5 of "what a URL means"). Several publications in one round of the worker
become one, so that a hundred DNS answers do not compile a hundred views.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.model.status import SidecarStatus
from meshlib.sources.linking import Linker
from meshlib.sources.sidecar import SidecarSource
from meshlib.sources.verifying import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.model.cluster import Cluster
    from meshlib.model.events import Event
    from meshlib.model.snapshot import Part
    from meshlib.model.status import IdentityStatus, SourceStatus, XdsClientStatus
    from meshlib.runtime.runtime import Runtime
    from meshlib.runtime.worker import Worker
    from meshlib.sources.base import Source
    from meshlib.sources.identity import Identity

__all__ = ["ORDER", "Merge"]

#: Who is asked first: the sidecar, the configuration file, the file in Envoy's shape, the control plane.
ORDER = ("sidecar", "static", "file", "xds")


class Merge:
    """The ``Feed`` of a runtime and the ``Sink`` of its sources.

    Args:
        build: Makes the sources, in the order in which a status shows them. It may set ``resolve``: what fills in the
            answers of DNS, or keeps a part (None) until it can and then calls ``put``; ``drop``: what is told that
            a source says nothing any more; and call ``link``.
    """

    def __init__(self, build: Callable[[Merge], Sequence[Source]]) -> None:
        self._build = build
        self._runtime: Runtime | None = None
        self._raw: dict[str, Part] = {}  # resolved, and not linked with identity
        self._parts: dict[str, Part] = {}
        self._linker: Linker | None = None
        self._verifier: Verifier | None = None
        self._identity: Identity | None = None
        self._dirty = False
        self.resolve: Callable[[Part], Part | None] | None = None
        self.drop: Callable[[str], None] | None = None
        self._inherited: dict[str, Part] = {}
        self.sources: tuple[Source, ...] = ()

    def link(self, identity: Identity, *, verify: bool = False) -> None:
        """Clusters are linked with this one's secrets; ``verify``: none accepts just anybody. For who builds the sources."""
        self._identity = identity
        self._verifier = Verifier() if verify else None
        self._linker = Linker(identity.find, identity.secrets, self.worker.give_way)

    # --- Sink ---------------------------------------------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        assert self._runtime is not None, "a source was used before open()"
        return self._runtime

    @property
    def worker(self) -> Worker:
        return self.runtime.worker

    def publish(self, part: Part) -> None:
        """A source's part, on its way to have its names resolved."""
        resolved = part if self.resolve is None else self.resolve(part)
        if resolved is not None:
            self.put(resolved)

    def put(self, part: Part) -> None:
        """A part that can be called as it is, but for secrets of identity."""
        if self._raw.get(part.source) is not part:
            self._raw[part.source] = part
            self._take(part if self._linker is None else self._linker.part(part))

    def relink(self) -> None:
        """Identity has something else."""
        if self._linker is not None and self._identity is not None:
            for part in self._raw.values():
                self._take(self._linker.again(part))
            self._identity.keep(self._linker.names)

    def _take(self, part: Part) -> None:
        if self._verifier is not None:
            part = self._verifier.part(part)
        if self._parts.get(part.source) is part:
            return
        self._parts[part.source] = part
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._dirty:
            self._dirty = True
            self.worker.post(self.flush)

    def inherited_cluster(self, source: str, name: str) -> Cluster | None:
        """What a parent process had of a cluster."""
        part = self._inherited.get(source)
        return None if part is None else part.clusters.get(name)

    def withdraw(self, source: str) -> None:
        """A source is gone, and what it said with it."""
        if self.drop is not None:
            self.drop(source)
        if self._linker is not None:
            self._linker.drop(source)
        if self._verifier is not None:
            self._verifier.drop(source)
        self._raw.pop(source, None)
        if self._parts.pop(source, None) is not None:
            self._flush_soon()

    def flush(self) -> None:
        """Put what was published into force."""
        if self._dirty:
            self._dirty = False
            self.runtime.publish(self._row())

    def changed(self, source: Source) -> None:
        self.runtime.source_changed(source.name, source.state.value, source.last_error)

    def tell(self, event: Event) -> None:
        self.runtime.emit(event)

    # --- Feed ---------------------------------------------------------------------------------------------------

    def open(self, runtime: Runtime, inherited: tuple[Part, ...]) -> tuple[Part, ...]:
        self._runtime = runtime
        raw = [part if part.linkage is None else part.linkage.raw for part in inherited]
        self._inherited = {part.source: part for part in raw}
        self.sources = tuple(self._build(self))
        if self._identity is not None:
            for part in inherited:
                self._identity.inherit({} if part.linkage is None else part.linkage.secrets)
        names = {source.name for source in self.sources}
        self._dirty = True  # nothing is posted: this thread is the writer until it returns
        for part in raw:
            if part.source.partition(" ")[0] in names:
                self.put(part)
        for source in self.sources:
            source.open(self._raw.get(source.name))
        self._dirty = False
        return self._row()

    def start(self) -> None:
        for source in self.sources:
            source.start()

    def stop(self) -> None:
        for source in reversed(self.sources):
            source.stop()

    def want(self, name: str, authority: str) -> None:
        for source in self.sources:
            source.want(name, authority)

    def forget(self, name: str) -> None:
        for source in self.sources:
            source.forget(name)

    def statuses(self) -> tuple[SourceStatus, ...]:
        shown = [source for source in self.sources if source.shown]
        return tuple(status for source in shown for status in (source.status(), *source.others()))

    def xds_clients(self) -> tuple[XdsClientStatus, ...]:
        return tuple(found for source in self.sources for found in source.xds_clients())

    def pending(self, name: str) -> str:
        return "; ".join(text for source in self.sources if (text := source.pending(name)))

    def awaits(self, source: str, cluster: str) -> str:
        names = () if self._linker is None else self._linker.awaits(source, cluster)
        if not names or self._identity is None:
            part = self._raw.get(source)
            return "has not come yet" if part is None else part.awaited.get(cluster, "has not come yet")
        return "waits for " + " and ".join(map(self._identity.awaits, names))

    def sidecar(self, now: float) -> SidecarStatus:
        found = next((source for source in self.sources if isinstance(source, SidecarSource)), None)
        return SidecarStatus() if found is None else found.sidecar.status(now)

    def identities(self) -> tuple[IdentityStatus, ...]:
        return () if self._identity is None else self._identity.statuses()

    def suspect(self) -> None:
        for source in self.sources:
            source.suspect()

    def only_look(self) -> None:
        for source in self.sources:
            source.only_look()

    @property
    def grows(self) -> bool:
        return any(
            source.kind == "xds" or (source.kind == "file" and source.shown) for source in self.sources
        )

    @property
    def streaming(self) -> bool:
        return any(source.streaming for source in self.sources)

    @property
    def refusal(self) -> str:
        return next((source.refusal for source in self.sources if source.refusal), "")

    def _row(self) -> tuple[Part, ...]:
        more = sorted(name for name in self._parts if name not in ORDER)  # of fallback servers
        return tuple(self._parts[name] for name in (*ORDER, *more) if name in self._parts)
