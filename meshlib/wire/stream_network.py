"""Streams as httpcore shows them: what ``extensions["network_stream"]`` of a response gives, upgrades and tunnels included.

Bytes that came behind the head of a 101, or of a 2xx to CONNECT, come first. Errors are the host library's, by the
``translate`` that a host sets; without one they are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.pools.bounds import Bounds
from meshlib.runtime.clock import MonotonicClock
from meshlib.wire.errors import ConnectError, WireError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from meshlib.wire.stream import Stream
    from meshlib.wire.stream_async import AsyncStream

__all__ = ["AsyncNetworkStream", "NetworkStream"]

_CLOCK = MonotonicClock()
_TLS_TOO_LATE = "the peer sent bytes in plain text before the TLS handshake"


def _same(error: WireError) -> BaseException:
    return error


def _bounds(timeout: float | None) -> Bounds:
    return Bounds(_CLOCK, None, {"read": timeout, "write": timeout, "connect": timeout})


class NetworkStream:
    """As httpcore's class of that name; timeouts are seconds, for one operation. Thread-safe as the stream is."""

    __slots__ = ("_leading", "_stream", "translate")

    def __init__(
        self, stream: Stream, leading: bytes = b"", translate: Callable[[WireError], BaseException] = _same
    ) -> None:
        self._stream = stream
        self._leading = leading
        self.translate = translate

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._leading:
            data, self._leading = self._leading[:max_bytes], self._leading[max_bytes:]
            return data
        try:
            return self._stream.read(max_bytes, _bounds(timeout))
        except WireError as error:
            raise self.translate(error) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._stream.write(buffer, _bounds(timeout))
        except WireError as error:
            raise self.translate(error) from error

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        try:
            if self._leading:
                raise ConnectError(_TLS_TOO_LATE)
            stream = self._stream.start_tls(ssl_context, server_hostname, _bounds(timeout))
        except WireError as error:
            self.close()
            raise self.translate(error) from error
        return NetworkStream(stream, translate=self.translate)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class AsyncNetworkStream:
    """The same, awaited."""

    __slots__ = ("_leading", "_stream", "translate")

    def __init__(
        self,
        stream: AsyncStream,
        leading: bytes = b"",
        translate: Callable[[WireError], BaseException] = _same,
    ) -> None:
        self._stream = stream
        self._leading = leading
        self.translate = translate

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._leading:
            data, self._leading = self._leading[:max_bytes], self._leading[max_bytes:]
            return data
        try:
            return await self._stream.read(max_bytes, _bounds(timeout))
        except WireError as error:
            raise self.translate(error) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._stream.write(buffer, _bounds(timeout))
        except WireError as error:
            raise self.translate(error) from error

    async def aclose(self) -> None:
        self._stream.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> AsyncNetworkStream:
        try:
            if self._leading:
                raise ConnectError(_TLS_TOO_LATE)
            stream = await self._stream.start_tls(ssl_context, server_hostname, _bounds(timeout))
        except WireError as error:
            self._stream.close()
            raise self.translate(error) from error
        return AsyncNetworkStream(stream, translate=self.translate)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
