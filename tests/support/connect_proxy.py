"""An HTTP/1.1 proxy for CONNECT, which keeps what it was asked for."""

from __future__ import annotations

import select
import socket
from contextlib import suppress

from tests.support.accepting import Accepting

__all__ = ["ConnectProxy"]


class ConnectProxy(Accepting):
    """Connects to whom CONNECT names, and hands bytes on in both directions.

    Attributes:
        asked: The target of each CONNECT; ``heads``: each head as it came.
        answer: What it says before it connects; where that is no 200, it does not.
    """

    def __init__(self, path: str = "") -> None:
        super().__init__(path)
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\n\r\n"

    def serve(self, sock: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = sock.recv(4096)
            if not data:
                return
            head += data
        self.heads.append(head)
        method, target, _ = head.decode("ascii").split(" ", 2)
        assert method == "CONNECT"
        self.asked.append(target)
        if b" 200 " not in self.answer:
            sock.sendall(self.answer)
            return
        host, _, port = target.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port))) as other:
            sock.sendall(self.answer)
            self._hand_on(sock, other)

    def _hand_on(self, one: socket.socket, two: socket.socket) -> None:
        ways = {one: two, two: one}
        while ways:
            try:
                ready, _, _ = select.select(list(ways), [], [])
            except ValueError:  # the proxy ends, and has closed one of them
                return
            for source in ready:
                data = source.recv(65_536)
                if data:
                    ways[source].sendall(data)
                    continue
                sink = ways.pop(source)
                with suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
