"""The configuration in force, as one immutable value.

A snapshot is a row of parts, one a source, in the order in which they are asked for a host. Each part is closed in
itself: a route of a part names clusters of the same part, so that two sources may use one name for two things.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshlib.model.cluster import Cluster
from meshlib.model.listener import Listener

__all__ = ["EMPTY", "Part", "Snapshot"]


@dataclass(frozen=True, slots=True)
class Part:
    """What one source says.

    ``services``: key (``host:port``, ``host``, ``*.suffix``) → listener (rule 3 of "what a URL means").
    ``sidecar``: listeners made for an Envoy (rule 4). ``targets``: api listeners by resource name (rule 5).
    ``absent``: target names that are known not to exist, or whose answer will not come: nobody waits for them.
    ``clusters``: by name. Values that did not change are the same objects as before (``is``), so that what is
    compiled from them is kept.
    """

    source: str
    services: Mapping[str, Listener] = field(default_factory=dict)
    sidecar: tuple[Listener, ...] = ()
    targets: Mapping[str, Listener] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    clusters: Mapping[str, Cluster] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``version`` grows by one with each publication in this process."""

    parts: tuple[Part, ...] = ()
    version: int = 0

    @property
    def clusters(self) -> Mapping[str, Cluster]:
        """Every cluster by name; where two parts share a name, the first part's."""
        merged: dict[str, Cluster] = {}
        for part in reversed(self.parts):
            merged.update(part.clusters)
        return merged

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        from meshlib.model.jsonable import jsonable

        return {"version": self.version, "parts": [jsonable(part) for part in self.parts]}


EMPTY = Snapshot()
