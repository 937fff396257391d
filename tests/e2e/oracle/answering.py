"""Upstreams that say who they are, for tests that count who answers: meshlib and a real Envoy call the same ones."""

from __future__ import annotations

import collections
import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Answering", "allowed", "serving"]


class Answering(ThreadingHTTPServer):
    """Answers with its ``name``, with 503 at the path ``/fail``. ``seen``: requests, by their header ``x-case``."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.name = name
        self.seen: collections.Counter[str] = collections.Counter()
        self.address = f"127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: Answering
    protocol_version = "HTTP/1.1"
    wbufsize = 65_536  # head and body at once

    def do_GET(self) -> None:
        self.server.seen[self.headers.get("x-case", "")] += 1
        text = self.server.name.encode()
        self.send_response(503 if self.path == "/fail" else 200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(names: Iterable[str]) -> Iterator[dict[str, Answering]]:
    """One of each name, as long as this is open."""
    servers = {name: Answering(name) for name in names}
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers.values()]
    for thread in threads:
        thread.start()
    yield servers
    for server, thread in zip(servers.values(), threads, strict=True):
        server.shutdown()
        thread.join(20)
        server.server_close()


def allowed(one: int, other: int, calls: int) -> float:
    """By how much the counts of two that draw with the same share, of so many calls each, may differ by chance: six standard
    deviations, sqrt(2 p (1 - p) calls).
    """
    share = (one + other) / (2 * calls)
    return 6 * math.sqrt(2 * share * (1 - share) * calls)
