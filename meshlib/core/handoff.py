"""Which calls are handed to a sidecar, and how: rule 2 of what a URL means.

A sidecar takes a call in one of two ways. Where connections are redirected to it, the call goes to its URL as it is, to the
service's name and port and never to an endpoint. Where it has a listener of its own, that listener is the one endpoint of a
cluster, and the call is carried by a plan without policies: retries, breaking and TLS are the sidecar's.

    state      is handed                               what else
    ---------  --------------------------------------  ------------------------------------------------------
    absent     nothing
    starting   what would be handed waits              the window is over: it fails
    ready      redirected: every host but loopback     https stays as it was typed: only what is redirected
               a listener: plain http, and what it     is handed with it
               has a listener for, be it called by
               the listener's own address
    gone       nothing where ``fallback`` allows it    else what would be handed fails
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshlib.core.domains import without_port
from meshlib.core.resolution import Resolution
from meshlib.model.hosts import is_ip, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.model.call import Head
    from meshlib.model.sidecar import Sidecar

__all__ = ["ALL", "GRPC", "Handoff", "for_sidecar"]

#: The keys of the listeners that take every host; the second takes gRPC where that is another.
ALL, GRPC = "*", "grpc *"

_PLAIN = ("http", "ws", "grpc")
#: The application that Dapr shall call.
_DAPR_APP = b"dapr-app-id"


class _Entry(Protocol):
    def resolution(self, reason: str, name: str = "") -> Resolution: ...


class Handoff:
    """A sidecar, ready to be asked. Immutable.

    Args:
        entries: What is called through its listeners while it is ready, by upstream name, ``ALL``, ``GRPC``.
        fallback: What holds when it went away: ``"when_allowed"`` or ``"never"``.
    """

    def __init__(self, sidecar: Sidecar, entries: Mapping[str, _Entry], fallback: str) -> None:
        self.sidecar = sidecar
        self._entries = entries
        self._own: dict[int, str] = {}  # by port
        if sidecar.mode == "listener":
            told = [*sidecar.upstreams.items(), *([(ALL, sidecar.address)] if sidecar.address else ())]
            self._own = {address.port: name for name, address in reversed(told) if not address.unix}
        self._never = fallback == "never"

    def resolve(self, scheme: str, host: str, port: int) -> Resolution | None:
        """What a call to ``scheme://host:port`` means, or None where it is not the sidecar's. ``host``: without brackets."""
        sidecar = self.sidecar
        if sidecar.state == "absent" or sidecar.mode in ("none", "proxyless"):
            return None
        key = self._key(scheme, host, port)
        if key is None:
            return None
        named = "the sidecar that is required" if sidecar.kind == "none" else f"the sidecar {sidecar.kind}"
        named += f" at {sidecar.address}" if sidecar.address else ""
        if sidecar.state == "gone":
            words = f"{named} is not there, and calls may not go without it"
            return Resolution("failed", words, handed=sidecar) if self._never else None
        if sidecar.state == "starting":
            words = f"{named} is not ready"
            end = Resolution("failed", words, handed=sidecar)
            return Resolution("wait", words, otherwise=end, handed=sidecar)
        if sidecar.mode == "transparent":
            words = f"{named} carries the call, which is redirected to it"
            return Resolution("sidecar", words, handed=sidecar)
        made = self._entries[key].resolution(f"{named} carries the call")
        made.handed = sidecar
        return made

    def _key(self, scheme: str, host: str, port: int) -> str | None:
        """Of the listener that takes the call; None where it is not handed."""
        sidecar = self.sidecar
        if is_loopback(host):
            return self._own.get(port) if scheme in _PLAIN else None
        if sidecar.mode == "transparent":
            return ALL
        if scheme not in _PLAIN:
            return None
        for name in (f"{host}:{port}", host):
            if name in sidecar.upstreams:
                return name
        if sidecar.mode == "api" and not _is_name(host):
            return None
        if scheme == "grpc" and sidecar.grpc is not None:
            return GRPC
        return ALL if sidecar.address is not None else None


def for_sidecar(sidecar: Sidecar, head: Head, *, grpc: bool) -> Head:
    """``head``, which may be changed, as a listener of the sidecar takes it."""
    if sidecar.mode == "api":
        head.headers.put(_DAPR_APP, without_port(head.authority).encode("latin-1"))
    elif sidecar.mode == "forward_proxy" and not grpc:
        head.path = f"{head.scheme}://{head.authority}{head.path}"  # the absolute form (RFC 9112, 3.2.2)
    return head


def _is_name(host: str) -> bool:
    """Whether it can be the name of an application of Dapr's, in its own namespace or another."""
    return host.count(".") <= 1 and not is_ip(host)
