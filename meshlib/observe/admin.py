"""A socket by which `meshlib dump PID`, `watch PID`, `doctor PID` and `ps` read this process. Off unless ``[admin] enabled = true``.

Theory. One Unix socket a process, ``<directory>/<pid>.sock``, made by the first mesh that starts in it, served by one
daemon thread, one connection at a time:

    client: one line, "status", "snapshot", "facts" or "process"     server: one JSON object, then the end

Who may read it: the process's own user. Only that user may write to the directory (of our own choice it is that user's
alone), the socket has mode 0600, and the peer's user id is asked of the kernel where it tells it. Nothing can be changed through it. A request is at most ``LONGEST``
bytes and must come within ``PATIENCE`` seconds; an answer that nobody reads is given up after ``SENDING``.

The socket comes into being under another name and is renamed once it listens, so that a name that ends in ``.sock`` and
refuses connections is what a killed process left, and may be removed by the next process that starts.

Across a fork: the thread is stopped just before and started again in the parent; the child closes its copy of the
socket, and makes one of its own when it first uses a mesh. A child of gevent's ``subprocess`` only executes a program.

``_lock`` guards ``_doors``; each process has its own.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import selectors
import socket
import stat
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from meshlib.observe.peer import peer_uid
from meshlib.runtime import greenlets, threads
from meshlib.runtime.process import Local

if TYPE_CHECKING:
    from meshlib.model.snapshot import Snapshot
    from meshlib.model.status import Status
    from meshlib.observe.facts import Facts

__all__ = ["LONGEST", "Shown", "directories", "objection", "serve", "withdraw"]

#: Bytes of a request.
LONGEST = 64
#: Seconds within which a request must come.
PATIENCE = 2.0
#: Seconds within which an answer must be taken.
SENDING = 5.0

_log = logging.getLogger("meshlib")


class Shown(Protocol):
    """A mesh, as far as it is shown. The methods may be called from any thread."""

    def status(self) -> Status: ...

    def snapshot(self) -> Snapshot: ...

    def _facts(self) -> Facts: ...


def directories(configured: str | None) -> tuple[Path, ...]:
    """Where sockets are: the first is where this process makes its own, the others where other processes of this user,
    with another environment, may have theirs.
    """
    if configured:
        return (Path(configured),)
    found = [Path(tempfile.gettempdir()) / f"meshlib-{os.geteuid()}"]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if Path(runtime).is_absolute() and _is_ours(Path(runtime)):
        found.insert(0, Path(runtime) / "meshlib")
    return tuple(found)


def serve(mesh: Shown, configured: str | None) -> None:
    """Show ``mesh`` until it is withdrawn or gone. What stands against it is logged, once, and nothing is raised: a
    process does not fail because it cannot be looked into.
    """
    directory = directories(configured)[0]
    try:
        with _lock.get():
            door = _doors.get(directory)
            if door is None or door.pid != os.getpid():
                _prepare(directory, others=_others(configured))
                door = _doors[directory] = _Door(directory)
            door.show(mesh)
    except (OSError, ValueError) as problem:
        _warn(f"meshlib: no admin socket in {directory}: {problem}")


def withdraw(mesh: Shown) -> None:
    """Show ``mesh`` no more; the last one takes the socket with it."""
    with _lock.get():
        for directory, door in list(_doors.items()):
            if door.pid == os.getpid() and door.hide(mesh):
                door.close()
                del _doors[directory]


class _Door:
    """One socket of this process. All methods but ``_run`` and what it calls are used under ``_lock``."""

    def __init__(self, directory: Path) -> None:
        self.pid = os.getpid()
        self.path = directory / f"{self.pid}.sock"
        self._meshes: list[weakref.ref[Shown]] = []
        self._thread: threading.Thread | None = None
        _sweep(directory)
        self._listener = _listen(directory, self.path)
        self._wake, self._woken = socket.socketpair()
        self.start()

    def show(self, mesh: Shown) -> None:
        if not any(other() is mesh for other in self._meshes):
            self._meshes = [*(other for other in self._meshes if other() is not None), weakref.ref(mesh)]

    def hide(self, mesh: Shown) -> bool:
        """Whether nothing is left to show."""
        self._meshes = [other for other in self._meshes if other() not in (None, mesh)]
        return not self._meshes

    @property
    def stopped(self) -> bool:
        return self._thread is None

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="meshlib-admin", daemon=True)
            threads.start(self._thread)

    def stop(self) -> None:
        """End the thread; what it is answering just now may end later."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._wake.send(b"x")
            thread.join(1.0)

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self.path.unlink(missing_ok=True)
        self.drop()

    def drop(self) -> None:
        """Close this process's copies."""
        for held in (self._listener, self._wake, self._woken):
            held.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._woken in ready:
                    self._woken.recv(1)
                    return
                self._serve_one()

    def _serve_one(self) -> None:
        try:
            connection, _ = self._listener.accept()
            with connection:
                self._answer(connection)
        except OSError as problem:
            _log.debug("meshlib: admin socket: %s", problem)
        except Exception:  # noqa: BLE001 - logged below
            _log.exception("meshlib: admin socket")

    def _answer(self, connection: socket.socket) -> None:
        uid = peer_uid(connection)
        if uid is not None and uid != os.geteuid():
            _log.warning("meshlib: admin socket: user %d was turned away", uid)
            return
        asked = _request(connection)
        meshes = [mesh for mesh in (other() for other in self._meshes) if mesh is not None]
        said: dict[str, object] = {"pid": os.getpid(), "parent": os.getppid(), "command": sys.orig_argv}
        if asked == b"status":
            said["meshes"] = [mesh.status().to_dict() for mesh in meshes]
        elif asked == b"snapshot":
            said["meshes"] = [mesh.snapshot().to_dict() for mesh in meshes]
        elif asked == b"facts":
            said["meshes"] = [mesh._facts() for mesh in meshes]
        elif asked == b"process":
            said["meshes"] = [_in_short(mesh.status()) for mesh in meshes]
        else:
            said["error"] = 'a request is "status", "snapshot", "facts" or "process", and a line end'
        connection.settimeout(SENDING)
        connection.sendall(json.dumps(said).encode())


