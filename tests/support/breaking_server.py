"""A server whose handshakes break at a point that a random number chooses: cut, reset, with bytes that are none of TLS's."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import threading
from collections import Counter
from typing import Self

__all__ = ["BreakingServer"]

_WAIT = 30.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset
#: What a server says in a handshake of TLS 1.3 is some 900 bytes.
_MOST = 1200
_WAYS = ("end", "reset", "garbage", "flipped", "deaf", "silent")


class BreakingServer:
    """On loopback, with so many threads that accept.

    Attributes:
        accepted: Connections, by the way in which they were broken.
        good: From now on nobody is broken, and a request is answered.
    """

    def __init__(self, context: ssl.SSLContext, seed: int, threads: int = 4) -> None:
        self._context = context
        self.accepted: Counter[str] = Counter()
        self.good = False
        self._lock = threading.Lock()  # guards accepted
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._threads = [
            threading.Thread(target=self._serve, args=(random.Random(seed + number),), daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_WAIT)
        self._listener.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self, chance: random.Random) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            way = "good" if self.good else chance.choice(_WAYS)
            with self._lock:
                self.accepted[way] += 1
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_WAIT)
                if way == "good":
                    self._answer(connection)
                else:
                    self._break(connection, way, chance)

    def _answer(self, connection: socket.socket) -> None:
        with self._context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(65_536)
            secured.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")

    def _break(self, connection: socket.socket, way: str, chance: random.Random) -> None:
        if way == "deaf":  # a reset, since what came is not read
            return
        heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
        side = self._context.wrap_bio(heard, said, server_side=True)
        left = chance.randrange(_MOST)
        if way == "silent":
            left = 0
        while left >= 0:
            try:
                side.do_handshake()
                left = -1  # whoever came so far sees the end of it
            except ssl.SSLWantReadError:
                pass
            data = said.read()
            cut = data[: max(0, left)] if left >= 0 else data
            if way == "flipped" and cut:
                at = chance.randrange(len(cut))
                cut = cut[:at] + bytes([cut[at] ^ 1 << chance.randrange(8)]) + cut[at + 1 :]
            connection.sendall(cut)
            left -= len(data)
            if left < 0:
                break
            data = connection.recv(65_536)
            if not data:
                return
            heard.write(data)
        if way == "garbage":
            connection.sendall(chance.randbytes(chance.randrange(1, 400)))
        if way == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
