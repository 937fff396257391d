"""What a call that failed is told as: our error, and the response and the response flags that Envoy would give in its
place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from meshlib.core.effects import Finish
from meshlib.core.trace import ending, render
from meshlib.core.upstream import RefusalKind
from meshlib.errors import (
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    MeshError,
    NoHealthyEndpoint,
    NotReady,
    Overloaded,
    ProtocolError,
    TransportFailed,
    UnknownService,
)
from meshlib.model.call import Attempt, CallInfo, OutcomeKind, Response, TimeLimit

if TYPE_CHECKING:
    from meshlib.core.attempt import Record
    from meshlib.core.match import Match
    from meshlib.core.resolution import Resolution
    from meshlib.model.call import Head, Outcome
    from meshlib.model.cluster import Cluster
    from meshlib.model.listener import Listener
    from meshlib.model.route import ClusterWeight
    from meshlib.model.sidecar import Sidecar

__all__ = [
    "FAILURES",
    "REFUSALS",
    "SPENT",
    "TEXT",
    "Words",
    "after_retries",
    "broken_handoff",
    "direct_info",
    "mesh_info",
    "not_made",
    "not_overloaded",
    "not_ready",
    "say_spent",
    "timed_out",
    "versions",
]

#: No attempt is left. The clients of several HTTP APIs (openai, anthropic) obey it and make none of their own.
SPENT = ("x-should-retry", "false")

#: Why a call went directly: in words, or what gives a trace's lines when they are asked for.
Words = str | Callable[[], tuple[str, ...]]

TEXT = (("content-type", "text/plain"),)
_OVERLOADED = (("x-envoy-overloaded", "true"), *TEXT)
_RESET = b"upstream connect error or disconnect/reset before headers. reset reason: "

#: No endpoint was given.
REFUSALS: dict[RefusalKind, tuple[type[MeshError], Response, str]] = {
    RefusalKind.NO_ENDPOINT: (NoHealthyEndpoint, Response(503, TEXT, b"no healthy upstream"), "UH"),
    RefusalKind.TLS: (NoHealthyEndpoint, Response(503, TEXT, b"no healthy upstream"), "UH"),
    RefusalKind.SESSION: (NoHealthyEndpoint, Response(503, TEXT, b"no healthy upstream"), "UH"),
    RefusalKind.UNKNOWN_CLUSTER: (NoHealthyEndpoint, Response(503), "NC"),
    RefusalKind.DROPPED: (Overloaded, Response(503, _OVERLOADED, b"unconditional drop overload"), "DO"),
    RefusalKind.BREAKER: (CircuitOpen, Response(503, _OVERLOADED, _RESET + b"overflow"), "UO"),
    RefusalKind.MAX_REQUESTS: (Overloaded, Response(503, _OVERLOADED, _RESET + b"overflow"), "UO"),
}

#: An attempt was made and is the last.
FAILURES: dict[OutcomeKind, tuple[type[MeshError], Response, str]] = {
    OutcomeKind.CONNECT: (ConnectFailed, Response(503, TEXT, _RESET + b"remote connection failure"), "UF"),
    OutcomeKind.RESET: (TransportFailed, Response(503, TEXT, _RESET + b"connection termination"), "UC"),
    OutcomeKind.REFUSED: (TransportFailed, Response(503, TEXT, _RESET + b"remote refused stream"), "UR"),
    OutcomeKind.PROTOCOL: (ProtocolError, Response(502, TEXT, _RESET + b"protocol error"), "UPE"),
    OutcomeKind.TIMEOUT: (DeadlineExceeded, Response(504, TEXT, b"upstream request timeout"), "UT"),
    OutcomeKind.CANCELLED: (TransportFailed, Response(503, TEXT, _RESET + b"local reset"), "LR"),
    OutcomeKind.OVERFLOW: REFUSALS[RefusalKind.MAX_REQUESTS],
    OutcomeKind.NO_TIME: (DeadlineExceeded, Response(504, TEXT, b"upstream request timeout"), "UT"),
    OutcomeKind.UNHEALTHY: REFUSALS[RefusalKind.NO_ENDPOINT],
    OutcomeKind.NO_TOKEN: (NoHealthyEndpoint, Response(503, TEXT, _RESET + b"local reset"), "LR"),
    # Of HTTP that is TLS of the mesh's that cannot be had; of gRPC the caller's own error, who is told it as it is.
    OutcomeKind.OWN: REFUSALS[RefusalKind.TLS],
}


#: A limit of the stream is over; what Envoy answers then (measured, 1.40).
_LIMITED: dict[str, tuple[Response, str]] = {
    TimeLimit.IDLE: (Response(504, TEXT, b"stream timeout"), "SI"),
    TimeLimit.REQUEST: (Response(408, TEXT, b"request timeout"), ""),
    TimeLimit.DURATION: (Response(504, TEXT, b"downstream duration timeout"), "DT"),
}


#: Outcomes of an attempt whose time is over, and what timers may lack of it, in seconds.
_TIMES = frozenset({OutcomeKind.TIMEOUT, OutcomeKind.NO_TIME})
_ROUNDING = 0.001


def timed_out(limit: str) -> tuple[Response, str]:
    """What a call is told as whose time by this limit is over, and its flags."""
    return _LIMITED.get(limit, FAILURES[OutcomeKind.TIMEOUT][1:])


def took_long(longest: float, outcome: Outcome) -> tuple[Response, str] | None:
    """The same of one whose last attempt its cluster ended after so many seconds; None: it did not (measured, 1.40)."""
    if outcome.kind not in _TIMES or outcome.seconds < longest - _ROUNDING:
        return None
    return Response(504, TEXT, b"upstream max stream duration reached"), "UMSDR"


def after_retries(response: Response) -> Response:
    """The response as Envoy words it of a call that was retried."""
    if not response.body.startswith(_RESET):
        return response
    words = response.body.replace(b"reset reason", b"retried and the latest reset reason", 1)
    return replace(response, body=words)


def not_overloaded(response: Response) -> Response:
    """The response without the line by which Envoy says that it is overloaded."""
    lines = tuple(line for line in response.headers if line not in _OVERLOADED[:1])
    return response if len(lines) == len(response.headers) else replace(response, headers=lines)


def say_spent(response: Response) -> Response:
    """The response with ``SPENT``."""
    others = (line for line in response.headers if line[0].lower() != SPENT[0])
    return replace(response, headers=(*others, SPENT))


def not_made(resolution: Resolution, authority: str) -> tuple[Finish, CallInfo]:
    """The end of a call that its resolution does not let out: "failed", "refused" or "closed"."""
    if resolution.handed is not None:
        words = resolution.refusal(authority)
        end = Finish(None, ConnectFailed, words, Response(503, TEXT, b"sidecar unavailable"))
        return end, CallInfo(via="sidecar", lines=resolution.words)
    if resolution.via == "failed":
        return not_ready(resolution, authority)
    if resolution.via == "closed":
        failure, response, _ = REFUSALS[RefusalKind.NO_ENDPOINT]
        end = Finish(None, failure, resolution.refusal(authority), response)
        return end, CallInfo(via="mesh", lines=resolution.words)
    end = Finish(None, UnknownService, resolution.refusal(authority), Response(503, TEXT, b"unknown service"))
    return end, CallInfo(via="direct", lines=resolution.words)


def not_ready(resolution: Resolution, authority: str) -> tuple[Finish, CallInfo]:
    """The end of a call that may not be made as long as the control plane has not answered."""
    end = Finish(None, NotReady, resolution.refusal(authority), Response(503, TEXT, b"not ready"))
    return end, CallInfo(via="mesh", lines=resolution.words)


def broken_handoff(sidecar: Sidecar, outcome: Outcome) -> tuple[type[MeshError], str, Outcome]:
    """What a call that was redirected to a sidecar, and failed, raises."""
    failure = FAILURES[outcome.kind][0]
    return failure, f"the sidecar {sidecar.kind} was to carry the call: {ending(outcome)}", outcome


def direct_info(why: Words, outcome: Outcome, endpoint: str = "", via: str = "direct") -> CallInfo:
    """The CallInfo of a call that went to the URL as it is."""
    attempt = Attempt(1, endpoint, outcome.kind.word, outcome.status, outcome.sent, outcome.seconds)
    lines = (why,) if isinstance(why, str) else why
    return CallInfo(via=via, endpoint=endpoint, attempts=(attempt,), seconds=outcome.seconds, lines=lines)


def versions(listener: Listener | None, match: Match | None, cluster: Cluster | None) -> dict[str, str]:
    """Under which the control plane sent them, by type; without those that came from elsewhere."""
    route = (match.virtual_host.version or match.config.version) if match is not None else ""
    assignment = cluster.assignment if cluster is not None else None
    found = {
        "listener": listener.version if listener is not None else "",
        "route": route,
        "cluster": cluster.version if cluster is not None else "",
        "endpoint": assignment.version if assignment is not None else "",
    }
    return {kind: version for kind, version in found.items() if version}


def mesh_info(
    resolution: Resolution,
    head: Head,
    match: Match | None,
    cluster: str,
    weight: ClusterWeight | None,
    settings: Cluster | None,
    records: Sequence[Record],
    words: Sequence[str],
    seconds: float,
    endpoint: str,
) -> CallInfo:
    """The CallInfo of a call that a plan made; ``settings``: the cluster, of an aggregate the leaf, as the last attempt found it;
    ``endpoint``: who answered, or failed last.
    """
    attempts = tuple([record.told() for record in records])
    endings = [record.why() for record in records]
    leaves = tuple(dict.fromkeys(record.attempt.cluster.name for record in records))
    listener = resolution.listener
    return CallInfo(
        via="mesh" if resolution.handed is None else "sidecar",
        listener=listener.name if listener is not None else "",
        route=match.name if match is not None else "",
        cluster=settings.name if settings is not None and records else cluster,
        endpoint=endpoint,
        attempts=attempts,
        seconds=seconds,
        versions=versions(listener, match, settings),
        lines=partial(render, resolution, head, match, (cluster, leaves), weight, attempts, endings, words),
    )
