"""Blocking sockets for httpcore's connections, below a :class:`~meshlib.transports.wire.guard.Guard`."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from meshlib.transports.wire.guard import Op, seconds_left
from meshlib.wire.readable import new_poll, readable

__all__ = ["SyncBackend", "SyncStream"]

SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class SyncStream:
    """A connected socket as httpcore's ``NetworkStream``. ``core``: the httpcore module whose errors it raises."""

    __slots__ = ("_core", "_poll", "_sock", "_timeout")

    def __init__(self, core: ModuleType, sock: socket.socket) -> None:
        self._core = core
        self._sock = sock
        self._timeout = sock.gettimeout()
        self._poll: Any = None

    def _bound(self, timeout: Op | float | None) -> None:
        seconds = seconds_left(timeout)
        if seconds != self._timeout:
            self._sock.settimeout(seconds)
            self._timeout = seconds

    def read(self, max_bytes: int, timeout: Op | float | None = None) -> bytes:
        try:
            self._bound(timeout)
            if isinstance(timeout, Op) and timeout.guard.alarm is not None:
                with timeout.guard.ringing(self._stop):
                    return self._sock.recv(max_bytes)
            return self._sock.recv(max_bytes)
        except TimeoutError as error:
            _note(timeout)
            raise self._core.ReadTimeout(str(error)) from error
        except OSError as error:
            raise self._core.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: Op | float | None = None) -> None:
        if not buffer:
            return
        if isinstance(timeout, Op):
            timeout.guard.note_sent()
        try:
            self._bound(timeout)
            if isinstance(timeout, Op) and timeout.guard.alarm is not None:
                with timeout.guard.ringing(self._stop):
                    self._sock.sendall(buffer)
                return
            sent = self._sock.send(buffer)
            while sent < len(buffer):
                self._bound(timeout)
                sent += self._sock.send(memoryview(buffer)[sent:])
        except TimeoutError as error:
            _note(timeout)
            raise self._core.WriteTimeout(str(error)) from error
        except OSError as error:
            raise self._core.WriteError(str(error)) from error

    def _stop(self) -> None:
        """Wake whoever blocks on it, from another thread. The connection is of no use after that."""
        with contextlib.suppress(OSError):  # the peer was faster
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._poll = None  # the number of the descriptor will be another's
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: Op | float | None = None,
    ) -> SyncStream:
        try:
            self._bound(timeout)
            return SyncStream(
                self._core, ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)
            )
        except TimeoutError as error:
            self.close()
            raise self._core.ConnectTimeout(str(error)) from error
        except OSError as error:
            self.close()
            raise self._core.ConnectError(str(error)) from error
        except BaseException:  # a greenlet is killed in the handshake
            self.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._sock if isinstance(self._sock, ssl.SSLSocket) else None
        if info == "client_addr":
            return self._sock.getsockname()
        if info == "server_addr":
            return self._sock.getpeername()
        if info == "socket":
            return self._sock
        if info == "is_readable":
            return self._is_readable()
        return None

    def _is_readable(self) -> bool:
        """Whether a read would return at once: on an idle connection that means that the server closed it."""
        poll = self._poll
        if poll is None:
            descriptor = self._sock.fileno()
            poll = new_poll() if descriptor >= 0 else None
            if poll is None:
                return readable(descriptor)
            poll.register(descriptor, select.POLLIN)
            self._poll = poll
        # A descriptor that was closed meanwhile is reported as well (POLLNVAL).
        return bool(poll.poll(0))


class SyncBackend:
    """httpcore's ``NetworkBackend`` over plain sockets."""

    __slots__ = ("_core",)

    def __init__(self, core: ModuleType) -> None:
        self._core = core

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: Op | float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> SyncStream:
        source = None if local_address is None else (local_address, 0)
        try:
            sock = socket.create_connection((host, port), seconds_left(timeout), source_address=source)
            for option in socket_options or ():
                sock.setsockopt(*option)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except TimeoutError as error:
            _note(timeout)
            raise self._core.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise self._core.ConnectError(str(error)) from error
        return SyncStream(self._core, sock)

    def connect_unix_socket(
        self,
        path: str,
        timeout: Op | float | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> SyncStream:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            for option in socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(seconds_left(timeout))
            sock.connect(path)
        except TimeoutError as error:
            _note(timeout)
            sock.close()
            raise self._core.ConnectTimeout(str(error)) from error
        except OSError as error:
            sock.close()
            raise self._core.ConnectError(f"{path}: {error}") from error
        return SyncStream(self._core, sock)

    def sleep(self, seconds: float) -> None:
        """Never called: connection retries are a plan's matter."""
        raise NotImplementedError


def _note(timeout: Op | float | None) -> None:
    if isinstance(timeout, Op):
        timeout.guard.note_timeout()
