"""The calls of one interval by endpoint, and whom they single out: success rate and failure percentage (OD-01, OD-02).

Theory. Between two sweeps the attempts on each endpoint are counted: answered, answered badly, not answered. At the sweep
these counts are judged, and the next interval starts from nothing. An endpoint with fewer attempts than the detector's
``request_volume`` is not looked at, and where fewer than ``minimum_hosts`` are left nobody is. Of those

- success rate finds whose share of good attempts is below ``mean - stdev_factor × stdev``: mean and standard deviation (the
  population's) of these shares, each endpoint counted once however many attempts it had;
- failure percentage finds of whose attempts ``threshold`` percent failed;
- latency, which is ours, finds whose answers took in the mean more than ``factor`` times as long as the others': as the median of the
  means of all others that had enough.

An attempt that was not answered failed. With ``split_local_origin`` there are two judgements instead of one: the answered
attempts by themselves, and then all of them with only those that were not answered as failures. An attempt whose body
broke off after its head counts twice, as in Envoy: as an answer, and as one that was not answered.

gRPC (A50) has the same two detectors. There every code but OK is a failure, a host has to be above the threshold and not
at it, and local origin is never apart (OD-04, OD-05, DV-05). A cluster does not know which kind of call it gets; the calls
say it: an interval that had one of gRPC's is judged by gRPC's rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshlib.core.classify import Verdict
    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.model.policy import FailurePercentage, Outlier, SlowOutlier, SuccessRate

__all__ = ["Origin", "Suspect", "Tallies"]

#: Shares that differ by less are equal: the mean of equal floats need not be the same float.
_SAME = 1e-9


class Origin(Enum):
    """The failures that one judgement is about."""

    ANY = "any"
    EXTERNAL = "external"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Suspect:
    """An endpoint that a detector, ``method``, found, ``reason`` in words, and the chance in percent that it is ejected."""

    endpoint: LiveEndpoint
    method: str
    reason: str
    enforcing: int


@dataclass(frozen=True, slots=True)
class _Share:
    endpoint: LiveEndpoint
    attempts: int
    failed: int


class _Tally:
    __slots__ = ("answered", "bad", "local", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0  # of the answered, together
        self.answered = 0
        self.bad = 0  # of the answered
        self.local = 0


class Tallies:
    """The counts of one interval. Not thread-safe: guarded as the ejections that own it."""

    __slots__ = ("_tallies", "grpc")

    def __init__(self) -> None:
        #: Whether one of the attempts was a gRPC call's.
        self.grpc = False
        self._tallies: dict[LiveEndpoint, _Tally] = {}

    def count(self, endpoint: LiveEndpoint, verdict: Verdict, seconds: float = 0.0) -> None:
        """``verdict`` says good or bad, after so many ``seconds``."""
        tally = self._tallies.get(endpoint)
        if tally is None:
            tally = self._tallies[endpoint] = _Tally()
        if verdict.grpc:
            self.grpc = True
        if verdict.local:
            tally.local += 1
            return
        tally.answered += 1
        tally.seconds += seconds
        if verdict.status != 200 if verdict.grpc else not verdict.good:
            tally.bad += 1

    def forget(self, endpoint: LiveEndpoint) -> None:
        """It left the cluster."""
        self._tallies.pop(endpoint, None)

    def origins(self, config: Outlier) -> tuple[Origin, ...]:
        """The judgements to make, in order."""
        return (
            (Origin.EXTERNAL, Origin.LOCAL) if config.split_local_origin and not self.grpc else (Origin.ANY,)
        )

    def suspects(self, config: Outlier, origin: Origin) -> list[Suspect]:
        """Whom the detectors find among the endpoints that are not ejected now, the worst first. One may be there twice."""
        shares = self._shares(origin)
        found = []
        if config.success_rate is not None:
            found += _by_success_rate(shares, config.success_rate, origin)
        if config.failure_percentage is not None:
            found += _by_failure_percentage(shares, config.failure_percentage, origin, above=self.grpc)
        if config.latency is not None and origin is not Origin.LOCAL:
            found += self._slow(config.latency)
        return found

    def _slow(self, config: SlowOutlier) -> list[Suspect]:
        """The slowest first."""
        means = [
            (tally.seconds / tally.answered, endpoint)
            for endpoint, tally in self._tallies.items()
            if tally.answered >= max(1, config.request_volume) and not endpoint.ejected
        ]
        if len(means) < 2:
            return []
        means.sort(key=lambda item: -item[0])
        values = [mean for mean, _ in means]
        found = []
        for index, (mean, endpoint) in enumerate(means):
            usual = _median_without(values, index)
            if not mean > config.factor * usual > 0.0:
                break
            words = f"latency: {mean:.3g} s in the mean, the others {usual:.3g} s"
            found.append(Suspect(endpoint, "latency", words, 100))
        return found

    def _shares(self, origin: Origin) -> list[_Share]:
        """The worst first; who had most attempts is the worst of equals."""
        shares = []
        for endpoint, tally in self._tallies.items():
            attempts = tally.answered if origin is Origin.EXTERNAL else tally.answered + tally.local
            failed = 0 if origin is Origin.LOCAL else tally.bad
            if origin is not Origin.EXTERNAL:
                failed += tally.local
            if attempts and not endpoint.ejected:
                shares.append(_Share(endpoint, attempts, failed))
        shares.sort(key=lambda share: (-share.failed / share.attempts, -share.attempts))
        return shares


def _median_without(ordered: Sequence[float], index: int) -> float:
    """The median of all but the one at ``index``, of two or more."""
    count = len(ordered) - 1
    low, high = (count - 1) // 2, count // 2
    return (ordered[low + (low >= index)] + ordered[high + (high >= index)]) / 2.0


def _by_success_rate(shares: Sequence[_Share], config: SuccessRate, origin: Origin) -> list[Suspect]:
    shares = [share for share in shares if share.attempts >= config.request_volume]
    if not shares or len(shares) < config.minimum_hosts:
        return []
    rates = [1.0 - share.failed / share.attempts for share in shares]
    mean = math.fsum(rates) / len(rates)
    stdev = math.sqrt(math.fsum((rate - mean) ** 2 for rate in rates) / len(rates))
    bound = mean - config.stdev_factor * stdev - _SAME
    return [
        _suspect(share, config, origin, "success rate", f"{rate:.1%}, the mean is {mean:.1%}")
        for share, rate in zip(shares, rates, strict=True)
        if rate < bound
    ]


def _by_failure_percentage(
    shares: Sequence[_Share], config: FailurePercentage, origin: Origin, *, above: bool
) -> list[Suspect]:
    """``above``: the threshold itself is not enough."""
    shares = [share for share in shares if share.attempts >= config.request_volume]
    if len(shares) < config.minimum_hosts:
        return []
    found = []
    for share in shares:
        # Multiplied out, so that what is exactly at the threshold is.
        percent, threshold = 100.0 * share.failed, config.threshold * share.attempts
        if percent > threshold or (percent == threshold and not above):
            words = f"{share.failed} of {share.attempts}"
            found.append(_suspect(share, config, origin, "failure percentage", words))
    return found


def _suspect(
    share: _Share, config: SuccessRate | FailurePercentage, origin: Origin, name: str, words: str
) -> Suspect:
    method, reason = name.replace(" ", "_"), f"{name}: {words}"
    if origin is Origin.LOCAL:
        method, reason = f"{method}_local_origin", f"local {reason}"
        return Suspect(share.endpoint, method, reason, config.enforcing_local_origin)
    return Suspect(share.endpoint, method, reason, config.enforcing)
