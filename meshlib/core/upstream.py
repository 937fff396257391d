"""What a call plan sees of a cluster that is in use: endpoints with their counters, picks, permits, refusals.

The values here are shared between the pure rooms and ``runtime/clusters.py``, which implements the protocols. Whoever
implements them makes them thread-safe; a plan calls them without a lock of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.loads import Metrics
    from meshlib.core.override import Override
    from meshlib.model.call import Head, Outcome
    from meshlib.model.cluster import Cluster
    from meshlib.model.limits import Admission, Descriptor, LocalLimit
    from meshlib.model.policy import Elsewhere, RetryBudget
    from meshlib.model.subset import Labels

__all__ = [
    "Buckets",
    "CallLimits",
    "Connections",
    "Delays",
    "Leaf",
    "Limiter",
    "LiveAdmission",
    "Memory",
    "Pick",
    "PickContext",
    "Refusal",
    "RefusalKind",
    "Reports",
    "RetryPermit",
    "Upstream",
]


class RefusalKind(Enum):
    """Why no endpoint was given. Nothing was counted for a refused pick."""

    NO_ENDPOINT = "no_endpoint"
    BREAKER = "breaker"
    MAX_REQUESTS = "max_requests"
    DROPPED = "dropped"
    UNKNOWN_CLUSTER = "unknown_cluster"
    SESSION = "session"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class Refusal:
    """``detail``: one sentence for the caller's error, naming the cluster; ``category``: of a call that was dropped."""

    kind: RefusalKind
    detail: str
    category: str = ""


class PickContext:
    """What a pick may look at. ``attempt`` counts from 1; ``tried``: endpoints of this call's earlier attempts, to be
    avoided while there is another; ``hash``: what consistent hashing uses, None for none; ``grpc``: the choice is made by
    gRPC's rules; ``override``: endpoints that are named for the call, before the balancer is asked; ``labels``: what subset the call is
    for; set only where the cluster has subsets; ``elsewhere``: where another attempt goes, set only where that is told. Whoever owns the endpoints sets what else its balancer looks at: ``now``, monotonic seconds, and ``active``, its
    calls in flight.
    """

    #: Where an aggregate sends the call: a priority of its leaf, to the degraded ones there or not; None: the cluster chooses.
    level: tuple[int, bool] | None = None
    __slots__ = (
        "active",
        "attempt",
        "elsewhere",
        "grpc",
        "hash",
        "head",
        "labels",
        "now",
        "override",
        "tried",
    )

    labels: Labels
    elsewhere: Elsewhere

    def __init__(
        self,
        attempt: int = 1,
        tried: tuple[LiveEndpoint, ...] = (),
        hash: int | None = None,  # noqa: A002 - the field's name
        head: Head | None = None,
        *,
        grpc: bool = False,
    ) -> None:
        self.active = 0
        self.attempt = attempt
        self.grpc = grpc
        self.tried = tried
        self.hash = hash
        self.head = head
        self.now = 0.0
        self.override: Override | None = None


class Pick(Protocol):
    """An endpoint, held for one attempt. Thread-safe; each method takes effect once, further calls do nothing."""

    @property
    def endpoint(self) -> LiveEndpoint: ...

    @property
    def upstream(self) -> Leaf:
        """The cluster that it is of: of an aggregate the leaf."""
        ...

    @property
    def listens(self) -> bool:
        """Whether somebody wants to know what the endpoint says of its load with the answer (ORCA)."""
        ...

    def measured(self, metrics: Metrics | None) -> None:
        """What it said, where that is not in the head of a response; None: nothing that can be read."""
        ...

    def give_up(self) -> None:
        """The caller of an RPC gave the answer up that it was reading."""
        ...

    def report(self, outcome: Outcome, now: float) -> None:
        """How the attempt went, once the head arrived or it failed: feeds breaker and outlier detection.

        A cancelled attempt may be reported too; it counts neither as success nor as failure.
        """
        ...

    def release(self, now: float, failure: Outcome | None = None) -> None:
        """The attempt is over, its body read or given up: all counters close. Must be called for every pick.

        ``failure``: the body broke after its head was reported. A release without a report counts as cancelled.
        """
        ...


class RetryPermit(Protocol):
    """Leave to make one retry, counted until released."""

    def release(self) -> None:
        """The retry is over (or was not made). Thread-safe; effective once."""
        ...


class Reports(Protocol):
    """Who wants to hear of the load of a cluster's endpoints out of band. Thread-safe."""

    @property
    def every(self) -> float | None:
        """How often, in seconds; None: nobody does."""
        ...

    def follow(self, follower: Callable[[], object]) -> None:
        """Call ``follower``, a method, when ``every`` is another, as long as there is its object."""
        ...

    def unfollow(self, follower: Callable[[], object]) -> None: ...

    def reported(self, endpoint: LiveEndpoint, metrics: Metrics) -> None:
        """What an endpoint said, beside calls."""
        ...


class Limiter(Protocol):
    """A rate limit. Thread-safe."""

    @property
    def shared(self) -> bool:
        """Whether a storage decides: it is asked by :class:`meshlib.core.effects.Take`."""
        ...

    def take(self, now: float) -> bool:
        """Whether a call may pass now, as far as this process knows; it counts then."""
        ...

    def ask(self, then: Callable[[bool | None], object]) -> None:
        """Ask the storage whether a call may pass now; ``then`` gets that, once, in any thread. None: it does not answer."""
        ...


