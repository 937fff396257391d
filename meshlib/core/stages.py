"""The stages of a call that a plan makes and ``explain`` shows: each is decided here, once."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from meshlib.core.answers import own_answer
from meshlib.core.conditions import unsigned
from meshlib.core.hashing import Hashed, RouteHash, hash_text
from meshlib.model.call import TimeLimit
from meshlib.model.headers import Headers
from meshlib.model.route import Forward
from meshlib.model.subset import NO_LABELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.match import Match
    from meshlib.core.resolution import Resolution
    from meshlib.model.call import Head, Response
    from meshlib.model.cluster import Cluster
    from meshlib.model.policy import Balancing, HashPolicy, RetryPolicy
    from meshlib.model.route import ClusterWeight, Mirror
    from meshlib.model.subset import Labels

__all__ = [
    "Routed",
    "StreamLimits",
    "call_hash",
    "call_labels",
    "is_too_long",
    "mirrors_of",
    "retry_policy",
    "route",
    "stream_limit",
    "time_limits",
]

#: Envoy ``RouteAction.timeout`` (TO-02): what a control plane's route gets where it sets none. Seconds.
DEFAULT_ROUTE_TIMEOUT = 15.0


class Routed(NamedTuple):
    """What the listener and its routes make of a request: ``head`` as the routes saw it, the match and the cluster of its
    share; or the ``answer`` that they give by themselves, and why, in words.
    """

    head: Head
    match: Match | None
    cluster: str
    weight: ClusterWeight | None
    answer: tuple[Response, str] | None


def route(
    resolution: Resolution,
    asked: Head,
    random: Callable[[], float],
    lines: list[str] | None = None,
    *,
    grpc: bool = False,
) -> tuple[Head, Match | None, str, ClusterWeight | None, tuple[Response, str] | None]:
    """Stage 2: what :class:`Routed` is made of. ``lines`` gets each step in words."""
    routes = resolution.routes
    if grpc:
        head, routes = asked, routes.grpc if routes is not None else None
    else:
        head = resolution.seen(asked)
        if resolution.entrance is not None and resolution.entrance.names_calls:
            head = resolution.entrance.named(head, asked, random)
        if routes is not None and routes.internal_only and not resolution.is_internal(asked):
            head = _without(head, routes.internal_only)
    match = routes.match(head, random, lines) if routes is not None else None
    cluster, weight = "", None
    if match is not None:
        cluster, weight = match.compiled.choose_cluster(head, random, lines)
    return head, match, cluster, weight, own_answer(resolution, asked, head, match, weight)


def _without(head: Head, names: frozenset[bytes]) -> Head:
    new = head.copy()
    new.headers = Headers([line for line in head.headers.raw if line[0].lower() not in names])
    return new


class _Hashes(Protocol):
    """What of a call (:class:`meshlib.core.effects.Call`)."""

    head: Head
    hash_key: str | None
    own: int | None


class _Surroundings(Protocol):
    """What of them (:class:`meshlib.core.effects.Env`)."""

    own: int

    @property
    def random(self) -> Callable[[], float]: ...


class StreamLimits(NamedTuple):
    """Of an HTTP call; None: no limit. ``idle``: seconds between two bytes; ``written_by``: absolute, when the request is sent."""

    idle: float | None
    written_by: float | None


def time_limits(
    resolution: Resolution, action: Forward, started: float = 0.0, head: Head | None = None
) -> tuple[float | None, str, StreamLimits | None]:
    """How long an HTTP call that began then may take by its route, in seconds (None: as long as it likes), which limit that is, and
    what else bounds its stream (LD-08, TO-02). 0 is no limit. ``head``: it may say so itself, where the listener's router lets it.
    """
    seconds = action.timeout
    if resolution.router is not None and head is not None:
        said = resolution.router.timeout(head)
        seconds = seconds if said is None else said
    if seconds is None:
        listener = resolution.listener
        seconds = None if listener is not None and listener.from_file else DEFAULT_ROUTE_TIMEOUT
    idle, duration, request, manager = (
        action.idle_timeout,
        action.max_stream_duration,
        None,
        resolution.manager,
    )
    if manager is not None:
        request = manager.request_timeout
        idle = manager.stream_idle_timeout if idle is None else idle
        duration = manager.max_stream_duration if duration is None else duration
    limits = StreamLimits(idle or None, started + request if request else None) if idle or request else None
    if duration and (not seconds or duration < seconds):
        return duration, TimeLimit.DURATION, limits
    return seconds or None, "the route's timeout", limits


def stream_limit(resolution: Resolution, action: Forward) -> float | None:
    """How long a gRPC call may take by its route, in seconds; None: as long as it likes (TO-01). What the configuration file
    says of a service holds for its calls of both kinds.
    """
    listener, manager = resolution.listener, resolution.manager
    if listener is not None and listener.from_file:
        return action.timeout or None
    limit = action.grpc_timeout_header_max
    if limit is None:
        limit = action.max_stream_duration
    if limit is None and manager is not None:
        limit = manager.max_stream_duration
    return limit or None


def is_too_long(match: Match | None, head: Head) -> bool:
    """Whether the call's body is longer than what its route has sent again."""
    if match is None:
        return False
    limit = match.route.body_limit
    if limit is None:
        limit = match.virtual_host.body_limit
    if limit is None:
        return False
    length = unsigned(head.headers.get("content-length") or "")
    return length is not None and length > limit


def retry_policy(match: Match, action: Forward, cluster: Cluster | None = None) -> RetryPolicy | None:
    """What the configuration orders: the route's policy replaces the virtual host's whole (RT-01), and that of the ``cluster`` both."""
    if cluster is not None and cluster.calls is not None and cluster.calls.retry is not None:
        return cluster.calls.retry
    return action.retry if action.retry is not None else match.virtual_host.retry


def mirrors_of(match: Match, cluster: Cluster) -> tuple[Mirror, ...]:
    """Where else the call goes, too: by its cluster's word, and else by its route's."""
    own = cluster.calls
    return own.mirrors if own is not None and own.mirrors else match.compiled.mirrors


def call_labels(match: Match, weight: ClusterWeight | None) -> Labels:
    """Of which subset of its cluster the call is."""
    if weight is not None:
        return weight.labels
    action = match.route.action
    return action.labels if isinstance(action, Forward) else NO_LABELS


def call_hash(match: Match, balancing: Balancing, call: _Hashes, env: _Surroundings) -> Hashed:
    """What consistent hashing goes by: the application's own key, else the balancer's policies, else the route's."""
    if call.hash_key is not None:
        return Hashed(hash_text(call.hash_key))
    policies = _of_cluster(balancing.hash_policy) if balancing.hash_policy else match.hash
    return policies.of(call.head, env.own if call.own is None else call.own, env.random)


@lru_cache(maxsize=256)
def _of_cluster(policies: tuple[HashPolicy, ...]) -> RouteHash:
    return RouteHash(policies)
