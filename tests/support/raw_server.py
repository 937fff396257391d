"""A server that keeps what arrives byte for byte, and answers each request with 200 and ``ok``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.accepting import Accepting

if TYPE_CHECKING:
    import socket

__all__ = ["RawServer"]

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RawServer(Accepting):
    """Listens on 127.0.0.1, or at a Unix socket's path. Knows as much of HTTP as it takes to find the end of a request.

    Attributes:
        heads: Each request's head as it came, in the order of arrival, without the empty line.
        bodies: Each request's body, chunks as they came.
        answer: What is answered.
    """

    def __init__(self, path: str = "", answer: bytes = _ANSWER) -> None:
        super().__init__(path)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.answer = answer

    def serve(self, sock: socket.socket) -> None:
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

    @staticmethod
    def _head(readline: object) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line: bytes = readline()  # type: ignore[operator]
            if not line:
                return b""
            head += line
        return head.removesuffix(b"\r\n\r\n")
