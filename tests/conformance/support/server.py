"""gRPC servers for the conformance cases: real ones of grpcio on loopback, which say who they are and fail by order."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc

from meshlib.testing.ports import refuse_taken, reserve

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

__all__ = ["SAY", "TALK", "Order", "Server"]

# Every method is served: what is called …/Talk is a stream in both directions, all others take and give one message.
SAY = "/conformance.Echo/Say"
TALK = "/conformance.Echo/Talk"

_WORKERS = 64  # calls at a time; each that is held occupies one


@dataclass(slots=True)
class Order:
    """What a server does with a call. ``times``: only so often; None: until told otherwise."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    times: int | None = None
    trailing: tuple[tuple[str, str], ...] = ()
    headers_first: bool = False  # sends its initial metadata before anything else
    hold: bool = False  # answers once it is released


class Server:
    """A server that answers each call with its name and what the call brought. Any thread may use any method."""

    def __init__(self, name: str, *, streams: int | None = None) -> None:
        """``streams``: calls that one connection may carry at a time."""
        self.name = name
        self._streams = streams
        self.port = 0
        self._changed = threading.Condition()  # guards all of the following
        self._orders: list[Order] = []
        self._calls: list[str] = []
        self._peers: set[str] = set()
        self._held = 0
        self._releases = 0
        self._reserved: socket.socket | None = None
        self._running: tuple[grpc.Server, ThreadPoolExecutor] | None = None

    # ------------------------------------------------------------------------------------------------------- life

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        refuse_taken(self.port)
        pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix=f"server-{self.name}")
        options: list[tuple[str, int]] = [("grpc.so_reuseport", 1)]
        if self._streams is not None:
            options.append(("grpc.max_concurrent_streams", self._streams))
        server = grpc.server(pool, options=options)
        server.add_generic_rpc_handlers((_Handler(self),))
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        self._running = (server, pool)
        self._reserve(None)
        return self

    def kill(self) -> None:
        """Breaks every connection; the port refuses, and is kept for the next start."""
        if self._running is not None:
            self._reserve(reserve(self.port))
        self._stop()

    def stop(self) -> None:
        self._stop()
        self._reserve(None)

    def _stop(self) -> None:
        if self._running is None:
            return
        (server, pool), self._running = self._running, None
        stopped = server.stop(None)
        self.behave()
        stopped.wait()
        pool.shutdown(wait=True)

    def _reserve(self, reserved: socket.socket | None) -> None:
        before, self._reserved = self._reserved, reserved
        if before is not None:
            before.close()

    # ----------------------------------------------------------------------------------------------------- orders

    def order(self, **parts: Any) -> None:
        """From now on does as an Order of these parts says; those given later come after the earlier are used up."""
        with self._changed:
            self._orders.append(Order(**parts))

    def fail(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, times: int | None = None) -> None:
        self.order(code=code, times=times)

    def hold(self, times: int | None = None) -> None:
        """Takes calls and answers none until ``behave``."""
        self.order(hold=True, times=times)

    def behave(self) -> None:
        """Forgets all orders, and answers what is held."""
        with self._changed:
            self._orders.clear()
            self._releases += 1
            self._changed.notify_all()

    # ---------------------------------------------------------------------------------------------- what was seen

    @property
    def calls(self) -> int:
        """How many calls have arrived."""
        with self._changed:
            return len(self._calls)

    @property
    def connections(self) -> int:
        """From how many connections calls have arrived."""
        with self._changed:
            return len(self._peers)

    def wait_for_held(self, count: int, seconds: float = 10.0) -> None:
        """Until exactly so many calls are held."""
        with self._changed:
            held = self._changed.wait_for(lambda: self._held == count, seconds)
            assert held, f"{self.name} holds {self._held} calls, not {count}"

    # --------------------------------------------------------------------------------------------------- answering

    def _arrived(self, path: str, context: grpc.ServicerContext) -> Order:
        with self._changed:
            self._calls.append(path)
            self._peers.add(context.peer())
            self._orders = [order for order in self._orders if order.times != 0]
            order = self._orders[0] if self._orders else Order()
            if order.times is not None:
                order.times -= 1
            self._changed.notify_all()
            return order

    def _wait(self, context: grpc.ServicerContext) -> None:
        """Until it is released, or the client has gone."""
        with self._changed:
            release = self._releases
            self._held += 1
            self._changed.notify_all()
        if not context.add_callback(self._notify):
            self._notify()
        with self._changed:
            self._changed.wait_for(lambda: self._releases != release or not context.is_active())
            self._held -= 1
            self._changed.notify_all()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def obey(self, path: str, context: grpc.ServicerContext) -> None:
        """Does what is ordered for a call that has arrived; raises where that ends it."""
        order = self._arrived(path, context)
        if order.headers_first:
            context.send_initial_metadata((("x-server", self.name),))
        if order.trailing:
            context.set_trailing_metadata(order.trailing)
        if order.hold:
            self._wait(context)
        if order.code is not grpc.StatusCode.OK:
            context.abort(order.code, f"ordered of {self.name}")

    def said(self, path: str, context: grpc.ServicerContext, request: bytes) -> bytes:
        metadata = [(key, value) for key, value in context.invocation_metadata() if isinstance(value, str)]
        return json.dumps(
            {
                "who": self.name,
                "path": path,
                "metadata": metadata,
                "left": context.time_remaining(),
                "authority": context._rpc_event.call_details.host.decode("latin-1"),  # type: ignore[attr-defined]
                "request": request.decode(),
            }
        ).encode()


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, server: Server) -> None:
        self._server = server

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        path = handler_call_details.method
        if path.endswith("/Talk"):
            return grpc.stream_stream_rpc_method_handler(
                lambda requests, context: self._talk(path, requests, context)
            )
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._say(path, request, context))

    def _say(self, path: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._server.obey(path, context)
        return self._server.said(path, context, request)

    def _talk(self, path: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._server.obey(path, context)
        for request in requests:
            yield self._server.said(path, context, request)
