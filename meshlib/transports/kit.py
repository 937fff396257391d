"""What is particular to one member of the httpx family: its module, its core, its exceptions.

httpx and httpx2 have the same shape and separate classes. A :class:`Kit` is made once for each, and everything else
here is written against it. Errors that meshlib raises are classes made of both families: ``NoHealthyEndpoint`` raised
under httpx is meshlib's class *and* ``httpx.ConnectError``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from meshlib.interceptors import CallPath
from meshlib.model.call import CallInfo, Outcome, OutcomeKind

if TYPE_CHECKING:
    from types import ModuleType

    from meshlib.transports.wire.guard import Guard

__all__ = ["Kit"]

#: RFC 9113: the peer has not looked at the request, so it may be sent again.
_REFUSED_STREAM = 7

#: Our error → the host library's, where nothing more exact is known.
_HOST = {
    NoHealthyEndpoint: "ConnectError",
    CircuitOpen: "ConnectError",
    UnknownService: "ConnectError",
    NotReady: "ConnectError",
    ConnectFailed: "ConnectError",
    Overloaded: "PoolTimeout",
    DeadlineExceeded: "ReadTimeout",
    TransportFailed: "ReadError",
    ProtocolError: "RemoteProtocolError",
}

#: httpcore's errors → the host library's, the most exact first.
_CORE = (
    "ConnectTimeout",
    "ReadTimeout",
    "WriteTimeout",
    "PoolTimeout",
    "ConnectError",
    "ReadError",
    "WriteError",
    "ProxyError",
    "UnsupportedProtocol",
    "LocalProtocolError",
    "RemoteProtocolError",
)


class Kit:
    """One host library. ``httpx`` and ``core`` are its modules."""

    def __init__(self, httpx: ModuleType, core: ModuleType) -> None:
        self.httpx = httpx
        self.core = core
        self.Response: Any = httpx.Response
        self.NotAvailable: type[BaseException] = core.ConnectionNotAvailable
        self.connect_errors: tuple[type[BaseException], ...] = (core.ConnectError, core.ConnectTimeout)
        self.timeouts: tuple[type[BaseException], ...] = (core.ReadTimeout, core.WriteTimeout)
        #: What an attempt can end with that is an outcome: the network's errors, and those of waiting for a connection.
        self.outcomes: tuple[type[BaseException], ...] = (
            core.TimeoutException,
            core.NetworkError,
            core.RemoteProtocolError,
            Overloaded,
            TimeoutError,
        )
        self.errors: tuple[type[BaseException], ...] = (
            core.TimeoutException,
            core.NetworkError,
            core.ProtocolError,
            core.UnsupportedProtocol,
        )
        #: What a call of the library's own transports comes by.
        self.path = CallPath((httpx.HTTPTransport, "handle_request"), (core.ConnectionPool, "handle_request"))
        self.async_path = CallPath(
            (httpx.AsyncHTTPTransport, "handle_async_request"),
            (core.AsyncConnectionPool, "handle_async_request"),
        )
        self._classes: dict[type[BaseException], type[Exception]] = {
            getattr(core, name): getattr(httpx, name) for name in _CORE
        }
        self._joined: dict[tuple[type[MeshError], type[Exception]], type[MeshError]] = {}

    def host_class(self, error: BaseException) -> type[Exception] | None:
        """The host library's class for an error of its core, or None where it has none."""
        for cls in type(error).__mro__:
            found = self._classes.get(cls)
            if found is not None:
                return found
        return None

    def error(
        self,
        failure: type[MeshError],
        message: str,
        *,
        info: CallInfo | None,
        cause: BaseException | None = None,
        host: str = "",
        sent: bool = False,
        phase: str | None = None,
    ) -> MeshError:
        """An error that is ``failure`` and the host library's: ``host``, or what ``cause`` is, or the usual one."""
        base: type[Exception] | None = getattr(self.httpx, host) if host else None
        if base is None and cause is not None and failure in (ConnectFailed, TransportFailed):
            base = self.host_class(cause)
        if base is None:
            base = getattr(self.httpx, _HOST.get(failure, "TransportError"))
        assert base is not None
        raised = self._join(failure, base)(message, info=info, phase=phase, sent=sent)
        raised.__cause__ = cause
        return raised

    def _join(self, failure: type[MeshError], base: type[Exception]) -> type[MeshError]:
        """The class that is both; one for each pair, so that ``except`` and ``is`` agree."""
        joined = self._joined.get((failure, base))
        if joined is None:
            body = {"__module__": failure.__module__, "__doc__": failure.__doc__}
            joined = self._joined.setdefault((failure, base), type(failure.__name__, (failure, base), body))
        return joined

    def outcome(self, error: BaseException, guard: Guard, seconds: float) -> Outcome:
        """What an error of the core means to a plan."""
        if isinstance(error, self.connect_errors):
            kind = OutcomeKind.CONNECT
        elif isinstance(error, self.timeouts):
            kind = OutcomeKind.TIMEOUT
        elif _refused(error):
            kind = OutcomeKind.REFUSED
        else:
            kind = OutcomeKind.RESET
        return Outcome(kind, sent=guard.sent, seconds=seconds, error=error, detail=_words(error, kind))


def _refused(error: BaseException) -> bool:
    cause = error.args[0] if error.args else None
    return getattr(cause, "error_code", None) == _REFUSED_STREAM


def _words(error: BaseException, kind: OutcomeKind) -> str:
    text = str(error) or type(error).__name__
    if kind is OutcomeKind.TIMEOUT:
        return f"no answer in time ({text})"
    return text
