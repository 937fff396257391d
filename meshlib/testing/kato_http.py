"""The HTTP pages beside a Kato control plane: the agent's API, and the admin page of a sidecar."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from meshlib.testing.http_thread import HttpThread

__all__ = ["KatoHttp"]

Page = Callable[[str], tuple[int, object]]
"""Gives status and body of a path: text as it is, anything else as JSON."""


class KatoHttp(HttpThread):
    """Serves what `page` gives."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page

    def handler(self) -> type[BaseHTTPRequestHandler]:
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

        return Handler
