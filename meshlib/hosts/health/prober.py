"""The thread that asks: one for all clusters of a process, however many endpoints they have.

Theory. It waits for three things at once: descriptors of checks that are under way, the time at which the next one begins or is over,
and commands of others (a cluster begins, has other endpoints, ends), which ring by a pipe. A check is a generator of steps
(:mod:`meshlib.hosts.health.flows`) and runs until it would wait; so no endpoint holds up another, and at most ``MOST`` are asked at a
time: others that are due wait for their turn, and their time begins then.

    resting ──due, a turn──► asked ──an answer, or time is over──► resting
       any ──its endpoint, its cluster or the mesh is gone──► dropped

Connections are kept between checks, ``KEPT`` of them at most, so that a process with thousands of endpoints has descriptors left.
Names are resolved by a thread of their own, which lives while there is something to resolve: the system's resolver blocks.

The thread begins with the first cluster and ends with the last. ``_lock`` guards that, and the commands; it is held for no longer than
that takes. What it does otherwise it does alone. On a clock that somebody else moves it asks for alarms, as the worker does.

Under gevent it is a greenlet, and its ``poll`` gevent's.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import select
import socket
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from meshlib.core.health import LEAST, Answer
from meshlib.errors import ConfigError
from meshlib.hosts.health.asking import asking, cannot
from meshlib.hosts.health.flows import Line, Names, Wait, ask
from meshlib.hosts.tls import rotations
from meshlib.runtime import threads
from meshlib.runtime.process import Local
from meshlib.wire.dial import interleave
from meshlib.wire.readable import waiting_poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.health import Check
    from meshlib.hosts.health.flows import Asking, Steps
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.live_health import LiveHealth
    from meshlib.runtime.worker import Worker

__all__ = ["KEPT", "MOST", "Prober", "prober_of"]

#: Checks under way at a time.
MOST = 100
#: Connections kept between checks.
KEPT = 128
#: Seconds: waits are no longer than that, so that no system's bound is met.
_LONG = 3600.0

_log = logging.getLogger("meshlib")


class _Target:
    """One endpoint."""

    __slots__ = (
        "asking",
        "check",
        "descriptor",
        "due",
        "endpoint",
        "gone",
        "health",
        "kept",
        "known",
        "line",
        "steps",
        "until",
    )

    def __init__(self, health: LiveHealth, endpoint: LiveEndpoint, check: Check) -> None:
        self.health = health
        self.endpoint = endpoint
        self.check = check
        self.line = Line()
        self.steps: Steps | None = None
        self.due = 0.0
        self.until = 0.0
        self.descriptor = -1
        self.kept = self.gone = False
        self.asking: Asking | None = None
        self.known: tuple[Any, ...] = ()


class Prober:
    """See the module. ``begin``, ``look``, ``end`` and ``settle`` may be called by any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._commands: deque[Callable[[], object]] = deque()
        self._bell = -1  # the writing end of the pipe; -1: no thread listens
        # The thread's own.
        self._workers: dict[LiveHealth, Worker] = {}
        self._targets: dict[LiveHealth, dict[LiveEndpoint, _Target]] = {}
        self._order = itertools.count()
        self._due: list[tuple[float, int, _Target]] = []
        self._waiting: deque[_Target] = deque()  # due, without a turn
        self._asked: dict[_Target, None] = {}
        self._by_descriptor: dict[int, _Target] = {}
        self._kept = 0
        self._resolver = _Resolver()
        self._poll: Any = None
        self._alarm: tuple[float, Callable[[], bool]] | None = None

    # --- others -----------------------------------------------------------------------------------------------------

    def begin(self, health: LiveHealth, worker: Worker) -> None:
        self._post(partial(self._begin, health, worker), start=True)

    def look(self, health: LiveHealth) -> None:
        self._post(partial(self._look, health))

    def end(self, health: LiveHealth) -> None:
        self._post(partial(self._end, health))

    def settle(self, timeout: float) -> bool:
        with self._lock:
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        return threads.join(thread, timeout)

    def _post(self, command: Callable[[], object], *, start: bool = False) -> None:
        with self._lock:
            if self._thread is None and not start:
                return
            self._commands.append(command)
            if self._thread is None:
                listening, self._bell = _pipe()
                self._thread = threading.Thread(
                    target=self._run, args=(listening,), name="meshlib-health", daemon=True
                )
                threads.start(self._thread)
            else:
                self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # it is full, or nobody listens any more
            os.write(self._bell, b"\0")

    def _rung(self) -> None:
        with self._lock:
            if self._thread is not None:
                self._ring()

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self, listening: int) -> None:
        self._poll = waiting_poll()
        self._poll.register(listening, select.POLLIN)
        try:
            while self._turn(listening):
                pass
        finally:
            with self._lock:  # an interpreter that ends, or a mistake of ours
                if self._thread is threading.current_thread():
                    self._leave()
            os.close(listening)

    def _turn(self, listening: int) -> bool:
        """One round; whether there is another."""
        while True:
            with self._lock:
                command = self._commands.popleft() if self._commands else None
                if command is None and not self._targets:
                    self._leave()
                    return False
            if command is None:
                break
            self._guarded(command)
        now = self._clock.now()
        self._take_turns(now)
        self._expire(now)
        self._settle()
        for descriptor, _ in self._wait():
            if descriptor == listening:
                with contextlib.suppress(BlockingIOError):
                    os.read(listening, 4096)
            else:
                target = self._by_descriptor.get(descriptor)
                if target is not None:
                    self._guarded(partial(self._step, target, None))
        self._settle()
        return True

    def _leave(self) -> None:
        """Under the lock: whoever comes next begins another thread."""
        self._thread = None
        bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)
        if self._alarm is not None:
            self._alarm[1]()
            self._alarm = None

    def _guarded(self, command: Callable[[], object]) -> None:
        try:
            command()
        except Exception:  # noqa: BLE001 - logged here; other endpoints are still to be asked
            _log.exception("meshlib: a health check failed to be made: %r", command)

    def _wait(self) -> list[tuple[int, int]]:
        if self._commands:
            return self._polled(0.0)
        ends = [target.until for target in self._asked]
        while self._due and (self._due[0][2].gone or self._due[0][2].due != self._due[0][0]):
            heapq.heappop(self._due)
        if self._due:
            ends.append(self._due[0][0])
        if not ends:
            return self._polled(_LONG)
        when = min(ends)
        if not self._clock.virtual:
            return self._polled(when - self._clock.now())
        if self._alarm is None or self._alarm[0] != when:
            if self._alarm is not None:
                self._alarm[1]()
            self._alarm = (when, self._clock.alarm(when, self._rung))
        return self._polled(0.0 if when <= self._clock.now() else _LONG)

    def _polled(self, seconds: float) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = self._poll.poll(max(0.0, min(seconds, _LONG)) * 1000.0)
        return found

    # --- clusters ---------------------------------------------------------------------------------------------------

    def _begin(self, health: LiveHealth, worker: Worker) -> None:
        words = cannot(health.cluster)
        if words:
            _log.warning("meshlib: cluster %s: %s; its endpoints are not checked", health.cluster.name, words)
            return
        self._workers[health] = worker
        self._targets.setdefault(health, {})
        self._look(health)

    def _look(self, health: LiveHealth) -> None:
        targets = self._targets.get(health)
        if targets is None:
            return
        now = self._clock.now()
        members = dict(health.members(now))
        for endpoint in [endpoint for endpoint in targets if endpoint not in members]:
            self._drop(targets.pop(endpoint))
        random = health.upstream._random
        for endpoint, check in members.items():
            target = targets.get(endpoint)
            if target is not None and target.check is check:
                continue
            if target is not None:
                self._drop(target)
            target = targets[endpoint] = _Target(health, endpoint, check)
            self._rest(target, now + (check.before_first(random) if check.first else 0.0))

    def _end(self, health: LiveHealth) -> None:
        for target in self._targets.pop(health, {}).values():
            self._drop(target)
        self._workers.pop(health, None)

    def _drop(self, target: _Target) -> None:
        target.gone = True
        self._give_up(target)
        self._unkeep(target)
        target.line.close()

    def _settle(self) -> None:
        for health in self._targets:
            health.settle()

    # --- one endpoint -------------------------------------------------------------------------------------------------

    def _rest(self, target: _Target, due: float) -> None:
        target.due = due
        heapq.heappush(self._due, (due, next(self._order), target))

    def _take_turns(self, now: float) -> None:
        due = self._due
        while due and due[0][0] <= now:
            when, _, target = heapq.heappop(due)
            if not target.gone and target.due == when:
                self._waiting.append(target)
        while self._waiting and len(self._asked) < MOST:
            target = self._waiting.popleft()
            if not target.gone:
                self._guarded(partial(self._ask, target, now))

    def _ask(self, target: _Target, now: float) -> None:
        config = target.check.config
        target.due = -1.0
        target.until = now + config.timeout
        self._unkeep(target)
        try:
            asked = self._asking(target)
        except ConfigError as error:
            self._heard(target, Answer(False, str(error), counted=True))
            return
        except Exception:  # noqa: BLE001 - logged there
            self._mishap(target)
            return
        target.steps = ask(target.line, asked)
        self._asked[target] = None
        self._step(target, None)

    def _asking(self, target: _Target) -> Asking:
        """What is asked, made anew where something that it is of has changed, or may be another each time."""
        endpoint, health, config = target.endpoint, target.health, target.check.config
        known = (health.cluster, endpoint.endpoint, endpoint.tls, config, rotations.count)
        made = target.asking
        if made is None or any(one is not other for one, other in zip(known, target.known, strict=True)):
            worker = self._workers[health]
            made = target.asking = asking(health.upstream, endpoint, config, worker)
            target.known = known
        return made

    def _step(self, target: _Target, sent: Any) -> None:
        steps = target.steps
        if steps is None:
            return
        self._unwatch(target)
        try:
            wait = steps.send(sent)
        except StopIteration as ended:
            target.steps = None
            self._heard(target, ended.value)
            return
        except Exception:  # noqa: BLE001 - logged there
            self._mishap(target)
            return
        if isinstance(wait, Wait):
            target.descriptor = wait.descriptor
            self._by_descriptor[wait.descriptor] = target
            self._poll.register(wait.descriptor, wait.events)
        else:
            self._resolver.ask(wait, partial(self._resolved, target, steps))

    def _resolved(self, target: _Target, steps: Steps, found: Any) -> None:
        """In the resolver's thread."""
        self._post(lambda: self._step(target, found) if target.steps is steps else None)

    def _expire(self, now: float) -> None:
        for target in [target for target in self._asked if target.until <= now]:
            self._give_up(target)
            seconds = target.check.config.timeout
            self._heard(target, Answer(False, f"no answer in {seconds:g} s", counted=True, late=True))

    def _heard(self, target: _Target, answer: Answer) -> None:
        self._asked.pop(target, None)
        self._unwatch(target)
        if target.gone:
            return
        if target.line.open:
            if self._kept < KEPT:
                self._kept += 1
                target.kept = True
            else:
                target.line.close()
        now = self._clock.now()
        self._rest(target, now + target.health.hear(target.endpoint, answer, now))

    def _mishap(self, target: _Target) -> None:
        """A mistake of ours, which says nothing of the endpoint."""
        _log.exception("meshlib: %s could not be asked for its health", target.endpoint.name)
        self._give_up(target)
        target.line.close()
        self._rest(target, self._clock.now() + max(LEAST, target.check.config.interval))

    def _give_up(self, target: _Target) -> None:
        self._asked.pop(target, None)
        self._unwatch(target)
        steps, target.steps = target.steps, None
        if steps is not None:
            steps.close()

    def _unwatch(self, target: _Target) -> None:
        descriptor, target.descriptor = target.descriptor, -1
        if descriptor >= 0:
            del self._by_descriptor[descriptor]
            self._poll.unregister(descriptor)

    def _unkeep(self, target: _Target) -> None:
        if target.kept:
            target.kept = False
            self._kept -= 1


class _Resolver:
    """Asks the system for addresses of names, on a thread that lives while there is something to ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both
        self._wanted: deque[tuple[Names, Callable[[Any], object]]] = deque()
        self._runs = False

    def ask(self, names: Names, told: Callable[[Any], object]) -> None:
        with self._lock:
            self._wanted.append((names, told))
            if self._runs:
                return
            self._runs = True
        threads.start(threading.Thread(target=self._run, name="meshlib-health-names", daemon=True))

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._runs = False
                    return
                names, told = self._wanted.popleft()
            try:
                found = socket.getaddrinfo(names.host, names.port, type=socket.SOCK_STREAM)
                told(interleave((family, address) for family, _, _, _, address in found))
            except (OSError, UnicodeError) as error:
                told(error if isinstance(error, OSError) else OSError(str(error)))


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    return reading, writing


class _Here:
    """One process's probers: of the system's clock, and of each that a test moves."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.system: Prober | None = None


_here = Local(_Here)


def prober_of(clock: Clock) -> Prober:
    """The process's; one of its own for a clock that somebody else moves."""
    if clock.virtual:
        return Prober(clock)
    here = _here.get()
    with here.lock:
        if here.system is None:
            here.system = Prober(clock)
        return here.system
