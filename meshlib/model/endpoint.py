"""Who can be called: endpoints, grouped by locality and priority into an assignment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from meshlib.model.address import Address
from meshlib.model.health import CheckedAt

__all__ = ["NOWHERE", "Assignment", "Drop", "Endpoint", "Health", "Locality", "LocalityEndpoints"]


class Health(Enum):
    """What the control plane says of an endpoint (Envoy ``core.v3.HealthStatus``)."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    TIMEOUT = "timeout"
    DEGRADED = "degraded"

    @property
    def usable(self) -> bool:
        """Whether new calls may go there (ED-04)."""
        return self in (Health.UNKNOWN, Health.HEALTHY, Health.DEGRADED)


@dataclass(frozen=True, slots=True, order=True)
class Locality:
    region: str = ""
    zone: str = ""
    sub_zone: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.region, self.zone, self.sub_zone) if part)


NOWHERE = Locality()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``hostname`` is what auto host rewrite and TLS names use; ``metadata`` is filter name → JSON-like mapping. ``proxy``: on the way
    there, where its cluster's transport goes through one. ``check``: how its health is asked for, where not as
    that of others.
    """

    address: Address
    weight: int = 1
    health: Health = Health.UNKNOWN
    hostname: str = ""
    metadata: Mapping[str, Mapping[str, object]] = field(default_factory=dict, hash=False)
    additional_addresses: tuple[Address, ...] = ()
    proxy: Address | None = None
    check: CheckedAt | None = None


@dataclass(frozen=True, slots=True)
class LocalityEndpoints:
    """``weight`` None: the locality was given none (it counts only under locality-weighted balancing, DV-15). ``proxy``: of its endpoints
    that name none.
    """

    locality: Locality
    endpoints: tuple[Endpoint, ...]
    weight: int | None = None
    priority: int = 0
    metadata: Mapping[str, Mapping[str, object]] = field(default_factory=dict, hash=False)
    proxy: Address | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """One category of ``drop_overloads``: ``per_million`` of the calls still left are refused (ED-06)."""

    category: str
    per_million: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """All endpoints of one cluster. ``overprovisioning_factor`` is in percent (Envoy: 140). ``weighted_health``: the health of a priority
    is the usable share of its endpoints' weights, and not of their number. ``stale_after``: seconds for which it holds unless it comes
    again, 0: for ever. ``version``: under which the control
    plane sent it, "" where it came with its cluster, or from elsewhere.
    """

    name: str
    localities: tuple[LocalityEndpoints, ...] = ()
    drops: tuple[Drop, ...] = ()
    overprovisioning_factor: int = 140
    weighted_health: bool = False
    stale_after: float = 0.0
    version: str = field(default="", compare=False)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every endpoint, in order of arrival."""
        return tuple(endpoint for group in self.localities for endpoint in group.endpoints)
