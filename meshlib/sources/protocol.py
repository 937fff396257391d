"""Which protocol of aggregated discovery a control plane is spoken to: incremental (delta), or state of the world.

Theory. ``xds.protocol = "auto"`` asks for delta first. A server that does not have it says so at once, and is asked for state
of the world on the next stream, without a wait, and from then on: that is remembered for the server, for as long as the
process lives (and by its forks), over all streams and meshes. Istio's generator for gRPC is never asked for delta: a name
that is added there makes it forget those before.

``_without_delta`` only grows, and adding to a set is atomic.
"""

from __future__ import annotations

from typing import Any

__all__ = ["OVER_GRPC", "SILENT", "STREAMS", "lacks_method", "note_without_delta", "protocol_of"]

#: The values of ``xds.protocol`` that are streams of grpc; the others have state of the world only.
STREAMS = ("auto", "delta", "sotw")
#: Those that need grpc.
OVER_GRPC = (*STREAMS, "fetch")
#: Seconds after which a stream that is up counts as answered where nothing is awaited: a server need not send again what
#: a client has (DL-12, EX-04).
SILENT = 1.0

_without_delta: set[str] = set()


def protocol_of(configured: str, server: str, *, generates_grpc: bool) -> str:
    """``"delta"`` or ``"sotw"``; ``generates_grpc``: the node asks for Istio's generator for gRPC."""
    if configured != "auto":
        return "delta" if configured == "delta" else "sotw"
    return "sotw" if generates_grpc or server in _without_delta else "delta"


def note_without_delta(server: str) -> None:
    """The server said that it does not have delta."""
    _without_delta.add(server)


def lacks_method(problem: Any) -> bool:
    """Whether a stream ended because the server does not have its method. Early versions of go-control-plane
    have it, and answer UNKNOWN with these words.
    """
    code, details = getattr(problem, "code", None), getattr(problem, "details", None)
    if not callable(code) or not callable(details):
        return False
    name = getattr(code(), "name", "")
    return name == "UNIMPLEMENTED" or (name == "UNKNOWN" and "not implemented" in str(details()).lower())
