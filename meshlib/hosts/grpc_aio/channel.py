"""``grpc.aio.Channel`` in the mesh."""

from __future__ import annotations

import asyncio
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import grpc
from grpc.aio import (
    ClientCallDetails,
    Metadata,
    StreamStreamClientInterceptor,
    StreamUnaryClientInterceptor,
    UnaryStreamClientInterceptor,
    UnaryUnaryClientInterceptor,
    UsageError,
)
from grpc.aio import _base_channel as base

from meshlib.hosts.grpc.base import BaseChannel
from meshlib.hosts.grpc.connectivity import LOOK, state_of
from meshlib.hosts.grpc.request import GrpcHost, Method, Request
from meshlib.hosts.grpc_aio.call import StreamStreamCall, StreamUnaryCall, UnaryStreamCall, UnaryUnaryCall
from meshlib.hosts.grpc_aio.errors import ERRORS
from meshlib.hosts.grpc_aio.intercepted import INTERCEPTED
from meshlib.hosts.grpc_aio.later import AioLater
from meshlib.hosts.grpc_aio.outgoing import Outgoing
from meshlib.hosts.grpc_aio.wire import AioGrpcWire
from meshlib.hosts.run_async import AsyncCaller
from meshlib.hosts.runtime import later as call_later
from meshlib.interceptors import CallPath

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshlib.runtime.runtime import Runtime

__all__ = ["AioMeshChannel"]

_HOST = GrpcHost(ERRORS)
_CLOSED = "Channel is closed."

#: In grpc's order: one of several bases serves the first kind only.
_KINDS: tuple[tuple[str, type], ...] = (
    ("unary_unary", UnaryUnaryClientInterceptor),
    ("unary_stream", UnaryStreamClientInterceptor),
    ("stream_unary", StreamUnaryClientInterceptor),
    ("stream_stream", StreamStreamClientInterceptor),
)
_CALLS: dict[str, Any] = {
    "unary_unary": UnaryUnaryCall,
    "unary_stream": UnaryStreamCall,
    "stream_unary": StreamUnaryCall,
    "stream_stream": StreamStreamCall,
}


