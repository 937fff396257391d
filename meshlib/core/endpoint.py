"""The state of an endpoint in use: what is counted of it, who says that it may not be called, its failures in a row."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Protocol

from meshlib.model.endpoint import Health

if TYPE_CHECKING:
    from meshlib.core.breaker import Permit
    from meshlib.core.breaker_saved import Saved
    from meshlib.core.ewma import Ewma
    from meshlib.core.health import Check
    from meshlib.core.latency import Latency
    from meshlib.core.reported import ReportedWeight
    from meshlib.model.address import Address
    from meshlib.model.call import Outcome
    from meshlib.model.endpoint import Endpoint, Locality
    from meshlib.model.policy import Breaker
    from meshlib.model.tls import Tls

__all__ = ["Down", "EndpointBreaker", "LiveEndpoint", "Record"]


class Down:
    """Who says that an endpoint may not be called: bits of ``LiveEndpoint.down``. Each owner sets and clears only its
    own, so that an ejection that ends does not make a host usable that the control plane calls unhealthy.
    """

    CONTROL_PLANE = 1
    EJECTED = 2
    TLS = 4
    #: A check of its health failed, or none has ended yet.
    CHECK = 8
    #: And it counts for nothing in what share of its priority may be called (Envoy's "excluded").
    UNCOUNTED = 16


class EndpointBreaker(Protocol):
    """A breaker as whoever holds a pick sees it (:class:`meshlib.runtime.live_breaker.LiveBreaker`)."""

    def ask(self, now: float) -> Permit | None: ...

    def would_permit(self, now: float) -> bool: ...

    def configure(self, config: Breaker) -> None: ...

    def saved(self, now: float) -> dict[str, object] | None: ...

    def restore(self, saved: Saved) -> None: ...

    def settle(
        self,
        permit: Permit,
        good: bool | None,
        now: float,
        outcome: Outcome | None = ...,
        *,
        again: bool = ...,
    ) -> None: ...


class LiveEndpoint:
    """An endpoint in use, with what is counted of it.

    Identity survives configuration updates: as long as an address stays in its cluster, it is the same object. A
    reader may read any attribute without a lock; they are written under the lock of the cluster that owns them.

    Attributes:
        endpoint: What the configuration says of it now.
        address: Where it listens.
        name: ``str(address)``.
        hostname: The name that it was given or was resolved from, ``""`` where there is none.
        weight: Its weight within its locality, at least 1.
        priority: 0 is called first.
        locality: Where it is.
        tls: What the control plane demands of connections to it; None: nothing.
        active: Picks not released yet, over all calls.
        connections: Those of HTTP clients to it.
        requests: Attempts that were sent here, over all time; ``failures``: those of them that were not good.
        last_error: How the last that was not good ended, in words.
        latency: Of its answers; None before the first.
        breaker: Its own, where the cluster's policy gives each endpoint one.
        ewma: What peak EWMA knows of it, where that is its cluster's balancer; ``reported``: what orca knows, likewise.
        since: When it came, monotonic seconds, where its cluster asks for slow start; else long ago.
        gone: It left its cluster. Calls on it run on; whoever keeps connections to it closes them once idle.
        unreached: How many gRPC channels cannot connect to it now. gRPC's choice passes such endpoints over.
        generation: Which connections gRPC's channels make to it now, by number, and when the first of them was begun; None where
            they may grow as old as they like.
        down: Bits of :class:`Down`; 0: usable.
        check: What the checks of its health say; None where it is not checked.
        degraded: It is called where nobody else is usable: the control plane says so, or the endpoint itself to a check.
        record: What outlier detection remembers of it.
    """

    __slots__ = (
        "__weakref__",
        "active",
        "address",
        "breaker",
        "check",
        "connections",
        "degraded",
        "down",
        "endpoint",
        "ewma",
        "failures",
        "generation",
        "gone",
        "hostname",
        "last_error",
        "latency",
        "locality",
        "name",
        "priority",
        "record",
        "reported",
        "requests",
        "since",
        "tls",
        "unreached",
        "weight",
    )

    def __init__(
        self, endpoint: Endpoint, *, priority: int, locality: Locality, tls: Tls | None = None, down: int = 0
    ) -> None:
        self.address: Address = endpoint.address
        self.name = str(endpoint.address)
        self.endpoint = endpoint
        self.hostname = endpoint.hostname
        self.weight = max(1, endpoint.weight)
        self.priority = priority
        self.locality = locality
        self.tls = tls
        self.active = 0
        self.connections = 0
        self.requests = 0
        self.failures = 0
        self.last_error = ""
        self.since = -inf
        self.breaker: EndpointBreaker | None = None
        self.latency: Latency | None = None
        self.ewma: Ewma | None = None
        self.reported: ReportedWeight | None = None
        self.gone = False
        self.unreached = 0
        self.generation: tuple[int, float] | None = None
        self.down = down
        self.check: Check | None = None
        self.degraded = endpoint.health is Health.DEGRADED
        self.record: Record | None = None

    @property
    def usable(self) -> bool:
        """Whether nobody says that it may not be called."""
        return not self.down

    @property
    def degraded_by_plan(self) -> bool:
        """Whether the control plane says that it is degraded."""
        return self.endpoint.health is Health.DEGRADED

    @property
    def ejected(self) -> bool:
        """Whether outlier detection keeps it out now."""
        return bool(self.down & Down.EJECTED)

    def __repr__(self) -> str:
        return f"LiveEndpoint({self.name!r}, active={self.active}, down={self.down})"


@dataclass(slots=True)
class Record:
    """What is remembered of one endpoint: failures in a row by detector, and its ejections. ``until``: when its
    ejection is over, monotonic seconds.
    """

    any_5xx: int = 0
    gateway: int = 0
    local: int = 0
    multiplier: int = 0
    until: float = 0.0
