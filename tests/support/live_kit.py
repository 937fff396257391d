"""Small clusters and outcomes for tests of balancing and of live clusters."""

from __future__ import annotations

import random
from dataclasses import replace

from meshlib.core.endpoint import LiveEndpoint
from meshlib.model.address import Address
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Assignment, Endpoint, Health, Locality, LocalityEndpoints
from meshlib.model.policy import Limits
from meshlib.runtime.live import LiveCluster

OK = Outcome(OutcomeKind.OK, status=200, sent=True)
ERROR = Outcome(OutcomeKind.OK, status=500, sent=True)
GATEWAY = Outcome(OutcomeKind.OK, status=503, sent=True)
REFUSED = Outcome(OutcomeKind.CONNECT)
CANCELLED = Outcome(OutcomeKind.CANCELLED)


def address(number: int) -> Address:
    return Address(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 80)


def endpoint(number: int, weight: int = 1, health: Health = Health.UNKNOWN, **fields) -> Endpoint:
    return Endpoint(address(number), weight=weight, health=health, **fields)


def live_endpoint(
    number: int, weight: int = 1, down: int = 0, health: Health = Health.UNKNOWN
) -> LiveEndpoint:
    return LiveEndpoint(endpoint(number, weight, health), priority=0, locality=Locality(), down=down)


def locality(*endpoints: Endpoint, zone: str = "", weight: int | None = None, priority: int = 0, **fields):
    return LocalityEndpoints(Locality("r", zone), endpoints, weight, priority, **fields)


def cluster(*localities: LocalityEndpoints, name: str = "c", **fields) -> Cluster:
    drops = fields.pop("drops", ())
    fields.setdefault("limits", Limits.unlimited())
    return Cluster(name, assignment=Assignment(name, localities, drops), **fields)


def flat(count: int, **fields) -> Cluster:
    """One locality with so many endpoints."""
    return cluster(locality(*(endpoint(number) for number in range(count))), **fields)


class Watched:
    """A live cluster, the events it told, and its clock."""

    def __init__(self, config: Cluster, *, seed: int = 1, now: float = 0.0, rand=None) -> None:
        self.events: list[object] = []
        self.now = now
        self.live = LiveCluster(
            config, rand or random.Random(seed).random, self.events.append, lambda: self.now, now
        )

    def names(self) -> list[str]:
        return [item.name for item in self.live.endpoints]


def changed(config: Cluster, *localities: LocalityEndpoints, **fields) -> Cluster:
    return replace(config, assignment=Assignment(config.name, localities), **fields)
