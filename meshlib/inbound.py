"""The request that is being served here, as far as the calls made for it need to know.

A middleware reads an inbound request's headers once and holds the result in a context variable while the application
works on it: calls of the mesh made meanwhile carry its trace and its request id on, end with its deadline, and say
which attempt of their own they are. Tasks inherit it, and threads that run in a copy of the context.

What outlives its request (a background task, a thread) keeps the trace and loses the deadline: once a request is
answered nobody waits for it any more, and its deadline binds nothing.

Headers come from anybody. A value that is not what it should be is as good as absent, and none is longer than its
limit; nothing here raises for what a peer sent.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meshlib.model.headers import Headers

    _Source = tuple[Callable[[str], str | None], float, tuple[str, ...], float | None]

__all__ = [
    "DEADLINES",
    "ENVIRON",
    "MAX_SECONDS",
    "Inbound",
    "carry",
    "current",
    "enter",
    "is_retry",
    "leave",
    "of_metadata",
    "of_scope",
    "read",
    "reset",
]

#: A deadline further away than this is none: nothing waits a day for a call, and sockets cannot.
MAX_SECONDS = 86_400.0

#: Headers of one form: when it was said and until when, in nanoseconds since the epoch (Finagle ``HttpContext``, linkerd 1 ``LinkerdHeaders``).
DEADLINES = {"finagle": b"finagle-ctx-com.twitter.finagle.deadline", "linkerd": b"l5d-ctx-deadline"}

#: Characters. W3C Trace Context names 512 that must be handed on, W3C Baggage 8192; the others are ours.
_MAX_TRACESTATE = 2048
_MAX_BAGGAGE = 8192
_MAX_REQUEST_ID = 256
_MAX_FORWARDED = 4096

#: W3C Trace Context: members of a tracestate; W3C Baggage: members of a baggage.
_MAX_MEMBERS = {"tracestate": 32, "baggage": 180}

_FORWARDED = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-envoy-external-address",
)
_NAMES = (
    "x-envoy-expected-rq-timeout-ms",
    "grpc-timeout",
    *(name.decode("ascii") for name in DEADLINES.values()),
    "traceparent",
    "tracestate",
    "baggage",
    "x-request-id",
    "x-envoy-attempt-count",
    "grpc-previous-rpc-attempts",
    *_FORWARDED,
)
_WANTED = frozenset(name.encode("ascii") for name in _NAMES)
_WANTED_TEXT = frozenset(_NAMES)

#: The same names as WSGI spells them.
ENVIRON: tuple[str, ...] = tuple("HTTP_" + name.upper().replace("-", "_") for name in _NAMES)

#: gRPC's units in seconds (PROTOCOL-HTTP2, Timeout).
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}

_HEX = "0123456789abcdef"


class Inbound:
    """What one request said of itself. Absent and unusable are the same: ``""`` or None.

    Attributes:
        deadline: When the caller stops waiting, in ``time.monotonic()`` seconds.
        traceparent, tracestate, baggage, request_id: Handed on to the calls made for it.
        attempt: Which attempt of its caller this is (``x-envoy-attempt-count``, ``grpc-previous-rpc-attempts``).
        forwarded: ``x-forwarded-*`` and their like as they came, by lower-case name; for the application to read. Who
            may be believed is the application's to know.
        mesh: Whose rules hold for calls that name no mesh; None: the process's. Only handed on here, to
            :func:`meshlib.mesh.default`.
        answered: The response is out: the deadline binds no longer. Set once, from any thread.
    """

    __slots__ = (
        "answered",
        "attempt",
        "baggage",
        "deadline",
        "forwarded",
        "mesh",
        "request_id",
        "traceparent",
        "tracestate",
    )

    def __init__(
        self,
        *,
        deadline: float | None = None,
        traceparent: str = "",
        tracestate: str = "",
        baggage: str = "",
        request_id: str = "",
        attempt: int | None = None,
        forwarded: Mapping[str, str] | None = None,
        mesh: object | None = None,
    ) -> None:
        self.deadline = deadline
        self.traceparent = traceparent
        self.tracestate = tracestate
        self.baggage = baggage
        self.request_id = request_id
        self.attempt = attempt
        self.forwarded: Mapping[str, str] = forwarded if forwarded is not None else _NOTHING
        self.mesh = mesh
        self.answered = False

    def __repr__(self) -> str:
        return f"<Inbound {self.request_id or self.traceparent or 'request'}>"


_NOTHING: dict[str, str] = {}
_current: ContextVar[Inbound | None] = ContextVar("meshlib_inbound", default=None)


def current() -> Inbound | None:
    """The request being served here, or None."""
    return _current.get()


#: For middlewares: from here on a request is being served, until :func:`leave`. ``reset`` is ``leave`` for code that
#: runs from one to the other without giving way, and so in one context.
enter: Callable[[Inbound | None], Token[Inbound | None]] = _current.set
reset: Callable[[Token[Inbound | None]], None] = _current.reset


def leave(token: Token[Inbound | None]) -> None:
    """What ``enter`` began is over. Never raises: where the two ran in different contexts (a driver of coroutines that
    switches them), this one is left without a request.
    """
    try:
        _current.reset(token)
    except ValueError:
        _current.set(None)


def carry(headers: Headers) -> bool:
    """Add to an outgoing call's lines what it inherits and does not say itself. Whether a request is being served."""
    request = _current.get()
    if request is None:
        return False
    if request.traceparent and "traceparent" not in headers:
        headers.append("traceparent", request.traceparent)
        if request.tracestate and "tracestate" not in headers:
            headers.append("tracestate", request.tracestate)
    if request.baggage and "baggage" not in headers:
        headers.append("baggage", request.baggage)
    if request.request_id and "x-request-id" not in headers:
        headers.append("x-request-id", request.request_id)
    return True


