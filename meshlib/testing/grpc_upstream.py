"""gRPC servers for tests: real ones of grpcio on 127.0.0.1, in this process, for every method, bytes in and bytes out.

    with GrpcUpstream("v1") as upstream:
        channel = grpc.insecure_channel(upstream.address)
        channel.unary_unary("/shop.Stock/Get")(b"x")   # {"name": "v1", "method": "/shop.Stock/Get", "metadata": …}
        upstream.fail(grpc.StatusCode.UNAVAILABLE, times=2)
        upstream.kill()                                # every call is broken, the port refuses
        upstream.restart()                             # the same port again

`python -m meshlib.testing.grpc_upstream --name v1 --port 0` is the same as a process of its own; `GrpcUpstreamProcess` runs one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast, get_args

import grpc

from meshlib.testing.alone import serve_alone
from meshlib.testing.grpc_orders import GrpcOrder, Pairs
from meshlib.testing.grpc_server import GrpcServer
from meshlib.testing.ordered import Ordered
from meshlib.testing.orders import ORDER_HEADER

__all__ = ["CONTROL_SERVICE", "GrpcReceived", "GrpcUpstream"]

# Where an upstream takes orders and tells its counts: for one that is a process of its own.
CONTROL_SERVICE = "/__upstream__/"

#: The name of who answers: in the initial metadata, or in the trailing ones of a call that has no other.
NAME_HEADER = "x-upstream"

_KEPT_BODY = 64 * 1024
_FAR = 1e9  # seconds; a deadline that is further away than this is grpcio's word for none

Kind: TypeAlias = Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]

#: Methods whose last names tell what they are; the others are unary_unary, if nobody says otherwise.
_KINDS: dict[str, Kind] = {
    "UnaryUnary": "unary_unary",
    "UnaryStream": "unary_stream",
    "StreamUnary": "stream_unary",
    "StreamStream": "stream_stream",
}


@dataclass(slots=True)
class GrpcReceived:
    """A call as it arrived; what is said below of its messages grows while a stream comes in. `number` counts from 1."""

    method: str
    metadata: Pairs
    authority: str
    peer: str  # as grpc writes it, such as "ipv4:127.0.0.1:54321": each connection has its own
    time_remaining: float | None  # seconds that the caller gave it; None: no deadline
    number: int
    messages: list[bytes] = field(default_factory=list)  # each at most its first 64 KiB
    complete: bool = False  # the caller has sent all of it
    answered: bool = False  # so has the server
    ended: bool = (
        False  # nothing comes any more; where it is not answered, the caller left or its deadline passed
    )

    @property
    def payload(self) -> bytes:
        """The first message; empty before there is one."""
        return self.messages[0] if self.messages else b""

    def header(self, name: str) -> str | bytes | None:
        """The first value of a metadata key; None if there is none."""
        return next((value for key, value in self.metadata if key == name.lower()), None)


class _Left(Exception):
    """The caller waits no longer."""


class _Call:
    """One call: what came, what was ordered, and grpcio's objects for it."""

    def __init__(self, kind: Kind, received: GrpcReceived, context: grpc.ServicerContext) -> None:
        self.kind = kind
        self.received = received
        self.context = context
        self.order = GrpcOrder()


