"""Compression, of a channel and of one call: how many bytes each sends."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import grpc
from guide import GuideStub, Note, Point, serving

import meshlib
import meshlib.grpc

LONG = Note(at=Point(x=1, y=1), text="come and see " * 10_000)


class Meter:
    """A place between client and server that counts what the client sends, of one connection."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._server = socket.create_connection((host, int(port)))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        threading.Thread(target=self._carry, args=(self._server, client), daemon=True).start()
        self._carry(client, self._server)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.sent += len(data) if sink is self._server else 0
                sink.sendall(data)
        for end in (source, sink):
            end.close()

    def close(self) -> None:
        self._listener.close()


def measured(address: str, channels: grpc.Compression | None, calls: grpc.Compression | None) -> int:
    """Bytes that a call with a long message takes."""
    meter = Meter(address)
    mesh = meshlib.Mesh({"services": {"guide": {"endpoints": [meter.address]}}})
    with mesh, meshlib.grpc.channel("guide", compression=channels, mesh=mesh) as channel:
        assert list(GuideStub(channel).Chat(iter([LONG]), timeout=5, compression=calls)) == []
    meter.close()
    return meter.sent


def told(what: str, sent: int) -> None:
    print(
        f"{what}: {'all' if sent > len(LONG.text) else 'less than a tenth' if sent < len(LONG.text) / 10 else 'some'}"
    )


def main() -> None:
    with serving("one") as address:
        told("no compression", measured(address, None, None))
        told("of the channel", measured(address, grpc.Compression.Gzip, None))
        told("of the call", measured(address, None, grpc.Compression.Gzip))


if __name__ == "__main__":
    main()
