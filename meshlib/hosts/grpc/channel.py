"""``grpc.Channel`` in the mesh: any number of endpoints behind one target."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

import grpc

from meshlib.hosts.grpc.call import make_call
from meshlib.hosts.grpc.connectivity import Connectivity
from meshlib.hosts.grpc.errors import ERRORS
from meshlib.hosts.grpc.replay import LIMIT, LIMIT_OPTION, Messages, as_is
from meshlib.hosts.grpc.request import GrpcHost, Method, Request
from meshlib.hosts.grpc.subchannels import Settings
from meshlib.hosts.grpc.target import read_target
from meshlib.hosts.grpc.wire import GrpcWire
from meshlib.hosts.run import Caller
from meshlib.interceptors import CallPath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from meshlib.hosts.grpc.call import Call
    from meshlib.hosts.grpc.request import Answer
    from meshlib.runtime.runtime import Runtime

__all__ = ["MeshChannel"]

_HOST = GrpcHost(ERRORS)
_CLOSED = "Cannot invoke RPC on closed channel!"


class MeshChannel(grpc.Channel):
    """A channel whose calls go through the mesh. Thread-safe; usable after a fork.

    Args:
        target: As grpc takes it.
        credentials, options, compression: As ``grpc.secure_channel`` takes them; ``credentials`` None: plain text.
        runtime: Gives this process's runtime of the mesh.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, Any]] | None,
        compression: grpc.Compression | None,
        runtime: Callable[[], Runtime],
    ) -> None:
        settings = Settings(options or (), credentials, compression)
        self._target = read_target(target, settings.options, secure=settings.secure)
        self._runtime = runtime
        self._caller: Caller[Request, Answer] = Caller(
            _HOST, runtime, partial(GrpcWire, self._target, settings), CallPath()
        )
        self._limit = next(
            (int(value) for name, value in reversed(settings.options) if name == LIMIT_OPTION), LIMIT
        )
        self._connectivity = Connectivity(runtime, self._target, self._wire)
        self._closed = False

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnary:
        return UnaryUnary(
            self, Method("unary_unary", method, request_serializer, response_deserializer, _registered_method)
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> UnaryStream:
        return UnaryStream(
            self,
            Method("unary_stream", method, request_serializer, response_deserializer, _registered_method),
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> StreamUnary:
        kept = Method("stream_unary", method, as_is, response_deserializer, _registered_method)
        return StreamUnary(self, kept, request_serializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> StreamStream:
        kept = Method("stream_stream", method, as_is, response_deserializer, _registered_method)
        return StreamStream(self, kept, request_serializer)

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,
    ) -> None:
        self._connectivity.subscribe(callback, try_to_connect=bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._connectivity.unsubscribe(callback)

    def close(self) -> None:
        """End: calls under way are cancelled, as are those begun later refused."""
        self._closed = True
        self._connectivity.close()
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<meshlib.grpc.channel {self._target.text!r}{' closed' if self._closed else ''}>"

    # --- for its callables ------------------------------------------------------------------------------------------------

    def _call(self, request: Request) -> Answer:
        if self._closed:
            raise ValueError(_CLOSED)
        answer = self._caller.call(request)
        if answer.error is not None:
            raise answer.error
        return answer

    def _begin(self, request: Request, *, unary: bool) -> Call:
        if self._closed:
            raise ValueError(_CLOSED)
        runtime = self._runtime()
        caller = self._caller
        exchange = caller.begin(request, runtime)
        wire: Any = caller.wire(runtime)
        return make_call(exchange, runtime, wire, request, unary=unary)

    def _wire(self) -> GrpcWire:
        wire: Any = self._caller.wire(self._runtime())
        return wire


class _Callable:
    """A method of a service on a channel. Thread-safe."""

    def __init__(self, channel: MeshChannel, method: Method, serializer: Any = None) -> None:
        self._on = channel
        self._method = method
        self._serializer = serializer

    def _request(
        self,
        message: Any,
        timeout: float | None,
        metadata: Iterable[tuple[str, str | bytes]] | None,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
        *,
        with_call: bool = True,
        stream: bool = False,
    ) -> Request:
        channel = self._on
        messages = Messages(message, self._serializer, channel._limit) if stream else None
        return Request(
            channel._target,
            self._method,
            message,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
            compression,
            with_call=with_call,
            messages=messages,
        )


class UnaryUnary(_Callable, grpc.UnaryUnaryMultiCallable):
    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        channel = self._on
        asked = Request(
            channel._target,
            self._method,
            request,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
            compression,
            with_call=False,
        )
        return channel._call(asked).value

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[Any, Any]:
        asked = self._request(request, timeout, metadata, credentials, wait_for_ready, compression)
        answer = self._on._call(asked)
        return answer.value, answer.call

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Call:
        asked = self._request(request, timeout, metadata, credentials, wait_for_ready, compression)
        return self._on._begin(asked, unary=True)


class UnaryStream(_Callable, grpc.UnaryStreamMultiCallable):
    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Call:
        asked = self._request(request, timeout, metadata, credentials, wait_for_ready, compression)
        return self._on._begin(asked, unary=False)


class StreamUnary(_Callable, grpc.StreamUnaryMultiCallable):
    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        asked = self._request(
            request_iterator,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
            compression,
            with_call=False,
            stream=True,
        )
        return self._on._call(asked).value

    def with_call(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> tuple[Any, Any]:
        asked = self._request(
            request_iterator, timeout, metadata, credentials, wait_for_ready, compression, stream=True
        )
        answer = self._on._call(asked)
        return answer.value, answer.call

    def future(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Call:
        asked = self._request(
            request_iterator, timeout, metadata, credentials, wait_for_ready, compression, stream=True
        )
        return self._on._begin(asked, unary=True)


class StreamStream(_Callable, grpc.StreamStreamMultiCallable):
    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Call:
        asked = self._request(
            request_iterator, timeout, metadata, credentials, wait_for_ready, compression, stream=True
        )
        return self._on._begin(asked, unary=False)