class GrpcUpstream(GrpcServer, Ordered[GrpcOrder, GrpcReceived, GrpcReceived]):
    """A server that answers each call with who it is and what it got, until it is told otherwise.

    Each message of the answer is JSON: `name`, `method`, `metadata` (pairs, as received), `authority`, `peer`,
    `time_remaining`, `payload_length` (of the message that is answered), `request` (the call's number). `x-upstream` in
    the initial metadata is the name; a call that fails without any has it in the trailing ones. Orders come from `order`
    and its shorthands, newest first, or with a call, as JSON in the metadata `x-upstream-order`. Every method may be
    called from every thread, those that start and stop it from one at a time.

    `methods`: the kinds of methods by their full names (`{"/shop.Stock/Watch": "unary_stream"}`); the others are
    unary_unary, but for those that are called `UnaryStream`, `StreamUnary` or `StreamStream` in any service. `setup`:
    gets each new grpc.Server before it listens, to add services of your own, which take no orders. `credentials` make it
    a TLS server; `max_concurrent_streams` bounds the calls of one connection; `options` are grpc's channel arguments.
    `workers`: calls that are served at once.
    """

    _thread_name = "grpc-upstream"

    def __init__(
        self,
        name: str = "upstream",
        *,
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        methods: Mapping[str, Kind] | None = None,
        setup: Callable[[grpc.Server], None] | None = None,
        max_concurrent_streams: int | None = None,
        options: Sequence[tuple[str, Any]] = (),
        workers: int = 512,
    ) -> None:
        for method, kind in (methods or {}).items():
            if kind not in get_args(Kind):
                raise ValueError(f"{method} is one of {', '.join(get_args(Kind))}, not {kind!r}")
        if max_concurrent_streams is not None:
            options = (*options, ("grpc.max_concurrent_streams", max_concurrent_streams))
        GrpcServer.__init__(
            self, f"upstream {name}", port=port, credentials=credentials, workers=workers, options=options
        )
        Ordered.__init__(self, name, GrpcOrder())
        self._methods = dict(methods or {})
        self._setup = setup
        # The condition of Ordered guards all of the following.
        self._calls_open = 0
        self._peers: set[str] = set()

    @property
    def target(self) -> str:
        """`ipv4:127.0.0.1:port`: the address as a target that grpc asks no resolver about."""
        return f"ipv4:{self.address}"

    def stop(self, grace: float | None = None) -> None:
        """Ends in order: the port is closed, clients are told to go away, calls under way have `grace` seconds."""
        self._end(grace)
        self._reserve(None)

    def kill(self) -> None:
        """Ends as near to a killed process as one of its own can: calls under way are UNAVAILABLE at once, the port refuses.

        The port stays reserved for the next `start`, until `stop`. `GrpcUpstreamProcess` is killed in earnest.
        """
        super().kill()

    def fail(
        self,
        code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        details: str = "failed by order",
        *,
        times: int | None = None,
        metadata: Pairs = (),
    ) -> None:
        """Answers with this status; `metadata` are trailing ones, such as `grpc-retry-pushback-ms`."""
        self.order(code=code, details=details, trailers=tuple(metadata), times=times)

    # ----------------------------------------------------------------------------------- what was seen

    @property
    def calls_open(self) -> int:
        """How many calls are being served."""
        return self._calls_open

    @property
    def connections_total(self) -> int:
        """How many connections have ever brought a call."""
        return len(self._peers)

    def counts(self) -> dict[str, int]:
        with self._changed:
            return {
                "calls_open": self.calls_open,
                "connections_total": self.connections_total,
                "requests_total": self.requests_total,
                "held": self.held,
            }

    # -------------------------------------------------------------------------------------- the server

    def _install(self, server: grpc.Server) -> None:
        if self._setup is not None:
            self._setup(server)
        server.add_generic_rpc_handlers((_Methods(self._handler),))

    def _handler(self, method: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        if method.startswith(CONTROL_SERVICE):
            what = method.removeprefix(CONTROL_SERVICE)
            return grpc.unary_unary_rpc_method_handler(
                lambda body, context: self._control(what, body, context)
            )
        kind = self._methods.get(method) or _KINDS.get(method.rpartition("/")[2], "unary_unary")

        def answers(asked: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
            return self._serve(_Call(kind, self._received(method, context), context), asked)

        def answer(asked: Any, context: grpc.ServicerContext) -> bytes:
            return b"".join(answers(asked, context))

        made = getattr(grpc, f"{kind}_rpc_method_handler")
        return cast(
            "grpc.RpcMethodHandler[bytes, bytes]", made(answers if kind.endswith("_stream") else answer)
        )

    def _received(self, method: str, context: grpc.ServicerContext) -> GrpcReceived:
        left = context.time_remaining()
        with self._changed:
            self._requests_total += 1
            received = GrpcReceived(
                method,
                tuple((key, value) for key, value in context.invocation_metadata() or ()),
                context._rpc_event.call_details.host.decode("latin-1"),  # type: ignore[attr-defined]
                context.peer(),
                None if left > _FAR else left,
                self._requests_total,
            )
            self._requests.append(received)
            self._peers.add(received.peer)
            self._calls_open += 1
            self._changed.notify_all()

        def ended() -> None:
            with self._changed:
                received.ended = True
                self._calls_open -= 1
                self._changed.notify_all()

        if not context.add_callback(ended):
            ended()
        return received

    def _serve(self, call: _Call, asked: Any) -> Iterator[bytes]:
        incoming = self._incoming(call, asked if call.kind.startswith("stream_") else iter((asked,)))
        with contextlib.suppress(_Left):
            first = [next(incoming)] if call.kind.startswith("unary_") else []
            call.order = self._choose(call)
            yield from self._answers(call, itertools.chain(first, incoming))

    def _incoming(self, call: _Call, messages: Iterator[bytes]) -> Iterator[bytes]:
        for message in messages:
            with self._changed:
                call.received.messages.append(message[:_KEPT_BODY])
                self._changed.notify_all()
            yield message
        with self._changed:
            call.received.complete = True
            self._changed.notify_all()

    def _choose(self, call: _Call) -> GrpcOrder:
        brought = call.received.header(ORDER_HEADER)
        if brought is None:
            return self._standing(call.received)
        try:
            return GrpcOrder.from_dict(json.loads(brought))
        except ValueError as error:
            return GrpcOrder(grpc.StatusCode.INVALID_ARGUMENT, f"{ORDER_HEADER}: {error}")

    def _answers(self, call: _Call, incoming: Iterator[bytes]) -> Iterator[bytes]:
        order, context = call.order, call.context
        failing = order.code is not grpc.StatusCode.OK
        sources = self._sources(call, incoming)
        self._wait(call, order.delay, hold=order.hold == "head")
        streams = call.kind.endswith("_stream")
        opened = bool(not failing or order.metadata or (streams and order.messages))
        if opened:
            context.send_initial_metadata(((NAME_HEADER, self.name), *order.metadata))
        held = order.hold == "body"
        for number, source in enumerate(sources):
            if number:
                self._wait(call, order.message_delay)
            yield self._message(call, source)
            if held:
                self._wait(call, hold=True)
                held = False
        if held:
            self._wait(call, hold=True)
        context.set_trailing_metadata((*(() if opened else ((NAME_HEADER, self.name),)), *order.trailers))
        call.received.answered = True
        if failing:
            context.abort(order.code, order.details)

    def _sources(self, call: _Call, incoming: Iterator[bytes]) -> Iterator[bytes]:
        """What each message of the answer answers."""
        order = call.order
        most = order.messages if call.kind.endswith("_stream") else None
        if most is None and order.code is not grpc.StatusCode.OK:
            most = 0
        if call.kind == "stream_stream" and not order.early:
            return incoming if most is None else itertools.islice(incoming, most)
        asked = b"" if order.early and call.kind.startswith("stream_") else b"".join(incoming)
        return itertools.repeat(asked, 1 if most is None else most)

    def _message(self, call: _Call, asked: bytes) -> bytes:
        order, received = call.order, call.received
        if order.body is not None or order.echo:
            return asked if order.body is None else order.body
        described = {
            "name": self.name,
            "method": received.method,
            "metadata": [
                (key, value.decode("latin-1") if isinstance(value, bytes) else value)
                for key, value in received.metadata
            ],
            "authority": received.authority,
            "peer": received.peer,
            "time_remaining": received.time_remaining,
            "payload_length": len(asked),
            "request": received.number,
        }
        return json.dumps(described).encode()

    def _wait(self, call: _Call, seconds: float = 0.0, *, hold: bool = False) -> None:
        """Until that time has passed and, with `hold`, a release has come that is later than now. Raises _Left."""
        received = call.received
        with self._changed:
            if seconds:
                self._changed.wait_for(lambda: received.ended, seconds)
            if hold:
                before = self._releases
                self._held_now += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: received.ended or self._releases != before)
                self._held_now -= 1
                self._changed.notify_all()
            if received.ended:
                raise _Left

    def _control(self, what: str, body: bytes, context: grpc.ServicerContext) -> bytes:
        """`counts`; `order`: one with `times`, as JSON; `behave`; `release`."""
        if what == "order":
            try:
                given = json.loads(body)
                times = given.pop("times", None)
                self.order(GrpcOrder.from_dict(given), times=times)
            except (ValueError, AttributeError, TypeError) as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no order: {error}")
        elif what == "behave":
            self.behave()
        elif what == "release":
            self.release()
        return json.dumps(self.counts()).encode()


class _Methods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Every method there is."""

    def __init__(self, handler: Callable[[str], grpc.RpcMethodHandler[bytes, bytes]]) -> None:
        self._handler = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return self._handler(handler_call_details.method)


if __name__ == "__main__":
    sys.exit(serve_alone("meshlib.testing.grpc_upstream", GrpcUpstream))
