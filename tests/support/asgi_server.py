"""An ASGI application on loopback, by uvicorn in a thread of this process."""

from __future__ import annotations

import socket
import threading
from typing import Any, Self

import uvicorn

__all__ = ["AsgiServer"]


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: threading.Event) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._ready.set()


class AsgiServer:
    """``with AsgiServer(app) as server: server.address``. ``options`` are uvicorn's."""

    def __init__(self, app: Any, **options: Any) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._ready = threading.Event()
        # Connections that a client keeps are not waited for at the end.
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, ws="none", **options)
        self._server = _Server(config, self._ready)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20), "uvicorn does not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()