def is_retry() -> bool:
    """Whether the request that is being served, and is not answered yet, is one that its caller made again."""
    request = _current.get()
    return request is not None and not request.answered and (request.attempt or 1) > 1


# --- reading ---------------------------------------------------------------------------------------------------------


def of_scope(headers: Iterable[tuple[bytes, bytes]], now: float, mesh: object | None = None) -> Inbound:
    """Of the headers of an ASGI scope: pairs, the names in lower case. ``now`` is ``time.monotonic()``."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name in _WANTED:
            key, text = name.decode("ascii"), value.decode("latin-1")
            found[key] = f"{found[key]},{text}" if key in found else text
    return read(found.get, now, mesh, _NAMES)


def of_metadata(
    metadata: Iterable[tuple[str, str | bytes]], left: float | None, now: float, mesh: object | None = None
) -> Inbound:
    """Of the metadata of a gRPC call: pairs, the names in lower case. ``left``: the seconds until the deadline that grpc keeps for
    it; None, or very many: it has none. ``now`` is ``time.monotonic()``.
    """
    found: dict[str, str] = {}
    for key, value in metadata:
        if key in _WANTED_TEXT:
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            found[key] = f"{found[key]},{text}" if key in found else text
    return read(found.get, now, mesh, _NAMES, left)


class _Unread(Inbound):
    """Of a request whose header ``get`` gives, by the names of a WSGI environment. Lines of one name are joined by a
    comma. ``now`` is ``time.monotonic()``; ``left``: seconds until a deadline that is not in the headers. The headers are
    looked at when the first of it is asked for, which for most requests nobody does.
    """

    __slots__ = ("_source",)

    def __init__(
        self,
        get: Callable[[str], str | None],
        now: float,
        mesh: object | None = None,
        names: tuple[str, ...] = ENVIRON,
        left: float | None = None,
    ) -> None:
        # Not the base's: what is not set comes to __getattr__.
        self._source: _Source | None = (get, now, names, left)
        self.mesh = mesh
        self.answered = False

    def __getattr__(self, name: str) -> Any:
        if name not in _SAID:
            raise AttributeError(name)
        source = self._source
        if source is not None:
            # Two threads that ask at once find the same.
            for field, value in _said(*source).items():
                setattr(self, field, value)
            self._source = None  # the environment lives no longer than its server wants
        return object.__getattribute__(self, name)


#: For middlewares, each request pays for it: the class itself, and no function around it.
read = _Unread

_SAID = frozenset({"attempt", "baggage", "deadline", "forwarded", "request_id", "traceparent", "tracestate"})


def _said(
    get: Callable[[str], str | None], now: float, names: tuple[str, ...], left: float | None
) -> dict[str, Any]:
    expected, grpc, finagle, linkerd, parent, state, baggage, request_id, attempt, previous, *forwarded = map(
        get, names
    )
    traceparent = parent.strip() if parent is not None and _is_traceparent(parent.strip()) else ""
    pairs = zip(_FORWARDED, (_text(value or "", _MAX_FORWARDED) for value in forwarded), strict=True)
    return {
        "deadline": _deadline(
            (
                _milliseconds(expected),
                _grpc_seconds(grpc),
                _context_seconds(finagle),
                _context_seconds(linkerd),
                left,
            ),
            now,
        ),
        "traceparent": traceparent,
        "tracestate": _listed(state or "", "tracestate", _MAX_TRACESTATE) if traceparent else "",
        "baggage": _listed(baggage or "", "baggage", _MAX_BAGGAGE),
        "request_id": _text(request_id or "", _MAX_REQUEST_ID),
        "attempt": _attempt(attempt, previous),
        "forwarded": {name: value for name, value in pairs if value},
    }


def _deadline(left: tuple[float | None, ...], now: float) -> float | None:
    """The nearest of them."""
    seconds = min((each for each in left if each is not None), default=None)
    return None if seconds is None or seconds > MAX_SECONDS else now + seconds


def _milliseconds(text: str | None) -> float | None:
    """``x-envoy-expected-rq-timeout-ms`` in seconds."""
    digits = text.strip() if text is not None else ""
    return int(digits) / 1000 if _is_number(digits, 12) else None


def _grpc_seconds(text: str | None) -> float | None:
    """``grpc-timeout`` in seconds: at most eight digits and a unit."""
    text = (text or "").strip()
    digits, unit = text[:-1], text[-1:]
    return int(digits) * _UNITS[unit] if unit in _UNITS and _is_number(digits, 8) else None


def _context_seconds(text: str | None) -> float | None:
    """Finagle's form in seconds: how much time there was when it was said. The peer's clock need not be ours."""
    said, _, until = (text or "").strip().partition(" ")
    if not (_is_number(said, 20) and _is_number(until, 20)):
        return None
    return max(0, int(until) - int(said)) / 1_000_000_000


def _attempt(attempt: str | None, previous: str | None) -> int | None:
    """The higher of what Envoy's header and gRPC's say; that one counts those before it (gRFC A6)."""
    before = _count((previous or "").strip())
    told = [
        each for each in (_count((attempt or "").strip()), None if before is None else before + 1) if each
    ]
    return max(told, default=None)


def _count(text: str) -> int | None:
    return int(text) if _is_number(text, 6) and int(text) > 0 else None


def _is_number(text: str, most: int) -> bool:
    return len(text) <= most and text.isdecimal() and text.isascii()


def _is_traceparent(text: str) -> bool:
    """W3C Trace Context, "traceparent": 00-{32 hex}-{16 hex}-{2 hex}; a later version may say more behind it."""
    if len(text) < 55 or text[2] != "-" or text[35] != "-" or text[52] != "-":
        return False
    version, trace, parent = text[:2], text[3:35], text[36:52]
    if (version + trace + parent + text[53:55]).strip(_HEX) or version == "ff":
        return False
    if len(text) > 55 and (version == "00" or text[55] != "-" or not _text(text, 256)):
        return False
    return trace.strip("0") != "" and parent.strip("0") != ""


def _listed(text: str, kind: str, most: int) -> str:
    """A list of members, whole or not at all: one that was cut would say something else."""
    members = [member for member in _text(text, most).split(",") if member.strip()]
    right = len(members) <= _MAX_MEMBERS[kind] and all("=" in member for member in members)
    return text.strip() if right and members else ""


def _text(text: str, most: int) -> str:
    """``text`` as it may stand in a header line; ``""`` for what may not, or is too long."""
    text = text.strip()
    return text if len(text) <= most and text.isascii() and text.isprintable() else ""
