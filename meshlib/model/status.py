"""What a mesh knows of itself: the values of ``Mesh.status()``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshlib.model.jsonable import jsonable

__all__ = [
    "ClusterStatus",
    "EndpointStatus",
    "Ignored",
    "ProcessStatus",
    "Rejected",
    "SidecarStatus",
    "SourceStatus",
    "Status",
]


class _Dict:
    __slots__ = ()

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, the same names."""
        result = jsonable(self)
        assert isinstance(result, dict)
        return result


@dataclass(frozen=True, slots=True)
class Rejected(_Dict):
    """A resource that was refused, by its type's short name, with every problem found in it."""

    resource: str
    type: str
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ignored(_Dict):
    """A setting that arrived and is not honoured; ``field`` is its path in the resource."""

    resource: str
    type: str
    field: str
    value: str


@dataclass(frozen=True, slots=True)
class SourceStatus(_Dict):
    """``state``: ``"idle"``, ``"connecting"``, ``"ready"``, ``"stale"`` or ``"failed"``; ``since``: seconds in it."""

    name: str
    kind: str
    server: str = ""
    state: str = "idle"
    since: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    resources: Mapping[str, int] = field(default_factory=dict, hash=False)
    waiting: tuple[str, ...] = ()
    last_error: str = ""
    rejected: tuple[Rejected, ...] = ()
    ignored: tuple[Ignored, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointStatus(_Dict):
    """``health``: ``"healthy"``, ``"draining"``, ``"unhealthy"`` or ``"ejected"``; ``active``: calls in flight."""

    address: str
    weight: int
    priority: int
    locality: str
    health: str
    active: int = 0


@dataclass(frozen=True, slots=True)
class ClusterStatus(_Dict):
    """``breaker``: ``"closed"``, ``"open"`` or ``"half_open"``; ``active``: calls in flight."""

    endpoints: tuple[EndpointStatus, ...] = ()
    breaker: str = "closed"
    active: int = 0


@dataclass(frozen=True, slots=True)
class SidecarStatus(_Dict):
    kind: str = "none"
    mode: str = "none"
    confidence: str = "none"
    evidence: tuple[str, ...] = ()
    in_use: bool = False
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class ProcessStatus(_Dict):
    """``started``: whether anything runs in this process yet; ``forked``: whether it is a fork of one that had."""

    pid: int
    forked: bool = False
    started: bool = False
    patched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status(_Dict):
    """``node``: id, cluster, locality as told to control planes. ``clusters``: by name."""

    node: Mapping[str, object] = field(hash=False)
    sources: tuple[SourceStatus, ...]
    sidecar: SidecarStatus
    clusters: Mapping[str, ClusterStatus] = field(hash=False)
    process: ProcessStatus
    adoption: Mapping[str, object] = field(default_factory=dict, hash=False)
