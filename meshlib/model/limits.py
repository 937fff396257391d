"""Rate limits of filters: which calls count together (descriptors), and what is done with those that are too many."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from meshlib.model.edits import Edit
from meshlib.model.match import HeaderMatch, QueryMatch
from meshlib.model.policy import RateLimit

__all__ = [
    "Action",
    "ActionKind",
    "Admission",
    "Descriptor",
    "DescriptorLimit",
    "DescriptorRule",
    "GlobalLimit",
    "HostRules",
    "LimitOverride",
    "LocalLimit",
    "Verdict",
]

#: Its entries, each a key and a value.
Entries = tuple[tuple[str, str], ...]


class ActionKind(Enum):
    """Where the value of a descriptor's entry comes from. ROUTE: from its route's metadata; ABSENT: from what no client has, so that only a
    default gives one.
    """

    SOURCE_CLUSTER = "source_cluster"
    DESTINATION_CLUSTER = "destination_cluster"
    REQUEST_HEADER = "request_headers"
    QUERY_PARAMETER = "query_parameters"
    REMOTE_ADDRESS = "remote_address"
    GENERIC_KEY = "generic_key"
    HEADER_MATCH = "header_value_match"
    QUERY_MATCH = "query_parameter_value_match"
    ROUTE = "route_entry"
    ABSENT = "metadata"


@dataclass(frozen=True, slots=True)
class Action:
    """One entry of a descriptor: ``key``, and a value by ``kind``. ``source``: the header's or parameter's name; ``value``: what is said
    where something else decides, or where there is nothing; ``skip``: without a value the entry is left out, and not the descriptor.
    ``headers``, ``query``: what must hold for ``value``, or must not (``expect`` False). ``path``: of ROUTE, the filter that the metadata is for and
    the keys in it.
    """

    kind: ActionKind
    key: str
    source: str = ""
    value: str = ""
    skip: bool = False
    expect: bool = True
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DescriptorRule:
    """Envoy ``RateLimit`` of a route or virtual host: what one descriptor is made of, for filters of ``stage``. ``hits``: how many one
    call counts for; None: one. ``hits_format``: a format that says so, without whose number there is no descriptor.
    """

    actions: tuple[Action, ...]
    stage: int = 0
    hits: int | None = None
    hits_format: str = ""


@dataclass(frozen=True, slots=True)
class Descriptor:
    entries: Entries
    hits: int | None = None


class HostRules(Enum):
    """Envoy ``VhRateLimitsOptions``: the virtual host's rules hold where the route has none, beside the route's, or not."""

    OVERRIDE = 0
    INCLUDE = 1
    IGNORE = 2


@dataclass(frozen=True, slots=True)
class DescriptorLimit:
    """Calls with these ``entries`` have a limit of their own."""

    entries: Entries
    limit: RateLimit


@dataclass(frozen=True, slots=True)
class LocalLimit:
    """Envoy ``LocalRateLimit``. Fractions of a million calls: ``enabled`` are counted, of which those over the limit are refused in
    ``enforced``. ``limit``: of all calls here; ``limits``: of those with a descriptor. ``always``: the limit of all holds beside those.
    ``headers``: a refusal, and every answer, says what is left (``x-ratelimit-…``). ``exhausted``: a gRPC call over it is
    RESOURCE_EXHAUSTED. ``rules`` take the place of the routes' own.
    """

    limit: RateLimit | None = None
    limits: tuple[DescriptorLimit, ...] = ()
    status: int = 429
    enabled: int = 0
    enforced: int = 0
    refusal_headers: tuple[Edit, ...] = ()
    request_headers: tuple[Edit, ...] = ()
    headers: bool = False
    stage: int = 0
    host_rules: HostRules = HostRules.OVERRIDE
    always: bool = True
    exhausted: bool = False
    rules: tuple[DescriptorRule, ...] = ()


@dataclass(frozen=True, slots=True)
class GlobalLimit:
    """Envoy ``RateLimit`` (the filter): the service behind ``cluster`` is asked for each call. ``seconds``: so long it is waited for;
    ``deny``: of a million calls so many are refused with ``error_status`` where it does not answer. ``authority``, ``metadata``: of the
    call to it. ``tells``: a refusal has ``x-envoy-ratelimited``. The others are as of a ``LocalLimit``.
    """

    domain: str
    cluster: str
    seconds: float = 0.02
    deny: int = 0
    authority: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    status: int = 429
    error_status: int = 500
    enabled: int = 1_000_000
    enforced: int = 1_000_000
    refusal_headers: tuple[Edit, ...] = ()
    headers: bool = False
    tells: bool = True
    stage: int = 0
    host_rules: HostRules = HostRules.OVERRIDE
    exhausted: bool = False
    rules: tuple[DescriptorRule, ...] = ()


@dataclass(frozen=True, slots=True)
class LimitOverride:
    """Envoy ``RateLimitPerRoute``: what holds in the place of a ``GlobalLimit``'s at one route, virtual host or share."""

    host_rules: HostRules = HostRules.OVERRIDE
    domain: str = ""
    rules: tuple[DescriptorRule, ...] = ()


#: gRPC's codes that fewer calls would not change (Envoy ``GrpcCriteria``).
_CODES = frozenset((0, 1, 2, 3, 5, 6, 7, 9, 11, 12, 16))


@dataclass(frozen=True, slots=True)
class Admission:
    """Envoy ``AdmissionControl``: where less than ``threshold`` of the calls in the last ``window`` seconds were good, a share of them is
    refused, up to ``most``: the more, the greater ``aggression`` (1: evenly). With fewer than ``least_rate`` calls a second none is.
    Good are HTTP statuses from the first of a pair of ``statuses`` up to, not including, the second, and gRPC's ``codes``. ``enabled``: of
    a million calls.
    """

    window: float = 30.0
    threshold: float = 0.95
    aggression: float = 1.0
    least_rate: float = 0.0
    most: float = 0.8
    statuses: tuple[tuple[int, int], ...] = ((100, 500),)
    codes: frozenset[int] = _CODES
    enabled: int = 1_000_000


class Verdict(NamedTuple):
    """What a service says of the descriptors. ``over``: they are too many. Lines are for the call as it is sent and for its answer;
    ``body``: of a refusal; ``limits``: of ``x-ratelimit-…``.
    """

    over: bool
    request: tuple[tuple[bytes, bytes], ...] = ()
    response: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    limits: tuple[tuple[bytes, bytes], ...] = ()
