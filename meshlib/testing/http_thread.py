"""A small HTTP server of the standard library in a thread, for the pages beside a control plane."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

__all__ = ["HttpThread"]


class HttpThread:
    """On a free port of 127.0.0.1, from `with` on; each connection has a thread of its own. Derived classes say who answers."""

    def __init__(self) -> None:
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """A class of its own for each `with`, so that it can know this server."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        """`127.0.0.1:port`. Raises RuntimeError where it does not serve."""
        if self._server is None:
            raise RuntimeError(f"{type(self).__name__} has no port before it serves")
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return f"http://{self.address}"

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), self.handler())
        name = f"meshlib-{type(self).__name__}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=name, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is not None and thread is not None:
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is none."""
