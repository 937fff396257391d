"""A small gRPC server that says who it is, of no service in particular: what a method is called says of which kind it is."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

__all__ = ["STREAM_STREAM", "STREAM_UNARY", "UNARY_STREAM", "UNARY_UNARY", "EchoServer"]

UNARY_UNARY, UNARY_STREAM = "/echo.Echo/unary_unary", "/echo.Echo/unary_stream"
STREAM_UNARY, STREAM_STREAM = "/echo.Echo/stream_unary", "/echo.Echo/stream_stream"


class EchoServer(grpc.GenericRpcHandler):
    """Answers with its ``name``: to each message of a stream, three times to one message. On 127.0.0.1, or at ``address``; over TLS
    with ``credentials``.
    """

    def __init__(
        self,
        name: str,
        address: str = "127.0.0.1:0",
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.name = name.encode()
        self.metadata: list[dict[str, Any]] = []  # of each call
        self._pool = ThreadPoolExecutor(64, thread_name_prefix=f"echo-{name}")
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        self.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"
        self._server.start()

    @property
    def calls(self) -> int:
        return len(self.metadata)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self.metadata.append(dict(handler_call_details.invocation_metadata))
        kind = handler_call_details.method.rpartition("/")[2]
        handler: grpc.RpcMethodHandler = getattr(grpc, f"{kind}_rpc_method_handler")(
            getattr(self, f"_{kind}")
        )
        return handler

    def _unary_unary(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        return self.name

    def _unary_stream(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from [self.name] * 3

    def _stream_unary(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return self.name * len(list(messages))

    def _stream_stream(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in messages:
            yield self.name

    def kill(self) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
