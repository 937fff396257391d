"""Plain sockets that wait by themselves.

A timeout of Python's sockets is paid for at each turn: setting it is a call of the system, and so is the look, before every
send and receive, whether it can go on. Each of these calls lets another thread in, which is what eight busy threads pay most
for. To the system a socket of here never blocks: its timeout is a number, an operation is tried at once, and only one that
cannot go on waits. Sockets under TLS and those of gevent stay what they are.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING, Any

from meshlib.wire.readable import new_poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.transports.wire.guard import Guard

__all__ = ["Socket", "waiting"]


class Socket(socket.socket):
    """A connected socket. As thread-safe as Python's own.

    Attributes:
        guard: The bounds of the attempt that uses it now, within its timeout; None: the timeout alone.
    """

    __slots__ = ("_seconds", "guard")

    def __init__(self, sock: socket.socket) -> None:
        """``sock`` is no longer to be used."""
        seconds = sock.gettimeout()
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        super().settimeout(0)
        self._seconds = seconds
        self.guard: Guard | None = None

    def settimeout(self, value: float | None) -> None:
        self._seconds = value

    def gettimeout(self) -> float | None:
        return self._seconds

    def setblocking(self, flag: bool) -> None:
        self._seconds = None if flag else 0.0

    def getblocking(self) -> bool:
        return self._seconds != 0

    @property
    def timeout(self) -> float | None:
        return self._seconds

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As Python's: the timeout is for all of ``data``."""
        end, left = self._end(), memoryview(data).cast("B")
        while left:
            left = left[self._tried(select.POLLOUT, end, _plain.send, left, flags) :]

    def send(self, data: Any, flags: int = 0) -> int:
        sent: int = self._tried(select.POLLOUT, self._end(), _plain.send, data, flags)
        return sent

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        got: int = self._tried(select.POLLIN, self._end(), _plain.recv_into, buffer, nbytes, flags)
        return got

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        got: bytes = self._tried(select.POLLIN, self._end(), _plain.recv, bufsize, flags)
        return got

    def _end(self) -> float | None:
        """When an operation that begins now has to be done (monotonic). Raises TimeoutError where no time is left."""
        seconds = self._seconds if self.guard is None else self.guard.left(self._seconds)
        return None if seconds is None else time.monotonic() + seconds

    def _tried(self, event: int, end: float | None, operation: Callable[..., Any], *arguments: Any) -> Any:
        """``operation``, which the system does at once; else after ``event``. Raises TimeoutError."""
        while True:
            try:
                return operation(self, *arguments)
            except BlockingIOError:
                if self._seconds == 0:
                    raise
            poll = new_poll()
            poll.register(self.fileno(), event)
            if self.guard is not None and self.guard.alarm is not None:
                with self.guard.ringing(self._stop):
                    ready = poll.poll(None if end is None else max(0.0, end - time.monotonic()) * 1000)
                if ready:
                    continue
                raise TimeoutError("timed out")
            if not poll.poll(None if end is None else max(0.0, end - time.monotonic()) * 1000):
                raise TimeoutError("timed out")

    def _stop(self) -> None:
        """Wake whoever blocks on it, from another thread. The connection is of no use after that."""
        with contextlib.suppress(OSError):  # the peer was faster
            self.shutdown(socket.SHUT_RDWR)


_plain = socket.socket
_available = hasattr(select, "poll") and _plain.__module__ == "socket"


def waiting(sock: socket.socket) -> socket.socket:
    """``sock``, which is connected, as one that waits by itself; as it is where that cannot be."""
    return Socket(sock) if _available and type(sock) is _plain else sock
