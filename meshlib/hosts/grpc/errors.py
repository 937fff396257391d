"""gRPC's errors: what they mean to a plan, and meshlib's own as gRPC's.

gRPC tells what its own core says of a call (it could not connect, the connection broke, the time is over) by the same codes as
what a server says. They are told apart by the core's words, and where much hangs on it (a call that was not sent is made again
elsewhere) by the state of the connection, too: see :func:`local_end`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import grpc

from meshlib.errors import (
    ConfigError,
    ConnectFailed,
    DeadlineExceeded,
    MeshError,
    NoHealthyEndpoint,
    Overloaded,
    ProtocolError,
    TransportFailed,
)
from meshlib.hosts.errors import join
from meshlib.hosts.info import attach
from meshlib.model.call import Outcome, OutcomeKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from meshlib.model.call import CallInfo
    from meshlib.pools.bounds import Bounds

__all__ = [
    "CANCELLED_WORDS",
    "CODES",
    "ERRORS",
    "LATE",
    "Ended",
    "GrpcErrors",
    "MeshRpcError",
    "local_end",
    "number",
]

#: By number.
CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

CANCELLED_WORDS = "Locally cancelled by application!"

#: How the words of grpc's core begin (1.66 to 1.85) where it could not connect, and where a connection broke.
_UNCONNECTED = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "DNS resolution failed",
)
#: How they end where it is connected, and its own client-side health check (gRFC A17) says that it does not serve, or does not answer.
_UNHEALTHY = ("backend unhealthy", "health check call failed; will retry after backoff")
_BROKEN = (
    "Socket closed",
    "Stream removed",
    "Connection reset",
    "connection reset",
    "recvmsg:",
    "sendmsg:",
    "Broken pipe",
    "GOAWAY",
    "keepalive watchdog timeout",
    "ping timeout",
    "RST_STREAM",
    "Received RST_STREAM",
    "transport closed",
    "End of TCP stream",
)
#: Of one whose time is over.
LATE = "Deadline Exceeded"
#: Where the credentials of a call could not be had, or not be sent over such a connection.
_CREDENTIALS = {
    grpc.StatusCode.UNAVAILABLE: ("Getting metadata from plugin failed with error: ", "Illegal metadata"),
    grpc.StatusCode.UNAUTHENTICATED: ("Established channel does not have a sufficient security level",),
}

_UNSENT = (OutcomeKind.CONNECT, OutcomeKind.OWN, OutcomeKind.UNHEALTHY)
_OF_THE_NETWORK = (ConnectFailed, TransportFailed, ProtocolError)
#: That a wire raises itself.
_OURS = (NoHealthyEndpoint,)


class Sendable(Protocol):
    """The messages of a call that sends any number."""

    @property
    def whole(self) -> bool:
        """Whether all that was taken to be sent can be sent again."""
        ...


def number(code: Any) -> int:
    """A code's number; UNKNOWN's for what is none."""
    return int(code.value[0]) if isinstance(code, grpc.StatusCode) else 2


class Ended(Exception):
    """An attempt ended by what the core says, not the server. ``error``: the library's; ``words``: why, where it does not know."""

    def __init__(self, kind: OutcomeKind, error: BaseException, words: str = "") -> None:
        super().__init__(str(error))
        self.kind = kind
        self.error = error
        self.words = words


def local_end(
    code: grpc.StatusCode,
    details: str | None,
    connected: Callable[[], bool],
    messages: Sendable | None,
    *,
    credentials: bool = False,
) -> OutcomeKind | None:
    """How an attempt ended where it was not the server that said so; None: it was. ``connected``: asks whether the connection
    stands. One that could not connect has sent nothing; but where some of its ``messages`` are gone, no other may be made either.
    ``credentials``: the call brings some, and no metadata has come that a server may have sent.
    """
    words = details or ""
    if credentials and words.startswith(_CREDENTIALS.get(code, ())):
        return OutcomeKind.OWN
    if code is grpc.StatusCode.UNAVAILABLE:
        if words.startswith(_UNCONNECTED):
            # A server may repeat what its own channel said; a connection that stands has carried that answer.
            if connected():
                return None
            if messages is not None and not messages.whole:
                return OutcomeKind.RESET
            return OutcomeKind.UNHEALTHY if words.endswith(_UNHEALTHY) else OutcomeKind.CONNECT
        return OutcomeKind.RESET if words.startswith(_BROKEN) else None
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and words == LATE:
        return OutcomeKind.TIMEOUT
    return None


