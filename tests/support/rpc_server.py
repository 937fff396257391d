"""A real gRPC server that keeps what arrives, and callers of it by both of meshlib's channels."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, Self

import grpc

import meshlib
import meshlib.grpc
import meshlib.grpc.aio

SERVICE = "shop.Reviews"
#: By the name of the channel's factory for it.
METHODS = {
    "unary_unary": f"{SERVICE}/Get",
    "unary_stream": f"{SERVICE}/List",
    "stream_unary": f"{SERVICE}/Add",
    "stream_stream": f"{SERVICE}/Chat",
}


class RpcServer:
    """Answers each message with itself; a stream of answers is three times the message.

    Attributes:
        metadata: What each call brought.
        codes: What the next calls end with before anything is answered.
        broken: A stream ends with this code after its first message.
        held: Cleared, streams wait after their first message, and unary calls before it.
        arrived: Set by each call.
    """

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.codes: list[grpc.StatusCode] = []
        self.broken: grpc.StatusCode | None = None
        self.held = threading.Event()
        self.held.set()
        self.arrived = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        handlers = {
            "Get": grpc.unary_unary_rpc_method_handler(self._one),
            "List": grpc.unary_stream_rpc_method_handler(self._many),
            "Add": grpc.stream_unary_rpc_method_handler(lambda it, context: self._one(b"".join(it), context)),
            "Chat": grpc.stream_stream_rpc_method_handler(
                lambda it, context: self._many(b"".join(it), context)
            ),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.held.set()
        self._server.stop(None).wait()

    def parent(self, index: int = -1) -> str:
        """The span that a call named as its parent."""
        span: str = self.metadata[index]["traceparent"].split("-")[2]
        return span

    def _begin(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        self.arrived.set()
        if self.codes:
            context.abort(self.codes.pop(0), "as ordered")

    def _one(self, message: bytes, context: Any) -> bytes:
        self._begin(context)
        self.held.wait()
        return message

    def _many(self, message: bytes, context: Any) -> Iterator[bytes]:
        self._begin(context)
        yield message
        self.held.wait()
        if self.broken is not None:
            context.abort(self.broken, "as ordered")
        yield message
        yield message


class Blocking:
    """Calls by ``meshlib.grpc.channel``. ``wrap`` puts something around the channel."""

    def __init__(
        self, target: str, mesh: meshlib.Mesh, wrap: Callable[[Any], Any] | None = None, **options: Any
    ) -> None:
        self.mesh = mesh
        self._own = meshlib.grpc.channel(target, mesh=mesh, **options)
        self._channel = self._own if wrap is None else wrap(self._own)

    def call(self, kind: str, message: bytes = b"m", **options: Any) -> list[bytes]:
        """The messages of the answer."""
        made = getattr(self._channel, kind)("/" + METHODS[kind], _registered_method=True)
        sent = iter([message]) if kind.startswith("stream") else message
        answer = made(sent, **options)
        return list(answer) if kind.endswith("stream") else [answer]

    def cancelled(self, kind: str, arrived: threading.Event) -> None:
        """A call that is given up when it is at the server."""
        made = getattr(self._channel, kind)("/" + METHODS[kind], _registered_method=True)
        call = made(b"m") if kind.endswith("stream") else made.future(b"m")
        arrived.wait()
        call.cancel()

    def close(self) -> None:
        self._own.close()


class Asyncio:
    """Calls by ``meshlib.grpc.aio.channel``."""

    def __init__(
        self, target: str, mesh: meshlib.Mesh, interceptors: list[Any] | None = None, **options: Any
    ) -> None:
        self.mesh = mesh
        self._loop = asyncio.new_event_loop()
        self._channel = meshlib.grpc.aio.channel(target, mesh=mesh, interceptors=interceptors, **options)

    def call(self, kind: str, message: bytes = b"m", **options: Any) -> list[bytes]:
        async def done() -> list[bytes]:
            made = getattr(self._channel, kind)("/" + METHODS[kind], _registered_method=True)
            sent: Any = iter([message]) if kind.startswith("stream") else message
            answer = made(sent, **options)
            return [one async for one in answer] if kind.endswith("stream") else [await answer]

        return self._loop.run_until_complete(done())

    def cancelled(self, kind: str, arrived: threading.Event) -> None:
        async def done() -> None:
            made = getattr(self._channel, kind)("/" + METHODS[kind], _registered_method=True)
            call = made(b"m")
            await asyncio.to_thread(arrived.wait)
            call.cancel()

        self._loop.run_until_complete(done())

    def close(self) -> None:
        self._loop.run_until_complete(self._channel.close())
        self._loop.close()