class LiveAdmission(Protocol):
    """Admission control at one place. Thread-safe."""

    def probability(self, now: float) -> float:
        """That a call now is refused."""
        ...

    def hear(self, outcome: Outcome, now: float) -> None:
        """A call that was let through ended so."""
        ...


class Buckets(Protocol):
    """What rate limits of filters have counted, by where they stand. Thread-safe."""

    def take(
        self, place: tuple[str, ...], policy: LocalLimit, descriptors: tuple[Descriptor, ...], now: float
    ) -> tuple[bool, tuple[tuple[bytes, bytes], ...]]:
        """Whether a call passes the local limit that stands there, and the lines that say what is left."""
        ...

    def admission(self, place: tuple[str, ...], policy: Admission) -> LiveAdmission:
        """The admission control that stands there."""
        ...


class CallLimits(Protocol):
    """A route that has limits of its own, as a plan sees it. Thread-safe; no method blocks."""

    @property
    def limiter(self) -> Limiter | None:
        """The rate limit of calls by it; None: there is none."""
        ...

    def enter(self) -> Refusal | None:
        """A call begins by it, and counts until ``leave``; or why it may not."""
        ...

    def leave(self) -> None:
        """A call that entered is over."""
        ...

    def pick(self, upstream: Upstream, context: PickContext, now: float) -> Pick | Refusal:
        """As of ``upstream``, where the route's breaker lets the attempt through."""
        ...


class Memory(Protocol):
    """Which endpoint has a session (:class:`meshlib.runtime.sessions.Sessions`). Thread-safe."""

    def find(self, scope: str, value: str, now: float) -> tuple[str, str] | None:
        """The cluster and the address, as Envoy writes it; None: not known, or not any more."""
        ...

    def keep(self, scope: str, value: str, where: tuple[str, str], now: float, seconds: float) -> None:
        """Remember it for so many seconds after it was asked for last."""
        ...


class Delays(Protocol):
    """How long first attempts took lately, by cluster. Thread-safe."""

    def add(self, upstream: Upstream, quantile: float, seconds: float, now: float) -> None:
        """One was answered, or given up, after so long."""
        ...

    def after(self, upstream: Upstream, quantile: float, now: float) -> float | None:
        """Within how many seconds this share of them was answered; None: there were too few to tell."""
        ...


class Upstream(Protocol):
    """A cluster as a plan sees it: one with endpoints, or an aggregate of such. Thread-safe; no method blocks."""

    @property
    def cluster(self) -> Cluster: ...

    @property
    def high(self) -> Upstream:
        """It, as calls of priority HIGH see it: with limits and counters of their own."""
        ...

    @property
    def limiter(self) -> Limiter | None:
        """The rate limit of calls to it; None: there is none."""
        ...

    @property
    def consistent(self) -> bool:
        """Whether a request's hash decides who is picked."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether a call's labels decide among whom is picked."""
        ...

    def pick(self, context: PickContext, now: float) -> Pick | Refusal:
        """An endpoint for one attempt, or why there is none."""
        ...

    def begin_retry(self, budget: RetryBudget | None, *, limited: bool = True) -> RetryPermit | None:
        """Leave to retry, or None where ``max_retries``, the cluster's budget or ``budget`` (the policy's own, held
        beside it) is used up; without ``limited`` it is only counted. The attempt that is to be retried must still be held or
        just have been released.
        """
        ...

    def reached(self) -> bool:
        """Whether there is an endpoint that may be called and of which nobody knows that it cannot be connected to."""
        ...

    def peek(self, context: PickContext) -> LiveEndpoint | None:
        """What a pick now would give. Counts nothing and moves nothing on."""
        ...

    def chosen(self, context: PickContext) -> tuple[Leaf | None, PickContext, str]:
        """The cluster that a pick now would be of, what it would be picked by there, and why, in words, ``""`` where that is no
        question. None: an aggregate has nobody to call.
        """
        ...


class Leaf(Upstream, Protocol):
    """A cluster with endpoints, as those see it who connect to them. Thread-safe; no method blocks."""

    @property
    def loads(self) -> Reports: ...

    def mark_reached(self, endpoint: LiveEndpoint, by: int) -> None:
        """GRPC channels that cannot connect to ``endpoint`` are ``by`` more, or less."""
        ...

    def connections_to(self, endpoint: LiveEndpoint) -> Connections:
        """Where connections to ``endpoint`` are counted."""
        ...


class Connections(Protocol):
    """What a pool of connections to one endpoint asks of its cluster: ``max_connections``, of the cluster and of each endpoint, and
    ``max_pending`` (CB-02, CB-03). Thread-safe.
    """

    @property
    def limited(self) -> bool:
        """Whether the mesh limits connections now."""
        ...

    def open_connection(self, *, force: bool = False) -> bool:
        """Count one more connection; False (and nothing counted) where a limit is reached. ``force``: count it
        whatever the limits say, since an endpoint may always have one connection, as in Envoy.
        """
        ...

    def close_connection(self) -> None:
        """A connection that was counted is closed."""
        ...

    def begin_pending(self) -> bool:
        """Count one more call that is not connected yet; False (and nothing counted) at the limit."""
        ...

    def end_pending(self) -> None:
        """A call that was counted is connected, or given up."""
        ...
