"""Async streams for httpcore's connections, below a :class:`~meshlib.transports.wire.guard.Guard`.

The sockets are httpcore's own (anyio under asyncio, trio under trio); this layer adds the attempt's deadline and records
that something was sent.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable
from types import ModuleType
from typing import Any

from meshlib.runtime.signal import ringing
from meshlib.transports.wire.guard import Op, seconds_left

__all__ = ["AsyncBackend", "AsyncStream"]


class AsyncStream:
    """httpcore's ``AsyncNetworkStream`` around another one."""

    __slots__ = ("_core", "_inner")

    def __init__(self, core: ModuleType, inner: Any) -> None:
        self._core = core
        self._inner = inner

    async def read(self, max_bytes: int, timeout: Op | float | None = None) -> bytes:
        try:
            data: bytes = await _within(timeout, self._inner.read, max_bytes)
        except TimeoutError as error:
            raise self._core.ReadTimeout(str(error)) from error
        except OSError as error:  # TLS alerts reach us unmapped
            raise self._core.ReadError(str(error)) from error
        except self._core.ReadTimeout:
            _note(timeout)
            raise
        return data

    async def write(self, buffer: bytes, timeout: Op | float | None = None) -> None:
        if isinstance(timeout, Op) and buffer:
            timeout.guard.note_sent()
        try:
            await _within(timeout, self._inner.write, buffer)
        except TimeoutError as error:
            raise self._core.WriteTimeout(str(error)) from error
        except OSError as error:  # TLS alerts reach us unmapped
            raise self._core.WriteError(str(error)) from error
        except self._core.WriteTimeout:
            _note(timeout)
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: Op | float | None = None,
    ) -> AsyncStream:
        try:
            inner = await self._inner.start_tls(ssl_context, server_hostname, seconds_left(timeout))
        except TimeoutError as error:
            raise self._core.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise self._core.ConnectError(str(error)) from error
        return AsyncStream(self._core, inner)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class AsyncBackend:
    """httpcore's ``AsyncNetworkBackend`` around the one that fits the running event loop."""

    __slots__ = ("_core", "_inner")

    def __init__(self, core: ModuleType, *, trio: bool) -> None:
        self._core = core
        self._inner: Any = core.TrioBackend() if trio else core.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: Op | float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncStream:
        try:
            inner = await self._inner.connect_tcp(
                host, port, seconds_left(timeout), local_address, socket_options
            )
        except TimeoutError as error:
            raise self._core.ConnectTimeout(str(error)) from error
        return AsyncStream(self._core, inner)

    async def connect_unix_socket(
        self, path: str, timeout: Op | float | None = None, socket_options: Iterable[Any] | None = None
    ) -> AsyncStream:
        try:
            inner = await self._inner.connect_unix_socket(path, seconds_left(timeout), socket_options)
        except TimeoutError as error:
            raise self._core.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise self._core.ConnectError(f"{path}: {error}") from error
        return AsyncStream(self._core, inner)

    async def sleep(self, seconds: float) -> None:
        """Never called: connection retries are a plan's matter."""
        raise NotImplementedError


async def _within(timeout: Op | float | None, operation: Callable[..., Awaitable[Any]], argument: Any) -> Any:
    """``operation`` in the time that it has: bounded by seconds, or on a virtual clock by its alarm."""
    seconds = seconds_left(timeout)
    if not isinstance(timeout, Op) or timeout.guard.alarm is None:
        return await operation(argument, timeout=seconds)
    with ringing(timeout.guard):
        return await operation(argument, timeout=seconds)


def _note(timeout: Op | float | None) -> None:
    if isinstance(timeout, Op):
        timeout.guard.note_timeout()
