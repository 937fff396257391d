"""``grpc.Channel`` in the mesh: any number of endpoints behind one target."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

import grpc

from meshlib.hosts.grpc.base import BaseChannel
from meshlib.hosts.grpc.call import make_call
from meshlib.hosts.grpc.connectivity import Connectivity
from meshlib.hosts.grpc.errors import ERRORS
from meshlib.hosts.grpc.replay import Messages
from meshlib.hosts.grpc.request import GrpcHost, Request
from meshlib.hosts.grpc.wire import GrpcWire
from meshlib.hosts.run import Caller
from meshlib.interceptors import CallPath

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.core.exchange import Place
    from meshlib.hosts.grpc.call import Call
    from meshlib.hosts.grpc.request import Answer, Method
    from meshlib.runtime.runtime import Runtime

__all__ = ["MeshChannel"]

_HOST = GrpcHost(ERRORS)
_CLOSED = "Cannot invoke RPC on closed channel!"


class MeshChannel(BaseChannel, grpc.Channel):
    """A channel whose calls go through the mesh. Thread-safe; usable after a fork.

    Args:
        target: As grpc takes it.
        credentials, options, compression: As ``grpc.secure_channel`` takes them; ``credentials`` None: plain text.
        runtime: Gives this process's runtime of the mesh.
        place: Where its calls go, where that is not for ``target`` to say.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, Any]] | None,
        compression: grpc.Compression | None,
        runtime: Callable[[], Runtime],
        place: Place | None = None,
    ) -> None:
        super().__init__(target, credentials, options, compression, place)
        self._runtime = runtime
        wire: Any = partial(GrpcWire, self._target, self._settings)
        self._caller: Caller[Request, Answer] = Caller(_HOST, runtime, wire, CallPath())
        self._connectivity = Connectivity(runtime, self._target, self._wire)

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

    def __init__(self, channel: MeshChannel, method: Method) -> None:
        self._on = channel
        self._method = method

    def _asked(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Request:
        """As grpc's callables are called."""
        channel, method = self._on, self._method
        messages = Messages(request, method.of_message, channel._limit) if method.streams else None
        return Request(
            channel._target,
            method,
            request,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
            compression,
            messages=messages,
            renews=channel._settings.renew is not None,
            brings=channel._settings.brings_credentials(credentials),
            own=channel._settings.own,
        )


class _OneAnswer(_Callable):
    def __call__(self, request: Any, *options: Any, **named: Any) -> Any:
        asked = self._asked(request, *options, **named)
        asked.with_call = False
        return self._on._call(asked).value

    def with_call(self, request: Any, *options: Any, **named: Any) -> tuple[Any, Any]:
        answer = self._on._call(self._asked(request, *options, **named))
        return answer.value, answer.call

    def future(self, request: Any, *options: Any, **named: Any) -> Call:
        return self._on._begin(self._asked(request, *options, **named), unary=True)


class _Answers(_Callable):
    def __call__(self, request: Any, *options: Any, **named: Any) -> Call:
        return self._on._begin(self._asked(request, *options, **named), unary=False)


class UnaryUnary(_OneAnswer, grpc.UnaryUnaryMultiCallable):
    """One message there, one back."""


class UnaryStream(_Answers, grpc.UnaryStreamMultiCallable):
    """One message there, any number back."""


class StreamUnary(_OneAnswer, grpc.StreamUnaryMultiCallable):
    """Any number there, one back."""

    def __call__(self, request_iterator: Any, *options: Any, **named: Any) -> Any:
        return super().__call__(request_iterator, *options, **named)

    def with_call(self, request_iterator: Any, *options: Any, **named: Any) -> tuple[Any, Any]:
        return super().with_call(request_iterator, *options, **named)

    def future(self, request_iterator: Any, *options: Any, **named: Any) -> Call:
        return super().future(request_iterator, *options, **named)


class StreamStream(_Answers, grpc.StreamStreamMultiCallable):
    """Any number both ways."""

    def __call__(self, request_iterator: Any, *options: Any, **named: Any) -> Call:
        return super().__call__(request_iterator, *options, **named)


MeshChannel.callables = {
    "unary_unary": UnaryUnary,
    "unary_stream": UnaryStream,
    "stream_unary": StreamUnary,
    "stream_stream": StreamStream,
}
