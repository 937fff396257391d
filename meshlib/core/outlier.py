"""Outlier ejection: a host that fails again and again is left out for a while (Envoy ``OutlierDetection``, OD-01 to OD-06).

Theory. Three detectors count failures in a row: any 5xx, gateway failures (502, 503, 504), and failures of local origin
(no connection, a broken one, time over). Without ``split_local_origin`` the third kind counts as the 503 or 504 that
Envoy would have answered, hence in the first two. A detector that reaches its number starts anew and ejects with its
``enforcing`` chance, if that keeps the share of ejected hosts at or below ``max_ejection_percent``:

    100 × (ejected + 1) / hosts ≤ max_ejection_percent, or nobody is ejected and ``always_eject_one``

That is Envoy's rule: of five hosts none is ejected at the default of 10 %, one at 20 %. gRPC's (OD-04) would let one go
in any case; a configuration that wants that sets ``always_eject_one``.

An ejection lasts ``base_ejection`` times the host's multiplier, at most ``max_ejection``, plus jitter. The multiplier
grows by one with each ejection and falls by one with each sweep that finds the host in service. Hosts return in the
first sweep after their time is over. Sweeps happen each ``interval``; nobody waits for them: the first call after one
was due does it, and all that were due since give the same result as if they had been done in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshlib.core.endpoint import Down, Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.classify import Verdict
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.policy import Outlier

__all__ = ["Ejected", "Ejections"]


@dataclass(frozen=True, slots=True)
class Ejected:
    """``reason`` in words; ``seconds``: for how long, before the next sweep."""

    endpoint: LiveEndpoint
    reason: str
    seconds: float


class Ejections:
    """Outlier detection for one cluster. Not thread-safe: its cluster's lock guards it and the endpoints' records.

    Args:
        config: The cluster's.
        random: Gives floats in [0, 1).
        now: Monotonic seconds; the first sweep is an interval later.
    """

    __slots__ = ("_random", "_watched", "config", "ejected", "next_sweep")

    def __init__(self, config: Outlier, random: Callable[[], float], now: float) -> None:
        self.config = config
        #: How many endpoints are out now.
        self.ejected = 0
        #: When somebody should call :meth:`sweep`.
        self.next_sweep = now + _interval(config)
        self._random = random
        # Endpoints that are out or whose multiplier is above 0: a sweep looks at no other. In order, for repeatability.
        self._watched: dict[LiveEndpoint, Record] = {}

    def configure(self, config: Outlier, now: float) -> None:
        """Other settings, the same history. A shorter interval holds at once."""
        self.config = config
        self.next_sweep = min(self.next_sweep, now + _interval(config))

    def hear(self, endpoint: LiveEndpoint, verdict: Verdict, hosts: int, now: float) -> Ejected | None:
        """How an attempt on ``endpoint``, one of ``hosts``, went. Answers the ejection that follows, if any."""
        if verdict.good is None or endpoint.down & Down.EJECTED or endpoint.gone:
            return None
        record = endpoint.record
        if verdict.good:
            if record is not None:
                record.any_5xx = record.gateway = record.local = 0
            return None
        if record is None:
            record = endpoint.record = Record()
        for count, name, enforcing in self._tripped(record, verdict):
            if self._random() * 100.0 < enforcing and self._room(hosts):
                return self._eject(endpoint, record, f"{count} {name} in a row", now)
        return None

    def sweep(self, now: float) -> list[LiveEndpoint]:
        """Do all sweeps that are due; answers the endpoints that returned."""
        if now < self.next_sweep:
            return []
        interval = _interval(self.config)
        first = self.next_sweep
        due = int((now - first) // interval) + 1
        self.next_sweep = first + due * interval
        returned = []
        for endpoint, record in list(self._watched.items()):
            healthy = due
            if endpoint.down & Down.EJECTED:
                # The sweep at which it returns is the first at or after its time; those after it find it in service.
                at = max(0, math.ceil((record.until - first) / interval))
                if at >= due:
                    continue
                healthy = due - 1 - at
                self._return(endpoint, record)
                returned.append(endpoint)
            record.multiplier = max(0, record.multiplier - healthy)
            if record.multiplier == 0:
                del self._watched[endpoint]
        return returned

    def left(self, endpoint: LiveEndpoint, now: float) -> float | None:
        """Seconds until ``endpoint`` is back, in the first sweep after its time; None where it is not out."""
        record = endpoint.record
        if record is None or not endpoint.down & Down.EJECTED:
            return None
        interval = _interval(self.config)
        sweeps = max(0, math.ceil((record.until - self.next_sweep) / interval))
        return max(0.0, self.next_sweep + sweeps * interval - now)

    def forget(self, endpoint: LiveEndpoint) -> None:
        """It left the cluster."""
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

    def _tripped(self, record: Record, verdict: Verdict) -> list[tuple[int, str, int]]:
        """Count a failure; answers the detectors that reached their number: it, what it counts, its enforcing share."""
        config = self.config
        if verdict.local and config.split_local_origin:
            record.local += 1
            if 0 < config.consecutive_local_origin <= record.local:
                record.local = 0
                return [(config.consecutive_local_origin, "local failures", config.enforcing_local_origin)]
            return []
        tripped = []
        record.local = 0
        record.gateway = record.gateway + 1 if verdict.gateway else 0
        if 0 < config.consecutive_gateway <= record.gateway:
            record.gateway = 0
            tripped.append((config.consecutive_gateway, "gateway failures", config.enforcing_gateway))
        record.any_5xx += 1
        if 0 < config.consecutive_5xx <= record.any_5xx:
            record.any_5xx = 0
            tripped.append((config.consecutive_5xx, "5xx or lost connections", config.enforcing_5xx))
        return tripped

    def _room(self, hosts: int) -> bool:
        if self.ejected == 0 and self.config.always_eject_one:
            return True
        # Multiplied out, so that 1 of 3 at 33.4 is decided without a rounded quotient.
        return 100.0 * (self.ejected + 1) <= self.config.max_ejection_percent * hosts

    def _eject(self, endpoint: LiveEndpoint, record: Record, reason: str, now: float) -> Ejected:
        config = self.config
        longest = max(config.max_ejection, config.base_ejection)
        if record.multiplier * config.base_ejection < longest + config.base_ejection:
            record.multiplier += 1
        seconds = min(config.base_ejection * record.multiplier, longest) + config.jitter * self._random()
        record.until = now + seconds
        endpoint.down |= Down.EJECTED
        self._watched[endpoint] = record
        self.ejected += 1
        return Ejected(endpoint, reason, seconds)

    def _return(self, endpoint: LiveEndpoint, record: Record) -> None:
        endpoint.down &= ~Down.EJECTED
        record.any_5xx = record.gateway = record.local = 0
        self.ejected -= 1


def _interval(config: Outlier) -> float:
    """A value can be made by hand: no interval at all would be a division by nothing."""
    return max(config.interval, 0.001)