def _in_short(status: Status) -> dict[str, object]:
    """Who it is and how its sources are, without its clusters."""
    return {
        "service": status.node.get("cluster", ""),
        "started": status.process.started,
        "forked": status.process.forked,
        "sources": {source.name: source.state for source in status.sources},
    }


def _request(connection: socket.socket) -> bytes:
    """The line that the peer sent. Raises OSError where none came in time."""
    until = time.monotonic() + PATIENCE
    said = b""
    while b"\n" not in said and len(said) < LONGEST:
        connection.settimeout(max(0.001, until - time.monotonic()))
        piece = connection.recv(LONGEST - len(said))
        if not piece:
            break
        said += piece
    return said.partition(b"\n")[0].strip()


def objection(configured: str | None) -> str:
    """Why no socket can be in the directory of this process as it is now, in words; ``""``: it can, or is not there yet."""
    directory = directories(configured)[0]
    try:
        _look_at(directory, others=_others(configured))
    except FileNotFoundError:
        return ""
    except OSError as problem:
        return f"{directory}: {problem.strerror or problem}"
    return ""


def _others(configured: str | None) -> int:
    """The rights that nobody else may have in the directory."""
    return 0o022 if configured else 0o077


def _prepare(directory: Path, *, others: int) -> None:
    """Make the directory, or make sure that it is ours and that ``others`` have none of these rights. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _look_at(directory, others=others)


def _look_at(directory: Path, *, others: int) -> None:
    seen = directory.lstat()
    if not stat.S_ISDIR(seen.st_mode):
        raise OSError("it is not a directory")
    if seen.st_uid != os.geteuid():
        raise OSError(f"it belongs to user {seen.st_uid}")
    if stat.S_IMODE(seen.st_mode) & others:
        raise OSError(f"others have rights in it: chmod 700 {directory}")


def _is_ours(directory: Path) -> bool:
    try:
        return directory.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _listen(directory: Path, path: Path) -> socket.socket:
    """A listening socket at ``path`` that only this user can open."""
    early = directory / f".{path.name}"
    early.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(early))
        early.chmod(0o600)
        listener.listen(8)
        # A thread that takes a connection which is gone again must not wait for the next.
        listener.setblocking(False)
        early.rename(path)
    except BaseException:
        listener.close()
        early.unlink(missing_ok=True)
        raise
    return listener


def _sweep(directory: Path) -> None:
    """Remove what killed processes left, but for what another is about to rename: nobody listens there yet."""
    for path in directory.glob("[!.]*.sock"):
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.setblocking(False)
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as problem:
            _log.debug("meshlib: admin socket %s: %s", path, problem)
        finally:
            probe.close()


def _warn(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        _log.warning(text)


_lock = Local(threading.Lock)
_doors: dict[Path, _Door] = {}
_warned: set[str] = set()
_held = False


def _before_fork() -> None:
    global _held  # noqa: PLW0603 - only a thread that has the lock, or gave up, goes on to fork
    if greenlets.only_executes():
        return
    _held = _lock.get().acquire(timeout=1.0)
    for door in list(_doors.values()):  # also where the lock was not to be had
        if door.pid == os.getpid():
            door.stop()


def _after_fork_in_parent() -> None:
    global _held  # noqa: PLW0603 - it is given back
    if _held:
        _held = False
        _lock.get().release()
    # Another thread may have the lock by now, and open a door or close one.
    if any(door.stopped for door in list(_doors.values())):
        greenlets.after_fork(_start_again)


def _start_again() -> None:
    with _lock.get():
        for door in _doors.values():
            if door.pid == os.getpid():
                door.start()


def _after_fork_in_child() -> None:
    global _held  # noqa: PLW0603 - that was the parent's
    _held = False
    for door in _doors.values():
        door.drop()
    _doors.clear()


def _at_exit() -> None:
    with _lock.get():
        for door in _doors.values():
            if door.pid == os.getpid():
                door.close()
        _doors.clear()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
atexit.register(_at_exit)
