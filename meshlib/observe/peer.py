"""Who is at the other end of a Unix socket, and how `meshlib dump` asks another process."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["LARGEST", "NotReadable", "ask", "peer_uid"]

#: Bytes of an answer; more is not one of ours.
LARGEST = 256 * 2**20

_PEERCRED = struct.Struct("3i")  # linux: struct ucred: pid, uid, gid
_XUCRED = struct.Struct("2Ih16I")  # macOS, FreeBSD: struct xucred: version, uid, groups


class NotReadable(Exception):
    """A process cannot be read; the text says why and what to do."""


def peer_uid(connection: socket.socket) -> int | None:
    """The peer's user id as the kernel knows it; None where it does not tell, and file permissions alone hold."""
    if hasattr(socket, "SO_PEERCRED"):
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
        return int(_PEERCRED.unpack(raw)[1])
    if sys.platform == "darwin" or sys.platform.startswith("freebsd"):  # pragma: no cover - not here
        raw = connection.getsockopt(0, 1, _XUCRED.size)  # SOL_LOCAL, LOCAL_PEERCRED
        return int(struct.unpack_from("2I", raw)[1])
    return None  # pragma: no cover - not here


def ask(pid: int, what: str, directories: Iterable[Path], timeout: float = 10.0) -> list[dict[str, Any]]:
    """What the process ``pid`` says of its meshes: ``what`` is ``"status"`` or ``"snapshot"``, one dict a mesh. Raises
    :class:`NotReadable`. ``timeout`` in seconds, for all of it.
    """
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
    raise NotReadable(_absent(pid, looked))


def _absent(pid: int, looked: list[str]) -> str:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return f"there is no process {pid}"
    except PermissionError:
        return f"process {pid} belongs to somebody else"
    return (
        f"process {pid} has no admin socket (looked for {' and '.join(looked)}): its configuration needs "
        "[admin] enabled = true, and it must have used its mesh"
    )


def _read(path: Path, what: str, timeout: float) -> list[dict[str, Any]]:
    try:
        raw = _exchange(path, what, time.monotonic() + timeout)
        said = json.loads(raw)
        meshes = said["meshes"]
    except TimeoutError:
        raise NotReadable(f"{path}: no answer within {timeout:g} s") from None
    except ConnectionRefusedError:
        raise NotReadable(f"{path}: nobody listens: its process was killed") from None
    except OSError as problem:
        raise NotReadable(f"{path}: {problem.strerror or problem}") from None
    except (ValueError, KeyError, TypeError) as problem:
        raise NotReadable(f"{path}: what it says is not of meshlib: {problem!r}") from None
    if not isinstance(meshes, list) or not all(isinstance(mesh, dict) for mesh in meshes):
        raise NotReadable(f"{path}: what it says is not of meshlib")
    return meshes


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
