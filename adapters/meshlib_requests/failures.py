"""Errors that are meshlib's and the host library's at once, and what an attempt's error means to a plan.

What urllib3 raises keeps its class, its text and its arguments; it is given one more base class, the meshlib error, and
``info``, ``phase`` and ``sent``. requests then makes its own errors of urllib3's as it always does, and those are joined the
same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from urllib3 import exceptions

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
    from meshlib_requests.connections import Attempt

__all__ = ["Failure", "failure_of", "join", "made", "outcome_of"]


class Failure:
    """What became of a call, as its error tells it. ``kind``: meshlib's class."""

    __slots__ = ("info", "kind", "phase", "sent")

    def __init__(
        self, kind: type[MeshError], info: CallInfo | None, *, sent: bool, phase: str | None = None
    ) -> None:
        self.kind = kind
        self.info = info
        self.sent = sent
        self.phase = kind.default_phase if phase is None else phase


#: Our error → urllib3's, for failures that no socket reported.
_OWN: dict[type[MeshError], type[exceptions.HTTPError]] = {
    NoHealthyEndpoint: exceptions.NewConnectionError,
    CircuitOpen: exceptions.NewConnectionError,
    UnknownService: exceptions.NewConnectionError,
    NotReady: exceptions.NewConnectionError,
    ConnectFailed: exceptions.NewConnectionError,
    Overloaded: exceptions.EmptyPoolError,
    DeadlineExceeded: exceptions.ReadTimeoutError,
    TransportFailed: exceptions.ProtocolError,
}
_joined: dict[tuple[type[MeshError], type[BaseException]], Any] = {}


def _join_classes(kind: type[MeshError], base: type[BaseException]) -> Any:
    """The class that is both; one for each pair, so that ``except`` and ``is`` agree."""
    found = _joined.get((kind, base))
    if found is None:

        def reduce(self: Any) -> tuple[Any, ...]:
            parts = base.__reduce__(self)
            assert isinstance(parts, tuple)
            state = dict(parts[2]) if len(parts) > 2 and isinstance(parts[2], dict) else {}
            return _rebuild, (kind, base, parts[1], state, self.info, self.phase, self.sent)

        body = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__reduce__": reduce}
        found = _joined.setdefault((kind, base), type(kind.__name__, (kind, base), body))
    return found


def join(error: BaseException, failure: Failure) -> Any:
    """``error``, which is meshlib's as well: the same arguments, text, attributes and traceback."""
    if isinstance(error, MeshError):
        return error
    cls = _join_classes(failure.kind, type(error))
    both = cls.__new__(cls, *error.args)
    both.args = error.args
    both.__dict__.update(error.__dict__)
    _describe(both, failure)
    both.__cause__ = error.__cause__ or error.__context__
    return both.with_traceback(error.__traceback__)


def made(failure: Failure, message: str, pool: Any, url: str, *, unconnected: bool = False) -> Any:
    """A failure that no socket reported, as meshlib's error and urllib3's."""
    base = _OWN.get(failure.kind, exceptions.ProtocolError)
    if failure.kind is DeadlineExceeded and unconnected:
        base = exceptions.ConnectTimeoutError
    cls = _join_classes(failure.kind, base)
    both = cls.__new__(cls)
    # What urllib3's own constructors would set, without their prefix of the pool's address.
    both.args = (message,)
    both.__dict__.update(pool=pool, url=url, _message=message)
    if issubclass(base, exceptions.NewConnectionError):
        both.__dict__["conn"] = both.__dict__.pop("pool")
    _describe(both, failure)
    return both


def failure_of(error: BaseException) -> Failure | None:
    """What meshlib knows of an error, or of the one that it was made of; None: nothing."""
    inner = error.args[0] if error.args else None
    for found in (error, inner, getattr(inner, "reason", None)):
        if isinstance(found, MeshError):
            kind = next(cls for cls in type(found).__mro__[1:] if issubclass(cls, MeshError))
            return Failure(kind, found.info, sent=found.sent, phase=found.phase)
    return None


def outcome_of(error: BaseException, attempt: Attempt, seconds: float) -> Outcome:
    """What an error of urllib3, or of waiting for a connection, means to a plan."""
    attempt.note_timeout()
    sent = attempt.sent
    kind = _kind(error, attempt)
    return Outcome(kind, sent=sent, seconds=seconds, error=error, detail=str(error) or type(error).__name__)


def _kind(error: BaseException, attempt: Attempt) -> OutcomeKind:
    if not isinstance(error, exceptions.HTTPError):  # no connection was to be had
        return OutcomeKind.NO_TIME if attempt.expired else OutcomeKind.OVERFLOW
    if isinstance(error, exceptions.ConnectTimeoutError):
        return OutcomeKind.CONNECT
    if not attempt.sent and isinstance(error, exceptions.SSLError | exceptions.TimeoutError):
        return OutcomeKind.CONNECT
    return OutcomeKind.TIMEOUT if isinstance(error, exceptions.TimeoutError) else OutcomeKind.RESET


def _describe(error: Any, failure: Failure) -> None:
    error.info, error.phase, error.sent = failure.info, failure.phase, failure.sent


def _rebuild(
    kind: type[MeshError],
    base: type[BaseException],
    args: tuple[Any, ...],
    state: dict[str, Any],
    info: CallInfo | None,
    phase: str,
    sent: bool,
) -> Any:
    cls = _join_classes(kind, base)
    error = cls.__new__(cls, *args)
    base.__init__(error, *args)
    error.__dict__.update(state)
    _describe(error, Failure(kind, info, sent=sent, phase=phase))
    return error
