"""A grpcio server on loopback that may go and come back: at the same port, with the same handlers."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from meshlib.testing.ports import refuse_taken, reserve

__all__ = ["GrpcServer"]

_OPTIONS = (
    ("grpc.so_reuseport", 1),  # beside the socket that keeps the port reserved
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class GrpcServer(ABC):
    """`port` 0 takes a free one and keeps it over restarts. `credentials` make it a TLS server.

    `workers`: threads at most; each call occupies one for as long as it is open. `options`: grpc's channel arguments,
    after our own. It starts with `start()` or `with`; that is for one thread at a time.
    """

    def __init__(
        self,
        what: str,
        *,
        port: int,
        credentials: grpc.ServerCredentials | None,
        workers: int,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self.port = port
        self._what = what
        self._credentials = credentials
        self._workers = workers
        self._options = (*_OPTIONS, *options)
        self._reserved: socket.socket | None = None
        self._server: tuple[grpc.Server, ThreadPoolExecutor] | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:port`. Raises RuntimeError before the first start, where the port is not known yet."""
        if not self.port:
            raise RuntimeError(f"{self._what} has no port before its first start")
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether it serves."""
        return self._server is not None

    def start(self) -> Self:
        """Starts to serve; nothing happens if it does. Raises OSError if its port cannot be had."""
        if self._server is not None:
            return self
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix=self._thread_name)
        try:
            server = self._bound(pool)
        except BaseException:
            pool.shutdown(wait=False)
            raise
        server.start()
        self._server = (server, pool)
        self._reserve(None)
        return self

    def stop(self) -> None:
        """Closes the port and breaks every call."""
        self._end(None)
        self._reserve(None)

    def kill(self) -> None:
        """As `stop`, but the port stays reserved for the next `start`, until `stop`: for an outage."""
        if self._server is not None:
            self._reserve(reserve(self.port))
        self._end(None)

    def restart(self) -> None:
        """Kills it and starts it at the same port, as it was."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # ------------------------------------------------------------------------------------ for derived classes

    _thread_name = "grpc"

    @abstractmethod
    def _install(self, server: grpc.Server) -> None:
        """Gives a new server its handlers."""

    def _end(self, grace: float | None) -> None:
        """Takes no new call, and breaks those under way after `grace` seconds."""
        if self._server is None:
            return
        (server, pool), self._server = self._server, None
        server.stop(grace).wait()
        pool.shutdown(wait=True)

    def _bound(self, pool: ThreadPoolExecutor) -> grpc.Server:
        refuse_taken(self.port)
        server = grpc.server(pool, options=self._options)
        self._install(server)
        try:
            self.port = self._listen(server)
        except RuntimeError as error:
            raise OSError(f"127.0.0.1:{self.port} cannot be bound: {error}") from error
        return server

    def _listen(self, server: grpc.Server) -> int:
        where = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            return int(server.add_insecure_port(where))
        return int(server.add_secure_port(where, self._credentials))

    def _reserve(self, reserved: socket.socket | None) -> None:
        """Keeps this socket in place of the one kept before."""
        before, self._reserved = self._reserved, reserved
        if before is not None:
            before.close()
