"""Errors that are meshlib's and the host library's at once, and what an attempt's error means to a plan.

What the wire reports is told as urllib3 tells it: the same class, text and arguments. It is given one more base class, the
meshlib error, and ``info``, ``phase`` and ``sent``. requests then makes its own errors of urllib3's as it always does, and those
are joined the same way.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import TYPE_CHECKING, Any

import requests
from urllib3 import connection, exceptions
from urllib3.util.ssl_match_hostname import CertificateError

from meshlib.errors import (
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    MeshError,
    NoHealthyEndpoint,
    NotReady,
    Overloaded,
    UnknownService,
)
from meshlib.hosts.errors import join as join_classes
from meshlib.hosts.errors import unconnected
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.wire import errors as wire

if TYPE_CHECKING:
    from meshlib.model.call import CallInfo
    from meshlib.pools.bounds import Bounds

__all__ = [
    "ERRORS",
    "SettingsError",
    "alone",
    "body_error",
    "failure_of",
    "in_requests",
    "join_with",
    "urllib3_error",
]

#: Our error → urllib3's, for failures that no socket reported.
_OWN: dict[type[MeshError], type[exceptions.HTTPError]] = {
    NoHealthyEndpoint: exceptions.NewConnectionError,
    CircuitOpen: exceptions.NewConnectionError,
    UnknownService: exceptions.NewConnectionError,
    NotReady: exceptions.NewConnectionError,
    ConnectFailed: exceptions.NewConnectionError,
    Overloaded: exceptions.EmptyPoolError,
    DeadlineExceeded: exceptions.ReadTimeoutError,
}


class SettingsError(exceptions.SSLError):
    """TLS settings of the application's cannot be used: no endpoint's fault."""


class UrllibErrors:
    """urllib3's error table (:class:`meshlib.hosts.errors.ErrorTable`)."""

    def outcome(self, error: BaseException, bounds: Bounds) -> Outcome | None:
        kind = _kind(error, bounds)
        if kind is None:
            return None
        return Outcome(kind, sent=bounds.sent, error=error, detail=str(error) or type(error).__name__)

    def own(self, error: BaseException) -> BaseException:
        return error

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
        error = cause.error if cause is not None else None
        if cause is not None and isinstance(error, exceptions.HTTPError) and not _late(failure, cause):
            # What the network said is what the caller hears, in urllib3's words.
            joined: BaseException = join(error, failure, info, sent=sent, phase=phase)
            return joined
        base = _OWN.get(failure, exceptions.ProtocolError)
        if failure is DeadlineExceeded and unconnected(info, cause):
            base = exceptions.ConnectTimeoutError
        cls = _class(failure, base)
        made: BaseException = cls.__new__(cls)
        # What urllib3's own constructors would set, without their prefix of the pool's address.
        made.args = (message,)
        made.__dict__.update(_message=message, url=None)
        made.__dict__["conn" if issubclass(base, exceptions.NewConnectionError) else "pool"] = None
        _describe(made, failure, info, sent=sent, phase=phase)
        return made


ERRORS = UrllibErrors()


def _late(failure: type[MeshError], cause: Outcome) -> bool:
    """Whether a time of ours was over, whatever the last attempt reported; the library says nothing of that."""
    if cause.late and not isinstance(cause.error, exceptions.MaxRetryError):
        return failure is DeadlineExceeded
    return failure is DeadlineExceeded and cause.kind is not OutcomeKind.TIMEOUT


def _kind(error: BaseException, bounds: Bounds) -> OutcomeKind | None:
    if isinstance(error, Overloaded):
        return OutcomeKind.OVERFLOW
    if isinstance(error, TimeoutError):  # of waiting for a connection
        return OutcomeKind.NO_TIME
    found = getattr(error, "reason", None) if isinstance(error, exceptions.MaxRetryError) else error
    if isinstance(found, exceptions.SSLError) and isinstance(found.__cause__, wire.TlsUnusable):
        return OutcomeKind.OWN
    if not isinstance(found, exceptions.HTTPError) or isinstance(found, SettingsError):
        return None
    if isinstance(found, exceptions.ConnectTimeoutError):
        return OutcomeKind.CONNECT
    if isinstance(found, exceptions.SSLError) and not bounds.sent:
        return OutcomeKind.CONNECT
    if isinstance(found, exceptions.TimeoutError) or isinstance(found.__cause__, wire.WriteTimeout):
        return OutcomeKind.TIMEOUT
    if isinstance(found.__cause__, wire.StreamRefused):
        return OutcomeKind.REFUSED
    if isinstance(found.__cause__, wire.RemoteProtocolError):
        return OutcomeKind.PROTOCOL
    return OutcomeKind.RESET


# --- the wire's errors, as urllib3 tells them -----------------------------------------------------------------------------


