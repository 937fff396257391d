"""Everything of one mesh that lives in one process: what transports see of it.

A transport asks ``mesh._runtime()`` at each call; it gets this object, the same for as long as the process lives. What a
request reads (``view``, ``clusters``, ``env``) takes no lock. Sources write through the worker, one thread.
"""

from __future__ import annotations

import hashlib
import logging
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Protocol

from meshlib.core.effects import Env
from meshlib.core.resolution import Resolution
from meshlib.core.resolve import compile_view
from meshlib.core.tokens import NO_TOKENS
from meshlib.inbound import DEADLINES
from meshlib.model.endpoint import NOWHERE, Locality
from meshlib.model.events import ConfigurationChanged, SourceChanged, Unanswered
from meshlib.model.snapshot import EMPTY, Part, Snapshot
from meshlib.runtime import greenlets, threads, usage
from meshlib.runtime.adoption import Tallies, literal
from meshlib.runtime.checks import Checks, Prober
from meshlib.runtime.clusters import Clusters, tell_all
from meshlib.runtime.interest import Interest
from meshlib.runtime.known import Known
from meshlib.runtime.limiter import LocalLimits
from meshlib.runtime.live_route import LiveRoutes
from meshlib.runtime.services import Services
from meshlib.runtime.sessions import Sessions
from meshlib.runtime.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.config import Config
    from meshlib.core.effects import Call
    from meshlib.core.exchange import Place
    from meshlib.core.resolve import Rules, View
    from meshlib.core.tokens import Tokens
    from meshlib.model.call import Outcome
    from meshlib.model.events import Event
    from meshlib.model.status import (
        ClusterStatus,
        IdentityStatus,
        SidecarStatus,
        SourceStatus,
        XdsClientStatus,
    )
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.protocols import Resting, Workers
    from meshlib.runtime.worker import Timer

__all__ = ["Feed", "Resting", "Runtime", "Workers"]

#: Seconds between looks for what is not used any more.
SWEEP = 15.0
#: Seconds after a sidecar's start window in which it is said what became of it.
_VERDICT = 1.0

LATE = (
    "meshlib: gevent has patched this process after calls of the mesh were made: locks of before block every greenlet. "
    "Remedy: call gevent.monkey.patch_all() before anything else is imported"
)

_log = logging.getLogger("meshlib")


class Feed(Protocol):
    """The sources of a mesh, as one (:class:`meshlib.sources.merge.Merge`). Started and stopped any number of times;
    ``open``, ``start``, ``stop``, ``want`` and ``forget`` are called by the writer, the others by any thread.
    """

    def open(self, runtime: Runtime, inherited: tuple[Part, ...]) -> tuple[Part, ...]:
        """What is there at once, without waiting for anybody; where a source has to ask first, what a parent process
        left of it. Raises ConfigError. Called once, before ``start``.
        """
        ...

    def start(self) -> None:
        """Begin to watch, resolve and stream."""
        ...

    def stop(self) -> None:
        """End all threads, timers and channels. What was published stays in force."""
        ...

    def want(self, name: str, authority: str) -> None:
        """Ask for a resource of the target view."""
        ...

    def forget(self, name: str) -> None:
        """Ask for it no more."""
        ...

    def statuses(self) -> tuple[SourceStatus, ...]: ...

    def xds_clients(self) -> tuple[XdsClientStatus, ...]: ...

    def pending(self, name: str) -> str:
        """What the target resource ``name`` still lacks, in words; ``""`` where that is not known here."""
        ...

    def awaits(self, source: str, cluster: str) -> str:
        """What a cluster that may yet come waits for, in words that can follow "which"."""
        ...

    def suspect(self) -> None:
        """The sidecar did not carry a call: look at it again. Called by any thread."""
        ...

    def only_look(self) -> None:
        """Nothing outside of this process is written from now on."""
        ...

    def sidecar(self, now: float) -> SidecarStatus:
        """What is known of the sidecar."""
        ...

    def identities(self) -> tuple[IdentityStatus, ...]:
        """Of each that gives the process an identity."""
        ...

    @property
    def grows(self) -> bool:
        """Whether what is not known yet may come by itself: there is a control plane, or a file that is watched."""
        ...

    @property
    def streaming(self) -> bool: ...

    @property
    def refusal(self) -> str:
        """Why the control plane cannot be used at all in this process, in words with the remedy; ``""``: it can."""
        ...


