"""The stages of a call that a plan makes and ``explain`` shows: each is decided here, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshlib.core.answers import own_answer
from meshlib.model.call import TimeLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.match import Match
    from meshlib.core.resolution import Resolution
    from meshlib.model.call import Head, Response
    from meshlib.model.policy import RetryPolicy
    from meshlib.model.route import ClusterWeight, Forward

__all__ = [
    "Routed",
    "StreamLimits",
    "retry_policy",
    "route",
    "route_timeout",
    "stream_limit",
    "stream_limits",
    "time_limit",
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
    """Stage 4: what :class:`Routed` is made of. ``lines`` gets each step in words."""
    routes = resolution.routes
    if grpc:
        head, routes = asked, routes.grpc if routes is not None else None
    else:
        head = resolution.seen(asked)
    match = routes.match(head, random, lines) if routes is not None else None
    cluster, weight = "", None
    if match is not None:
        cluster, weight = match.compiled.choose_cluster(head, random, lines)
    return head, match, cluster, weight, own_answer(resolution, asked, head, match, weight)


def route_timeout(resolution: Resolution, action: Forward) -> float | None:
    """The route's own timeout in seconds, or None for none (TO-02)."""
    if action.timeout is None:
        listener = resolution.listener
        return None if listener is not None and listener.from_file else DEFAULT_ROUTE_TIMEOUT
    return action.timeout or None


class StreamLimits(NamedTuple):
    """Of an HTTP call; None: no limit. ``idle``: seconds between two bytes; ``written_by``: absolute, when the request is sent;
    ``duration``: seconds of all.
    """

    idle: float | None
    written_by: float | None
    duration: float | None


def stream_limits(resolution: Resolution, action: Forward, started: float) -> StreamLimits | None:
    """What the route and its listener say beside the timeout (LD-08, TO-02) of a call that began then; None for nothing. 0 is no
    limit.
    """
    manager = resolution.manager
    idle, duration = action.idle_timeout, action.max_stream_duration
    request = None
    if manager is not None:
        request = manager.request_timeout
        idle = manager.stream_idle_timeout if idle is None else idle
        duration = manager.max_stream_duration if duration is None else duration
    if not (idle or request or duration):
        return None
    return StreamLimits(idle or None, started + request if request else None, duration or None)


def time_limit(
    resolution: Resolution, action: Forward, limits: StreamLimits | None
) -> tuple[float | None, str]:
    """How long an HTTP call may take by its route, in seconds (None: as long as it likes), and which limit that is."""
    timeout = route_timeout(resolution, action)
    most = limits.duration if limits is not None else None
    if most is not None and (timeout is None or most < timeout):
        return most, TimeLimit.DURATION
    return timeout, "the route's timeout"


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


def retry_policy(match: Match, action: Forward) -> RetryPolicy | None:
    """What the configuration orders: the route's policy replaces the virtual host's whole (RT-01)."""
    return action.retry if action.retry is not None else match.virtual_host.retry