def urllib3_error(error: wire.WireError, request: Any, host: str, port: int) -> BaseException:
    """An attempt's error up to the response's head. ``host``, ``port``: the endpoint's."""
    cause = error.__cause__
    seconds = request.timeouts.get("connect")
    if isinstance(error, wire.LocalProtocolError):
        return ValueError(str(error))  # http.client's for a line that may not be there
    of_tls = isinstance(cause, ssl.SSLError | exceptions.SSLError | CertificateError)
    if isinstance(error, wire.TlsUnusable):
        return exceptions.SSLError(error)
    if of_tls or isinstance(error, wire.UnsupportedProtocol):
        return exceptions.SSLError(cause or error)
    if isinstance(error, wire.ConnectTimeout):
        text = f"Connection to {host} timed out. (connect timeout={seconds})"
        return exceptions.ConnectTimeoutError(connection.HTTPConnection(host, port), text)
    if isinstance(error, wire.ConnectError):
        known = connection.HTTPConnection(host, port)
        if isinstance(cause, socket.gaierror):
            return exceptions.NameResolutionError(host, known, cause)
        return exceptions.NewConnectionError(known, f"Failed to establish a new connection: {cause or error}")
    if isinstance(error, wire.ReadTimeout):
        text = f"Read timed out. (read timeout={request.timeouts.get('read')})"
        return exceptions.ReadTimeoutError(request.pool, request.target.path, text)
    if isinstance(error, wire.RemoteProtocolError) and "content-length" in str(error).lower():
        return exceptions.InvalidHeader(str(error))  # urllib3's word for lengths that contradict each other
    reason: BaseException = cause if isinstance(cause, OSError) else error
    if isinstance(error, wire.Disconnected):
        reason = http.client.RemoteDisconnected("Remote end closed connection without response")
    elif isinstance(error, wire.WriteTimeout):
        reason = TimeoutError("timed out")
    elif isinstance(error, wire.RemoteProtocolError):
        reason = http.client.HTTPException(str(error))
    return exceptions.ProtocolError("Connection aborted.", reason)


def body_error(error: wire.WireError, pool: Any, got: int, length: int | None) -> BaseException:
    """The error of a body. ``got``: bytes that came of ``length``, None where that is not known."""
    if isinstance(error, wire.ReadTimeout):
        return exceptions.ReadTimeoutError(pool, None, "Read timed out.")
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError):
        return exceptions.SSLError(cause)
    if isinstance(error, wire.Disconnected):
        short: BaseException = (
            http.client.IncompleteRead(b"")
            if length is None
            else exceptions.IncompleteRead(got, length - got)
        )
        return exceptions.ProtocolError(f"Connection broken: {short!r}", short)
    reason = cause if isinstance(cause, OSError) else error
    return exceptions.ProtocolError(f"Connection broken: {reason!r}", reason)


# --- both at once -----------------------------------------------------------------------------------------------------------


def join(
    error: BaseException,
    failure: type[MeshError],
    info: CallInfo | None,
    *,
    sent: bool,
    phase: str | None = None,
) -> Any:
    """``error``, which is meshlib's as well: the same arguments, text, attributes and traceback."""
    if isinstance(error, MeshError):
        return error
    cls = _class(failure, type(error))
    both = cls.__new__(cls, *error.args)
    both.args = error.args
    both.__dict__.update(error.__dict__)
    both.__cause__ = error.__cause__ or error.__context__
    _describe(both, failure, info, sent=sent, phase=phase)
    return both.with_traceback(error.__traceback__)


def join_with(error: BaseException, found: MeshError) -> Any:
    """``error``, made of ``found`` by the library, which is meshlib's as ``found`` is."""
    pair: Any = getattr(found, "_pair", None)
    failure = type(found) if pair is None else pair[0]
    return join(error, failure, found.info, sent=found.sent, phase=found.phase)


def in_requests(error: BaseException, request: Any) -> BaseException:
    """What an adapter of requests raises where it would raise ``error``: itself, where meshlib had no part in it."""
    found = failure_of(error)
    if found is None or (isinstance(error, requests.RequestException) and isinstance(error, MeshError)):
        return error
    if isinstance(error, exceptions.EmptyPoolError):
        # requests lets it through as it is, past those who catch what is requests'.
        error = requests.ConnectionError(error, request=request).with_traceback(error.__traceback__)
        error.__cause__ = found
    return join_with(error, found)  # type: ignore[no-any-return]


def failure_of(error: BaseException) -> MeshError | None:
    """Meshlib's error that ``error`` is, or was made of; None: there is none."""
    inner = error.args[0] if error.args else None
    for found in (error, inner, getattr(inner, "reason", None), getattr(error, "reason", None)):
        if isinstance(found, MeshError):
            return found
    return None


def alone(error: BaseException) -> BaseException:
    """The library's own error that ``error`` was joined of; itself where it was made by us."""
    origin = error.__cause__
    if isinstance(origin, exceptions.HTTPError) and origin.args == error.args:
        return origin
    return error


def _describe(error: Any, failure: type[MeshError], info: Any, *, sent: bool, phase: str | None) -> None:
    error.info, error.sent = info, sent
    error.phase = failure.default_phase if phase is None else phase


def _class(failure: type[MeshError], base: type[BaseException]) -> Any:
    return join_classes(failure, base, __reduce__=_reduce)


def _reduce(self: Any) -> tuple[Any, ...]:
    failure, base = self._pair
    parts = base.__reduce__(self)
    assert isinstance(parts, tuple)
    state = dict(parts[2]) if len(parts) > 2 and isinstance(parts[2], dict) else {}
    return _rebuild, (failure, base, parts[1], state, self.info, self.phase, self.sent)


def _rebuild(
    failure: type[MeshError],
    base: type[BaseException],
    args: tuple[Any, ...],
    state: dict[str, Any],
    info: CallInfo | None,
    phase: str,
    sent: bool,
) -> Any:
    cls = _class(failure, base)
    error = cls.__new__(cls, *args)
    base.__init__(error, *args)
    error.__dict__.update(state)
    _describe(error, failure, info, sent=sent, phase=phase)
    return error
