"""Responses over a connection that others use as well (:mod:`meshlib.wire.multiplexed`, ``multiplexed_async``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from meshlib.wire.stream_network import AsyncNetworkStream, NetworkStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from meshlib.pools.bounds import Bounds
    from meshlib.wire.http2_stream import AsyncUpload, Http2Stream, Upload
    from meshlib.wire.message import Lines, Outgoing
    from meshlib.wire.stream import Stream
    from meshlib.wire.stream_async import AsyncStream

__all__ = ["AsyncMultiplexedIncoming", "MultiplexedIncoming"]


class _Shared(Protocol):
    @property
    def closed(self) -> bool: ...
    def take(self, stream: Http2Stream, most: int | None) -> bytes | None: ...
    def look(self) -> None: ...
    def give_up(self, stream: Http2Stream) -> None: ...
    def lose(self, stream: Http2Stream) -> None: ...


class _Connection(_Shared, Protocol):
    stream: Stream

    def go_on(self, stream: Http2Stream, upload: Upload, bounds: Bounds) -> None: ...


class _AsyncConnection(_Shared, Protocol):
    stream: AsyncStream

    async def go_on(self, stream: Http2Stream, upload: AsyncUpload, bounds: Bounds) -> None: ...


C = TypeVar("C", bound=_Shared)
U = TypeVar("U", bound="Upload")


class _Incoming(Generic[C, U]):
    """A response, of which the body is still to come.

    Whatever it raises ends the exchange, and not the connection. What is left of the request goes out as the response is read.

    Attributes:
        on_end: Called once, when the body is whole, given up or broken.
        on_lost: Called instead, by ``abandon`` and by the collector.
        awaited: Whether its body is.
    """

    awaited: ClassVar[bool]

    __slots__ = (
        "_bounds",
        "_connection",
        "_network_stream",
        "_over",
        "_request",
        "_stream",
        "_trace",
        "_upload",
        "headers",
        "on_end",
        "on_lost",
        "reason",
        "status",
        "version",
    )

    def __init__(
        self, connection: C, stream: Http2Stream, upload: U, bounds: Bounds, request: Outgoing
    ) -> None:
        head = stream.head
        assert head is not None
        self._connection = connection
        self._stream = stream
        self._upload = upload
        self._bounds = bounds
        self._trace = request.trace
        self._request = (
            None if request.trace is None else request
        )  # until the trace is told that the body is read
        self._network_stream: Any = None
        self._over = False
        self.status = head.status
        self.reason = head.reason
        self.headers = head.headers
        self.version = head.version
        self.on_end: Callable[[], object] | None = None
        self.on_lost: Callable[[], object] | None = None

    @property
    def trailers(self) -> Lines:
        """Once the body is whole."""
        return self._stream.trailers

    def abandon(self) -> None:
        """``close`` for a finalizer: takes no lock, and leaves the rest to ``on_lost``."""
        if not self._over:
            self._over = True
            self._connection.lose(self._stream)
            if self.on_lost is not None:
                self.on_lost()

    def __del__(self) -> None:
        self.abandon()

    def _is_whole(self) -> bool:
        """All of it was taken."""
        return self._stream.ended and not self._stream.parts

    def _drain(self, most: int) -> None:
        stream = self._stream
        if not self._over:
            self._connection.look()
            if stream.ended and sum(map(len, stream.parts)) <= most:
                self._connection.take(stream, None)

    def _steps(self, error: BaseException | None) -> list[tuple[str, dict[str, Any]]]:
        """What a trace is told of the end."""
        steps: list[tuple[str, dict[str, Any]]] = []
        if self._request is None and error is None:
            steps.append(("http2.receive_response_body.complete", {"return_value": None}))
        elif self._request is None:
            steps.append(("http2.receive_response_body.failed", {"exception": error}))
        steps += [
            ("http2.response_closed.started", {}),
            ("http2.response_closed.complete", {"return_value": None}),
        ]
        return steps

    def _end(self) -> None:
        self._over = True
        self._connection.give_up(self._stream)
        if self.on_end is not None:
            self.on_end()


class MultiplexedIncoming(_Incoming[_Connection, "Upload"]):
    """An iterator over what there is of the body. Not thread-safe."""

    __slots__ = ()

    awaited = False

    @property
    def network_stream(self) -> NetworkStream:
        """The connection's, as httpcore shows it; others use it as well."""
        if self._network_stream is None:
            self._network_stream = NetworkStream(self._connection.stream)
        stream: NetworkStream = self._network_stream
        return stream

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        part = self._part(None)
        if not part:
            raise StopIteration
        return part

    def read(self) -> bytes:
        """All that is still to come of the body. Raises WireError."""
        return b"".join(self)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill ``buffer`` with what comes next, as much as there is; 0: the body is whole. Raises WireError."""
        part = self._part(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def drain(self, most: int) -> bool:
        """Give up what is left, unless all of it is at hand, in no more than ``most`` bytes; whether the connection may be used
        again. Waits for nothing.
        """
        self._drain(most)
        self.close()
        return not self._connection.closed

    def close(self) -> None:
        """Give up what is left of it. Waits for nothing."""
        if not self._over:
            self._end()
            self._tell(None)

    def _part(self, most: int | None) -> bytes:
        """The next of the body; b"" once it is whole."""
        if self._over:
            return b""
        if self._request is not None and self._trace is not None:
            request, self._request = self._request, None
            self._trace("http2.receive_response_body.started", {"request": request})
        connection, stream = self._connection, self._stream
        try:
            while (part := connection.take(stream, most)) is None:
                connection.go_on(stream, self._upload, self._bounds)
        except BaseException as error:
            self._end()
            self._tell(error)
            raise
        if self._is_whole():
            self.close()
        return part

    def _tell(self, error: BaseException | None) -> None:
        if self._trace is not None:
            for step, info in self._steps(error):
                self._trace(step, info)


class AsyncMultiplexedIncoming(_Incoming[_AsyncConnection, "AsyncUpload"]):
    """The same, awaited."""

    __slots__ = ()

    awaited = True

    @property
    def network_stream(self) -> AsyncNetworkStream:
        """As ``MultiplexedIncoming.network_stream``."""
        if self._network_stream is None:
            self._network_stream = AsyncNetworkStream(self._connection.stream)
        stream: AsyncNetworkStream = self._network_stream
        return stream

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part = await self._part()
        if not part:
            raise StopAsyncIteration
        return part

    async def aread(self) -> bytes:
        """As ``MultiplexedIncoming.read``."""
        return b"".join([part async for part in self])

    async def adrain(self, most: int) -> bool:
        """As ``MultiplexedIncoming.drain``."""
        self._drain(most)
        await self.aclose()
        return not self._connection.closed

    async def aclose(self) -> None:
        """As ``MultiplexedIncoming.close``. What is told of it may wait; nothing else does."""
        if not self._over:
            self._end()
            await self._tell(None)

    async def _part(self) -> bytes:
        if self._over:
            return b""
        if self._request is not None and self._trace is not None:
            request, self._request = self._request, None
            await self._trace("http2.receive_response_body.started", {"request": request})
        connection, stream = self._connection, self._stream
        try:
            while (part := connection.take(stream, None)) is None:
                await connection.go_on(stream, self._upload, self._bounds)
        except BaseException as error:
            self._end()
            await self._tell(error)
            raise
        if self._is_whole():
            await self.aclose()
        return part

    async def _tell(self, error: BaseException | None) -> None:
        if self._trace is not None:
            for step, info in self._steps(error):
                await self._trace(step, info)
