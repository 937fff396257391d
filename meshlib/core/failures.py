"""What a call that failed is told as: our error, and the response that Envoy would give in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.core.effects import Finish
from meshlib.core.upstream import RefusalKind
from meshlib.errors import (
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    MeshError,
    NoHealthyEndpoint,
    NotReady,
    Overloaded,
    TransportFailed,
    UnknownService,
)
from meshlib.model.call import CallInfo, OutcomeKind, Response

if TYPE_CHECKING:
    from meshlib.core.resolution import Resolution

__all__ = ["FAILURES", "REFUSALS", "not_made"]

_TEXT = (("content-type", "text/plain"),)
_OVERLOADED = (("x-envoy-overloaded", "true"), *_TEXT)
_RESET = b"upstream connect error or disconnect/reset before headers. reset reason: "

#: No endpoint was given.
REFUSALS: dict[RefusalKind, tuple[type[MeshError], Response]] = {
    RefusalKind.NO_ENDPOINT: (NoHealthyEndpoint, Response(503, _TEXT, b"no healthy upstream")),
    RefusalKind.TLS: (NoHealthyEndpoint, Response(503, _TEXT, b"no healthy upstream")),
    RefusalKind.UNKNOWN_CLUSTER: (NoHealthyEndpoint, Response(503)),
    RefusalKind.DROPPED: (Overloaded, Response(503, _OVERLOADED, b"unconditional drop overload")),
    RefusalKind.BREAKER: (CircuitOpen, Response(503, _OVERLOADED, _RESET + b"overflow")),
    RefusalKind.MAX_REQUESTS: (Overloaded, Response(503, _OVERLOADED, _RESET + b"overflow")),
}

#: An attempt was made and is the last.
FAILURES: dict[OutcomeKind, tuple[type[MeshError], Response]] = {
    OutcomeKind.CONNECT: (ConnectFailed, Response(503, _TEXT, _RESET + b"remote connection failure")),
    OutcomeKind.RESET: (TransportFailed, Response(503, _TEXT, _RESET + b"connection termination")),
    OutcomeKind.REFUSED: (TransportFailed, Response(503, _TEXT, _RESET + b"remote refused stream")),
    OutcomeKind.TIMEOUT: (DeadlineExceeded, Response(504, _TEXT, b"upstream request timeout")),
    OutcomeKind.CANCELLED: (TransportFailed, Response(503, _TEXT, _RESET + b"local reset")),
}


def not_made(resolution: Resolution, authority: str) -> tuple[Finish, CallInfo]:
    """The end of a call that its resolution does not let out: "failed" or "refused"."""
    failure: type[MeshError]
    failure, via, body = UnknownService, "direct", b"unknown service"
    if resolution.via == "failed":
        failure, via, body = NotReady, "mesh", b"not ready"
    end = Finish(None, failure, resolution.refusal(authority), Response(503, _TEXT, body))
    return end, CallInfo(via=via, lines=resolution.words)
