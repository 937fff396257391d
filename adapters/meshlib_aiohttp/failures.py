"""Errors that are meshlib's and aiohttp's at once, and what an attempt's error means to a plan.

What aiohttp raised keeps its class, arguments and attributes; it gets one more base class, the meshlib error, and that one's
``info``, ``phase`` and ``sent``. The text is the plan's, which names cluster and endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp

from meshlib.errors import (
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    MeshError,
    NoHealthyEndpoint,
    NotReady,
    Overloaded,
    TransportFailed,
    UnknownService,
)
from meshlib.model.call import Outcome, OutcomeKind

if TYPE_CHECKING:
    from meshlib.model.call import CallInfo

__all__ = ["OUTCOMES", "is_outcome", "join", "made", "outcome_of"]

#: Our error → aiohttp's, for failures that no socket reported. Waiting for a connection is a connect timeout there.
_OWN: dict[type[MeshError], type[aiohttp.ClientError]] = {
    NoHealthyEndpoint: aiohttp.ClientConnectorError,
    CircuitOpen: aiohttp.ClientConnectorError,
    UnknownService: aiohttp.ClientConnectorError,
    NotReady: aiohttp.ClientConnectorError,
    ConnectFailed: aiohttp.ClientConnectorError,
    Overloaded: aiohttp.ConnectionTimeoutError,
    DeadlineExceeded: aiohttp.SocketTimeoutError,
    TransportFailed: aiohttp.ServerDisconnectedError,
}

#: What an attempt can end with that is an outcome (see ``is_outcome``).
OUTCOMES = (aiohttp.ClientError, OSError, Overloaded)

_joined: dict[tuple[type[MeshError], type[BaseException]], Any] = {}


def is_outcome(error: BaseException) -> bool:
    """Whether ``error``, one of ``OUTCOMES``, is the upstream's. aiohttp raises the plain class for a connector that is
    closed and for a body of the caller's that failed; a bare TimeoutError is the caller's ``total`` timeout.
    """
    if type(error) is aiohttp.ClientConnectionError:
        return False
    return not isinstance(error, TimeoutError) or isinstance(error, aiohttp.ServerTimeoutError)


def outcome_of(error: BaseException, *, dialed: bool, sent: bool, seconds: float) -> Outcome:
    """What an error means to a plan. ``dialed``: connecting had begun; before that, the endpoint is not to blame."""
    if isinstance(error, Overloaded) or (isinstance(error, aiohttp.ConnectionTimeoutError) and not dialed):
        kind = OutcomeKind.OVERFLOW
    elif isinstance(
        error,
        aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.ServerFingerprintMismatch,
    ):
        kind = OutcomeKind.CONNECT
    elif isinstance(error, TimeoutError):
        kind = OutcomeKind.TIMEOUT
    else:
        kind = OutcomeKind.RESET
    words = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientPayloadError):
        words = words.partition(": <")[0]  # aiohttp writes the errors beneath behind it
    if kind is OutcomeKind.TIMEOUT:
        words = f"no answer in time ({words})"
    return Outcome(kind, sent=sent, seconds=seconds, error=error, detail=words)


def join(
    error: BaseException,
    kind: type[MeshError],
    message: str,
    info: CallInfo | None,
    *,
    sent: bool,
    phase: str | None = None,
) -> Any:
    """``error``, which is meshlib's ``kind`` as well."""
    cls = _class(kind, type(error))
    both = cls.__new__(cls, *error.args)
    both.args = error.args
    both.__dict__.update(error.__dict__)
    if isinstance(error, OSError):
        both.errno, both.strerror = error.errno, error.strerror
    both.text, both.info, both.sent = message, info, sent
    both.phase = kind.default_phase if phase is None else phase
    if kind is NotReady:
        both.missing = {}
    both.__cause__ = error.__cause__
    return both.with_traceback(error.__traceback__)


def made(
    kind: type[MeshError],
    message: str,
    info: CallInfo | None,
    request: Any,
    *,
    sent: bool,
    connected: bool = True,
) -> Any:
    """A failure that no socket reported, as meshlib's error and aiohttp's."""
    base = _OWN.get(kind, aiohttp.ClientConnectorError)
    if kind is DeadlineExceeded and not connected:
        base = aiohttp.ConnectionTimeoutError
    error: aiohttp.ClientError
    if issubclass(base, aiohttp.ClientConnectorError):
        error = base(request.connection_key, OSError(None, message))
    else:
        error = base(message)
    return join(error, kind, message, info, sent=sent)


def _class(kind: type[MeshError], base: type[BaseException]) -> Any:
    """The class that is both; one for each pair, so that ``except`` and ``is`` agree."""
    found = _joined.get((kind, base))
    if found is None:
        body = {
            "__module__": kind.__module__,
            "__doc__": kind.__doc__,
            "__str__": lambda self: self.text,
            "__reduce__": lambda self: (_rebuild, (kind, base, self.args, _state(self))),
        }
        found = _joined.setdefault((kind, base), type(kind.__name__, (kind, base), body))
    return found


def _state(error: Any) -> dict[str, Any]:
    state = dict(error.__dict__)
    if isinstance(error, OSError):
        state |= {"errno": error.errno, "strerror": error.strerror}
    return state


def _rebuild(
    kind: type[MeshError], base: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> Any:
    cls = _class(kind, base)
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error
