"""Active health checks: an endpoint is asked now and then, and what it says decides whether calls go there.

Theory (Envoy's ``HealthCheckerImplBase``, whose rules these are). A check of an endpoint is asked, and ends good or not; then the next
one waits. What an endpoint is held for changes as follows; *in a row* counts anew whenever one ends the other way.

    held for     a check ends                                      then
    -----------  ------------------------------------------------  ------------------------------------------------
    unchecked    good                                              passing, at once
    unchecked    not good                                          failing, at once
    passing      not good: no answer (no connection, a broken      failing, once there were ``unhealthy`` of them in
                 one, time over), or a status that is retriable    a row
    passing      not good: another answer than a good one          failing, at once
    passing      a call's answer says so                           failing, at once; the next check is asked as before
                 (``x-envoy-immediate-health-check-fail``)
    failing      good                                              passing, once there were ``healthy`` in a row

    (a threshold of 0 is never reached, as in Envoy)

What is unchecked is called or not as its owner says (``Check.failed`` is Envoy's flag, which is set from the beginning). An answer may
be good and *degraded*: that holds until the next good one says otherwise, whatever fails meanwhile.

The wait for the next check is ``interval`` after a good one, ``unhealthy_interval`` after another, and while a change is under way
(some in a row, not enough yet) ``healthy_edge`` and ``unhealthy_edge``. Jitter is added by chance. In Envoy all endpoints of a cluster
that has none are asked at the same moment, for ever: here they drift apart by up to a twentieth.

An endpoint that its failing calls had ejected returns with a good check, if it is held for passing (``unejects``).

Events in, changes out; the time and the randomness are arguments. Not thread-safe: its owner guards it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from meshlib.core.strings import compile_string

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshlib.model.health import HealthCheck, HttpCheck

__all__ = ["LEAST", "Answer", "Check", "Heard", "holds", "judged"]

#: Seconds: nobody is asked more often, whatever is written. Envoy's least is a millisecond, which would be an attack.
LEAST = 0.05
#: Percent of an interval that are added by chance where no jitter is written.
_DRIFT = 5

_DEGRADED = "x-envoy-degraded"
_AT_ONCE = "x-envoy-immediate-health-check-fail"
_CLUSTER = "x-envoy-upstream-healthchecked-cluster"


@dataclass(frozen=True, slots=True)
class Answer:
    """How a check ended, ``words`` for people. Of one that is not good: ``counted``, it only counts in a row; ``late``: its time was
    over; ``excluded``: the endpoint wants to be left out of account.
    """

    good: bool
    words: str
    counted: bool = False
    late: bool = False
    degraded: bool = False
    excluded: bool = False


class _Change(Enum):
    """Envoy's ``HealthTransition``."""

    NONE = "none"
    UNDER_WAY = "under way"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Heard:
    """What followed from an answer. ``changed``: the endpoint is held for something else; ``edge``: from passing to failing or back, or
    its first; ``unejects``: an ejection ends.
    """

    changed: bool
    edge: bool
    unejects: bool


class Check:
    """Of one endpoint.

    Attributes:
        failed: It is held for failing, or is unchecked.
        first: It is unchecked.
        degraded: It said so.
        excluded: It failed at once and wants to be left out of account.
        answer: How the last check ended; None before the first.
        since: When it came to be held for what it is.
        total, good: How many checks ended, and how many well.
    """

    __slots__ = (
        "_failures",
        "_passes",
        "answer",
        "config",
        "degraded",
        "excluded",
        "failed",
        "first",
        "good",
        "since",
        "total",
    )

    def __init__(self, config: HealthCheck, now: float) -> None:
        self.config = config
        self.failed = self.first = True
        self.degraded = self.excluded = False
        self.answer: Answer | None = None
        self.since = now
        self.total = self.good = 0
        self._passes = self._failures = 0

    def before_first(self, random: Callable[[], float]) -> float:
        """Seconds until the first check."""
        return self.config.initial_jitter * random()

    def hear(
        self, answer: Answer, now: float, random: Callable[[], float], *, used: bool
    ) -> tuple[Heard, float]:
        """A check ended: what follows, and in how many seconds the next one is to begin. ``used``: calls use the cluster."""
        heard, change = self._heard(answer, now)
        return heard, self._wait(answer.good, change, random, used=used)

    def fail_now(self, words: str, now: float) -> Heard:
        """A call's answer said that the endpoint is to be held for failing. The next check is due when it was."""
        return self._heard(Answer(good=False, words=words, excluded=True), now)[0]

    def _heard(self, answer: Answer, now: float) -> tuple[Heard, _Change]:
        failed, first, was = self.failed, self.first, (self.degraded, self.excluded)
        change = self._passed(answer) if answer.good else self._missed(answer)
        self.first = False
        self.answer = answer
        self.total += 1
        self.good += answer.good
        edge = first or failed != self.failed
        if edge:
            self.since = now
        changed = edge or was != (self.degraded, self.excluded)
        return Heard(changed, edge, answer.good and not self.failed), change

    def _passed(self, answer: Answer) -> _Change:
        self._failures = 0
        change = _Change.NONE
        if self.failed:
            self._passes += 1
            change = _Change.UNDER_WAY
            if self.first or 0 < self.config.healthy <= self._passes:
                self.failed = self.excluded = False
                change = _Change.DONE
        if answer.degraded != self.degraded:
            self.degraded = answer.degraded
            if change is _Change.NONE:
                change = _Change.DONE
        return change

    def _missed(self, answer: Answer) -> _Change:
        self._passes = 0
        if answer.excluded:
            self.excluded = True
        if self.failed:
            return _Change.NONE
        self._failures += 1
        if answer.counted and not 0 < self.config.unhealthy <= self._failures:
            return _Change.UNDER_WAY
        self.failed = True
        self._failures = 0
        return _Change.DONE

    def _wait(self, good: bool, change: _Change, random: Callable[[], float], *, used: bool) -> float:
        config = self.config
        under_way = change is _Change.UNDER_WAY
        if not used and config.no_traffic is not None:
            base = config.no_traffic
            if good and not under_way and config.no_traffic_healthy is not None:
                base = config.no_traffic_healthy
        elif good:
            base = config.interval
            if under_way and config.healthy_edge is not None:
                base = config.healthy_edge
        else:
            base = config.interval if config.unhealthy_interval is None else config.unhealthy_interval
            if under_way and config.unhealthy_edge is not None:
                base = config.unhealthy_edge
        percent = config.jitter_percent if config.jitter_percent or config.jitter else _DRIFT
        return max(LEAST, base * (1.0 + percent / 100.0 * random()) + config.jitter * random())


def judged(check: HttpCheck, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """What a response says. ``headers``: names in lower case; ``body``: as much of it as the check wants to see. Envoy's order: the
    body, the status, then whose answer it is.
    """
    excluded = _AT_ONCE in headers
    if not holds(check.receive, body):
        return Answer(False, f"status {status} without the body that is expected", excluded=excluded)
    if not _within(status, check.expected):
        retriable = _within(status, check.retriable)
        return Answer(False, f"status {status}", counted=retriable, excluded=excluded)
    if check.service is not None and not compile_string(check.service)(headers.get(_CLUSTER, "")):
        return Answer(False, f"status {status} of another service ({headers.get(_CLUSTER, '')[:80]!r})")
    return Answer(True, f"status {status}", degraded=_DEGRADED in headers)


def holds(parts: tuple[bytes, ...], data: bytes) -> bool:
    """Whether ``data`` has all of ``parts``, each behind the one before."""
    at = 0
    for part in parts:
        found = data.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _within(status: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(start <= status < end for start, end in ranges)
