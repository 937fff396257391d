"""What a channel's target means: the host of its calls, the authority that virtual hosts are matched against."""

from __future__ import annotations

from random import getrandbits
from typing import TYPE_CHECKING, Any, NamedTuple

from meshlib.core.resolve import FEDERATED
from meshlib.model.hosts import ascii_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.core.exchange import Place

__all__ = ["AUTHORITY", "Target", "read_target"]

AUTHORITY = "grpc.default_authority"

#: Schemes of gRPC's names (grpc: doc/naming.md) that say where to go, of which no mesh knows anything.
_ELSEWHERE = frozenset({"fd", "google-c2p", "passthrough", "unix", "unix-abstract", "vsock"})
_SCHEMES = frozenset({"dns", "ipv4", "ipv6", "xds", *_ELSEWHERE})


class Target(NamedTuple):
    """``text``: as it was given; ``scheme``: of the calls, for their heads; ``strict``: by ``xds:``, so that no call goes past the
    mesh; ``outside``: it says where to go itself; ``url``: of its services, and ``uri``: ``text`` with the scheme that it means
    (gRFC A66), for observers. ``own``: stands for the channel in consistent hashing (gRFC A42: by chance).
    """

    text: str
    place: Place
    scheme: str
    strict: bool
    outside: bool
    url: str
    uri: str
    own: int


def read_target(text: str, options: Sequence[tuple[str, Any]], *, secure: bool) -> Target:
    """``text`` as grpc reads it: ``host[:port]``, or a URI whose scheme grpc knows. Raises TypeError for what is no text."""
    if not isinstance(text, str):
        raise TypeError(f"target: expected text, not {text!r}")
    scheme, colon, rest = text.partition(":")
    scheme, uri = scheme.lower(), text
    if not colon or scheme not in _SCHEMES:
        scheme, rest, uri = "dns", text, f"dns:///{text}"
    # After an authority of the resolver's own, if there is one: dns://8.8.8.8/host. Of xds it is one of the bootstrap's.
    whose, _, path = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest.removeprefix("/"))
    chosen = next((str(value) for name, value in reversed(options) if name == AUTHORITY), "")
    host, port = _host_port(path)
    outside = scheme in _ELSEWHERE or not host or "," in path
    kind = f"{FEDERATED}{whose}" if scheme == "xds" and whose else "grpc"
    place = (kind, host or path, port, chosen or path)
    scheme_of_calls = "https" if secure else "http"
    url = f"grpc://{place[3]}"
    return Target(text, place, scheme_of_calls, scheme == "xds", outside, url, uri, getrandbits(64))


def _host_port(path: str) -> tuple[str, int | None]:
    """Host and port; ``""`` for what is none."""
    host, colon, digits = path.rpartition(":")
    if path.startswith("["):
        closing = path.find("]")
        host, colon, digits = path[: closing + 1], path[closing + 1 : closing + 2], path[closing + 2 :]
    elif path.count(":") > 1:  # an IPv6 address without a port
        return f"[{path}]", None
    if not colon:
        host, digits = path, ""
    if digits and not (digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) < 65536):
        return "", None
    try:
        return (host if host.startswith("[") else ascii_host(host)), int(digits) if digits else None
    except ValueError:
        return "", None
