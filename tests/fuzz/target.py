"""What one reader of outside bytes is tried with."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["BETWEEN", "Target", "file_of", "pieces", "received"]

#: Stands between the pieces of an input that is made of several.
BETWEEN = b"\xfe"


@dataclass(frozen=True)
class Target:
    """``one``: puts an input to what is tried, and sees that what must hold does. ``reads``: the modules that this is for, below
    ``meshlib``. ``share``: how often it is chosen, beside others.
    """

    name: str
    reads: tuple[str, ...]
    one: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    share: int = 4


def pieces(data: bytes, least: int) -> list[bytes]:
    """The parts of ``data``, ``least`` of them or more."""
    found = data.split(BETWEEN)
    return found + [b""] * (least - len(found))


@cache
def _folder(process: int) -> Path:
    del process  # a fork's own
    made = Path(tempfile.mkdtemp(prefix="meshlib-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def file_of(data: bytes, name: str) -> Path:
    """A file that holds ``data``; the next one of the name takes its place."""
    path = _folder(os.getpid()) / name
    path.write_bytes(data)
    return path


@contextmanager
def received(data: bytes) -> Iterator[socket.socket]:
    """A connection whose peer has said ``data`` and will say no more, and still hears."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        yield ours
