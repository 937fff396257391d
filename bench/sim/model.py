"""Servers as queues, calls that arrive by chance, and a live cluster of meshlib's between them. All of it in virtual time.

A *server* serves ``workers`` calls at a time, first come first served; how long one takes is drawn anew each time (exponential), times
what the server is slow by at that moment. A call waits at most ``timeout``; who gave up is served all the same, as servers do. Nothing
here knows a policy: who is called, whether a call may be made again and who is ejected is what `meshlib.runtime.live.LiveCluster` says.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from meshlib.core.upstream import PickContext, Refusal
from meshlib.model.address import Address
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Assignment, Endpoint, Locality, LocalityEndpoints
from meshlib.model.policy import RetryBudget
from meshlib.runtime.live import LiveCluster
from meshlib.runtime.live_pick import LivePick, LiveRetry

__all__ = ["Server", "Simulation", "quantile"]

_OK = OutcomeKind.OK


@dataclass(slots=True)
class Server:
    """``seconds``: a call takes in the mean; ``slow``: times what, at a point in time; ``came``: when it joined."""

    seconds: float
    workers: int = 8
    slow: Callable[[float], float] = lambda _: 1.0
    came: float = 0.0
    busy: int = 0
    waiting: deque[tuple[Call, int]] = field(default_factory=deque)
    served: int = 0


@dataclass(slots=True)
class Call:
    """One call of a user's, with its attempts."""

    began: float
    attempts: int = 0
    pick: LivePick | None = None
    sent: float = 0.0
    over: bool = False
    permit: LiveRetry | None = None
    number: int = 0  # of the attempt whose answer is waited for


class Simulation:
    """``servers`` behind a cluster with the settings ``fields``; users call ``rate`` times a second, in the mean, or ``rate(now)`` times."""

    def __init__(
        self,
        servers: list[Server],
        rate: Callable[[float], float] | float,
        *,
        seed: int = 1,
        timeout: float = 1.0,
        retries: int = 0,
        budget: RetryBudget | None = None,
        **fields: Any,
    ) -> None:
        self.now = 0.0
        self.servers = servers
        self.latencies: list[tuple[float, float]] = []  # when a good call ended, and what it took
        self.failures: list[float] = []
        self.attempts: list[float] = []
        self._rate = rate if callable(rate) else lambda _: rate
        self._timeout = timeout
        self._retries = retries
        self._budget = budget
        self._fields = fields
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._of = {Address("10.0.0.1", 1 + number): server for number, server in enumerate(servers)}
        self._live = LiveCluster(self._cluster(), self._random.random, lambda _: None, lambda: self.now, 0.0)
        for server in servers:
            if server.came:
                self._at(server.came, lambda: self._live.update(self._cluster(), self.now))

    def run(self, seconds: float) -> Simulation:
        """So many seconds of calls."""
        self._arrive()
        while self._events and self._events[0][0] < seconds:
            self.now, _, event = heapq.heappop(self._events)
            event()
        return self

    def _cluster(self) -> Cluster:
        here = tuple(Endpoint(address) for address, server in self._of.items() if server.came <= self.now)
        assignment = Assignment("sim", (LocalityEndpoints(Locality(), here),))
        return Cluster("sim", assignment=assignment, **self._fields)

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    # --- users

    def _arrive(self) -> None:
        self._at(self.now + self._random.expovariate(self._rate(self.now)), self._arrive)
        if self.now:
            self._attempt(Call(self.now))

    def _attempt(self, call: Call) -> None:
        picked = self._live.pick(PickContext(call.attempts + 1), self.now)
        if isinstance(picked, Refusal):
            self._end(call, good=False)
            return
        call.attempts += 1
        call.number += 1
        call.pick, call.sent = picked, self.now
        self.attempts.append(self.now)
        number = call.number
        self._at(self.now + self._timeout, lambda: self._gave_up(call, number))
        self._send(self._of[picked.endpoint.address], call, number)

    def _gave_up(self, call: Call, number: int) -> None:
        if call.over or call.number != number:
            return
        assert call.pick is not None
        call.number += 1
        call.pick.report(Outcome(OutcomeKind.TIMEOUT, sent=True, seconds=self._timeout), self.now)
        call.pick.release(self.now)
        if call.permit is not None:
            call.permit.release()
            call.permit = None
        if call.attempts <= self._retries:
            call.permit = self._live.begin_retry(self._budget)
            if call.permit is not None:
                self._attempt(call)
                return
        self._end(call, good=False)

    def _answered(self, call: Call, number: int) -> None:
        if call.over or call.number != number:
            return
        assert call.pick is not None
        call.pick.report(Outcome(_OK, status=200, sent=True, seconds=self.now - call.sent), self.now)
        call.pick.release(self.now)
        self._end(call, good=True)

    def _end(self, call: Call, *, good: bool) -> None:
        call.over = True
        if call.permit is not None:
            call.permit.release()
            call.permit = None
        if good:
            self.latencies.append((self.now, self.now - call.began))
        else:
            self.failures.append(self.now)

    # --- servers

    def _send(self, server: Server, call: Call, number: int) -> None:
        server.served += 1
        if server.busy < server.workers:
            self._serve(server, call, number)
        else:
            server.waiting.append((call, number))

    def _serve(self, server: Server, call: Call, number: int) -> None:
        server.busy += 1
        seconds = self._random.expovariate(1.0 / server.seconds) * server.slow(self.now)

        def done() -> None:
            server.busy -= 1
            self._answered(call, number)
            if server.waiting:
                self._serve(server, *server.waiting.popleft())

        self._at(self.now + seconds, done)


def quantile(values: list[float], share: float) -> float:
    """Of the sorted values, the one within which this share is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
