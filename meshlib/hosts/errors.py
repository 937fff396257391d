"""Errors that are of two families at once: meshlib's, and those of the library that the application calls with.

``NoHealthyEndpoint`` raised under httpx is meshlib's class *and* ``httpx.ConnectError``, so that existing ``except`` clauses
hold. The classes are made once for each pair; their instances can be pickled and copied.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

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
from meshlib.model.call import Outcome, OutcomeKind
from meshlib.wire import errors as wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshlib.model.call import CallInfo
    from meshlib.pools.bounds import Bounds

__all__ = ["ErrorTable", "Errors", "join", "unconnected"]

#: What the wire's errors mean to a plan, the most exact first. The others say nothing of the upstream.
_KINDS: tuple[tuple[type[BaseException], OutcomeKind], ...] = (
    (wire.ConnectError, OutcomeKind.CONNECT),
    (wire.TlsUnusable, OutcomeKind.OWN),
    (wire.StreamRefused, OutcomeKind.REFUSED),
    (wire.RemoteProtocolError, OutcomeKind.PROTOCOL),
    (wire.ReadTimeout, OutcomeKind.TIMEOUT),
    (wire.WriteTimeout, OutcomeKind.TIMEOUT),
    (wire.ReadError, OutcomeKind.RESET),
    (wire.WriteError, OutcomeKind.RESET),
    (Overloaded, OutcomeKind.OVERFLOW),
    # Of waiting for a connection; what is done on one times out by the wire's errors.
    (TimeoutError, OutcomeKind.NO_TIME),
)

#: Failures whose class in the host library follows from what the network said.
_OF_THE_NETWORK = (ConnectFailed, TransportFailed, ProtocolError)

#: By kind, for a library that is described so.
_FAILURES: Mapping[Any, str] = {
    NoHealthyEndpoint: "connect",
    CircuitOpen: "connect",
    UnknownService: "connect",
    NotReady: "connect",
    ConnectFailed: "connect",
    Overloaded: "overloaded",
    DeadlineExceeded: "read_timeout",
    "connect timeout": "connect_timeout",
    "write timeout": "write_timeout",
    TransportFailed: "read",
    ProtocolError: "protocol",
}
_WIRE: Mapping[Any, str] = {
    wire.ConnectTimeout: "connect_timeout",
    wire.ConnectError: "connect",
    wire.ReadTimeout: "read_timeout",
    wire.Disconnected: "disconnected",
    wire.ReadError: "read",
    wire.WriteTimeout: "write_timeout",
    wire.WriteError: "write",
    wire.RemoteProtocolError: "protocol",
    wire.LocalProtocolError: "request",
    wire.TlsUnusable: "connect",
    wire.UnsupportedProtocol: "connect",
}
_DIRECT = (
    ("connect_timeout", OutcomeKind.TIMEOUT),
    ("read_timeout", OutcomeKind.TIMEOUT),
    ("write_timeout", OutcomeKind.TIMEOUT),
    ("connect", OutcomeKind.CONNECT),
    ("protocol", OutcomeKind.PROTOCOL),
    ("disconnected", OutcomeKind.PROTOCOL),
    ("read", OutcomeKind.RESET),
    ("write", OutcomeKind.RESET),
)

_joined: dict[tuple[type[MeshError], type[BaseException]], type[MeshError]] = {}


def join(failure: type[MeshError], base: type[BaseException], **own: Any) -> type[MeshError]:
    """The class that is both; one for each pair, so that ``except`` and ``is`` agree. Its ``_pair`` is what it is of.

    ``own``: what it has of its own, the same for all classes of the library that ``base`` is of. An error that is not made of its text alone brings a ``__reduce__``.
    """
    found = _joined.get((failure, base))
    if found is None:
        body = {
            "__module__": failure.__module__,
            "__doc__": failure.__doc__,
            "__reduce__": _reduce,
            "_pair": (failure, base),
            **own,
        }
        made: type[MeshError] = type(failure.__name__, (failure, base), body)
        # setdefault is atomic: threads that come at once get the same class.
        found = _joined.setdefault((failure, base), made)
    return found


def _reduce(self: Any) -> tuple[Any, ...]:
    return _again, (*self._pair, Exception.__str__(self)), dict(vars(self))


def _again(failure: type[MeshError], base: type[BaseException], message: str) -> MeshError:
    return join(failure, base)(message)


def unconnected(info: CallInfo | None, cause: Outcome | None) -> bool:
    """Whether a deadline ended before there was a connection."""
    if cause is not None and cause.kind is OutcomeKind.NO_TIME:
        return True
    return info is None or not info.attempts or info.attempts[-1].outcome == OutcomeKind.CONNECT.value


class ErrorTable(Protocol):
    """Which errors mean what: meshlib's in the library's words, and the library's to a plan."""

    def outcome(self, error: BaseException, bounds: Bounds) -> Outcome | None:
        """What an error of an attempt means; None where it says nothing of the upstream, and is the caller's."""
        ...

    def own(self, error: BaseException) -> BaseException:
        """The library's own error for one that is the caller's: itself, as a rule."""
        ...

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
        """An error that is ``failure`` and the library's at once. ``cause``: the outcome that it comes from."""
        ...


