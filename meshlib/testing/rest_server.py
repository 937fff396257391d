"""The resources of a control plane by REST: a DiscoveryRequest as JSON is posted, a DiscoveryResponse as JSON comes back."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from meshlib.testing.http_thread import HttpThread
from meshlib.testing.polls import PollRefused
from meshlib.xds import schema
from meshlib.xds.discovery import REQUEST

if TYPE_CHECKING:
    from meshlib.testing.polls import Polls

__all__ = ["RestServer"]

_TYPES = {
    "/v3/discovery:clusters": schema.CLUSTER,
    "/v3/discovery:endpoints": schema.ENDPOINT,
    "/v3/discovery:extension_configs": schema.EXTENSION,
    "/v3/discovery:filter_chains": schema.FILTER_CHAIN,
    "/v3/discovery:listeners": schema.LISTENER,
    "/v3/discovery:routes": schema.ROUTE,
    "/v3/discovery:secrets": schema.SECRET,
}


class RestServer(HttpThread):
    """A poll that has nothing new is answered 304."""

    def __init__(self, polls: Polls) -> None:
        super().__init__()
        self._polls = polls

    def handler(self) -> type[BaseHTTPRequestHandler]:
        class Handler(_Handler):
            rest: RestServer = self

        return Handler

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        url = _TYPES.get(path)
        if url is None:
            return 404, b"no such type"
        try:
            request: Any = schema.from_json(REQUEST, json.loads(body))
        except ValueError as problem:
            return 400, str(problem).encode()
        try:
            response = self._polls.answer("rest", url, request, body)
        except PollRefused as refused:
            return 503, refused.details.encode()
        return (304, b"") if response is None else (200, json.dumps(schema.to_json(response)).encode())


class _Handler(BaseHTTPRequestHandler):
    rest: RestServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_POST(self) -> None:  # the base class's name
        length = int(self.headers.get("Content-Length") or 0)
        status, body = self.rest.answer(self.path, self.rfile.read(length))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: the journal has it."""
