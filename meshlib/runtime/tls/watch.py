"""Files of contexts that are in use, looked at on the worker, so that a change is known without a handshake."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from meshlib.runtime.process import Local

if TYPE_CHECKING:
    from meshlib.runtime.tls.contexts import MeshContext
    from meshlib.runtime.worker import Worker

__all__ = ["EVERY", "watch"]

#: Seconds between two looks.
EVERY = 5.0


class _Watch:
    """Of one worker. ``lock`` guards the set and whether a timer runs; nothing is read under it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.contexts: set[MeshContext] = set()
        self.runs = False


class _Watches:
    """Of one process, by worker. ``lock`` guards the table."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_worker: weakref.WeakKeyDictionary[Worker, _Watch] = weakref.WeakKeyDictionary()


_here = Local(_Watches)


def watch(worker: Worker, context: MeshContext) -> None:
    """Look at the files of ``context`` now and then, until nobody uses it. Thread-safe; twice is once."""
    if not context.of_files:
        return
    here = _here.get()
    with here.lock:
        found = here.by_worker.setdefault(worker, _Watch())
    with found.lock:
        found.contexts.add(context)
        runs, found.runs = found.runs, True
    if not runs:
        worker.later(EVERY, lambda: _look(worker, found))


def _look(worker: Worker, found: _Watch) -> None:
    with found.lock:
        found.contexts = {context for context in found.contexts if context.used}
        contexts = list(found.contexts)
        found.runs = bool(contexts)
    for context in contexts:
        context.look()
    if contexts:
        worker.later(EVERY, lambda: _look(worker, found))
