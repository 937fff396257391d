"""An RPC as the engine's host reads it, of blocking and asyncio channels alike, and an answer to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.core.effects import Call
from meshlib.core.exchange import GRPC
from meshlib.deadlines import current_deadline
from meshlib.errors import ConfigError
from meshlib.hosts.grpc.replay import as_is
from meshlib.hosts.info import attach
from meshlib.hosts.protocol import Arrived
from meshlib.inbound import carry, is_retry
from meshlib.model.call import Head
from meshlib.model.headers import Headers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshlib.core.exchange import Place
    from meshlib.core.resolution import Resolution
    from meshlib.core.upstream import Pick
    from meshlib.hosts.body import OpenCall
    from meshlib.hosts.grpc.errors import GrpcErrors
    from meshlib.hosts.grpc.own_retries import OwnRetries
    from meshlib.hosts.grpc.replay import Messages
    from meshlib.hosts.grpc.target import Target
    from meshlib.model.call import CallInfo, Response
    from meshlib.model.policy import RetryPolicy
    from meshlib.runtime.clock import Clock

__all__ = ["PATIENCE", "Answer", "GrpcHost", "Method", "Request", "measure", "metadata_of", "trailers"]

#: How long a call waits for its first configuration: gRPC's time after which a resource does not exist (EX-01), in seconds.
PATIENCE = 15.0

_NO_TIMEOUTS: dict[str, float | None] = {}


class Method:
    """A method of a service, as a stub names it.

    Attributes:
        kind: The name of the channel's factory for it.
        serializer: What grpc's own channels are given: of a stream's messages, which are serialized to be kept, ``as_is``.
        of_message: The stub's.
        streams: It is sent any number of messages.
    """

    __slots__ = ("deserializer", "kind", "of_message", "path", "registered", "serializer", "streams")

    def __init__(self, kind: str, path: Any, serializer: Any, deserializer: Any, registered: Any) -> None:
        self.kind = kind
        self.path = path.decode() if isinstance(path, bytes) else path
        self.streams = kind.startswith("stream")
        self.of_message = serializer
        self.serializer = as_is if self.streams else serializer
        self.deserializer = deserializer
        self.registered = bool(registered)


class Request:
    """One RPC. ``message``: what is sent; ``messages``, where it is a stream; ``call``: as the plan reads it, once it did;
    ``brings``: it has credentials of its own.
    """

    __slots__ = (
        "binary",
        "brings",
        "call",
        "compression",
        "credentials",
        "message",
        "messages",
        "metadata",
        "method",
        "own",
        "renews",
        "target",
        "timeout",
        "wait_for_ready",
        "with_call",
    )

    def __init__(
        self,
        target: Target,
        method: Method,
        message: Any,
        timeout: float | None,
        metadata: Iterable[tuple[str, str | bytes]] | None,
        credentials: Any,
        wait_for_ready: bool | None,
        compression: Any,
        *,
        with_call: bool = True,
        messages: Messages | None = None,
        renews: bool = False,
        brings: bool = False,
        own: OwnRetries | None = None,
    ) -> None:
        self.target = target
        self.method = method
        self.message = message
        self.messages = messages
        self.timeout = timeout
        self.metadata = tuple(metadata) if metadata else ()
        self.credentials = credentials
        self.wait_for_ready = wait_for_ready
        self.compression = compression
        self.with_call = with_call
        self.renews = renews
        self.brings = brings
        self.own = own
        self.call: Call | None = None
        self.binary: list[tuple[str, str | bytes]] = []

    def sending(self, attempt: Any = None) -> Any:
        """What one attempt sends."""
        return self.message if self.messages is None else self.messages.read(attempt)


class Answer:
    """How an attempt ended: by ``value``, or by the server's ``error``; ``call`` is the library's. Of one that is under way there
    is ``call`` alone.
    """

    __slots__ = ("call", "error", "headers", "status", "value")

    def __init__(
        self,
        status: int,
        value: Any = None,
        call: Any = None,
        error: BaseException | None = None,
        headers: Headers | None = None,
    ) -> None:
        self.status = status
        self.value = value
        self.call = call
        self.error = error
        self.headers = headers


_FINE = Arrived(0, None, GRPC)


class GrpcHost:
    """grpc (:class:`meshlib.hosts.protocol.Host`)."""

    def __init__(self, errors: GrpcErrors) -> None:
        self.errors = errors

    def place(self, request: Request) -> Place:
        return request.target.place

    def read(self, request: Request, clock: Clock, retry: RetryPolicy | None, resolution: Resolution) -> Call:
        target = request.target
        lines: list[tuple[bytes, bytes]] = []
        for key, value in request.metadata:
            # What routes cannot look at (HM-05), and what grpc itself will refuse.
            if isinstance(value, bytes) or not isinstance(key, str) or key.endswith("-bin"):
                request.binary.append((key, value))
            else:
                lines.append((key.encode(), value.encode()))
        authority, path = target.place[3], request.method.path
        head = Head("POST", target.scheme, authority, path, Headers(lines))
        deadline, own = current_deadline(clock), request.own
        if own is not None and own.refused and resolution.via == "mesh":
            raise self.errors.made(ConfigError, f"{target.text}: {own.refused}", info=None)
        call = request.call = Call(
            resolution,
            head,
            deadline=deadline,
            limit="the deadline" if deadline is not None else "",
            default_retry=retry if own is None else own.policy(path),
            default_hedge=None if own is None else own.hedge(path),
            wait=PATIENCE,
            counted=(inside := carry(head.headers)),
            chained=inside and is_retry(),
            url=target.url + path,
            timeouts=_NO_TIMEOUTS,
            grpc=True,
            patient=bool(request.wait_for_ready),
            strict=target.strict,
            concurrent=True,  # what a stream sent is kept, as long as it can be
            renews=request.renews,
            credentials=request.brings,
            throttle=None if own is None else own.throttle(target.text),
            target=target.uri,
            own=target.own,
            registered=request.method.registered,
        )
        if request.messages is not None:
            request.messages.call = call
        if request.timeout is not None:
            until = clock.now() + request.timeout
            if call.deadline is None or until < call.deadline:
                call.deadline, call.limit = until, f"the call's timeout of {request.timeout:g} s"
        return call

    def content(self, request: Request) -> bytes | None:  # noqa: ARG002 - no RPC is mirrored
        return None

    def arrived(self, response: Answer) -> Arrived:
        return _FINE if response.status == 0 else Arrived(response.status, response.headers, GRPC)

    def deliver(self, request: Request, response: Answer, headers: Headers | None, call: OpenCall) -> Answer:  # noqa: ARG002
        """An RPC that is over."""
        if response.error is not None or request.with_call:
            told(response, call.info)
            state = getattr(response.call, "_state", None)
            if state is not None and state.initial_metadata is not None:
                state.initial_metadata = call.metadata(state.initial_metadata)
        call.end()
        return response

    def direct(self, request: Request, response: Answer, info: CallInfo | None) -> Answer:  # noqa: ARG002
        told(response, info)
        return response

    def reply(self, request: Request, response: Response, info: CallInfo | None) -> Answer:
        """Nothing that a plan answers by itself is a response to gRPC."""
        raise NotImplementedError


def told(answer: Answer, info: CallInfo | None) -> None:
    """Let ``call_info`` find ``info``."""
    if info is not None:
        for thing in (answer.error, answer.call):
            if thing is not None:
                attach(thing, info)


def metadata_of(request: Request, raw: list[tuple[bytes, bytes]]) -> Any:
    """The metadata that an attempt sends; None for none."""
    if not raw:
        return request.binary or None
    lines: list[tuple[str, str | bytes]] = [
        (key.decode("latin-1").lower(), value.decode()) for key, value in raw
    ]
    return [*lines, *request.binary] if request.binary else lines


def measure(pick: Pick, trailing: Any) -> None:
    """Tell whoever listens what the endpoint said of its load (gRFC A51)."""
    from meshlib.xds.orca import of_metadata

    pick.measured(of_metadata(trailing or ()))


def trailers(metadata: Any) -> Headers | None:
    """Trailing metadata, as far as it is text."""
    if not metadata:
        return None
    return Headers.of(*((key, value) for key, value in metadata if isinstance(value, str)))
