"""What a mesh knows of itself: the values of ``Mesh.status()``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshlib.model.jsonable import jsonable

__all__ = [
    "ClusterStatus",
    "EndpointStatus",
    "IdentityStatus",
    "Ignored",
    "LatencyStatus",
    "ProcessStatus",
    "Rejected",
    "SidecarStatus",
    "SourceStatus",
    "Status",
    "XdsClientStatus",
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
    """``state``: ``"idle"``, ``"connecting"``, ``"ready"``, ``"stale"`` or ``"failed"``; ``since``: seconds in it.
    ``missing``: what routes name and the control plane does not have, each with why: calls to it fail.
    """

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
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class XdsClientStatus:
    """What telemetry says of the stream to a control plane. ``connected``: it can be had, as gRFC A57 and A78 judge; ``resources``:
    how many, by a type's full name, authority and state.
    """

    server: str
    connected: bool
    resources: Mapping[tuple[str, str, str], int] = field(hash=False)


@dataclass(frozen=True, slots=True)
class LatencyStatus(_Dict):
    """Seconds until an answer's head was there, of the last minute: half of the answers took no longer than ``p50``, 99 of a
    hundred no longer than ``p99``; each to within a twentieth.
    """

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class EndpointStatus(_Dict):
    """``health``: ``"healthy"``, ``"draining"``, ``"unhealthy"`` or ``"ejected"``; ``active``: calls in flight.

    What is counted is counted in this process since the endpoint is there: ``requests``, the attempts that were sent to it;
    ``failures``, those that ended without an answer or with a 5xx, and ``last_error``, how the last of them did. ``latency``
    is None where no answer came in the last minute; ``ejected_for``: seconds until it is back, None where it is not ejected.
    ``check``: how the last check of its health ended, ``""`` where there was none; ``checks``: how many there were.
    """

    address: str
    weight: int
    priority: int
    locality: str
    health: str
    active: int = 0
    requests: int = 0
    failures: int = 0
    latency: LatencyStatus | None = None
    last_error: str = ""
    ejected_for: float | None = None
    check: str = ""
    checks: int = 0


@dataclass(frozen=True, slots=True)
class ClusterStatus(_Dict):
    """``breaker``: ``"closed"``, ``"open"`` or ``"half_open"``; ``active``: calls in flight.

    Counted in this process since the cluster is there, endpoints that left included: ``requests``, the attempts that were
    sent, of which ``failures`` were not good and ``retries`` were no call's first; ``overflows``, what a limit refused (calls by
    ``max_requests`` and ``max_pending``, retries by ``max_retries`` and budgets); ``ejections``. ``leaves``: of an aggregate, the
    clusters that its calls go to; what is counted of them, but for ``active`` and retries, stands there.
    """

    endpoints: tuple[EndpointStatus, ...] = ()
    breaker: str = "closed"
    active: int = 0
    requests: int = 0
    failures: int = 0
    retries: int = 0
    overflows: int = 0
    ejections: int = 0
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SidecarStatus(_Dict):
    """``kind``: ``"none"``, ``"istio"``, ``"linkerd"``, ``"consul"``, ``"kuma"``, ``"dapr"``, ``"kato"`` or ``"envoy"``; ``mode``:
    ``"transparent"``, ``"listener"``, ``"forward_proxy"``, ``"api"``, ``"proxyless"`` or ``"none"``; ``confidence``: ``"none"``,
    ``"low"`` or ``"high"``; ``evidence``: what was seen, a line each; ``in_use``: whether calls are handed to it; ``since``:
    seconds for which it has been as it is.
    """

    kind: str = "none"
    mode: str = "none"
    confidence: str = "none"
    evidence: tuple[str, ...] = ()
    in_use: bool = False
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class IdentityStatus(_Dict):
    """Who the process is to other workloads, by one of those that give an identity. ``provider``: ``"files"``, ``"istio"``, ``"spiffe"``,
    ``"file_watcher"``, or another plug-in of the bootstrap, which cannot be used; ``found``: what told of it; ``server``: where it is
    asked for, or the files; ``state``, ``last_error``: as of a source, ``"idle"`` while nothing demands it. ``name``: the SPIFFE ID or
    the names in the certificate, and ``expires_in``: the seconds for which it is valid yet, both of the last good one; ``roots``: how many
    others are trusted by.
    """

    provider: str
    found: str
    server: str = ""
    state: str = "idle"
    name: str = ""
    expires_in: float | None = None
    roots: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class ProcessStatus(_Dict):
    """``started``: whether anything runs in this process yet; ``forked``: whether it is a fork of one that had."""

    pid: int
    forked: bool = False
    started: bool = False
    patched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status(_Dict):
    """``node``: id, cluster, locality as told to control planes. ``clusters``: by name. ``identity``: of each of those that give one."""

    node: Mapping[str, object] = field(hash=False)
    sources: tuple[SourceStatus, ...]
    sidecar: SidecarStatus
    clusters: Mapping[str, ClusterStatus] = field(hash=False)
    process: ProcessStatus
    adoption: Mapping[str, object] = field(default_factory=dict, hash=False)
    identity: tuple[IdentityStatus, ...] = ()
