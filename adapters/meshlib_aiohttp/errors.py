"""Errors that are meshlib's and aiohttp's at once, and what aiohttp's mean to a plan.

What aiohttp raised keeps its class, arguments and attributes; it gets one more base class, the meshlib error, and that one's
``info``, ``phase`` and ``sent``. The text is the plan's, which names cluster and endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from meshlib.errors import (
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    MeshError,
    NoHealthyEndpoint,
    NotReady,
    Overloaded,
    ProtocolError,
    TransportFailed,
    UnknownService,
)
from meshlib.hosts.errors import join
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.wire.errors import TlsUnusable

if TYPE_CHECKING:
    from meshlib.model.call import CallInfo
    from meshlib.pools.bounds import Bounds

__all__ = ["AiohttpErrors", "named"]

#: Our error → aiohttp's, for failures that no socket reported. Waiting for a connection is a connect timeout there.
_FAILURES: dict[type[MeshError], type[aiohttp.ClientError]] = {
    NoHealthyEndpoint: aiohttp.ClientConnectorError,
    CircuitOpen: aiohttp.ClientConnectorError,
    UnknownService: aiohttp.ClientConnectorError,
    NotReady: aiohttp.ClientConnectorError,
    ConnectFailed: aiohttp.ClientConnectorError,
    Overloaded: aiohttp.ConnectionTimeoutError,
    DeadlineExceeded: aiohttp.SocketTimeoutError,
    TransportFailed: aiohttp.ServerDisconnectedError,
    ProtocolError: aiohttp.ServerDisconnectedError,
}

#: aiohttp's error → what it means, the most exact first.
_KINDS: tuple[tuple[type[BaseException], OutcomeKind], ...] = (
    (Overloaded, OutcomeKind.OVERFLOW),
    (TlsUnusable, OutcomeKind.OWN),
    (aiohttp.ClientConnectorError, OutcomeKind.CONNECT),
    (aiohttp.ConnectionTimeoutError, OutcomeKind.CONNECT),
    (aiohttp.ServerFingerprintMismatch, OutcomeKind.CONNECT),
    (aiohttp.ServerTimeoutError, OutcomeKind.TIMEOUT),
    (aiohttp.ClientResponseError, OutcomeKind.PROTOCOL),
    (HttpProcessingError, OutcomeKind.PROTOCOL),
    (aiohttp.ClientError, OutcomeKind.RESET),
    (OSError, OutcomeKind.RESET),
)

#: Of a request whose URL nobody has said yet (see ``named``).
_NO_HOST = ConnectionKey("", None, False, True, *[None] * (len(ConnectionKey._fields) - 4))


class AiohttpErrors:
    """aiohttp's error table (:class:`meshlib.hosts.protocol.ErrorTable`)."""

    def outcome(self, error: BaseException, bounds: Bounds) -> Outcome | None:
        """None for what is the caller's: aiohttp raises the plain ``ClientConnectionError`` for a connector that is closed
        and for a body of the caller's that failed, and a bare TimeoutError is the session's ``total``, unless a deadline is over.
        """
        kind = self._kind(error, bounds)
        if kind is None:
            return None
        words = str(error) or type(error).__name__
        if isinstance(error, aiohttp.ClientPayloadError):
            words = words.partition(": <")[0]  # aiohttp writes the errors beneath behind it
        if kind is OutcomeKind.TIMEOUT:
            words = f"no answer in time ({words})"
        return Outcome(kind, sent=bounds.sent, error=error, detail=words, late=bounds.expired)

    def _kind(self, error: BaseException, bounds: Bounds) -> OutcomeKind | None:
        if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ServerTimeoutError):
            if not bounds.expired:
                return None
            return OutcomeKind.TIMEOUT if bounds.sent else OutcomeKind.NO_TIME
        if type(error) is aiohttp.ClientConnectionError:
            return None
        return next((kind for cls, kind in _KINDS if isinstance(error, cls)), None)

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
    ) -> MeshError:
        """What aiohttp raised, where it did, else an error of its own class for it."""
        error = cause.error if cause is not None else None
        if failure is DeadlineExceeded:
            if not isinstance(error, aiohttp.SocketTimeoutError):
                unconnected = info is not None and not any(attempt.sent for attempt in info.attempts)
                kind = aiohttp.ConnectionTimeoutError if unconnected else aiohttp.SocketTimeoutError
                error = kind(message)
        elif not isinstance(error, aiohttp.ClientError):
            base = _FAILURES[failure]
            if issubclass(base, aiohttp.ClientConnectorError):
                error = base(_NO_HOST, OSError(None, message))
            else:
                error = base(message)
        return _join(failure, error, message, info, sent=sent, phase=phase)


def named(error: MeshError, request: Any) -> MeshError:
    """``error``, which knows the host that ``request`` is for."""
    if isinstance(error, aiohttp.ClientConnectorError) and error._conn_key is _NO_HOST:
        error._conn_key = request.connection_key
        error.args = (error._conn_key, *error.args[1:])
    return error


def _join(
    failure: type[MeshError],
    error: BaseException,
    message: str,
    info: CallInfo | None,
    *,
    sent: bool,
    phase: str | None,
) -> MeshError:
    """``error``, which is meshlib's ``failure`` as well."""
    both = _made_of(failure, type(error), error.args, vars(error))
    if isinstance(error, OSError):
        both.errno, both.strerror = error.errno, error.strerror
    both.text, both.info, both.sent = message, info, sent
    both.phase = failure.default_phase if phase is None else phase
    if failure is NotReady:
        both.missing = {}
    both.__cause__ = error.__cause__
    made: MeshError = both.with_traceback(error.__traceback__)
    return made


def _made_of(
    failure: type[MeshError], base: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> Any:
    cls = _class(failure, base)
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


def _class(failure: type[MeshError], base: type[BaseException]) -> Any:
    return join(failure, base, __str__=_text, __reduce__=_reduce)


def _text(self: Any) -> str:
    return str(self.text)


def _reduce(self: Any) -> tuple[Any, ...]:
    state = {name: _packed(value) for name, value in vars(self).items()}
    if isinstance(self, OSError):
        state |= {"errno": self.errno, "strerror": self.strerror}
    return _again, (*self._pair, tuple(_packed(value) for value in self.args), state)


def _again(
    failure: type[MeshError], base: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> Any:
    unpacked = {name: _unpacked(value) for name, value in state.items()}
    return _made_of(failure, base, tuple(_unpacked(value) for value in args), unpacked)


class _Lines(list[tuple[str, str]]):
    """Header lines, as they are pickled: a proxy of them cannot be."""


def _packed(value: Any) -> Any:
    """``value`` as it can be pickled: without sockets, contexts and responses."""
    if isinstance(value, CIMultiDictProxy):
        return _Lines(value.items())
    if isinstance(value, aiohttp.RequestInfo):
        return _RequestInfo([value.url, value.method, _packed(value.headers), value.real_url])
    if isinstance(value, ConnectionKey) and not isinstance(value.ssl, bool):
        return value._replace(ssl=True)
    if isinstance(value, tuple) and any(isinstance(one, aiohttp.ClientResponse) for one in value):
        return ()
    return value


class _RequestInfo(list[Any]):
    """What a ``RequestInfo`` is made of."""


def _unpacked(value: Any) -> Any:
    if isinstance(value, _Lines):
        return CIMultiDictProxy(CIMultiDict(value))
    if isinstance(value, _RequestInfo):
        url, method, headers, real_url = value
        return aiohttp.RequestInfo(url, method, _unpacked(headers), real_url)
    return value
