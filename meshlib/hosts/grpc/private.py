"""Unix sockets that only this process may use: where they are, and who is at the other end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import struct
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

__all__ = ["TELLS", "Folder", "peer"]

#: Where the directory of the sockets may be, after the system's place for temporary files: that may not be writable.
_PARENTS = ("/tmp", "/dev/shm")  # noqa: S108 - a directory of our own is made in one of them
_PREFIX = "meshlib-grpc-"
#: Bytes of the path of that place: ``sun_path`` has 104 on macOS and the BSDs, 108 on Linux, of which the name needs some.
_LONGEST_PARENT = 104 - len(_PREFIX) - 24
#: Seconds for which a directory may be there that is not locked yet, and how many are looked at.
_YOUNG, _MOST_SWEPT = 60.0, 64


class Folder:
    """A directory that only this user can enter, locked while it is in use. Raises OSError where there can be none."""

    def __init__(self) -> None:
        self._name = self._made()
        self._lock = os.open(self._name, os.O_RDONLY | os.O_CLOEXEC)
        self._count = 0
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def path(self) -> str:
        """Another path in it."""
        self._count += 1
        return f"{self._name}/{self._count}"

    def remove(self) -> None:
        shutil.rmtree(self._name, ignore_errors=True)
        self.abandon()

    def abandon(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    @staticmethod
    def _made() -> str:
        errors: list[OSError] = []
        for parent in dict.fromkeys((tempfile.gettempdir(), *_PARENTS)):
            if len(os.fsencode(parent)) > _LONGEST_PARENT:
                continue
            try:
                _sweep(parent)
                return tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
            except OSError as error:
                errors.append(error)
        raise errors[-1] if errors else OSError("no directory for it has a path that is short enough")


def _sweep(parent: str) -> None:
    """Remove what processes of this user left that were killed. Raises OSError where ``parent`` cannot be read."""
    old = time.time() - _YOUNG
    for path in islice(Path(parent).glob(f"{_PREFIX}*"), _MOST_SWEPT):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mtime > old:
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


#: Systems that tell which process is at the other end of a Unix socket.
TELLS = sys.platform in ("linux", "darwin")


def peer(sock: socket.socket) -> int:
    """The id of the process at the other end. Where the system tells it; raises OSError."""
    if sys.platform == "linux":
        found: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    else:  # <sys/un.h> of macOS: SOL_LOCAL is 0, LOCAL_PEERPID 2
        found = struct.unpack("i", sock.getsockopt(0, 2, 4))[0]
    return found
