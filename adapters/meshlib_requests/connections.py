"""urllib3's connections, with what an attempt of a call plan needs of them.

A connection knows the attempt that uses it: each read and write is bounded by the attempt's deadline (urllib3 bounds single
reads only, so that a server which sends a byte now and then could hold a call for ever), and whether a byte of the request
may have left is noted where it leaves. The classes have urllib3's names, which are part of its messages.
"""

from __future__ import annotations

import io
import socket
import time
from typing import TYPE_CHECKING, Any

from urllib3 import connection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from meshlib.interceptors import own_class
from meshlib.transports.wire.guard import Alarm, Guard
from meshlib.wire.readable import readable
from meshlib_requests.heads import Head, line
from meshlib_requests.sockets import Socket, waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: How much later than its deadline an operation may end. Seconds.
_SLACK = 0.002

__all__ = ["Attempt", "HTTPConnection", "HTTPSConnection"]


class Attempt(Guard):
    """The bounds of one attempt, the connection that carries it, and the Host that it is sent with."""

    __slots__ = ("authority", "connection")

    def __init__(
        self,
        clock: Callable[[], float],
        deadline: float | None,
        timeouts: Mapping[str, float | None],
        connect: float | None,
        alarm: Alarm | None = None,
    ) -> None:
        super().__init__(clock, deadline, timeouts, connect, alarm)
        self.connection: Any = None
        self.authority = ""


def _bound(sock: Any, seconds: float | None) -> None:
    """Give ``sock`` this timeout, unless it has one as good: setting it is a call of the system, and lets other threads in
    between.
    """
    now = sock.gettimeout()
    if now is None or seconds is None or not -_SLACK < seconds - now <= 0:
        sock.settimeout(seconds)


class _Reader(io.RawIOBase):
    """What is read from a socket, each time within what is left of the attempt."""

    def __init__(self, sock: Any, attempt: Attempt) -> None:
        self._sock = sock
        # Holds the socket open until the response is read, even if the connection lets go of it.
        self._raw = sock.makefile("rb", buffering=0)
        self._attempt = attempt
        self._read = attempt.seconds("read")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        _bound(self._sock, self._attempt.left(self._read))
        got: int | None = self._raw.readinto(buffer)
        return got

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Source:
    """Stands for the socket where ``http.client`` makes a file of it."""

    __slots__ = ("_attempt", "_sock")

    def __init__(self, sock: Any, attempt: Attempt) -> None:
        self._sock = sock
        self._attempt = attempt

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Reader(self._sock, self._attempt))


class _Bounded:
    """Mixed into urllib3's connections. Used by one attempt at a time.

    Attributes:
        attempt: Who uses it.
        path: The socket's path where the endpoint is a Unix socket.
        keep: Seconds that it may be idle; None: as long as it likes.
    """

    attempt: Attempt | None = None
    path: str | None = None
    keep: float | None = None
    _since = 0.0

    sock: Any
    timeout: Any
    host: str

    # --- what a pool asks ---------------------------------------------------------------------------------------

    def is_idle(self) -> bool:
        """Whether it can carry another request."""
        return self.sock is not None

    def has_expired(self) -> bool:
        """Whether it should not be used again: idle for too long, or the peer closed it or said what nobody asked."""
        if self.keep is not None and time.monotonic() - self._since > self.keep:
            return True
        return readable(self.sock.fileno())

    def take(self, attempt: Attempt) -> None:
        """It is used for one request from now on."""
        self.attempt = attempt
        if isinstance(self.sock, Socket):
            self.sock.guard = attempt

    def rest(self) -> None:
        """Its request is done."""
        self.attempt = None
        if isinstance(self.sock, Socket):
            self.sock.guard = None
        self._since = time.monotonic()

    # --- what http.client and urllib3 ask -----------------------------------------------------------------------

    def putrequest(
        self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False
    ) -> None:
        """As ``http.client``'s, which would write the endpoint's address as Host."""
        attempt = self.attempt
        if attempt is None or skip_host:
            super().putrequest(method, url, skip_host, skip_accept_encoding)  # type: ignore[misc]
            return
        super().putrequest(method, url, skip_host=True, skip_accept_encoding=True)  # type: ignore[misc]
        self.putheader("Host", attempt.authority)
        if not skip_accept_encoding:
            self.putheader("Accept-Encoding", "identity")

    def putheader(self, header: Any, *values: Any) -> None:
        plain = line(header, values)
        if plain is None:
            super().putheader(header, *values)  # type: ignore[misc]
        else:
            self._output(plain)  # type: ignore[attr-defined]

    def send(self, data: Any) -> None:
        attempt = self.attempt
        if attempt is not None:
            if self.sock is None:
                self.connect()  # type: ignore[attr-defined]
            attempt.note_sent()
            if attempt.deadline is not None and not isinstance(self.sock, Socket):
                _bound(self.sock, attempt.left(self.timeout))
        super().send(data)  # type: ignore[misc]

    def response_class(self, sock: Any, debuglevel: int = 0, method: str | None = None) -> Any:
        attempt = self.attempt
        bounded = attempt is None or attempt.deadline is None or isinstance(sock, Socket)
        source: Any = sock if attempt is None or bounded else _Source(sock, attempt)
        return Head(source, debuglevel, method)

    def _new_conn(self) -> socket.socket:
        if self.path is None:
            made: socket.socket = super()._new_conn()  # type: ignore[misc]
            return made
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.path)
        except TimeoutError as error:
            sock.close()
            message = f"Connection to {self.path} timed out. (connect timeout={self.timeout})"
            raise ConnectTimeoutError(self, message) from error
        except OSError as error:
            sock.close()
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error  # type: ignore[arg-type]
        return sock


class HTTPConnection(_Bounded, own_class(connection, "HTTPConnection")):  # type: ignore[misc]  # response_class is a method here
    """In plain text."""

    def _new_conn(self) -> socket.socket:
        sock = waiting(super()._new_conn())
        if isinstance(sock, Socket):
            sock.guard = self.attempt
        return sock


class HTTPSConnection(_Bounded, own_class(connection, "HTTPSConnection")):  # type: ignore[misc]  # as above
    """Over TLS."""
