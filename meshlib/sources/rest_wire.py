"""One kept HTTP/1.1 connection to a control plane that speaks REST, for one thread.

http.client and no pool: one request at a time, to one server. A connection that the server closed while it was idle is
opened anew, once a request. ``abort`` may be called from any thread and wakes the one that waits here: ``_lock`` guards the
socket between the two.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

from meshlib import __version__
from meshlib.model.address import Address
from meshlib.sources.channel import call_metadata
from meshlib.sources.node import USER_AGENT
from meshlib.sources.polling import TIMEOUT, NotServed, PollError
from meshlib.xds.bootstrap import ChannelKind

if TYPE_CHECKING:
    from meshlib.xds.bootstrap import Server

__all__ = ["LARGEST", "Connection"]

#: Bytes of an answer: the clusters and endpoints of a large mesh, written as JSON.
LARGEST = 64 * 2**20
#: Characters of an answer that is an error which are told.
_SHOWN = 200


class Connection:
    """See the header. ``server.uri`` is an address; its channel says whether TLS is spoken, and with which files. Each step of an
    exchange has ``TIMEOUT``, should nobody call ``abort``.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._address = Address.parse(server.uri.removeprefix("dns:///"), 443)
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"{USER_AGENT}/{__version__}",
        }
        self._lock = threading.Lock()
        self._aborted = False
        self._ended = False
        self._socket: socket.socket | None = None
        self._connection: http.client.HTTPConnection | None = None

    def connect(self) -> None:
        """Raises PollError."""
        self.close()
        with self._lock:
            self._aborted = self._ended
        try:
            connected = self._keep(self._connected())
            if self._server.channel.kind is ChannelKind.TLS:
                connected = self._keep(
                    self._context().wrap_socket(connected, server_hostname=self._address.host)
                )
        except (OSError, ValueError) as problem:
            self.close()
            raise PollError(f"cannot connect to {self._address}: {_reason(problem)}") from problem
        self._connection = http.client.HTTPConnection(self._host(), timeout=TIMEOUT)
        self._connection.auto_open = 0
        self._connection.sock = connected

    def post(self, path: str, body: bytes) -> bytes | None:
        """The body of a 200; None for 304. Raises PollError for everything else."""
        with self._lock:
            self._aborted = self._ended
        fresh = self._connection is None
        if fresh:
            self.connect()
        try:
            return self._exchange(path, body)
        except (OSError, http.client.HTTPException) as problem:
            self.close()
            # The server may close what is idle at any time, also just when a request is on its way.
            if fresh or self._aborted or not _closed_before_answer(problem):
                raise PollError(self._words(path, problem)) from problem
        self.connect()
        try:
            return self._exchange(path, body)
        except (OSError, http.client.HTTPException) as problem:
            self.close()
            raise PollError(self._words(path, problem)) from problem

    def close(self) -> None:
        """The next request opens another connection."""
        with self._lock:
            connection, self._connection = self._connection, None
            held, self._socket = self._socket, None
        if connection is not None:
            connection.close()
        if held is not None:
            held.close()

    def abort(self) -> None:
        """End what is under way: it raises PollError."""
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Of the socket below: TLS's own is in use by the other thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def end(self) -> None:
        """As ``abort``; what would be begun after it raises PollError."""
        self._ended = True
        self.abort()

    # --- one exchange -------------------------------------------------------------------------------------------

    def _exchange(self, path: str, body: bytes) -> bytes | None:
        connection = self._connection
        assert connection is not None
        connection.request("POST", path, body, {**self._headers, **dict(call_metadata(self._server))})
        answer = connection.getresponse()
        data = b"" if (answer.length or 0) > LARGEST else answer.read(LARGEST + 1)
        if len(data) > LARGEST or (answer.length or 0) > LARGEST:
            self.close()
            raise PollError(f"POST {path}: the answer is larger than {LARGEST // 2**20} MiB")
        if answer.length:  # a bounded read says nothing of it
            raise http.client.IncompleteRead(data, answer.length)
        if answer.will_close or not answer.isclosed():
            self.close()
        if answer.status == 304:
            return None
        if answer.status != 200:
            text = " ".join(data[: 4 * _SHOWN].decode("utf-8", "replace").split())[:_SHOWN]
            kind = NotServed if answer.status == 404 else PollError
            raise kind(f"POST {path}: answered {answer.status}{f': {text}' if text else ''}")
        if encoding := answer.headers.get("Content-Encoding"):
            raise PollError(
                f"POST {path}: the answer is encoded ({encoding[:_SHOWN]}), which was not asked for"
            )
        return data

    def _connected(self) -> socket.socket:
        if not self._address.unix:
            return socket.create_connection((self._address.host, self._address.port), TIMEOUT)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(TIMEOUT)
            made.connect(self._address.host)
        except OSError:
            made.close()
            raise
        return made

    def _keep(self, made: Any) -> Any:
        """The socket that ``abort`` is to shut down."""
        with self._lock:
            self._socket = made
            if self._aborted:
                raise TimeoutError("timed out")
        return made

    def _context(self) -> ssl.SSLContext:
        channel = self._server.channel
        context = ssl.create_default_context(cafile=channel.ca_file or None)
        if channel.cert_file:
            context.load_cert_chain(channel.cert_file, channel.key_file or None)
        return context

    def _host(self) -> str:
        return "localhost" if self._address.unix else str(self._address)

    def _words(self, path: str, problem: Exception) -> str:
        if self._aborted or isinstance(problem, TimeoutError):
            return f"POST {path}: no whole answer within {TIMEOUT:g} s"
        return f"POST {path}: {_reason(problem)}"


def _closed_before_answer(problem: Exception) -> bool:
    return isinstance(problem, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError)


def _reason(problem: Exception) -> str:
    """In one line: what is no HTTP http.client tells with all that it read."""
    told = " ".join(str(getattr(problem, "strerror", None) or problem)[: 4 * _SHOWN].split())[:_SHOWN]
    return told or type(problem).__name__