class Runtime:
    """One mesh in one process. Thread-safe unless a method says otherwise.

    Attributes:
        config: The configuration as it is now.
        store: Holds the view; ``store.on_change`` and ``store.wait`` tell of changes.
        clusters: The live clusters.
        routes: The live routes: those that have limits of their own.
        clock: Monotonic time.
        random: Floats in [0, 1), seeded by ``config.seed``.
        env: What a plan asks of its surroundings.
        worker: The thread that runs sources and timers.
        observers: Who is told of events.
        services: Those of its clusters that it asks for itself.
        tallies: What calls of services that have not joined would have got.
        env.emit: None as long as nobody asked for the events of calls, so that a call pays nothing for them.
    """

    def __init__(
        self,
        config: Config,
        rules: Rules,
        feed: Feed,
        *,
        clock: Clock,
        workers: Workers,
        inherited: Runtime | None = None,
        observers: tuple[Callable[[Event], None], ...] = (),
        watchers: tuple[Callable[[Event], None], ...] = (),
        tokens: Tokens = NO_TOKENS,
        locality: Locality = NOWHERE,
        prober: Callable[[Clock], Prober] | None = None,
    ) -> None:
        self.config = config
        self.tokens = tokens
        self.clock = clock
        self.random: Callable[[], float] = random.Random(config.seed).random
        self._give_way = threads.GiveWay()
        self.checks = Checks(clock, prober)
        self.clusters = Clusters(clock, self.random, self._give_way, locality, self.checks)
        self.tallies = Tallies()
        self.observers: tuple[Callable[[Event], None], ...] = ()
        self._of_calls: tuple[Callable[[Event], None], ...] = ()
        self._resting: Known[Resting] = Known()
        # By it all processes of a node are alike, as calls that come from one address are.
        node = (config.node.id or socket.gethostname()).encode("utf-8", "surrogatepass")
        own = int.from_bytes(hashlib.blake2b(node, digest_size=8).digest())
        self.sessions: Sessions = Sessions(inherited.sessions if inherited else None)
        self.routes = LiveRoutes(clock, self.clusters.tell)
        env = self.env = Env(self.clusters.upstream, self.random, clock.wall, awaits=feed.awaits, own=own)
        env.limits, env.sessions, env.delays = self.routes.of, self.sessions, self.clusters.delays
        env.deadlines = tuple(DEADLINES[name] for name in config.deadline_headers)
        env.buckets, env.cluster = LocalLimits(), config.node.cluster or ""
        self.mirror: Callable[..., object] = lambda *_: None  # has a call sent elsewhere, too
        self.feed = feed
        self.interest: Interest = inherited.interest.copy(clock.now()) if inherited else Interest()
        self._rules = rules
        self._workers = workers
        self.services = Services()
        self._lock = threading.Lock()  # guards _timer, running, closed, and who observes
        self._timer: Timer | None = None
        self._began = clock.now()
        self.running = self.closed = self._told_late = False
        self._green = greenlets.patched("threading")
        snapshot, previous = (inherited.store.snapshot, inherited.store.view) if inherited else (EMPTY, None)
        self.store: Store = Store(self._compile, self.clusters.reconcile, clock, snapshot, previous)
        for watcher in watchers:
            self.observe(watcher, calls=False)
        for observer in observers:
            self.observe(observer)
        self.worker = workers.acquire()
        try:
            self.store.publish(feed.open(self, snapshot.parts))
        except BaseException:  # a greenlet may be killed wherever others run
            workers.release(self.worker)
            raise
        self._go()

    # --- what a call reads --------------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The configuration in force; a call reads it once."""
        return self.store.view

    @property
    def patched_late(self) -> bool:
        """Whether gevent patched the process after this runtime was made."""
        return not self._green and greenlets.patched("threading")

    def want(self, name: str, authority: str = "") -> None:
        """The target resource ``name`` is used: it is asked for, and kept while it is used. Never blocks."""
        if not name or self.interest.touch(name):
            return
        new, dropped = self.interest.add(name, authority, self.clock.now())
        if new:
            self.worker.post(lambda: self._want(name, authority, dropped))

    def patience(self, resolution: Resolution, timeout: float) -> float:
        """How many seconds a call whose connect timeout is ``timeout`` may still wait for another answer.

        Where it would go directly in the end, the time since the name was first wanted counts, so that a control plane
        that does not answer delays a host once and not each call.
        """
        if resolution.handed is not None:
            window = self.config.sidecar.start_window + _VERDICT
            return max(0.0, resolution.handed.since + window - self.clock.now())
        if not resolution.open or self.feed.refusal:
            return 0.0
        if resolution.otherwise is not None and resolution.otherwise.via == "failed":
            return timeout
        name = resolution.name
        wanted = self.interest.get(name)
        # Without a name the listeners of a sidecar view are waited for, and they were first wanted when this began.
        since = wanted.since if wanted is not None else self._began if not name else self.clock.now()
        return max(0.0, since + timeout - self.clock.now())

    def wait_known(
        self, scheme: str, host: str, port: int | None, authority: str, timeout: float
    ) -> Resolution:
        """Resolve, and where that says "wait", wait at most ``timeout`` seconds (the call's connect timeout) for the
        control plane. The result is what holds for this call, and never says "wait". Not for event loops.
        """
        place = (scheme, host, port, authority)
        resolution = self.store.view.resolve(*place)
        if resolution.via != "wait":
            return resolution
        since = self.clock.now()
        seconds = self.patience(resolution, timeout)
        self.want(resolution.name, authority)
        if seconds > 0:
            self.store.wait(lambda view: not view.resolve(*place).open, seconds)
        return self.settled(*place, since)

    def on_known(
        self,
        scheme: str,
        host: str,
        port: int | None,
        authority: str,
        callback: Callable[[Resolution], object],
    ) -> Callable[[], None]:
        """``wait_known`` for event loops: ``callback`` gets the resolution once waiting does not help any more, from this
        thread before ``on_known`` returns or from the worker's; it must only hand it over. The caller bounds the time
        (``patience``), calls what is returned when it is done, and asks ``settled`` what holds.
        """
        told = threading.Lock()

        def look() -> None:
            resolution = self.store.view.resolve(scheme, host, port, authority)
            if not (resolution.open and not self.feed.refusal) and told.acquire(blocking=False):
                callback(resolution)

        resolution = self.store.view.resolve(scheme, host, port, authority)
        self.want(resolution.name, authority)
        cancel = self.store.on_change(look)
        look()
        return cancel

    def known(self, view: View, place: tuple[str, str, int | None, str]) -> bool:
        """Whether waiting does not help any more, as ``view`` has it."""
        resolution = view.resolve(*place)
        return not resolution.open or (resolution.handed is None and bool(self.feed.refusal))

    def settled(
        self, scheme: str, host: str, port: int | None, authority: str, since: float = 0.0
    ) -> Resolution:
        """What holds for a call that waits no longer; it waited from ``since`` on. Never says "wait"."""
        resolution = self.store.view.resolve(scheme, host, port, authority)
        end = resolution.otherwise
        if end is None:
            return resolution.after(self.clock.now() - since)
        if resolution.handed is not None:
            return end
        refusal = self.feed.refusal
        if refusal:  # the control plane cannot be used in this process: nobody could ever answer
            return Resolution("failed", refusal, name=resolution.name)
        if self.observers:
            self.emit(Unanswered(authority, end.via, end.reason))
        return end

    def suspect(self) -> None:
        """A call could not be handed to the sidecar, or broke there: it is looked whether it is still there. Never blocks."""
        self.feed.suspect()

    def compare(self, place: Place, call: Call, peer: str, outcome: Outcome) -> None:
        """A call of a service that has not joined ended: compare it with what the mesh would have made of it."""
        resolution = self.store.view.resolve(*place)
        joining = resolution.joining
        if joining is not None:
            self.tallies.add(joining, resolution, call.head, peer or literal(place), outcome, self.env)

    # --- observers ----------------------------------------------------------------------------------------------

    def observe(self, observer: Callable[[Event], None], *, calls: bool = True) -> Callable[[], None]:
        """Tell ``observer`` of events, in the thread where they happen; what it raises is logged. Without ``calls``
        only of what changes (sources, configuration, ejections, breakers): then calls cost no more than before.
        Returns what ends it.
        """
        with self._lock:
            self.observers = (*self.observers, observer)
            if calls:
                self._of_calls = (*self._of_calls, observer)
                self.env.emit = self._emit_of_call
        forget = self.clusters.subscribe(observer)

        def cancel() -> None:
            forget()
            with self._lock:
                self.observers = tuple(other for other in self.observers if other is not observer)
                self._of_calls = tuple(other for other in self._of_calls if other is not observer)
                self.env.emit = self._emit_of_call if self._of_calls else None

        return cancel

    def emit(self, event: Event) -> None:
        """Tell every observer."""
        tell_all(self.observers, event)

    def _emit_of_call(self, event: Event) -> None:
        tell_all(self._of_calls, event)

    def cluster_status(self) -> dict[str, ClusterStatus]:
        """Of the clusters in force; those that left and are kept for calls under way are not among them."""
        names = {name for part in self.store.snapshot.parts for name in part.clusters}
        twins = {f"{part.source}/{name}" for part in self.store.snapshot.parts for name in part.clusters}
        found = self.clusters.status()
        return {name: status for name, status in found.items() if name in names or name in twins}

    # --- what sources call, on the worker -----------------------------------------------------------------------

    def publish(self, parts: tuple[Part, ...]) -> None:
        """Put ``parts`` into force. Only the writer calls this."""
        self.store.publish(parts)
        if self.observers:
            self.emit(ConfigurationChanged(self.store.snapshot.version))

    def source_changed(self, source: str, state: str, error: str) -> None:
        """A source is in another state: whoever waits looks again. Only the writer calls this."""
        self.store.wake()
        if self.observers:
            self.emit(SourceChanged(source, state, error))

    def reconfigure(self, config: Config, rules: Rules) -> None:
        """Other rules and settings are in force; the parts stay. Only the writer calls this."""
        self.config = config
        if rules != self._rules:
            self._rules = rules
            self.store.recompile()

    # --- life ---------------------------------------------------------------------------------------------------

    @property
    def streaming(self) -> bool:
        """Whether a stream to a control plane is up or being opened."""
        return self.running and self.feed.streaming

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for something to change."""
        return self.store.waiting

    def pause(self) -> None:
        """End threads and channels for a fork, within a second."""
        self._halt(1.0, for_now=True)
        for one in self._resting:
            one.rest()

    def rests(self, one: Resting) -> None:
        """Tell ``one`` of each fork that comes, once the worker has stopped; it is known weakly."""
        self._resting.add(one)

    def resume(self) -> None:
        """Go on after ``pause``."""
        with self._lock:
            if self.running or self.closed:
                return
        self.worker = self._workers.acquire()
        self._go()

    def close(self, timeout: float = 1.0) -> None:
        """End for good. What is in force can still be read; nothing changes any more."""
        with self._lock:
            self.closed = True
        self._halt(timeout)
        self.store.wake()
        self.services.close()

    def abandon(self) -> None:
        """``close`` for a finalizer, which may run under ``_lock``: takes none, and waits for nobody."""
        self.closed = True
        if self.running:
            self.worker.post(self._finish)

    def _finish(self) -> None:
        with self._lock:
            running, self.running = self.running, False
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if not running:
            return
        try:
            self.checks.stop(0.0)
            self.feed.stop()
        finally:
            self._workers.release(self.worker)

    def _go(self) -> None:
        with self._lock:
            self.running = True
        self.worker.post(self.feed.start)
        for wanted in self.interest.names():
            self.worker.post(lambda wanted=wanted: self.feed.want(wanted.name, wanted.authority))  # type: ignore[misc]
        self.checks.start(self.worker)
        self._timer = self.worker.later(SWEEP, self._sweep)

    def _halt(self, timeout: float, *, for_now: bool = False) -> None:
        with self._lock:
            if not self.running:
                return
            self.running = False
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        until = time.monotonic() + timeout
        try:
            self.checks.stop(timeout * 0.2)
            if not self.worker.call(self.feed.stop, timeout * 0.6):
                _log.warning("meshlib: the sources did not stop in time (%.1f s)", timeout * 0.6)
        finally:
            self._workers.release(self.worker, max(0.05, until - time.monotonic()), for_now=for_now)

    def _compile(self, snapshot: Snapshot, previous: View | None) -> View:
        return compile_view(snapshot, self._rules, previous, self._give_way)

    def _want(self, name: str, authority: str, dropped: tuple[str, ...]) -> None:
        self._let_go(dropped)
        self.feed.want(name, authority)
        self._let_go(usage.unknown(self.interest, self.store.snapshot, self.clock.now()))

    def _let_go(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.feed.forget(name)

    def _sweep(self) -> None:
        if self.patched_late and not self._told_late:
            self._told_late = True
            _log.warning(LATE)
        now, snapshot = self.clock.now(), self.store.snapshot
        held = {one.needs for one in self._resting}
        waiting = self.store.waiting
        self._let_go(usage.unknown(self.interest, snapshot, now))
        self._let_go(usage.unused(self.interest, snapshot, self.clusters, held, now, waiting=waiting))
        self.store.sweep()
        self.checks.sweep()
        with self._lock:
            if self.running:
                self._timer = self.worker.later(SWEEP, self._sweep)
