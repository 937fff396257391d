"""Every error that meshlib raises of its own accord.

    MeshError
     ├── ConfigError            a configuration, bootstrap or argument is wrong
     ├── DiscoveryError         what to call is not known
     │    ├── NotReady          asked to wait, and it did not come in time
     │    └── UnknownService    no source knows the host, and unknown hosts are refused
     ├── UnavailableError       known, but cannot be called now
     │    ├── NoHealthyEndpoint the cluster has nobody to send to
     │    ├── CircuitOpen       the breaker is open
     │    ├── Overloaded        max_requests, max_pending or max_connections is reached
     │    └── ConnectFailed     the chosen endpoint did not accept the connection
     ├── DeadlineExceeded       the call's or the attempt's time is over
     └── TransportFailed        the connection broke under a request or a response
          └── ProtocolError     a peer sent bytes that are not the protocol

A client adapter raises these as subclasses that are *also* the host library's class (``NoHealthyEndpoint`` is an
``httpx.ConnectError``), so that existing ``except`` clauses hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.model.call import CallInfo

__all__ = [
    "CircuitOpen",
    "ConfigError",
    "ConnectFailed",
    "DeadlineExceeded",
    "DiscoveryError",
    "MeshError",
    "NoHealthyEndpoint",
    "NotReady",
    "Overloaded",
    "ProtocolError",
    "TransportFailed",
    "UnavailableError",
    "UnknownService",
]


class MeshError(Exception):
    """The root. ``info`` is the call's :class:`~meshlib.CallInfo` or None; ``phase`` names the stage that failed
    (``"config"``, ``"discovery"``, ``"route"``, ``"pick"``, ``"connect"``, ``"request"``, ``"response"``, ``"body"``);
    ``sent`` says whether a byte of a request may have left this process.
    """

    default_phase = ""

    def __init__(
        self, message: str = "", *, info: CallInfo | None = None, phase: str | None = None, sent: bool = False
    ) -> None:
        super().__init__(message)
        self.info = info
        self.phase = self.default_phase if phase is None else phase
        self.sent = sent

    def __repr__(self) -> str:
        # The text, once: what the host library was made of (another error, as a rule) says the same again.
        return f"{type(self).__name__}({str(self)!r})"


class ConfigError(MeshError):
    """A configuration is wrong. ``problems`` has each problem as one line; the text is all of them."""

    default_phase = "config"

    def __init__(
        self,
        message: str = "",
        *,
        problems: Sequence[str] = (),
        info: CallInfo | None = None,
        phase: str | None = None,
        sent: bool = False,
    ) -> None:
        super().__init__(message or "\n".join(problems), info=info, phase=phase, sent=sent)
        self.problems = tuple(problems) or (message,)


class DiscoveryError(MeshError):
    """What to call is not known."""

    default_phase = "discovery"


class NotReady(DiscoveryError):
    """What was waited for did not come. ``missing`` names it: host → what its call still lacks."""

    def __init__(
        self,
        message: str = "",
        *,
        missing: dict[str, str] | None = None,
        info: CallInfo | None = None,
        phase: str | None = None,
        sent: bool = False,
    ) -> None:
        super().__init__(message, info=info, phase=phase, sent=sent)
        self.missing = dict(missing or {})


class UnknownService(DiscoveryError):
    """No source knows the host, and ``unknown_hosts = "refuse"``."""


class UnavailableError(MeshError):
    """The service is known and cannot be called now."""

    default_phase = "pick"


class NoHealthyEndpoint(UnavailableError):
    """The cluster is unknown, empty, or everything in it is unhealthy or ejected."""


class CircuitOpen(UnavailableError):
    """The cluster's breaker is open."""


class Overloaded(UnavailableError):
    """A limit of the cluster (max_requests, max_pending) is reached."""


class ConnectFailed(UnavailableError):
    """The endpoint could not be connected to."""

    default_phase = "connect"


class DeadlineExceeded(MeshError):
    """The call's deadline, the route's timeout or the attempt's timeout is over."""

    default_phase = "response"


class TransportFailed(MeshError):
    """The connection broke while a request or its response was on it."""

    default_phase = "response"


class ProtocolError(TransportFailed):
    """A peer (control plane or upstream) sent what its protocol does not allow."""

    default_phase = "response"
