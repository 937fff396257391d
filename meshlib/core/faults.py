"""Faults on purpose: which one is in force for a call, and what it comes to (FI-01 to FI-04; Envoy's ``fault`` filter, gRFC A33).

Of a control plane's, the most specific of weighted cluster, route, virtual host and route configuration that speaks of the filter decides,
in the whole place of the filter's own; those of a file are the route's. A fault may be for calls with certain headers, or to one
cluster. Delay and answer are drawn each by itself. *By header* the call says itself what is to happen, in
``x-envoy-fault-delay-request`` (milliseconds), ``x-envoy-fault-abort-request`` (a status) or ``x-envoy-fault-abort-grpc-request`` (a
code), a throughput in KiB a second in ``x-envoy-fault-throughput-response``, and may lower the share by ``…-percentage``; what it says that is no such number is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from meshlib.core.conditions import compile_header, integer
from meshlib.model.listener import FilterKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshlib.core.match import Match
    from meshlib.model.call import Head
    from meshlib.model.listener import HttpFilter, HttpManager
    from meshlib.model.match import HeaderMatch
    from meshlib.model.policy import Fault
    from meshlib.model.route import ClusterWeight, FilterSwitch, Forward

__all__ = ["GRPC_CODES", "Injected", "drawn", "faults_of", "in_force", "switches_of"]

_MILLION = 1_000_000
_DELAY = "x-envoy-fault-delay-request"
_ABORT = "x-envoy-fault-abort-request"
_RATE = "x-envoy-fault-throughput-response"
#: KiB a second; more holds nothing up.
_MOST_RATE = 1 << 40
_ABORT_GRPC = "x-envoy-fault-abort-grpc-request"
#: What an HTTP status is to a gRPC client (grpc: doc/http-grpc-status-mapping.md); any other is UNKNOWN (2).
GRPC_CODES = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
#: Who calls, where the call says so.
_NODE = "x-envoy-downstream-service-node"
_LARGEST_CODE = 16


@dataclass(frozen=True, slots=True)
class Injected:
    """``delay`` in seconds. ``status``: what the call is answered, 0: it goes on; ``code``: the same of gRPC, None where an HTTP status
    was said. ``rate``: with how many bytes a second its response comes, 0: as it does.
    """

    delay: float = 0.0
    status: int = 0
    code: int | None = None
    rate: int = 0


def faults_of(manager: HttpManager) -> tuple[HttpFilter, ...]:
    """The filters by which faults are injected: none, as a rule."""
    return tuple(each for each in manager.filters if each.kind is FilterKind.FAULT)


def in_force(
    filters: tuple[HttpFilter, ...], match: Match, weight: ClusterWeight | None, action: Forward
) -> Fault | None:
    """The fault of this match and share; of several filters the first that has one."""
    for each in filters:
        said = next(switches_of(each.name, match, weight), None)
        if said is not None:
            found = said.fault if said.on else None
        else:
            found = None if each.disabled else each.fault
        if found is not None:
            return found
    return action.fault


def switches_of(name: str, match: Match, weight: ClusterWeight | None) -> Iterator[FilterSwitch]:
    """What places say of the filter, the most specific first."""
    for place in (
        weight.filters if weight is not None else (),
        match.route.filters,
        match.virtual_host.filters,
        match.config.filters,
    ):
        yield from (each for each in place if each.name == name)


def drawn(fault: Fault, head: Head, cluster: str, random: Callable[[], float]) -> Injected | None:
    """What happens to this call; None: nothing does."""
    if fault.cluster and fault.cluster != cluster:
        return None
    if fault.nodes and head.headers.get(_NODE) not in fault.nodes:
        return None
    if fault.headers and not all(test(head) for test in _tests(fault.headers)):
        return None
    delay, status, code = fault.delay, fault.abort, fault.abort_code
    if fault.delay_by_header:
        delay = (_number(head, _DELAY) or 0) / 1000.0
    if fault.abort_by_header:
        said = _number(head, _ABORT)
        status = said if said is not None and 200 <= said < 600 else 0
        said = _number(head, _ABORT_GRPC)
        code = said if not status and said is not None and said <= _LARGEST_CODE else None
    share = _share(head, _DELAY, fault.delay_per_million, fault.delay_unit, by_header=fault.delay_by_header)
    late = delay > 0 and random() * _MILLION < share
    share = _share(head, _ABORT, fault.abort_per_million, fault.abort_unit, by_header=fault.abort_by_header)
    ended = (status or code is not None) and random() * _MILLION < share
    rate = _drawn_rate(fault, head, random) if fault.rate or fault.rate_by_header else 0
    if not (late or ended or rate):
        return None
    if ended:
        return Injected(delay if late else 0.0, status or 200, code, rate)
    return Injected(delay if late else 0.0, rate=rate)


def _drawn_rate(fault: Fault, head: Head, random: Callable[[], float]) -> int:
    rate = min(_number(head, _RATE) or 0, _MOST_RATE) * 1024 if fault.rate_by_header else fault.rate
    share = _share(head, _RATE, fault.rate_per_million, fault.rate_unit, by_header=fault.rate_by_header)
    return rate if rate and random() * _MILLION < share else 0


@lru_cache(maxsize=256)
def _tests(headers: tuple[HeaderMatch, ...]) -> tuple[Callable[[Head], bool], ...]:
    return tuple(map(compile_header, headers))


def _share(head: Head, name: str, per_million: int, unit: int, *, by_header: bool) -> int:
    """Of a million calls; a header may lower it, in the unit that is configured."""
    said = _number(head, f"{name}-percentage") if by_header else None
    return per_million if said is None else min(per_million, said * unit)


def _number(head: Head, name: str) -> int | None:
    text = head.headers.get(name)
    found = None if text is None else integer(text)
    return None if found is None or found < 0 else found
