"""An HTTP server behind TLS that knows who called on which connection, and which connections are open."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["TlsServer"]

_WAIT = 30.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def setup(self) -> None:
        self.who = ""
        self.request.settimeout(_WAIT)
        super().setup()

    def handle(self) -> None:
        owner = self.server.owner
        try:
            self.request.do_handshake()
        except OSError as error:
            refused = error
            owner.note(lambda: owner.refused.append(refused))
            return
        names = (self.request.getpeercert() or {}).get("subjectAltName", ())
        self.who = names[0][1] if names else ""
        owner.note(lambda: owner.open.update([self.who]))
        owner.resumed.append(self.request.session_reused)
        try:
            super().handle()
        except OSError as error:  # the client went away
            self.log_error("%s", error)
        finally:
            owner.note(lambda: owner.open.subtract([self.who]))

    def do_GET(self) -> None:
        owner = self.server.owner
        owner.note(lambda: owner.seen.update([(self.who, self.headers["x-caller"] or "")]))
        sni = getattr(self.request, "asked_for", None) or ""
        body = f"{self.who} {sni} {self.request.selected_alpn_protocol()}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Nothing is printed."""


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    owner: TlsServer

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        secured = self.owner.context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        return secured, address

    def shutdown_request(self, request: Any) -> None:
        # Without a goodbye in TLS: the client may be gone.
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)
        request.close()


class TlsServer:
    """On loopback. It answers with the caller's first name, the name that was asked for, and what ALPN chose.

    Attributes:
        seen: Requests, by the caller's name and its ``x-caller``.
        open: Connections whose handshake is done, by the caller's name.
        refused: Errors of handshakes.
        resumed: Of each connection, whether it took up the session of an earlier one.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        context.sni_callback = _remember
        self.seen: Counter[tuple[str, str]] = Counter()
        self.open: Counter[str] = Counter()
        self.refused: list[OSError] = []
        self.resumed: list[bool] = []
        self._changed = threading.Condition()
        self._server = _Http(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_WAIT)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> int:
        return sum(self.seen.values())

    def note(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(condition, _WAIT)


def _remember(connection: Any, name: str | None, _context: Any) -> None:
    connection.asked_for = name
