"""What happened, told to observers. Events are values; an observer can neither delay nor fail a call."""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.call import CallInfo, Head, Outcome

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "BreakerChanged",
    "CallEnded",
    "ConfigurationChanged",
    "EndpointEjected",
    "EndpointReturned",
    "Event",
    "RetryScheduled",
    "SourceChanged",
    "Unanswered",
]


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """``head`` may still be edited by the observer: trace context is injected here. ``asked``: the authority that the
    application asked for; ``endpoint``: where the attempt goes (``""`` for a direct call). ``key`` pairs this event with
    its :class:`AttemptEnded`.
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


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    key: int
    number: int
    outcome: Outcome
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    cluster: str
    number: int
    delay: float
    reason: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    info: CallInfo


@dataclass(frozen=True, slots=True)
class EndpointEjected:
    cluster: str
    endpoint: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class EndpointReturned:
    cluster: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    cluster: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    version: int


@dataclass(frozen=True, slots=True)
class SourceChanged:
    source: str
    state: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A call for a host of which the control plane has not said what it is. ``via``: "direct", or "failed"."""

    authority: str
    via: str
    reason: str


Event = (
    AttemptStarted
    | AttemptEnded
    | RetryScheduled
    | CallEnded
    | EndpointEjected
    | EndpointReturned
    | BreakerChanged
    | ConfigurationChanged
    | SourceChanged
    | Unanswered
)
