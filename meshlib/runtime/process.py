"""What cannot cross a fork, one a process.

Theory. Threads, locks and channels of a parent are dead matter in its child, so everything of that kind hangs on one
holder, which knows the process that it was made in. A use compares process ids (a fork that runs no Python hooks, as
uWSGI's, is noticed by that alone) and makes the state anew where they differ; what it is made from is the parent's
immutable snapshot, so that a child starts warm. Nothing inherited is closed: its sockets are the parent's.

    empty ──get──► running ──before fork──► paused ──get──► running      (parent)
                      └──────fork─────────► foreign ──get──► running     (child)
    any ──close──► closed

Before a fork that Python knows of (or uWSGI's, see :mod:`meshlib.runtime.uwsgi`), the state is paused: streams and
channels are closed and threads ended, which is the only state in which grpcio forks safely at every setting; the next use
in the parent resumes it (at once where somebody waits for an answer). What was closed shortly before is waited for.

Locks: one reentrant lock a holder and process, found by process id, since a lock that some thread held at the fork is
never released in the child. It guards making, pausing and closing, never a use.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from os import getpid
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from meshlib.runtime import greenlets, uwsgi
from meshlib.runtime.known import Known
from meshlib.runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.runtime.clock import Clock

__all__ = [
    "EXIT_SECONDS",
    "FORKED",
    "Local",
    "PerProcess",
    "Resident",
    "SharedWorker",
    "arm_again",
    "grpc_keeps_out_of_forks",
    "settle_before_fork",
]

#: All that meshlib may add to a process's exit.
EXIT_SECONDS = 1.0

#: How long a fork waits for a first use that another thread is in the middle of. It loads modules, and a child that has them
#: half loaded waits for ever for a thread that it does not have; a busy machine takes seconds for that.
_FORK_SECONDS = 10.0

FORKED = (
    "meshlib: a control-plane stream ran before fork: it was stopped, and each process opens its own on first use. "
    "Remedy: make the first call after the fork (gunicorn: no --preload, or use post_fork; uWSGI: lazy-apps = true; "
    "Celery: worker_process_init; multiprocessing: spawn or forkserver)"
)

_log = logging.getLogger("meshlib")


class Resident(Protocol):
    """State that lives in one process."""

    @property
    def streaming(self) -> bool:
        """Whether a stream to a control plane is up or being opened."""
        ...

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for what it may bring."""
        ...

    def pause(self) -> None:
        """End threads and close channels, soon. What is in force stays so."""
        ...

    def resume(self) -> None:
        """Go on after ``pause``."""
        ...

    def close(self, timeout: float) -> None:
        """End for good, within ``timeout`` seconds."""
        ...

    def abandon(self) -> None:
        """End for good, soon, without waiting and without a lock: called by the garbage collector."""
        ...


R = TypeVar("R", bound=Resident)
T = TypeVar("T")

_holders: Known[PerProcess[Resident]] = Known()
_settlers: list[Callable[[], None]] = []
#: State of a parent: kept, so that no finalizer of it runs in a child.
_inherited: list[object] = []
_NOBODY = -1
_warned = False


