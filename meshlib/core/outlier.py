"""Outlier ejection: a host that fails again and again is left out for a while (Envoy ``OutlierDetection``, OD-01 to OD-06).

Theory. Three detectors count failures in a row: any 5xx, gateway failures (502, 503, 504), and failures of local origin
(no connection, a broken one, time over). Without ``split_local_origin`` the third kind counts as the 503 or 504 that
Envoy would have answered, hence in the first two. A detector that reaches its number starts anew. Two more, success rate
and failure percentage, judge the calls of an interval at its end (:mod:`meshlib.core.tallies`), and so does one of ours, latency. A detector that found a
host ejects it with its ``enforcing`` chance, if there is room:

    100 × (ejected + 1) / hosts ≤ max_ejection_percent, or nobody is ejected and ``always_eject_one``

That is Envoy's rule: of five hosts none is ejected at the default of 10 %, one at 20 %. Where gRPC calls are what made
the host fail gRPC's rule holds (OD-04, DV-05), by which one may go at any percentage but 0:

    100 × ejected / hosts < max_ejection_percent

An ejection lasts ``base_ejection`` times the host's multiplier, at most ``max_ejection``, plus jitter. The multiplier
grows by one with each ejection and falls by one with each sweep that finds the host in service. Hosts return in the
first sweep after their time is over, or at once where a check of their health passes (``successful_active_health_check_uneject_host``).

A sweep lets hosts return, then judges, then lowers multipliers. Sweeps happen each ``interval``; nobody waits for them:
the first call after one was due does it. All that were due since give the same result as if they had been done in time:
no call was counted since the first of them, so that is the one that judges, and an ejection begins at its time. Only the
event is told late.

A host that a detector found and that stays, by its chance or for want of room, is *spared*: that is told, too (gRFC A91).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshlib.core.endpoint import Down, Record
from meshlib.core.tallies import Tallies

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.classify import Verdict
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.policy import Outlier

__all__ = ["Ejected", "Ejections", "Spared"]


@dataclass(frozen=True, slots=True)
class Ejected:
    """``method``: the detector; ``reason`` in words; ``seconds``: for how long, before the next sweep, from the call or the sweep
    that ejected it.
    """

    endpoint: LiveEndpoint
    method: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Spared:
    """``method``: the detector that found it; ``reason``: why it stays, by gRFC A91's name."""

    endpoint: LiveEndpoint
    method: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Tripped:
    """A detector that reached its number. ``words``: what it counts; ``enforcing``: the chance in percent that it ejects."""

    method: str
    count: int
    words: str
    enforcing: int


