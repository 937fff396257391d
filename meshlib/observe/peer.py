"""Who is at the other end of a Unix socket, how `meshlib dump` asks another process, and which processes can be asked.

A process that can be asked has a socket named after its id (:mod:`meshlib.observe.admin`). One that has none may still be the
master of some that have: its workers are those that come of it, be it by way of others.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "LARGEST",
    "Gone",
    "NotReadable",
    "ask",
    "asked",
    "command_of",
    "family",
    "look",
    "peer_uid",
    "present",
]

#: Bytes of an answer; more is not one of ours.
LARGEST = 256 * 2**20

#: Generations between a master and a worker.
_DEEPEST = 16

_PEERCRED = struct.Struct("3i")  # linux: struct ucred: pid, uid, gid
_XUCRED = struct.Struct("2Ih16I")  # macOS, FreeBSD: struct xucred: version, uid, groups


class NotReadable(Exception):
    """A process cannot be read; the text says why and what to do."""


class Gone(NotReadable):
    """It is no more."""


def peer_uid(connection: socket.socket) -> int | None:
    """The peer's user id as the kernel knows it; None where it does not tell, and file permissions alone hold."""
    if hasattr(socket, "SO_PEERCRED"):
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
        return int(_PEERCRED.unpack(raw)[1])
    if sys.platform == "darwin" or sys.platform.startswith("freebsd"):  # pragma: no cover - not here
        raw = connection.getsockopt(0, 1, _XUCRED.size)  # SOL_LOCAL, LOCAL_PEERCRED
        return int(struct.unpack_from("2I", raw)[1])
    return None  # pragma: no cover - not here


# --- one process ---------------------------------------------------------------------------------------------------------


def ask(pid: int, what: str, directories: Iterable[Path], timeout: float = 10.0) -> list[dict[str, Any]]:
    """What the process ``pid`` says of its meshes: ``what`` is ``"status"`` or ``"snapshot"``, one dict a mesh. Raises
    :class:`NotReadable`. ``timeout`` in seconds, for all of it.
    """
    meshes: list[dict[str, Any]] = look(pid, what, directories, timeout)["meshes"]
    return meshes


def look(pid: int, what: str, directories: Iterable[Path], timeout: float = 10.0) -> dict[str, Any]:
    """The whole answer to a request: ``pid``, ``parent``, ``command`` and ``meshes``. Raises :class:`NotReadable`."""
    looked = []
    for directory in directories:
        path = directory / f"{pid}.sock"
        looked.append(str(path))
        try:
            owner = path.lstat().st_uid
        except OSError:
            continue
        if owner != os.geteuid():
            raise NotReadable(f"{path} belongs to user {owner}")
        return _read(path, what, timeout)
    raise _absent(pid, looked)


def _absent(pid: int, looked: list[str]) -> NotReadable:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return Gone(f"there is no process {pid}")
    except PermissionError:
        return NotReadable(f"process {pid} belongs to somebody else")
    return NotReadable(
        f"process {pid} has no admin socket (looked for {' and '.join(looked)}), nor has a worker of it: its configuration "
        "needs [admin] enabled = true, and it must have used its mesh; `meshlib ps` lists those that can be asked"
    )


def _read(path: Path, what: str, timeout: float) -> dict[str, Any]:
    try:
        raw = _exchange(path, what, time.monotonic() + timeout)
        said = json.loads(raw)
        meshes = said["meshes"]
    except TimeoutError:
        raise NotReadable(f"{path}: no answer within {timeout:g} s") from None
    except ConnectionRefusedError:
        raise Gone(f"{path}: nobody listens: its process was killed") from None
    except OSError as problem:
        raise NotReadable(f"{path}: {problem.strerror or problem}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise NotReadable(f"{path}: what it says is not of meshlib: {problem!r}") from None
    if not isinstance(meshes, list) or not all(isinstance(mesh, dict) for mesh in meshes):
        raise NotReadable(f"{path}: what it says is not of meshlib")
    found: dict[str, Any] = said
    return found


def _exchange(path: Path, what: str, until: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(max(0.001, until - time.monotonic()))
        connection.connect(os.fspath(path))
        uid = peer_uid(connection)
        if uid is not None and uid != os.geteuid():
            raise NotReadable(f"{path}: user {uid} listens there")
        connection.sendall(f"{what}\n".encode())
        pieces: list[bytes] = []
        size = 0
        while size <= LARGEST:
            connection.settimeout(max(0.001, until - time.monotonic()))
            piece = connection.recv(2**16)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            size += len(piece)
    raise ValueError(f"more than {LARGEST} bytes")


# --- all of them -----------------------------------------------------------------------------------------------------------


def present(directories: Iterable[Path]) -> tuple[int, ...]:
    """The processes that have a socket, whether they answer or not."""
    names = [path.name for directory in directories for path in directory.glob("*.sock")]
    found = {int(name.removesuffix(".sock")) for name in names if name.removesuffix(".sock").isdecimal()}
    return tuple(sorted(found))


def family(pid: int, directories: Iterable[Path]) -> tuple[int, ...]:
    """The processes to ask for ``pid``: itself, if it has a socket, and those of its workers that have."""
    found = present(directories)
    return (
        *(other for other in found if other == pid),
        *(other for other in found if other != pid and pid in _ancestors(other)),
    )


def asked(
    pid: int, what: str, directories: Iterable[Path], timeout: float = 10.0
) -> list[tuple[int, list[dict[str, Any]]]]:
    """What ``pid`` and its workers say: each process with its meshes. Workers that end meanwhile are left out. Raises
    NotReadable where nobody can be asked.
    """
    places = tuple(directories)
    pids = family(pid, places)
    if pids in ((), (pid,)):
        return [(pid, ask(pid, what, places, timeout))]
    found, refused = [], None
    for each in pids:
        try:
            found.append((each, ask(each, what, places, timeout)))
        except NotReadable as problem:
            refused = problem
    if not found and refused is not None:
        raise refused
    return found


def _ancestors(pid: int) -> list[int]:
    """Parent, its parent and so on, as far as the system tells."""
    found: list[int] = []
    while pid > 1 and len(found) < _DEEPEST:
        pid = _parent(pid)
        found.append(pid)
    return found


def command_of(pid: int) -> list[str]:
    """The command line of a process; empty where the system does not tell."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in raw.removesuffix(b"\0").split(b"\0")]


def _parent(pid: int) -> int:
    """The id of the parent; 0 where there is none, or the system does not tell."""
    try:
        # The name of the program, in parentheses, may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        if Path("/proc/self/stat").exists():
            return 0
    asking = ["ps", "-o", "ppid=", "-p", str(pid)]  # pragma: no cover - not here
    done = subprocess.run(asking, capture_output=True, text=True, check=False)  # noqa: S603 - a number
    text = done.stdout.strip()  # pragma: no cover - not here
    return int(text) if text.isdecimal() else 0  # pragma: no cover - not here