class Local(Generic[T]):
    """A value a process, made on first use; safe at any time, also right after a fork without hooks."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[int, T] = {}

    def get(self) -> T:
        pid = getpid()
        value = self._values.get(pid)
        if value is None:
            # setdefault is atomic: two threads that come at once get the same one.
            value = self._values.setdefault(pid, self._make())
        return value


class _Guard:
    """A holder's lock in one process, and how often it is held for forks that are going on."""

    __slots__ = ("held", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.held = 0


class PerProcess(Generic[R]):
    """Makes and keeps one ``R`` a process. ``get`` is cheap and takes no lock once it is made.

    ``make`` is given what this process inherited from its parent, or None. Of that it may read immutable values only.
    If it raises, the next ``get`` tries again.
    """

    def __init__(self, make: Callable[[R | None], R]) -> None:
        self._make = make
        self._value: R | None = None
        self._owner = 0  # the process that _value is of
        self._ready = 0  # the process in which _value is running; 0 while it is paused
        self._closed = False
        self._forked = False
        self._interrupted = False  # paused for a child that only executes a program
        self._guards = Local(_Guard)
        _holders.add(self)  # type: ignore[arg-type]  # invariant, but only Resident's methods are called

    def get(self) -> R:
        """This process's ``R``, running. Raises RuntimeError after ``close``, and what ``make`` raises."""
        value = self._value
        if self._ready == getpid() and value is not None:
            return value
        return self._enter()

    def peek(self) -> R | None:
        """This process's ``R`` if it was made; starts nothing."""
        return self._value if self._owner == getpid() else None

    @property
    def inherited(self) -> R | None:
        """What a parent left, as long as this process has made none of its own."""
        return self._value if self._owner not in (0, getpid()) else None

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of one that had an ``R``."""
        return self._forked or self.inherited is not None

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self, timeout: float = EXIT_SECONDS) -> None:
        """End this process's ``R`` for good; a second time does nothing."""
        with self._guards.get().lock:
            self._closed = True
            self._ready = 0
            self._keep_inherited()
            value = self.peek()
            if value is not None:
                self._value, self._owner = None, 0
                value.close(timeout)

    def _enter(self) -> R:
        pid = getpid()
        with self._guards.get().lock:
            if self._closed:
                raise RuntimeError("the mesh is closed")
            value = self.peek()
            if value is not None:
                value.resume()
            else:
                value = self._made(pid)
            self._ready = pid
            return value

    def _made(self, pid: int) -> R:
        before = self.inherited
        value = self._make(before)
        if before is not None:
            self._keep_inherited()
            self._forked = True
            if before.streaming:
                _warn()
        self._value, self._owner = value, pid
        return value

    def _keep_inherited(self) -> None:
        before = self.inherited
        if before is not None:
            _inherited.append(before)

    def before_fork(self, *, executes: bool = False) -> None:
        """Pause, and keep other threads from resuming until the fork is done. One fork may come by here twice. Where the
        child only executes a program (``executes``) only a stream matters, and it is opened again at once.
        """
        guard = self._guards.get()
        if guard.lock.acquire(timeout=_FORK_SECONDS):
            guard.held += 1
        value = self.peek()
        if value is None or (executes and not value.streaming):
            return
        if value.streaming and not executes:
            _warn()
        self._interrupted = executes
        self._ready = 0
        value.pause()

    def after_fork_in_parent(self) -> None:
        guard = self._guards.get()
        if guard.held:
            guard.held -= 1
            guard.lock.release()
        value = self.peek()
        interrupted, self._interrupted = self._interrupted, False
        if value is not None and (interrupted or value.awaited):
            greenlets.after_fork(self._again)

    def _again(self) -> None:
        _guarded(lambda: None if self._closed else self.get())

    def __del__(self) -> None:
        self._keep_inherited()
        value = self.peek()
        if value is not None:
            value.abandon()

    def after_fork_in_child(self) -> None:
        self._ready = 0
        self._interrupted = False
        if self._owner:
            # No process has this id: the parent's may be given to a descendant, once the parent is gone.
            self._owner = _NOBODY
        self._guards = Local(_Guard)


class SharedWorker:
    """The process's worker: it runs while somebody has leased it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._state = Local(lambda: _Leases(Worker(clock)))

    def acquire(self) -> Worker:
        state = self._state.get()
        with state.lock:
            state.worker.start()
            state.count += 1
        return state.worker

    def release(self, worker: Worker, timeout: float = EXIT_SECONDS, *, for_now: bool = False) -> None:
        """End a lease, or (``for_now``) pause it for a fork. A worker of another process is left alone."""
        state = self._state.get()
        if state.worker is not worker:
            return
        with state.lock:
            state.count -= 1
            if not state.count:
                state.worker.stop(timeout, for_now=for_now)


class _Leases:
    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.lock = threading.Lock()  # guards count and with it starting and stopping
        self.count = 0


def _warn() -> None:
    global _warned  # noqa: PLW0603 - once a process, and its children inherit that
    if not _warned:
        _warned = True
        _log.warning(FORKED)


def settle_before_fork(step: Callable[[], None]) -> None:
    """Call ``step`` before every fork, once all meshes are paused. It bounds its own time; the fork waits for it."""
    _settlers.append(step)


def _guarded(step: Callable[[], object]) -> None:
    """A hook must not raise: it would be printed, and the rest skipped."""
    try:
        step()
    except Exception:  # noqa: BLE001 - logged below
        _log.exception("meshlib: a hook around fork or exit failed")


def _every(step: Callable[[PerProcess[Resident]], None]) -> None:
    for holder in _holders:
        _guarded(lambda holder=holder: step(holder))  # type: ignore[misc]


def _before(*, executes: bool) -> None:
    _every(lambda holder: holder.before_fork(executes=executes))
    for step in _settlers:
        _guarded(step)


def _close(holder: PerProcess[Resident]) -> None:
    if holder.peek() is not None:
        holder.close(EXIT_SECONDS)


def arm_again() -> None:
    """Register the hooks once more, for good: called when grpc has registered its own (where its fork support is on).

    Before a fork the hooks that were registered last run first, after it last: so streams are closed while grpc still
    works, and opened when it does so again. The earlier hooks do nothing from then on.
    """
    if _armed < _TWICE:
        _arm()


def grpc_keeps_out_of_forks() -> bool:
    """Whether grpc's own support for forks is switched off. As its core reads it: what is no truth value counts as unset."""
    return os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in ("0", "f", "false", "n", "no")


class _Hooks:
    """One registration. ``_armed`` may change while a fork is under way, so whoever ran before it runs after it."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._ran_in = 0

    def before(self) -> None:
        if self._number != _armed:
            return
        executes = greenlets.only_executes()
        # A child that only executes needs no pause where grpc keeps out of forks. Left unset, a few such children in a hundred
        # crash in grpc's hooks; switched on, the parent waits in them for threads that never rest, with a stream under gevent.
        if not (executes and grpc_keeps_out_of_forks()):
            self._ran_in = getpid()
            _before(executes=executes)

    def after_in_parent(self) -> None:
        if self._ran_in == getpid():
            self._ran_in = 0
            _every(PerProcess.after_fork_in_parent)

    def after_in_child(self) -> None:
        self._ran_in = 0
        _every(PerProcess.after_fork_in_child)


def _arm() -> None:
    global _armed  # noqa: PLW0603 - hooks cannot be taken back
    number = _armed + 1
    hooks = _Hooks(number)
    os.register_at_fork(
        before=hooks.before, after_in_parent=hooks.after_in_parent, after_in_child=hooks.after_in_child
    )
    if uwsgi.present():
        hooks = _Hooks(number)
        uwsgi.on_fork(hooks.before, hooks.after_in_parent)
    _armed = number


_TWICE = 2
_armed = 0
_arm()
atexit.register(lambda: _every(_close))