class AioMeshChannel(BaseChannel, grpc.aio.Channel):
    """A channel whose calls go through the mesh. Used in any number of event loops, and after a fork; each loop has connections
    of its own. Arguments as for ``grpc.aio.secure_channel``; ``runtime`` gives this process's runtime of the mesh.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, Any]] | None,
        compression: grpc.Compression | None,
        interceptors: Sequence[Any] | None,
        runtime: Callable[[], Runtime],
    ) -> None:
        super().__init__(target, credentials, options, compression)
        self._runtime = runtime
        wire: Any = partial(AioGrpcWire, self._target, self._settings)
        self._caller: AsyncCaller[Request, Any] = AsyncCaller(_HOST, runtime, wire, CallPath())
        self._interceptors = _sorted(interceptors or ())
        self._under_way: set[AioLater] = set()
        # The wire that was used last: looking for the loop's costs more.
        self._near: Callable[[], AioGrpcWire | None] = _nobody

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        runtime = self._runtime()
        return state_of(runtime, self._target, self._wire(runtime).subchannels, connect=try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        clock = self._runtime().clock
        while self.get_state() is last_observed_state:
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            prevent = call_later(clock, LOOK, _set, changed)
            try:
                await changed
            finally:
                prevent()

    async def channel_ready(self) -> None:
        state = self.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                raise UsageError(_CLOSED)
            await self.wait_for_state_change(state)
            state = self.get_state(try_to_connect=True)

    async def close(self, grace: float | None = None) -> None:
        """End: calls under way have ``grace`` seconds, then they are cancelled."""
        if grace and grace < 0:
            raise ValueError(f"grace must be non-negative, got {grace}.")
        self._closed = True
        loop = asyncio.get_running_loop()
        calls = [call for call in self._under_way if call.loop is loop]
        if calls and grace:
            waits = [asyncio.ensure_future(call.wait_over()) for call in calls]
            _, pending = await asyncio.wait(waits, timeout=grace)
            for wait in pending:
                wait.cancel()
        for call in calls:
            call.cancel(asyncio.CancelledError())
        await self._caller.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<meshlib.grpc.aio.channel {self._target.text!r}{' closed' if self._closed else ''}>"

    # --- for its callables ------------------------------------------------------------------------------------------------

    def _wire(self, runtime: Runtime) -> AioGrpcWire:
        near: AioGrpcWire | None = self._near()
        if near is not None and near.runtime is runtime and near.loop is asyncio.get_running_loop():
            return near
        wire: Any = self._caller.wire(runtime)
        self._near = weakref.ref(wire)
        return wire

    def _begin(self, request: Request, source: Any, outgoing: Outgoing | None) -> Any:
        if self._closed:
            raise UsageError(_CLOSED)
        runtime = self._runtime()
        exchange = self._caller.begin(request, runtime)
        later = AioLater(exchange, runtime, self._wire(runtime), request, outgoing, self._under_way)
        deadline = None if request.timeout is None else runtime.clock.now() + request.timeout
        call = _CALLS[request.method.kind](later, deadline)
        later.begin()
        if outgoing is not None:
            call._consume(source)
        return call


class _Callable:
    """A method of a service on a channel."""

    def __init__(self, channel: AioMeshChannel, method: Method) -> None:
        self._on = channel
        self._method = method
        self._interceptors = channel._interceptors[method.kind]

    def _call(
        self,
        message: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """As grpc's callables are called."""
        if not self._interceptors:
            return self._made(
                self._method, message, timeout, metadata, credentials, wait_for_ready, compression
            )

        def end(details: ClientCallDetails, message: Any) -> Any:
            path = details.method.decode() if isinstance(details.method, bytes) else details.method
            method = self._method
            if path != method.path:
                method = Method(method.kind, path, method.of_message, method.deserializer, False)
            return self._made(
                method,
                message,
                details.timeout,
                details.metadata,
                details.credentials,
                details.wait_for_ready,
                compression,
            )

        given = metadata if isinstance(metadata, Metadata) else Metadata.from_tuple(tuple(metadata or ()))
        return INTERCEPTED[self._method.kind](
            self._interceptors,
            message,
            timeout,
            given,
            credentials,
            wait_for_ready,
            end,
            self._method.path.encode(),
            None,
            None,
            asyncio.get_running_loop(),
        )

    def _made(
        self,
        method: Method,
        message: Any,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> Any:
        channel = self._on
        request = Request(
            channel._target,
            method,
            message,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
            compression,
            renews=channel._settings.renew is not None,
            brings=channel._settings.brings_credentials(credentials),
            own=channel._settings.own,
        )
        outgoing = Outgoing(request, method.of_message, channel._limit) if method.streams else None
        return channel._begin(request, message, outgoing)


class _OneMessage(_Callable):
    def __call__(self, request: Any, **options: Any) -> Any:
        return self._call(request, **options)


class _Messages(_Callable):
    def __call__(self, request_iterator: Any = None, *options: Any, **named: Any) -> Any:
        return self._call(request_iterator, *options, **named)


class UnaryUnary(_OneMessage, base.UnaryUnaryMultiCallable):
    """One message there, one back."""


class UnaryStream(_OneMessage, base.UnaryStreamMultiCallable):
    """One message there, any number back."""


class StreamUnary(_Messages, base.StreamUnaryMultiCallable):
    """Any number there, one back."""


class StreamStream(_Messages, base.StreamStreamMultiCallable):
    """Any number both ways."""


AioMeshChannel.callables = {
    "unary_unary": UnaryUnary,
    "unary_stream": UnaryStream,
    "stream_unary": StreamUnary,
    "stream_stream": StreamStream,
}


def _sorted(interceptors: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {kind: [] for kind, _ in _KINDS}
    for interceptor in interceptors:
        kind = next((kind for kind, base_ in _KINDS if isinstance(interceptor, base_)), None)
        if kind is None:
            names = ", ".join(base_.__name__ for _, base_ in _KINDS)
            raise ValueError(f"interceptor {interceptor!r} must be one of {names}")
        found[kind].append(interceptor)
    return found


def _nobody() -> None:
    return None


def _set(changed: asyncio.Future[None]) -> None:
    if not changed.done():
        changed.set_result(None)
