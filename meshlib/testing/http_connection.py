"""The server's side of one HTTP/1.1 connection: reading requests, writing responses, breaking off.

One thread owns a connection and does all of its reading and writing; `wake`, `cut` and `leave` come from others.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["BadRequest", "Connection", "Gone", "RequestHead"]

_HEAD_LIMIT = 64 * 1024
_READ = 64 * 1024
_TLS_ALERT = 0x15


class BadRequest(Exception):
    """The bytes are no HTTP request; the text says why."""


class Gone(Exception):
    """The client has left, or the server is being stopped."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's head as it arrived: headers in order, names as they were written."""

    method: str
    path: str
    version: str
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def keeps_alive(self) -> bool:
        connection = (self.get("connection") or "").lower()
        return "keep-alive" in connection if self.version == "HTTP/1.0" else "close" not in connection


class Connection:
    """A connection that was accepted. `number` counts a server's connections from 1."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.number = number
        self.requests = 0
        self.sni = ""
        self._sock = sock
        self._buffer = bytearray()
        self._wake: tuple[int, int] | None = None
        self._over = False
        self._closed = False
        self._lock = threading.Lock()  # guards _wake, _over, _closed and the socket's being open
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def over(self) -> bool:
        """Whether somebody else ended it."""
        return self._over

    def secure(self, context: ssl.SSLContext) -> None:
        """The TLS handshake. Raises OSError (ssl.SSLError) if it fails."""
        wrapped = context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._sock = wrapped
        wrapped.do_handshake()
        self.sni = getattr(wrapped, "asked_for", "")

    # ---------------------------------------------------------------------------------------- reading

    def read_head(self) -> RequestHead | None:
        """The next request's head; None when the client has no more. Raises BadRequest, Gone."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise BadRequest(f"the head is longer than {_HEAD_LIMIT} bytes")
            if not self._more():
                return None
        raw = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        return _parse_head(raw)

    def read_body(self, head: RequestHead) -> Iterator[bytes]:
        """The request's body as it comes. Raises BadRequest, Gone."""
        if (head.get("expect") or "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in (head.get("transfer-encoding") or "").lower():
            return self._chunks()
        length = head.get("content-length") or "0"
        if not (length.isascii() and length.isdecimal()):
            raise BadRequest(f"content-length {length!r} is no number")
        return self._exactly(int(length))

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left:
            if not self._buffer:
                self._need()
            part = bytes(self._buffer[:left])
            del self._buffer[: len(part)]
            left -= len(part)
            yield part

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._line()
            size = line.partition(b";")[0].strip()
            try:
                length = int(size, 16) if size.isalnum() else -1
            except ValueError:
                length = -1
            if length < 0:
                raise BadRequest(f"chunk size {size[:20]!r} is no number")
            if not length:
                break
            yield from self._exactly(length)
            self._line()
        while self._line():  # trailers
            pass

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise BadRequest("a line does not end")
            self._need()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _need(self) -> None:
        if not self._more():
            raise Gone("the client left in the middle of a request")

    def _more(self) -> bool:
        try:
            data = self._sock.recv(_READ)
        except OSError as error:
            raise Gone(str(error)) from error
        self._buffer += data
        return bool(data)

    # ---------------------------------------------------------------------------------------- writing

    def write(self, data: bytes) -> None:
        """Sends all of it. Raises Gone."""
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise Gone(str(error)) from error

    def pause(self, seconds: float | None = None) -> None:
        """Waits that long, or (None) until `wake`. Raises Gone as soon as the client leaves or the server stops."""
        self._paused(seconds, lambda: False)

    def _paused(self, seconds: float | None, done: Callable[[], bool]) -> None:
        with self._lock:
            if self._over:
                raise Gone("the server is being stopped")
            self._wake = os.pipe()
        try:
            if not done():  # asked once more, now that `wake` is heard
                self._wait(self._wake[0], seconds)
        finally:
            with self._lock:
                ends, self._wake = self._wake, None
            for end in ends:
                os.close(end)
        if self._over:
            raise Gone("the server is being stopped")

    def pause_until(self, done: Callable[[], bool]) -> None:
        """Waits until `done()` is true; it is asked after each `wake`. Raises Gone, as `pause` does."""
        while not done():
            self._paused(None, done)

    def _wait(self, wake: int, seconds: float | None) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            if not self._buffer:
                selector.register(self._sock, selectors.EVENT_READ)
            ready = selector.select(seconds)
            if any(key.fileobj is self._sock for key, _ in ready):
                self._look()
                selector.unregister(self._sock)  # it sends a further request: that can wait
                selector.select(seconds)

    def _look(self) -> None:
        """Raises Gone if what is there to read is the client's leaving; reads nothing."""
        with socket.socket(fileno=os.dup(self._sock.fileno())) as raw:
            try:
                first = raw.recv(1, socket.MSG_PEEK)
            except OSError as error:
                raise Gone(str(error)) from error
        if not first or (isinstance(self._sock, ssl.SSLSocket) and first[0] == _TLS_ALERT):
            raise Gone("the client left while it was kept waiting")

    # ----------------------------------------------------------------------------------------- ending

    def wake(self) -> None:
        """Ends a `pause`. From any thread."""
        with self._lock:
            if self._wake is not None:
                os.write(self._wake[1], b"!")

    def cut(self) -> None:
        """Makes its thread end it with a reset. From any thread."""
        self._end(socket.SHUT_RD, reset=True)

    def leave(self) -> None:
        """Makes its thread end it with an orderly close. From any thread."""
        self._end(socket.SHUT_RDWR, reset=False)

    def _end(self, how: int, *, reset: bool) -> None:
        with self._lock:
            self._over = True
            if not self._closed:
                with contextlib.suppress(OSError):  # the client has left already
                    if reset:
                        self._linger()
                    self._sock.shutdown(how)
        self.wake()

    def reset(self) -> None:
        """Closes it with RST instead of FIN. By its own thread."""
        with self._lock, contextlib.suppress(OSError):
            self._linger()
        self.close()

    def close(self) -> None:
        """Closes it. By its own thread; a second time does nothing."""
        with self._lock:
            self._closed = True
            self._sock.close()

    def _linger(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _parse_head(raw: bytes) -> RequestHead:
    first, *lines = raw.decode("latin-1").lstrip("\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(f"{first[:100]!r} is no request line")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(f"{line[:100]!r} is no header")
        headers.append((name, value.strip(" \t")))
    return RequestHead(words[0], words[1], words[2], tuple(headers))
