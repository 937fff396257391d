"""What test servers in threads have in common: they listen, serve each connection in a thread of its own, and end whole."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Accepting"]


class Accepting:
    """Listens on 127.0.0.1, or at a Unix socket's path, while it is entered. A subclass says what ``serve`` does with a connection;
    when the server ends, the connection is shut down and the thread awaited.

    Attributes:
        peers: The address of each connection's other end, ``""`` at a Unix socket.
    """

    def __init__(self, path: str = "") -> None:
        self.peers: list[str] = []
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        if path:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(path)
            self._listener.listen()
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        self._end(self._listener)
        self._threads[0].join()  # after that nobody is accepted
        for one in self._open:
            self._end(one)
        for thread in self._threads:
            thread.join()

    def serve(self, sock: socket.socket) -> None:
        """One connection, to its end; an ``OSError`` says that the client, or the end of the test, was first."""
        raise NotImplementedError

    def _end(self, one: socket.socket) -> None:
        with one, contextlib.suppress(OSError):  # the peer was first
            one.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads

    def _start(self, target: Callable[..., object], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            self.peers.append(peer[0] if peer else "")
            self._open.append(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            self.serve(sock)