class Ejections:
    """Outlier detection for one cluster. Not thread-safe: its cluster's lock guards it and the endpoints' records.

    Args:
        config: The cluster's.
        random: Gives floats in [0, 1).
        now: Monotonic seconds; the first sweep is an interval later.
    """

    __slots__ = ("_random", "_tallies", "_watched", "config", "ejected", "next_sweep", "spared")

    def __init__(self, config: Outlier, random: Callable[[], float], now: float) -> None:
        self.config = config
        #: How many endpoints are out now.
        self.ejected = 0
        #: When somebody should call :meth:`sweep`.
        self.next_sweep = now + _interval(config)
        #: Who was spared since they were last taken from here.
        self.spared: list[Spared] = []
        self._random = random
        # Endpoints that are out or whose multiplier is above 0: a sweep looks at no other. In order, for repeatability.
        self._watched: dict[LiveEndpoint, Record] = {}
        # The calls of this interval; None where no detector judges them.
        self._tallies = _tallies(config)

    def configure(self, config: Outlier, now: float) -> None:
        """Other settings, the same history; the sweeps that were due are done. A shorter interval holds at once."""
        self.config = config
        self.next_sweep = min(self.next_sweep, now + _interval(config))
        tallies = _tallies(config)
        if tallies is None or self._tallies is None:
            self._tallies = tallies

    def hear(
        self, endpoint: LiveEndpoint, verdict: Verdict, hosts: int, now: float, seconds: float = 0.0
    ) -> Ejected | None:
        """How an attempt on ``endpoint``, one of ``hosts``, went, after so many ``seconds``. Answers the ejection that follows, if any."""
        if verdict.good is None or endpoint.gone:
            return None
        if self._tallies is not None:
            # Of a host that is out too: it may return at the end of the interval, and be judged.
            self._tallies.count(endpoint, verdict, seconds)
        if endpoint.down & Down.EJECTED:
            return None
        record = endpoint.record
        if verdict.good:
            if record is not None:
                record.any_5xx = record.gateway = record.local = 0
            return None
        if record is None:
            record = endpoint.record = Record()
        for found in self._tripped(record, verdict):
            if self._random() * 100.0 >= found.enforcing:
                self._spare(endpoint, found.method, by_chance=True)
            elif not self._room(hosts, grpc=verdict.grpc):
                self._spare(endpoint, found.method, by_chance=False)
            else:
                return self._eject(endpoint, found.method, f"{found.count} {found.words} in a row", now)
        return None

    def sweep(self, now: float, hosts: int) -> list[Ejected | LiveEndpoint]:
        """Do all sweeps that are due, in a cluster of ``hosts``; answers ejections and endpoints that returned, in order for
        each endpoint.
        """
        if now < self.next_sweep:
            return []
        interval = _interval(self.config)
        first = self.next_sweep
        due = int((now - first) // interval) + 1
        self.next_sweep = first + due * interval
        back = self._let_return(first)
        changes: list[Ejected | LiveEndpoint] = [*back, *self._judge(first, hosts)]
        for endpoint, record in list(self._watched.items()):
            healthy = due - 1 if endpoint in back else due
            if endpoint.down & Down.EJECTED:
                # The sweep at which it returns is the first at or after its time; those after it find it in service.
                at = math.ceil((record.until - first) / interval)
                if at >= due:
                    continue
                healthy = due - 1 - at
                self._return(endpoint, record)
                changes.append(endpoint)
            record.multiplier = max(0, record.multiplier - healthy)
            if record.multiplier == 0:
                del self._watched[endpoint]
        return changes

    def left(self, endpoint: LiveEndpoint, now: float) -> float | None:
        """Seconds until ``endpoint`` is back, in the first sweep after its time; None where it is not out."""
        record = endpoint.record
        if record is None or not endpoint.down & Down.EJECTED:
            return None
        interval = _interval(self.config)
        sweeps = max(0, math.ceil((record.until - self.next_sweep) / interval))
        return max(0.0, self.next_sweep + sweeps * interval - now)

    def pardon(self, endpoint: LiveEndpoint) -> bool:
        """A check of its health passed: it returns before its time, where that is wanted; whether it did."""
        record = endpoint.record
        if record is None or not (endpoint.down & Down.EJECTED and self.config.uneject_by_check):
            return False
        self._return(endpoint, record)
        return True

    def forget(self, endpoint: LiveEndpoint) -> None:
        """It left the cluster."""
        if self._tallies is not None:
            self._tallies.forget(endpoint)
        if self._watched.pop(endpoint, None) is not None and endpoint.down & Down.EJECTED:
            self.ejected -= 1

    def clear(self) -> list[LiveEndpoint]:
        """Detection is switched off: all return at once (OD-03), nothing is remembered."""
        returned = []
        for endpoint, record in self._watched.items():
            if endpoint.down & Down.EJECTED:
                self._return(endpoint, record)
                returned.append(endpoint)
            endpoint.record = None
        self._watched.clear()
        return returned

    def _tripped(self, record: Record, verdict: Verdict) -> list[_Tripped]:
        """Count a failure; answers the detectors that reached their number."""
        config = self.config
        if verdict.local and config.split_local_origin:
            record.local += 1
            if 0 < config.consecutive_local_origin <= record.local:
                record.local = 0
                count, enforcing = config.consecutive_local_origin, config.enforcing_local_origin
                return [_Tripped("consecutive_local_origin_failure", count, "local failures", enforcing)]
            return []
        tripped = []
        record.local = 0
        record.gateway = record.gateway + 1 if verdict.gateway else 0
        if 0 < config.consecutive_gateway <= record.gateway:
            record.gateway = 0
            count, enforcing = config.consecutive_gateway, config.enforcing_gateway
            tripped.append(_Tripped("consecutive_gateway_failure", count, "gateway failures", enforcing))
        record.any_5xx += 1
        if 0 < config.consecutive_5xx <= record.any_5xx:
            record.any_5xx = 0
            count, enforcing = config.consecutive_5xx, config.enforcing_5xx
            tripped.append(_Tripped("consecutive_5xx", count, "5xx or lost connections", enforcing))
        return tripped

    def _let_return(self, at: float) -> dict[LiveEndpoint, Record]:
        """The endpoints whose time is over."""
        back = {
            endpoint: record
            for endpoint, record in self._watched.items()
            if endpoint.down & Down.EJECTED and record.until <= at
        }
        for endpoint, record in back.items():
            self._return(endpoint, record)
        return back

    def _judge(self, at: float, hosts: int) -> list[Ejected]:
        """The end of an interval: what its calls say."""
        config, tallies = self.config, self._tallies
        if tallies is None:
            return []
        self._tallies = Tallies()
        ejected = []
        for origin in tallies.origins(config):
            for suspect in tallies.suspects(config, origin):
                endpoint = suspect.endpoint
                if endpoint.down & Down.EJECTED:
                    continue
                if not self._room(hosts, grpc=tallies.grpc):
                    self._spare(endpoint, suspect.method, by_chance=False)
                elif self._random() * 100.0 < suspect.enforcing:
                    ejected.append(self._eject(endpoint, suspect.method, suspect.reason, at))
                else:
                    self._spare(endpoint, suspect.method, by_chance=True)
        return ejected

    def _spare(self, endpoint: LiveEndpoint, method: str, *, by_chance: bool) -> None:
        reason = "enforcement_percentage" if by_chance else "max_ejection_overflow"
        self.spared.append(Spared(endpoint, method, reason))

    def _room(self, hosts: int, *, grpc: bool) -> bool:
        if self.ejected == 0 and self.config.always_eject_one:
            return True
        # Multiplied out, so that 1 of 3 at 33.4 is decided without a rounded quotient.
        most = self.config.max_ejection_percent * hosts
        return 100.0 * self.ejected < most if grpc else 100.0 * (self.ejected + 1) <= most

    def _eject(self, endpoint: LiveEndpoint, method: str, reason: str, now: float) -> Ejected:
        config = self.config
        record = endpoint.record
        if record is None:
            record = endpoint.record = Record()
        longest = max(config.max_ejection, config.base_ejection)
        if record.multiplier * config.base_ejection < longest + config.base_ejection:
            record.multiplier += 1
        seconds = min(config.base_ejection * record.multiplier, longest) + config.jitter * self._random()
        record.until = now + seconds
        endpoint.down |= Down.EJECTED
        self._watched[endpoint] = record
        self.ejected += 1
        return Ejected(endpoint, method, reason, seconds)

    def _return(self, endpoint: LiveEndpoint, record: Record) -> None:
        endpoint.down &= ~Down.EJECTED
        record.any_5xx = record.gateway = record.local = 0
        self.ejected -= 1


def _tallies(config: Outlier) -> Tallies | None:
    detectors = (config.success_rate, config.failure_percentage, config.latency)
    return None if detectors == (None, None, None) else Tallies()


def _interval(config: Outlier) -> float:
    """A value can be made by hand: no interval at all would be a division by nothing."""
    return max(config.interval, 0.001)
