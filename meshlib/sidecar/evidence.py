"""What can be seen of a sidecar, as values: tuples, because these are made while the first call waits, and a dataclass takes ten
times as long to define.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from meshlib.model.address import Address

__all__ = ["EMPTY", "Answer", "Evidence", "Listening", "Probe"]

EMPTY: Mapping[Any, Any] = MappingProxyType({})


class Listening(NamedTuple):
    """A listening TCP socket of this network namespace. ``uid``: its owner; ``host``: an IP, without brackets."""

    host: str
    port: int
    uid: int


class Probe(NamedTuple):
    """A question on loopback: ``GET path``, or with ``path`` empty whether somebody accepts. The answer says "ready" where its
    status is 2xx and its body begins with ``body``; ``older``: the path to ask where ``path`` is not known (404).
    """

    address: Address
    path: str = ""
    body: bytes = b""
    older: str = ""

    @classmethod
    def at(cls, port: int, path: str, body: bytes = b"") -> Probe:
        return cls(Address("127.0.0.1", port), path, body)


class Answer(NamedTuple):
    """What came of a probe. ``"refused"``: nobody listens. ``"silent"``: no answer in time, or none that is HTTP."""

    outcome: Literal["answered", "accepted", "refused", "silent"]
    status: int = 0
    body: bytes = b""

    def ready(self, probe: Probe) -> bool:
        return self.outcome == "answered" and 200 <= self.status < 300 and self.body.startswith(probe.body)

    @property
    def words(self) -> str:
        return f"answered {self.status}" if self.outcome == "answered" else f"was {self.outcome}"


class Evidence(NamedTuple):
    """One look.

    Attributes:
        environ: Those variables that tell of a sidecar; no token is among them.
        bootstrap: The gRPC bootstrap of Istio's agent, ``""`` without one.
        listeners: The listening TCP sockets; None where the system does not tell.
        sockets: The listening Unix sockets of this network namespace, by path; None where nobody asked.
        uid: The user that this process runs as; None where there are none.
        redirected: Whether connections of this network namespace are redirected; None where that was not looked for.
        shared: What says that this is the network namespace of a whole machine, a line each.
        answers: What was answered so far.
    """

    environ: Mapping[str, str] = EMPTY
    bootstrap: str = ""
    listeners: tuple[Listening, ...] | None = ()
    sockets: frozenset[str] | None = None
    uid: int | None = None
    redirected: bool | None = None
    shared: tuple[str, ...] = ()
    answers: Mapping[Probe, Answer] = EMPTY

    @property
    def ports(self) -> frozenset[int]:
        """The TCP ports that somebody listens on."""
        return frozenset(one.port for one in self.listeners or ())

    def owners(self, port: int) -> frozenset[int]:
        """Who listens on ``port``."""
        return frozenset(one.uid for one in self.listeners or () if one.port == port)

    def listens(self, address: Address) -> bool | None:
        """Whether anybody listens where a connection to ``address`` would go; None: the system does not tell."""
        if address.unix:
            # Whoever listens on a path may be in another network namespace, whose table is not ours.
            return True if self.sockets and address.host in self.sockets else None
        if self.listeners is None:
            return None
        hosts = {address.host, *(("0.0.0.0", "::") if ":" not in address.host else ("::",))}  # noqa: S104
        return any(one.port == address.port and one.host in hosts for one in self.listeners)
