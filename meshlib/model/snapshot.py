"""The configuration in force, as one immutable value.

A snapshot is a row of parts, one a source, in the order in which they are asked for a host. Each part is closed in
itself: a route of a part names clusters of the same part, so that two sources may use one name for two things.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import NOWHERE, Locality
from meshlib.model.listener import Listener
from meshlib.model.sidecar import Sidecar
from meshlib.model.tls import Secret, SecretName

__all__ = ["ANY_CLUSTER", "EMPTY", "Absence", "Fate", "Linkage", "Part", "Snapshot"]

#: The key of ``Part.lacking`` that stands for every cluster that is named nowhere else.
ANY_CLUSTER = "*"


class Fate(Enum):
    """Why a target has no listener in force, though nobody waits for it.

    ABSENT: the control plane has none of that name. UNUSABLE: it has one, and that cannot be used: it was refused, or
    its routes do not exist. UNANSWERED: whether it has one is not known.
    """

    ABSENT = "absent"
    UNUSABLE = "unusable"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Absence:
    """``why``: in words, the resource's name first."""

    fate: Fate
    why: str


@dataclass(frozen=True, slots=True)
class Part:
    """What one source says.

    ``services``: key (``host:port``, ``host``, ``*.suffix``) → listener (rule 3 of "what a URL means").
    ``sidecar``: listeners made for an Envoy (rule 4). ``targets``: api listeners by resource name (rule 5). A connection
    manager without ``routes`` waits for them: the listener has its hosts, and what they mean is not known yet.
    ``absent``: target names that nobody waits for, and why. ``clusters``: by name.
    ``lacking``: clusters that are not there: why, in words, ``""`` while one may still come and a call waits for it.
    ``awaited``: of those that may come, what they wait for, in words that follow the name, where that is more than that they have not come.
    ``identified``: of ``clusters`` those whose connections need secrets of the process's own identity; whoever publishes the part has
    completed them. ``listed``: whether ``sidecar`` is all there is, so that another listener need not be waited for.
    ``unreached``: why nothing more can be learned now, in words; then nobody waits.
    ``handoff``: the sidecar that this process has beside it, or waits for; ``services`` are then what is carried by it where it
    has listeners of its own for that, by upstream name, ``*`` for all.
    ``linkage``: what it was before it was linked. ``locality``: where this process is, as far as the source says; ``local_cluster``: the
    cluster whose endpoints are the processes that call, this one among them (Envoy ``local_cluster_name``), ``""``: nobody says.
    Values that did not change are the same objects as before (``is``), so that what is compiled from them is kept.
    """

    source: str
    services: Mapping[str, Listener] = field(default_factory=dict)
    sidecar: tuple[Listener, ...] = ()
    targets: Mapping[str, Listener] = field(default_factory=dict)
    absent: Mapping[str, Absence] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)
    awaited: Mapping[str, str] = field(default_factory=dict)
    identified: frozenset[str] = frozenset()
    listed: bool = False
    unreached: str = ""
    handoff: Sidecar | None = None
    linkage: Linkage | None = field(default=None, repr=False, compare=False)
    locality: Locality = NOWHERE
    local_cluster: str = ""


@dataclass(frozen=True, slots=True)
class Linkage:
    """What a part whose clusters were linked with the process's identity was made of: for a fork, which has yet to get its own."""

    raw: Part
    secrets: Mapping[SecretName, Secret] = field(hash=False)


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