class MeshRpcError(grpc.RpcError, grpc.Call, grpc.Future):  # grpc's own are of all three
    """What an RPC of a blocking channel raises where meshlib says so: an RPC that is over."""

    _code = grpc.StatusCode.UNKNOWN
    _debug: str | None = None
    _initial: Any = ()
    _trailing: Any = ()

    def initial_metadata(self) -> Any:
        return self._initial

    def trailing_metadata(self) -> Any:
        return self._trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return Exception.__str__(self)

    def debug_error_string(self) -> str | None:
        return self._debug

    def __str__(self) -> str:
        return f"{self._code.name}: {Exception.__str__(self)}"

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float | None:
        return None

    def add_callback(self, callback: Callable[[], None]) -> bool:  # noqa: ARG002 - grpc's: too late
        return False

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - it is over
        raise self

    def exception(self, timeout: float | None = None) -> BaseException:  # noqa: ARG002 - it is over
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:  # noqa: ARG002 - it is over
        return self.__traceback__

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        fn(self)


class GrpcErrors:
    """The error table (:class:`meshlib.hosts.errors.ErrorTable`). ``base``: the library's class of what meshlib raises; ``fill``
    puts a code, the words, and what the library's error of the attempt has, into one.
    """

    def __init__(
        self, base: type[BaseException], fill: Callable[[Any, grpc.StatusCode, str, Any], None]
    ) -> None:
        self._base = base
        self._fill = fill

    def outcome(self, error: BaseException, bounds: Bounds) -> Outcome | None:
        if isinstance(error, Ended):
            kind, inner = error.kind, error.error
            sent = kind not in _UNSENT
            words = error.words or _details(inner)
            return Outcome(kind, sent=sent, error=inner, detail=words, late=bounds.expired, grpc=True)
        if isinstance(error, TimeoutError):
            return Outcome(OutcomeKind.NO_TIME, error=error, detail=str(error), late=True, grpc=True)
        return None

    def own(self, error: BaseException) -> BaseException:
        return self.made(type(error), str(error), info=None) if type(error) in _OURS else error

    def made(
        self,
        failure: type[MeshError],
        message: str,
        *,
        info: CallInfo | None,
        cause: Outcome | None = None,
        sent: bool = False,
        phase: str | None = None,
    ) -> BaseException:
        inner = cause.error if cause is not None else None
        if inner is not None and cause is not None and cause.kind is OutcomeKind.OWN:
            if info is not None:
                attach(inner, info)
            return inner
        error: Any = join(failure, self._base)(message, info=info, phase=phase, sent=sent)
        self._fill(error, _code(failure, cause), message, inner if isinstance(inner, grpc.RpcError) else None)
        error.__cause__ = inner
        return error


def _code(failure: type[MeshError], cause: Outcome | None) -> grpc.StatusCode:
    if failure is DeadlineExceeded:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    if failure is ConfigError:  # as grpc's core says it of a service config
        return grpc.StatusCode.INVALID_ARGUMENT
    if cause is not None and cause.grpc and cause.status:
        return CODES.get(cause.status, grpc.StatusCode.UNKNOWN)
    if failure is Overloaded:
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    code = getattr(cause.error, "code", None) if cause is not None and failure in _OF_THE_NETWORK else None
    return code() if callable(code) else grpc.StatusCode.UNAVAILABLE


def _details(error: BaseException) -> str:
    details = getattr(error, "details", None)
    return (details() or "") if callable(details) else str(error)


def _fill(error: Any, code: grpc.StatusCode, message: str, inner: Any) -> None:
    error._code = code
    error._debug = f"{code.name}:{message}" if inner is None else inner.debug_error_string()
    if inner is not None:
        state = (
            inner._state
        )  # of an RPC that is over; asked for its metadata it might wait for those that never come
        error._initial, error._trailing = state.initial_metadata or (), state.trailing_metadata or ()


#: Of blocking channels.
ERRORS = GrpcErrors(MeshRpcError, _fill)
