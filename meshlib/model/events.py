"""What happened, told to observers. Events are values; an observer can neither delay nor fail a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshlib.model.call import CallInfo, Head, Outcome
from meshlib.model.endpoint import NOWHERE, Locality

__all__ = [
    "CONNECTED",
    "DISCONNECTED",
    "FAILED",
    "AttemptEnded",
    "AttemptStarted",
    "BreakerChanged",
    "CallEnded",
    "CallStarted",
    "ConfigurationChanged",
    "ConnectionChanged",
    "ControlPlaneLost",
    "EndpointChecked",
    "EndpointEjected",
    "EndpointReturned",
    "EndpointSpared",
    "Event",
    "HedgeStarted",
    "ResourcesReceived",
    "RetryScheduled",
    "SidecarChanged",
    "SourceChanged",
    "Unanswered",
]


@dataclass(frozen=True, slots=True)
class CallStarted:
    """An RPC begins, told where the application makes it: in its thread, or its task. ``key`` pairs this event with its
    :class:`CallEnded`. ``method``: ``"package.Service/Method"``; ``registered``: it is one that generated code names; ``target``: the
    channel's, with its scheme; ``asked``: the authority that the application asked for.
    """

    key: int
    method: str
    registered: bool
    target: str
    asked: str


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """``head`` may still be edited by the observer: trace context is injected here. ``asked``: the authority that the
    application asked for; ``endpoint``: where the attempt goes (``""`` for a direct call). ``key`` pairs this event with
    its :class:`AttemptEnded`; ``call`` is the key of its :class:`CallStarted`, 0 where it is of no RPC. ``locality``: the endpoint's.
    ``versions``: as :class:`meshlib.model.call.CallInfo` has them.
    """

    key: int
    number: int
    head: Head
    asked: str
    scheme: str
    url: str
    endpoint: str
    cluster: str
    route: str
    via: str
    call: int = 0
    locality: Locality = NOWHERE
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """The head of a response is there, or there will be none. An attempt of an RPC that the caller reads ends with its last message."""

    key: int
    number: int
    outcome: Outcome
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """``call``: as in :class:`AttemptStarted`."""

    cluster: str
    number: int
    delay: float
    reason: str
    call: int = 0


@dataclass(frozen=True, slots=True)
class HedgeStarted:
    """An attempt is made beside one that is under way, ``number`` is its own; ``call`` as in :class:`AttemptStarted`."""

    cluster: str
    number: int
    reason: str
    call: int = 0


@dataclass(frozen=True, slots=True)
class CallEnded:
    """``info`` is None of a call that nobody carried. Of an RPC: ``key``, that of its :class:`CallStarted`; ``outcome``, how it ended
    for the caller, whose ``error`` is what was raised; ``seconds``, from its begin.
    """

    info: CallInfo | None
    key: int = 0
    outcome: Outcome | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EndpointEjected:
    """``method``: the detector, by gRFC A91's name, and Envoy's where gRPC has none; ``reason`` in words."""

    cluster: str
    endpoint: str
    reason: str
    seconds: float
    method: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSpared:
    """A detector found an endpoint that stays. ``reason``: ``"enforcement_percentage"`` or ``"max_ejection_overflow"``."""

    cluster: str
    endpoint: str
    method: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndpointReturned:
    cluster: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class EndpointChecked:
    """A check of an endpoint's health ended. ``health``: what it is held for now, "healthy", "degraded" or "unhealthy"; ``reason``: how
    the check ended, in words. ``edge``: that changed, or is the ``first`` that is known; else it is told since the configuration
    wants every failure or success told. ``passed``: the check's own result.
    """

    cluster: str
    endpoint: str
    health: str
    reason: str
    edge: bool = True
    first: bool = False
    passed: bool = True


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """``endpoint``: its name, where the breaker is of one; ``route``: likewise, and ``cluster`` is ``""`` then."""

    cluster: str
    old: str
    new: str
    endpoint: str = ""
    route: str = ""


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    version: int


@dataclass(frozen=True, slots=True)
class SourceChanged:
    source: str
    state: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class ControlPlaneLost:
    """A server that could be reached so far could not, or ended the stream without an answer (gRFC A57)."""

    server: str


@dataclass(frozen=True, slots=True)
class ResourcesReceived:
    """A response of a control plane: how many of its resources were good and how many refused. ``type``: its full name."""

    server: str
    type: str
    valid: int
    invalid: int


CONNECTED, FAILED, DISCONNECTED = "connected", "failed", "disconnected"


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """Of a gRPC channel to ``target``, the connection to an endpoint. ``change``: ``CONNECTED``, ``FAILED`` (to connect, with the
    core's words in ``error``) or ``DISCONNECTED`` (``error``: why, by gRFC A94); ``secure``: it has TLS; ``locality``: the endpoint's.
    """

    target: str
    cluster: str
    locality: Locality
    secure: bool
    change: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class SidecarChanged:
    """The sidecar beside this process is in another state (:class:`meshlib.model.sidecar.Sidecar`): calls are handed to it from now
    on, or no more. ``fallback``: what holds while it is gone.
    """

    kind: str
    mode: str
    state: str
    fallback: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A call for a host of which the control plane has not said what it is. ``via``: "direct", or "failed"."""

    authority: str
    via: str
    reason: str


Event = (
    CallStarted
    | AttemptStarted
    | AttemptEnded
    | RetryScheduled
    | HedgeStarted
    | CallEnded
    | EndpointEjected
    | EndpointReturned
    | EndpointSpared
    | EndpointChecked
    | BreakerChanged
    | ConfigurationChanged
    | SidecarChanged
    | SourceChanged
    | ControlPlaneLost
    | ResourcesReceived
    | ConnectionChanged
    | Unanswered
)
