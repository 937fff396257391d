"""HTTP servers in threads that say who they are, and fail or wait on order."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Upstream:
    """Answers every request with JSON: ``name``, ``method``, ``path``, ``headers`` (names in lower case).

    `host` is an address of the loopback net: to Kubernetes an endpoint is its IP address, so two of them on one
    machine need two. A lock guards the orders and the count; they may be given from any thread while it serves.
    """

    def __init__(self, name: str, host: str = "127.0.0.1") -> None:
        self.name, self.host = name, host
        self._lock = threading.Lock()
        self._failures: list[int] = []
        self._served = 0
        self._go = threading.Event()
        self._go.set()
        self._server = _Server((host, 0), _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name=f"upstream-{name}",
            daemon=True,
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def served(self) -> int:
        """Requests that arrived, failed ones too."""
        with self._lock:
            return self._served

    def fail(self, *statuses: int) -> None:
        """The next requests get these, one each."""
        with self._lock:
            self._failures.extend(statuses)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Inside, requests arrive and are not answered; at the end they all are."""
        self._go.clear()
        try:
            yield
        finally:
            self._go.set()

    def take(self) -> int:
        """Counts a request, and gives the status that it shall have, when it shall have it."""
        with self._lock:
            self._served += 1
            status = self._failures.pop(0) if self._failures else 200
        self._go.wait()
        return status

    def close(self) -> None:
        self._go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is its right; everything else is shown as ever."""
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(upstream: Upstream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            status = upstream.take()
            said = {
                "name": upstream.name,
                "method": self.command,
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
            }
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class names it)
            pass

    return Handler