class Errors:
    """The error table of a library whose errors are plain classes with a message, as those of the httpx family.

    Args:
        library: The module that has the classes.
        failures: The class's name for each of meshlib's errors, and ``"write timeout"``, ``"connect timeout"`` for a deadline
            that ends while the request is written, or before there is a connection.
        wire: The class's name for each of the wire's errors.
        direct: What the library's own errors of a call that it made by itself mean, the most exact first.
    """

    def __init__(
        self,
        library: Any,
        failures: Mapping[Any, str],
        wire: Mapping[Any, str],
        direct: tuple[tuple[type[BaseException], OutcomeKind], ...],
    ) -> None:
        self._failures = {key: getattr(library, name) for key, name in failures.items()}
        self._wire = {key: getattr(library, name) for key, name in wire.items()}
        self._kinds = (*_KINDS, *direct)

    @classmethod
    def of(cls, **kinds: type[BaseException]) -> Errors:
        """The table of a library by its class for each kind of failure: ``connect``, ``connect_timeout``, ``read``,
        ``read_timeout``, ``write``, ``write_timeout``, ``protocol`` (what the peer sent is no HTTP), ``disconnected`` (the peer
        ended the connection), ``overloaded`` (a limit of our own), ``request`` (it cannot be sent as it is). The library's own
        transport raises the same.
        """
        direct = tuple((kinds[name], kind) for name, kind in _DIRECT)
        return cls(SimpleNamespace(**kinds), _FAILURES, _WIRE, direct)

    def outcome(self, error: BaseException, bounds: Bounds) -> Outcome | None:
        for cls, kind in self._kinds:
            if isinstance(error, cls):
                return Outcome(kind, sent=bounds.sent, error=error, detail=str(error), late=bounds.expired)
        return None

    def own(self, error: BaseException) -> BaseException:
        """The library's class for an error of the wire that is the caller's."""
        base = self._of_wire(error)
        return error if base is None else base(str(error))

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
        """An error that is ``failure`` and the library's at once."""
        error = cause.error if cause is not None else None
        base = None
        if failure in _OF_THE_NETWORK and error is not None:
            base = self._of_wire(error)
        elif failure is DeadlineExceeded:
            base = self._of_deadline(cause, info)
        if base is None:
            base = self._failures[failure]
        made = join(failure, base)(message, info=info, phase=phase, sent=sent)
        made.__cause__ = error
        return made

    def _of_wire(self, error: BaseException) -> Any:
        for cls in type(error).__mro__:
            if cls in self._wire:
                return self._wire[cls]
        return None

    def _of_deadline(self, cause: Outcome | None, info: CallInfo | None) -> Any:
        """A time that is over: before anything was connected the library's connect timeout, while the request was written its
        write timeout, else its read timeout.
        """
        if cause is not None and isinstance(cause.error, wire.WriteTimeout):
            return self._failures["write timeout"]
        return self._failures["connect timeout"] if unconnected(info, cause) else None
