"""A server that keeps what arrives byte for byte, and answers each request with 200 and ``ok``."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

__all__ = ["RawServer"]

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RawServer:
    """Listens on 127.0.0.1, or at a Unix socket's path. Knows as much of HTTP as it takes to find the end of a request.

    Attributes:
        heads: Each request's head as it came, in the order of arrival, without the empty line.
        bodies: Each request's body, chunks as they came.
        peers: The address of each connection's other end.
        answer: What is answered.
    """

    def __init__(self, path: str = "", answer: bytes = _ANSWER) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.peers: list[str] = []
        self.answer = answer
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

    def _end(self, one: socket.socket) -> None:
        with one, contextlib.suppress(OSError):  # the peer was first
            one.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
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
        try:
            with sock.makefile("rb") as stream:
                while head := self._head(stream.readline):
                    lines = [line.lower().partition(b":") for line in head.split(b"\r\n")[1:]]
                    found = {name: value.strip() for name, _, value in lines}
                    body = b""
                    if found.get(b"transfer-encoding") == b"chunked":
                        while not body.endswith(b"0\r\n\r\n"):
                            line = stream.readline()
                            if not line:
                                return  # the client gave up
                            body += line
                    else:
                        body = stream.read(int(found.get(b"content-length", b"0")))
                    self.heads.append(head)
                    self.bodies.append(body)
                    sock.sendall(self.answer)
        except OSError:
            return  # the client, or the end of the test, was first

    @staticmethod
    def _head(readline: object) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line: bytes = readline()  # type: ignore[operator]
            if not line:
                return b""
            head += line
        return head.removesuffix(b"\r\n\r\n")
