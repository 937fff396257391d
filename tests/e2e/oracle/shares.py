"""How a real Envoy and meshlib divide calls among endpoints, from one configuration: counts, and how far they may differ by chance."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

import meshlib
from tests.e2e.oracle.envoy_process import EnvoyProcess

__all__ = ["Sides", "alike", "answering", "near", "table"]

#: Standard deviations that chance may make: one of 500 million shares is further off.
_SIGMAS = 6.0


class _Answers(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = 65_536  # head and body at once

    def do_GET(self) -> None:
        text = str(self.server.server_address[1]).encode()
        if self.server.hits is not None:
            self.server.hits[text.decode()] += 1
        self.send_response(503 if self.path.endswith("/fail") else 200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hits: Counter[str] | None = None


@contextmanager
def answering(count: int, hits: Counter[str] | None = None) -> Iterator[list[int]]:
    """The ports of so many upstreams that say which one they are, and fail on paths that end in ``/fail``. ``hits`` counts their
    requests, by their ports.
    """
    servers = [_Server(("127.0.0.1", 0), _Answers) for _ in range(count)]
    for server in servers:
        server.hits = hits
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield [server.server_address[1] for server in servers]
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join(20)
            server.server_close()


class Sides:
    """Envoy and meshlib on one bootstrap, which has as many socket listeners as ``listeners``."""

    def __init__(self, bootstrap: Mapping[str, Any], folder: Path, listeners: int) -> None:
        self._stack = ExitStack()
        with self._stack:
            self.envoy = self._stack.enter_context(EnvoyProcess(dict(bootstrap), folder))
            self.envoy.wait_for_listeners(listeners)
            file = folder / "mesh.json"
            file.write_text(json.dumps(bootstrap))
            self.mesh = self._stack.enter_context(
                meshlib.Mesh({"services_file": str(file), "failures": "respond"})
            )
            self._theirs = self._stack.enter_context(httpx.Client(timeout=20))
            self._ours = self._stack.enter_context(meshlib.Client(mesh=self.mesh, timeout=20))
            self._stack = self._stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def calls(self, url: str, calls: int, *, ours: bool) -> None:
        """Make so many, whatever the answers."""
        client = self._ours if ours else self._theirs
        for _ in range(calls):
            client.get(url)

    def counts(
        self, url: str, calls: int, headers: Mapping[str, str] | None = None
    ) -> tuple[Counter[str], Counter[str]]:
        """How often which upstream answered, by its port, or another answer, by its status: meshlib's, and Envoy's."""
        ours, theirs = (
            Counter(_who(client.get(url, headers=headers)) for _ in range(calls))
            for client in (self._ours, self._theirs)
        )
        return ours, theirs


def _who(response: httpx.Response) -> str:
    return response.text if response.text.isdigit() else str(response.status_code)


def near(part: int, calls: int, share: float) -> bool:
    """Whether so many of the calls may be that share, by chance."""
    return abs(part - calls * share) <= _SIGMAS * math.sqrt(calls * share * (1 - share)) + 1e-9


def alike(ours: int, theirs: int, calls: int) -> bool:
    """Whether both may be the same share."""
    share = (ours + theirs) / (2 * calls)
    return abs(ours - theirs) <= _SIGMAS * math.sqrt(2 * calls * share * (1 - share)) + 1e-9


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    body = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    return f"\n{title}\n{body}"
