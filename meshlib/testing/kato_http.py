"""The HTTP pages beside a Kato control plane: the agent's API, and the admin page of a sidecar."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

__all__ = ["KatoHttp"]

Page = Callable[[str], tuple[int, object]]
"""Gives status and body of a path: text as it is, anything else as JSON."""


class KatoHttp:
    """On a free port of 127.0.0.1, from `with` on."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:port`. Raises RuntimeError where it does not serve."""
        if self._server is None:
            raise RuntimeError("the page has no port before it serves")
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return f"http://{self.address}"

    def __enter__(self) -> Self:
        page = self._page

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = page(self.path.partition("?")[0])
                text = body if isinstance(body, str) else json.dumps(body)
                data = text.encode()
                self.send_response(status)
                self.send_header(
                    "content-type", "text/plain" if isinstance(body, str) else "application/json"
                )
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                del args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="kato-http", daemon=True
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
