"""The server that everybody is measured against: one process, a raw protocol on uvloop, answers made in advance.

``python -m bench.server 50 cert.pem`` listens on 50 ports of 127.0.0.1 and on 50 more over TLS with the certificate and key of
that file, prints them as a JSON list, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import cast

import uvloop

BODY = b"x" * 1024
DOWNLOAD = 10 * 1024 * 1024
END = b"\r\n\r\n"


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _chunked(body: bytes, count: int) -> bytes:
    size = -(-len(body) // count)
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n"
        % chunks
    )


ANSWER = _whole(BODY)
#: By the beginning of the request.
OTHERS = {b"GET /download ": _whole(b"x" * DOWNLOAD), b"GET /chunks ": _chunked(BODY, 100)}


class Server(asyncio.Protocol):
    """Answers each request that is complete."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._body = 0  # what is to come of a request's body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has the shape, not the base

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._body:
            self._body -= len(data)
            if not self._body:
                self._transport.write(ANSWER)
            return
        if self._rest:
            data = self._rest + data
        if data.startswith(b"POST"):
            self._posted(data)
            return
        for beginning, answer in OTHERS.items():
            if data.startswith(beginning):
                self._transport.write(answer)
                return
        count = data.count(END)
        self._rest = b"" if data.endswith(END) else data.rpartition(END)[2]
        if count:
            self._transport.write(ANSWER * count)

    def _posted(self, data: bytes) -> None:
        """One request at a time; Content-Length says how long it is."""
        assert self._transport is not None
        head, end, body = data.partition(END)
        if not end:
            self._rest = data
            return
        self._rest = b""
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        self._body = length - len(body)
        if not self._body:
            self._transport.write(ANSWER)


async def serve(ports: int, certificate: str) -> None:
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    servers = [
        await loop.create_server(Server, "127.0.0.1", 0, backlog=1024, ssl=tls)
        for tls in [None] * ports + [context] * ports
    ]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    ended = loop.create_future()
    loop.add_reader(sys.stdin.fileno(), lambda: ended.done() or ended.set_result(None))
    await ended


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), sys.argv[2]))
