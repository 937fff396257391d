"""The last good state of the control plane, kept in a file for a start without it.

Theory of the states (of a status; ``since`` is the age of what was written there, in seconds):

    idle ──a file is read──► stale ──the control plane has said everything──► ready
      │    (its state serves)                                                   ▲
      ├──a file cannot be used──► failed ──written──────────────────────────────┤
      └──written────────────────────────────────────────────────────────────────┘

What the file holds goes into the sessions before their first streams, and there every answer of the control plane wins by
the rules of the protocol. What the sessions hold is written ``SETTLE`` seconds after an answer is in force, ``PERIOD`` seconds
after the last time at the soonest, once everything that is wanted has come; and only what has changed. The worker collects
the resources; a thread of its own, which lives as long as it writes, looks through them for secrets and waits for the disk.

A file is written beside the one it replaces, put on the disk, and renamed: whoever reads sees one or the other whole, whatever
ends the writer, and of several processes the last one wins. There is no lock to be left behind. Only its owner may read or
write it. A file, or a directory, that others may write is not used: they could say where calls go.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from meshlib.model.status import Rejected
from meshlib.runtime import threads
from meshlib.sources.base import Source, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from meshlib.model.status import SourceStatus
    from meshlib.runtime.worker import Timer
    from meshlib.sources.merge import Merge
    from meshlib.xds.bootstrap import Bootstrap
    from meshlib.xds.last_good import Contents, Held, Kept

__all__ = ["PERIOD", "RETRY", "SETTLE", "LastGood", "read", "write"]

#: Seconds from an answer to the writing of what is in force then: the parts of an update arrive within one.
SETTLE = 1.0
#: Seconds between two writings.
PERIOD = 5.0
#: Seconds until the next try where the file could not be written.
RETRY = 60.0
#: Seconds for which a stop waits for the thread that writes.
_ENDING = 0.3
#: Seconds after which a file that a killed process did not finish is taken away.
_LITTER = 600.0

_log = logging.getLogger("meshlib")


class LastGood(Source):
    """The file at ``path``, for the node and the servers of ``bootstrap``. Its methods are for the worker."""

    def __init__(self, sink: Merge, path: str, bootstrap: Bootstrap) -> None:
        super().__init__("last_good", "last_good", sink)
        self._runtime = sink.runtime
        self.path = path
        self._node = bootstrap.node.id
        self._server = ", ".join(dict.fromkeys(server.uri for server in bootstrap.all_servers))
        self._sides: dict[str, Callable[[], Contents | None]] = {}
        self._held: Held | None = None
        self._looked = False  # whether the file was looked for
        self._told = False  # that calls rely on it
        self._stopped = False
        self._writes = True
        self._timer: Timer | None = None
        self._soonest = 0.0
        self._thread: threading.Thread | None = None
        self._written: float | None = None
        self._names: dict[str, set[str]] = {}
        self._versions: Mapping[str, str] = {}
        self._rejected: tuple[Rejected, ...] = ()
        self._last: dict[str, object] = {}  # what was written last
        self._seen: dict[tuple[str, str, str], tuple[bytes, bytes, str]] = {}  # the writing thread's

    # --- Source -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._thread is not None:
            threads.join(self._thread, _ENDING)

    def only_look(self) -> None:
        self._writes = False

    def status(self) -> SourceStatus:
        written = self._written
        return replace(
            super().status(),
            server=self.path,
            since=self.seconds if written is None else max(0.0, self.sink.worker.clock.wall() - written),
            versions=self._versions,
            resources={short: len(names) for short, names in self._names.items()},
            rejected=self._rejected,
        )

    # --- what an earlier process had --------------------------------------------------------------------------------

    def take_up(self) -> Held | None:
        """What the file holds, or None where there is none that can be used. The names that were wanted are again."""
        if not self._looked:
            self._looked = True
            self._held = self._read()
            for contents in self._held.views.values() if self._held is not None else ():
                for name, authority in contents.targets.items():
                    self._runtime.want(name, authority)
        return self._held

    def took(self, found: Mapping[str, Iterable[str]], refused: Iterable[Rejected]) -> None:
        """A session has this of it, and refused that."""
        for short, names in found.items():
            self._names = {**self._names, short: self._names.get(short, set()) | set(names)}
        self._rejected = (*self._rejected, *refused)

    def serves(self, error: str) -> None:
        """The control plane has not said anything, because of ``error``, and calls rely on what was read."""
        if self._told:
            return
        self._told = True
        _log.warning(
            "meshlib: the control plane %s is not reachable (%s): the state of %s, %.0f s old, serves",
            self._server,
            error,
            self.path,
            self.status().since,
        )

    def _read(self) -> Held | None:
        from meshlib.xds.last_good import Unreadable, decode

        try:
            raw = read(self.path)
            if raw is None:
                return None
            held = decode(raw)
        except (OSError, Unreadable) as problem:
            self.trouble(f"{self.path} is not used: {_words(problem)}")
            return None
        if (held.node, held.server) != (self._node, self._server):
            whose = f"node {held.node[:200]!r} and the control plane {held.server[:200]!r}"
            self.trouble(
                f"{self.path} is not used: it is for {whose}, not for {self._node!r} and {self._server!r}"
            )
            return None
        self._written = held.written
        self._versions = {k: v for contents in held.views.values() for k, v in contents.versions.items()}
        self._move(State.STALE, "")
        _log.info("meshlib: %s is read, until the control plane %s answers", self.path, self._server)
        return held

    # --- what is in force -------------------------------------------------------------------------------------------

    def keep(self, view: str, contents: Callable[[], Contents | None]) -> None:
        """What ``contents`` gives for a view is to be kept; None: it is not complete now."""
        self._sides[view] = contents

    def due(self) -> None:
        """Something may be in force that is to be kept."""
        if self._timer is None and self._writes and not self._stopped:
            wait = max(SETTLE, self._soonest - self.sink.worker.clock.now())
            self._timer = self.sink.worker.later(wait, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._writes:
            return
        found: dict[str, Contents] = {}
        for view, ask in self._sides.items():
            contents = ask()
            if contents is None:
                return  # what comes next asks again
            found[view] = contents
        self._held = None  # what it was needed for has been said
        if self._thread is not None and self._thread.is_alive():
            self._soonest = self.sink.worker.clock.now() + PERIOD
            self.due()
        elif (bare := {view: _bare(contents) for view, contents in found.items()}) != self._last:
            self._soonest = self.sink.worker.clock.now() + PERIOD
            self._last = bare
            self._thread = threading.Thread(
                target=self._write, args=(found,), name="meshlib-last-good", daemon=True
            )
            threads.start(self._thread)

    def _write(self, found: dict[str, Contents]) -> None:
        """In a thread of its own."""
        from meshlib.xds.last_good import encode

        written = self.sink.worker.clock.wall()
        left: list[Rejected] = []
        error = ""
        try:
            views = self._presentable(found, left)
            write(self.path, encode(self._node, self._server, written, views))
        except (OSError, ValueError) as problem:
            error = f"{self.path} cannot be written: {_words(problem)}"
            views = {}
        self.sink.worker.post(lambda: self._wrote(views, written, tuple(left), error))

    def _presentable(self, found: dict[str, Contents], left: list[Rejected]) -> dict[str, Contents]:
        """Each view without what has a secret; that goes to ``left``. What was looked through before is not again."""
        from meshlib.xds.secrets import presentable

        give_way = threads.GiveWay()
        before, self._seen = self._seen, {}
        views: dict[str, Contents] = {}
        for view, contents in found.items():
            kept: list[Kept] = []
            refused: set[str] = set()
            for each in contents.resources:
                give_way()
                key = (view, each.short, each.name)
                seen = before.get(key)
                if seen is None or seen[0] is not each.raw:
                    seen = (each.raw, *presentable(each.short, each.raw, give_way))
                self._seen[key] = seen
                _, made, secret = seen
                if secret:
                    refused.add(each.short)
                    words = f"is not kept on disk: it may hold a secret: {secret}"
                    left.append(Rejected(each.name, each.short, (words,)))
                else:
                    kept.append(replace(each, raw=made))
            # Without them the rest is not all that there is.
            views[view] = replace(contents, listed=contents.listed - refused, resources=tuple(kept))
        return views

    def _wrote(
        self, views: dict[str, Contents], written: float, left: tuple[Rejected, ...], error: str
    ) -> None:
        if error:
            self._last = {}
            self._was_good = False  # "stale" would say that its state serves
            self.trouble(error)
            self._soonest = self.sink.worker.clock.now() + RETRY
            self.due()
            return
        names: dict[str, set[str]] = {}
        for contents in views.values():
            for each in contents.resources:
                names.setdefault(each.short, set()).add(each.name)
        self._names, self._written, self._rejected = names, written, tuple(dict.fromkeys(left))
        self._versions = {k: v for contents in views.values() for k, v in contents.versions.items()}
        self.good()


def _bare(contents: Contents) -> object:
    """What makes another file worth its writing: a server may count up versions of what stays as it is."""
    resources = tuple((each.short, each.name, each.raw) for each in contents.resources)
    return contents.targets, contents.listed, resources


# --- the file ------------------------------------------------------------------------------------------------------------


def read(path: str) -> bytes | None:
    """The bytes of a file that nobody else may write; None where there is none. Raises OSError, with why it is not to be
    trusted.
    """
    from meshlib.xds.last_good import MOST

    try:
        _check_directory(Path(path).parent)
        # A pipe, which would be waited for, is opened without waiting, and refused.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as opened:
        seen = os.fstat(file)
        if not stat.S_ISREG(seen.st_mode):
            raise OSError("it is no file")
        if seen.st_uid != os.geteuid():
            raise OSError(f"it belongs to user {seen.st_uid}")
        if stat.S_IMODE(seen.st_mode) & 0o022:
            raise OSError(f"others may write it: chmod 600 {path}")
        if seen.st_size > MOST:
            raise OSError(f"it has {seen.st_size} bytes; the most are {MOST}")
        return opened.read(MOST + 1)


def write(path: str, pieces: Iterable[bytes]) -> None:
    """Replace the file, for its owner only, by one that is on the disk. Raises OSError, and then the old one is there."""
    place = Path(path)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_directory(place.parent)
    _sweep(place)
    file, name = tempfile.mkstemp(".tmp", f".{place.name}.", place.parent)
    new = Path(name)
    try:
        with os.fdopen(file, "wb") as opened:
            for piece in pieces:
                opened.write(piece)
            opened.flush()
            os.fsync(file)
        new.replace(place)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check_directory(directory: Path) -> None:
    """Whoever may write a directory may put another file in the place of ours; where it is sticky, only of their own."""
    seen = directory.stat()
    if seen.st_uid not in (os.geteuid(), 0):
        raise OSError(f"the directory {directory} belongs to user {seen.st_uid}")
    if seen.st_mode & 0o022 and not seen.st_mode & stat.S_ISVTX:
        raise OSError(f"others may write the directory {directory}: chmod 700 {directory}")


def _sweep(place: Path) -> None:
    """Take away what processes that were killed have left."""
    for left in place.parent.glob(f".{escape(place.name)}.*.tmp"):
        with suppress(OSError):  # another process was faster
            if time.time() - left.lstat().st_mtime > _LITTER:
                left.unlink()


def _words(problem: Exception) -> str:
    """Without a temporary file's name, so that the same trouble is the same words."""
    return (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
