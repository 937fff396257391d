"""The server that everybody is measured against: one process, a raw protocol on uvloop, one answer made in advance.

``python -m bench.server 50`` listens on 50 ports of 127.0.0.1, prints them as a JSON list, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

BODY = b"x" * 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
END = b"\r\n\r\n"


class Server(asyncio.Protocol):
    """Answers each head that is complete. Requests have no body here."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has the shape, not the base

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._rest:
            data = self._rest + data
        count = data.count(END)
        self._rest = b"" if data.endswith(END) else data.rpartition(END)[2]
        if count:
            self._transport.write(ANSWER * count)


async def serve(ports: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Server, "127.0.0.1", 0, backlog=1024) for _ in range(ports)]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    ended = loop.create_future()
    loop.add_reader(sys.stdin.fileno(), lambda: ended.done() or ended.set_result(None))
    await ended


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
