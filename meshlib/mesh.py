"""Mesh: the composition root. It takes a configuration, and makes of it, in each process on first use, what runs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from meshlib import patched
from meshlib.config import Config, ConfigLike, reload, resolve
from meshlib.core.tokens import tokens_of
from meshlib.inbound import current
from meshlib.model.arguments import seconds, text
from meshlib.model.status import ProcessStatus, SidecarStatus, Status
from meshlib.observe.lookout import Lookout
from meshlib.runtime import uwsgi
from meshlib.runtime.clock import MonotonicClock
from meshlib.runtime.process import EXIT_SECONDS, Local, PerProcess, SharedWorker
from meshlib.sources.rules import bootstrap_of, described, place_of, rules_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshlib.core.attempt import Shadow
    from meshlib.core.exchange import Place
    from meshlib.core.tokens import TokenSource
    from meshlib.model.call import Decision
    from meshlib.model.events import Event
    from meshlib.model.snapshot import Snapshot
    from meshlib.model.status import SourceStatus, XdsClientStatus
    from meshlib.observe.facts import Facts
    from meshlib.runtime.checks import Prober
    from meshlib.runtime.clock import Clock
    from meshlib.runtime.runtime import Runtime
    from meshlib.sources.base import Source
    from meshlib.sources.file import FileSource
    from meshlib.sources.merge import Merge
    from meshlib.sources.static import StaticSource
    from meshlib.xds.bootstrap import Bootstrap

__all__ = ["Mesh", "default", "only_by_name", "runtime_of"]

_log = logging.getLogger("meshlib")
_clock = MonotonicClock()
_workers = SharedWorker(_clock)

#: What an edit of the file cannot change in a running process.
_FIXED = ("node", "xds", "dns", "identity", "seed", "sidecar", "inbound", "admin", "disabled")


class Mesh:
    """The mesh as one application sees it: discovery, routing, balancing and policies for all its clients.

    Making one reads and checks the configuration and starts nothing; the first call, ``wait_ready``, ``explain`` or
    ``snapshot`` in a process does. Thread-safe, usable from any number of event loops, and after a fork (the child
    starts with what its parent knew). Close it, or use it in ``with`` or ``async with``.

    Args:
        config: None: the environment says, over the file that it names. A mapping with the configuration's keys or the
            path of a file takes that file's place; variables win over a file and yield to a mapping. A :class:`Config`
            is taken as it is, so that ``Mesh(Config.from_mapping({…}))`` depends on nothing outside.
        clock: For tests, a :class:`meshlib.testing.VirtualClock`: every wait, deadline and timer of this mesh goes by it. None:
            the system's.
        tokens: By a service's name, as in ``[services]``: what gives the token that its calls bring (:mod:`meshlib.core.tokens`).
            Called at each attempt, in any thread; for asynchronous clients it may be a coroutine function.

    Raises:
        ConfigError: The configuration is wrong, or wants what this version does not do.
        TypeError, ValueError: ``tokens`` has what is no name, or cannot be called.
    """

    def __init__(
        self,
        config: ConfigLike = None,
        *,
        clock: Clock | None = None,
        tokens: Mapping[str, TokenSource] | None = None,
    ) -> None:
        # Meshes of a process share a worker, and one that waits by another clock has one of its own.
        self._clock: Clock = _clock if clock is None else clock
        self._workers = _workers if clock is None else SharedWorker(clock)
        self._config = resolve(config)
        self._tokens = tokens_of(tokens or {})
        self._node: Mapping[str, object] = {}  # as it is told to the control plane, once that runs
        self._observers: tuple[Callable[[Event], None], ...] = ()
        self._processes: PerProcess[Runtime] = PerProcess(self._make)
        self._lookout: Lookout | None = Lookout()
        self._shown = False  # to `meshlib dump PID` and the like
        self._looking = Local(threading.RLock)  # guards finding out that telemetry is wanted, and making it

    @property
    def config(self) -> Config:
        """The configuration, as it is now."""
        runtime = self._processes.peek()
        return self._config if runtime is None else runtime.config

    @property
    def closed(self) -> bool:
        return self._processes.closed

    def wait_ready(self, *names: str, timeout: float = 10.0) -> None:
        """Block until each of ``names`` (``"reviews"``, ``"ratings:9080"``) can be called, at most ``timeout`` seconds.

        Without names: until every source has said something. Not for event loops (use a thread). Raises
        :class:`NotReady`, whose text and ``missing`` say for each name what it lacks, and TypeError and ValueError for
        what is no name and no number of seconds.
        """
        from meshlib.runtime.ready import wait

        for name in names:
            text(name, "wait_ready: each name is an argument of its own")
        seconds(timeout, "wait_ready: timeout")
        wait(self._runtime(), names, timeout)

    def explain(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> Decision:
        """What a call would do, and why, without doing it. Waits for nothing: a name that the control plane was not
        asked for yet is asked for; until it answered, the Decision says what a call would wait for, and what it would do
        if nothing came. Raises TypeError and ValueError for what can be no request.
        """
        from meshlib.core.explain import explain
        from meshlib.hosts.urls import asked

        place, head = asked(text(method, "explain: method"), text(url, "explain: url"), _pairs(headers or ()))
        runtime = self._runtime()
        resolution = runtime.view.resolve(*place)
        runtime.want(resolution.name, place[3])
        return explain(resolution, head, runtime.env, runtime.view.rules.adoption, runtime.clock.now())

    def breakers(self) -> dict[str, object]:
        """What this process's breakers know: a JSON-ready value for ``restore_breakers`` of another. Thread-safe."""
        from meshlib.runtime.breakers_saved import saved

        return saved(self._runtime())

    def restore_breakers(self, value: object) -> None:
        """Have breakers go on from what ``breakers()`` gave, where they have not heard of calls yet: of services and routes that are not
        there yet, once they are. Raises ValueError for what is no such value. Thread-safe.
        """
        from meshlib.runtime.breakers_saved import restore

        restore(self._runtime(), value)

    def status(self) -> Status:
        """How things are now. Starts nothing."""
        from meshlib.runtime.adoption import adoption_status

        runtime = self._processes.peek()
        process = ProcessStatus(
            pid=os.getpid(),
            forked=self._processes.forked,
            started=runtime is not None,
            patched=patched.names(),
        )
        return Status(
            node=self._node or described(self.config),
            sources=self._sources(),
            sidecar=SidecarStatus() if runtime is None else runtime.feed.sidecar(self._clock.now()),
            clusters={} if runtime is None else runtime.cluster_status(),
            process=process,
            adoption=adoption_status(
                self.config,
                None if runtime is None else runtime.tallies,
                off=self.config.disabled if runtime is None else runtime.view.rules.disabled,
            ),
            identity=() if runtime is None else runtime.feed.identities(),
        )

    def snapshot(self) -> Snapshot:
        """The configuration in force."""
        return self._runtime().store.snapshot

    def _only_look(self) -> None:
        """For commands: it starts, and writes nothing that programs with this configuration read."""
        self._runtime().feed.only_look()

    def close(self) -> None:
        """End what runs, within a second. Calls after this raise RuntimeError; a second close does nothing."""
        self._processes.close(EXIT_SECONDS)
        if self._shown:
            from meshlib.observe import admin

            admin.withdraw(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        # Milliseconds as a rule. No event loop's own thread pool: this must hold on each of them.
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._processes.closed else "started" if self._processes.peek() else "not started"
        return f"<meshlib.Mesh {state}>"

    # --- the composition ----------------------------------------------------------------------------------------

    def _runtime(self) -> Runtime:
        """What runs in this process; for transports. Cheap: a comparison of process ids, and as long as nobody wants
        telemetry a look whether somebody does. Raises RuntimeError once closed.
        """
        lookout = self._lookout
        if lookout is not None and lookout.possible():
            self._tell_telemetry(lookout)
        return self._processes.get()

    def _tell_telemetry(self, lookout: Lookout) -> None:
        """Where somebody wants it. First calls that come at once wait for it: none goes out untold."""
        with self._looking.get():
            if self._lookout is lookout and lookout.look():
                self._make_telemetry()
                self._lookout = None

    def _make_telemetry(self) -> None:
        try:
            from meshlib.observe.otel import Telemetry

            self._observe(Telemetry(self._sources, self._xds_clients, self.config.telemetry))
        except Exception:  # noqa: BLE001 - logged below
            _log.warning("meshlib: no traces and no metrics: OpenTelemetry cannot be used", exc_info=True)

    def _facts(self) -> Facts:
        """What `meshlib doctor` judges."""
        from meshlib.observe import facts

        runtime = self._runtime()
        return facts.of_mesh(runtime.config, self.status(), runtime.store.snapshot, late=runtime.patched_late)

    def _sources(self) -> tuple[SourceStatus, ...]:
        runtime = self._processes.peek()
        return () if runtime is None else runtime.feed.statuses()

    def _xds_clients(self) -> tuple[XdsClientStatus, ...]:
        runtime = self._processes.peek()
        return () if runtime is None else runtime.feed.xds_clients()

    def _observe(self, observer: Callable[[Event], None]) -> None:
        """Tell ``observer`` of events, in every process that uses this mesh."""
        self._observers = (*self._observers, observer)
        runtime = self._processes.peek()
        if runtime is not None:
            runtime.observe(observer)

    def _show(self, config: Config) -> None:
        """Let this process be asked, where the configuration says so or has services that are compared: who reads the comparison
        is another process.
        """
        compares = any(mode not in ("off", "on") for mode in config.adoption.modes)
        if config.admin.enabled or compares:
            from meshlib.observe import admin

            self._shown = True
            admin.serve(self, config.admin.runtime_dir)

    def _make(self, inherited: Runtime | None) -> Runtime:
        """What runs in this process. Raises ConfigError for what is only read now: a bootstrap, a file of services."""
        from meshlib.observe.log import Log
        from meshlib.runtime.runtime import Runtime
        from meshlib.sources.merge import Merge

        config = self._config if inherited is None else inherited.config
        bootstrap = bootstrap_of(config)
        self._node = described(config)
        mesh = ref(self)  # the worker holds what runs, and must not hold a mesh that nobody else has any more
        feed = Merge(_Composition(config, bootstrap, lambda other: _shown(mesh(), other)).sources)
        runtime = Runtime(
            config,
            rules_of(config, bootstrap),
            feed,
            clock=self._clock,
            workers=self._workers,
            inherited=inherited,
            observers=self._observers,
            watchers=(Log(feed.statuses),),
            tokens=self._tokens,
            locality=place_of(config, bootstrap),
            prober=_prober,
        )
        runtime.services.make = partial(_service, runtime)
        runtime.mirror = partial(_mirror, runtime)
        try:
            self._show(config)
        except BaseException:  # an interrupt, or a killed greenlet: the next use makes another
            runtime.abandon()
            raise
        if any(source.shown and source.kind != "static" for source in feed.sources):
            uwsgi.warn_threadless()
        return runtime


def _prober(clock: Clock) -> Prober:
    """Who asks for endpoints' health. Not every mesh has it done."""
    from meshlib.hosts.health.prober import prober_of

    return prober_of(clock)


def _service(runtime: Runtime, place: Place) -> object:
    """A channel by which the mesh asks one of its own clusters."""
    from meshlib.hosts.grpc.channel import MeshChannel

    return MeshChannel(f"dns:///{place[1]}", None, None, None, lambda: runtime, place)


def _mirror(runtime: Runtime, shadows: tuple[Shadow, ...], read: Any) -> None:
    """``read``: :meth:`meshlib.hosts.protocol.Host.read`, of the request that is to go elsewhere, too."""
    from meshlib.hosts.mirrors import mirrors_of

    body = read.func.__self__.content(read.args[0])
    mirrors_of(runtime).add(shadows, body)


def _shown(mesh: Mesh | None, config: Config) -> None:
    if mesh is not None:
        mesh._show(config)


class _Composition:
    """Which sources a configuration has, and what an edit of its file changes. ``edited`` is told of each other configuration."""

    def __init__(
        self, config: Config, bootstrap: Bootstrap | None, edited: Callable[[Config], object]
    ) -> None:
        self._config = config
        self._bootstrap = bootstrap
        self._edited = edited

    def sources(self, merge: Merge) -> list[Source]:
        from meshlib.sidecar.watch import Watch
        from meshlib.sources.dns import DnsSource
        from meshlib.sources.file import FileSource
        from meshlib.sources.identity import Identity
        from meshlib.sources.kill_switch import KillSwitch
        from meshlib.sources.sidecar import SidecarSource
        from meshlib.sources.static import NOBODY, StaticSource

        config = self._config
        told = config.identity if config.identity_told else NOBODY
        static = StaticSource(merge, {} if config.disabled else config.services, told)
        found: list[Source] = [static]
        if config.disabled:
            return found
        self._switch = KillSwitch(merge, config.adoption.kill_switch or "", lambda _: self._put(merge))
        found.append(self._switch)
        if config.sidecar.mode != "off":
            watch = partial(Watch, config.sidecar, merge.runtime.clock)
            found.append(SidecarSource(merge, watch, config.sidecar.fallback))
        identity = Identity(merge, config, self._bootstrap, merge.runtime.random, merge.relink)
        merge.link(identity, verify=config.identity.verify == "always")
        found.append(identity)
        names = DnsSource(merge, config.dns)
        merge.resolve, merge.drop = names.resolve, names.drop
        files = FileSource(
            merge, config.file or "", config.services_file or "", lambda: self._reload(merge, static, files)
        )
        found.append(files)
        if self._bootstrap is not None:
            from meshlib.sources.control_plane import control_plane

            found.extend(control_plane(merge, self._bootstrap, config.xds))
        if config.admin.csds is not None:
            from meshlib.sources.csds import CsdsSource

            found.append(CsdsSource(merge, config.admin.csds))
        found.append(names)
        return found

    def _reload(self, merge: Merge, static: StaticSource, files: FileSource) -> None:
        """On the worker. Raises ConfigError, and then nothing has changed."""
        config = reload(self._config)
        fixed = [name for name in _FIXED if getattr(config, name) != getattr(self._config, name)]
        if fixed:
            _log.warning(
                "meshlib: %s: %s: changes take effect in a new process", config.file, ", ".join(fixed)
            )
            config = replace(config, **{name: getattr(self._config, name) for name in fixed})
        self._config = config
        static.reconfigure(config.services)
        files.services_from(config.services_file or "")
        self._switch.at(config.adoption.kill_switch or "")
        self._put(merge)
        self._edited(config)

    def _put(self, merge: Merge) -> None:
        """Other rules hold. On the worker."""
        rules = rules_of(self._config, self._bootstrap)
        merge.runtime.reconfigure(self._config, replace(rules, disabled=self._switch.pulled))


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    given: list[object] = [*pairs]
    for pair in given:
        if not isinstance(pair, tuple | list) or [type(part) for part in pair] != [str, str]:
            raise TypeError(f"explain: headers: expected text by name, or pairs of text, not {pair!r}")
    return pairs


def runtime_of(mesh: Mesh | None) -> Callable[[], Runtime]:
    """What gives the runtime of ``mesh``, or of the process's default mesh, in whatever process it is asked. Raises
    TypeError for what is no Mesh.
    """
    if mesh is None:
        return _default_runtime
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh: expected a meshlib.Mesh or None, not {mesh!r}")
    return mesh._runtime


def _default_runtime() -> Runtime:
    return default()._runtime()


def only_by_name(owner: object, *given: object) -> None:
    """Raises TypeError where a Mesh is among ``given``, the positional arguments of ``owner``'s class: the host library
    would take it for something of its own.
    """
    if any(isinstance(item, Mesh) for item in given):
        name = type(owner).__name__
        raise TypeError(f"{name}: a Mesh is given by its name: {name}(mesh=…)")


_default: Mesh | None = None
_make: Callable[[], Mesh] | None = None
_default_lock = Local(threading.Lock)  # guards _default and _make


def default() -> Mesh:
    """The process's mesh, from the environment: made on first use, and anew after it was closed. Its file and its
    variables are read then; raises ConfigError. Where a request is being served by a middleware that was given a mesh,
    it is that one.
    """
    request = current()
    if request is not None and isinstance(request.mesh, Mesh):
        return request.mesh
    global _default  # noqa: PLW0603 - there is one
    mesh = _default
    if mesh is None or mesh.closed:
        with _default_lock.get():
            mesh = _default
            if mesh is None or mesh.closed:
                mesh = _default = Mesh() if _make is None else _make()
    return mesh


def close_default() -> None:
    """Close the process's mesh, if it was made; the next :func:`default` makes another."""
    mesh = _default
    if mesh is not None:
        mesh.close()


def configure(make: Callable[[], Mesh] | None) -> Mesh | None:
    """How ``default()`` makes its mesh from now on: for a framework whose settings say it. Nothing is made now; None
    goes back to the environment alone. Gives the mesh that was the default until now, if there is one: it is not closed,
    since clients may hold it.
    """
    global _default, _make
    with _default_lock.get():
        before, _default, _make = _default, None, make
    return before
