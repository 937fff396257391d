"""One call, as values: what is asked, what was decided, what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Self

from meshlib.model.arguments import seconds, text
from meshlib.model.headers import Headers
from meshlib.model.hidden import hidden
from meshlib.model.jsonable import jsonable
from meshlib.model.policy import RetryPolicy

if TYPE_CHECKING:
    from meshlib.config.shapes import RetryDict

__all__ = [
    "OK",
    "Attempt",
    "CallInfo",
    "CallOptions",
    "Decision",
    "Head",
    "Outcome",
    "OutcomeKind",
    "Response",
]


@dataclass(slots=True)
class Head:
    """The head of a request. ``path`` is the raw ``:path`` with its query, ``authority`` the Host as asked for.

    Mutable while a plan builds what an attempt sends; a transport treats it as read-only.
    """

    method: str
    scheme: str
    authority: str
    path: str
    headers: Headers = field(default_factory=Headers)

    def copy(self) -> Head:
        return Head(self.method, self.scheme, self.authority, self.path, self.headers.copy())


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What one call asks for itself.

    Args:
        timeout: Seconds for the whole call with its retries; the nearest of this and the route's holds. 0: none of
            its own, and the route's is switched off.
        retry: A ``RetryPolicy``, a mapping with the keys of a service's ``retry``, or False for no retry; None: the
            route's.
        hash_key: What consistent hashing uses instead of the route's hash policy.
        idempotent: False stops retries once anything may have been sent; True allows them whatever the method.

    Raises TypeError and ValueError that name the argument. What a mapping for ``retry`` holds is read when a call is made
    with it: then a ConfigError says what is wrong.
    """

    timeout: float | None = None
    retry: RetryPolicy | RetryDict | bool | None = None
    hash_key: str | None = None
    idempotent: bool | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None:
            seconds(self.timeout, "CallOptions.timeout")
        retry: object = self.retry
        if retry is not None and not isinstance(retry, bool | Mapping | RetryPolicy):
            raise TypeError(f"CallOptions.retry: expected a RetryPolicy, a mapping or False, not {retry!r}")
        if self.hash_key is not None:
            text(self.hash_key, "CallOptions.hash_key")
        if self.idempotent is not None and not isinstance(self.idempotent, bool):
            raise TypeError(f"CallOptions.idempotent: expected True, False or None, not {self.idempotent!r}")


class OutcomeKind(Enum):
    """How an attempt ended. PROTOCOL: the peer sent what is no response; OVERFLOW: a limit of our own was reached before
    anything was sent; NO_TIME: the deadline was over before there was a connection; OWN: what the caller gave could not be sent,
    such as credentials that failed, or the TLS that is demanded cannot be had; NO_TOKEN: what the service wants with it could not be
    had, or not be sent; UNHEALTHY: the endpoint says that it does not serve, so that nothing was sent to it. The last five are nobody else's fault.
    """

    OK = "ok"
    STATUS = "status"
    CONNECT = "connect"
    RESET = "reset"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    PROTOCOL = "protocol"
    OVERFLOW = "overflow"
    NO_TIME = "no_time"
    OWN = "own"
    NO_TOKEN = "no_token"
    UNHEALTHY = "unhealthy"

    @property
    def word(self) -> str:
        """The contract's ``Attempt.outcome``."""
        return _WORDS.get(self, self.value)


#: To look it up in its Enum at each step of a call is a hundredth of the decision.
OK = OutcomeKind.OK

_WORDS = {
    OutcomeKind.PROTOCOL: "reset",
    OutcomeKind.OVERFLOW: "refused",
    OutcomeKind.NO_TIME: "timeout",
    OutcomeKind.OWN: "refused",
    OutcomeKind.NO_TOKEN: "refused",
    OutcomeKind.UNHEALTHY: "connect",
}


class TimeLimit(StrEnum):
    """A time that a route or its listener sets beside the timeout, in words. Which ended an attempt ends the call.

    IDLE: nothing was read or written for so long. REQUEST: the request was not sent in time. DURATION: request and response took too
    long together.
    """

    IDLE = "the stream's idle timeout"
    REQUEST = "the request timeout"
    DURATION = "the maximum duration of a stream"


@dataclass(slots=True)
class Outcome:
    """What a transport tells the plan of one attempt. The only thing that travels back.

    ``status`` and ``headers`` are set once a response head arrived; ``kind`` then is OK (the plan turns it into STATUS
    where the status is one that a policy counts as failed). ``sent``: whether a byte of the request may have left.
    ``seconds``: from the start of the attempt. ``error``: the host library's exception, kept for the caller. ``late``: it is
    a timeout, and the deadline's. ``grpc``: it is of a gRPC call, whose ``status`` is a gRPC code (0: OK) and whose
    ``headers`` are the trailing metadata. ``limit``: it is a timeout, and this limit's.
    """

    kind: OutcomeKind
    status: int | None = None
    headers: Headers | None = None
    sent: bool = False
    seconds: float = 0.0
    error: BaseException | None = None
    detail: str = ""
    late: bool = False
    grpc: bool = False
    limit: TimeLimit | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A response that the configuration orders (redirect, direct response, 404) or a failure told as one."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def __repr__(self) -> str:
        shown = tuple((name, hidden(name, value)) for name, value in self.headers)
        return f"Response(status={self.status}, headers={shown!r}, body={self.body!r})"

    def to_dict(self) -> dict[str, object]:
        return {
            "status": self.status,
            "headers": [[name, jsonable(hidden(name, value))] for name, value in self.headers],
            "body": jsonable(self.body),
        }


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try. ``number`` counts from 1; ``outcome`` is a value of :class:`OutcomeKind`; ``seconds`` until its head,
    or its failure.
    """

    number: int
    endpoint: str
    outcome: str
    status: int | None
    sent: bool
    seconds: float

    def to_dict(self) -> dict[str, object]:
        return {
            "number": self.number,
            "endpoint": self.endpoint,
            "outcome": self.outcome,
            "status": self.status,
            "sent": self.sent,
            "seconds": self.seconds,
        }


class _Later:
    """A value whose fields are filled in when one of them is first asked for."""

    __slots__ = ("_make",)

    @classmethod
    def later(cls, make: Callable[[], Self]) -> Self:
        """What ``make`` gives, once somebody asks. It may be called by several threads that ask at once."""
        value = cls.__new__(cls)
        object.__setattr__(value, "_make", make)
        return value

    if not TYPE_CHECKING:  # who reads types shall see the fields and no others

        def __getattr__(self, name: str) -> Any:
            names = type(self).__slots__
            if name not in names:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            made = self._make()
            for each in names:
                object.__setattr__(self, each, getattr(made, each))
            return getattr(made, name)


@dataclass(frozen=True, slots=True)
class CallInfo(_Later):
    """What meshlib did with a call. ``via`` is ``"mesh"``, ``"sidecar"`` or ``"direct"``; names that do not apply are
    ``""``, as is ``endpoint`` where nobody was picked. ``versions``: by type (``"listener"``, ``"route"``, ``"cluster"``,
    ``"endpoint"``), under which the control plane sent what decided the call; without those that have none.
    """

    via: str
    listener: str = ""
    route: str = ""
    cluster: str = ""
    endpoint: str = ""
    attempts: tuple[Attempt, ...] = ()
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    lines: tuple[str, ...] | Callable[[], tuple[str, ...]] = field(default=(), repr=False, compare=False)

    def trace(self) -> tuple[str, ...]:
        """The decision in words, a line a step. Written when asked for, so that a call does not pay for it."""
        return self.lines() if callable(self.lines) else self.lines

    def __reduce__(self) -> tuple[object, ...]:
        return (
            CallInfo,
            (
                self.via,
                self.listener,
                self.route,
                self.cluster,
                self.endpoint,
                self.attempts,
                self.seconds,
                self.versions,
                self.trace(),
            ),
        )

    def to_dict(self) -> dict[str, object]:
        return {
            "via": self.via,
            "listener": self.listener,
            "route": self.route,
            "cluster": self.cluster,
            "endpoint": self.endpoint,
            "attempts": [attempt.to_dict() for attempt in self.attempts],
            "seconds": self.seconds,
            "versions": dict(self.versions),
            "trace": list(self.trace()),
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What a call would do (``Mesh.explain``). ``headers``: lower-case name → value, as they would arrive; a
    credential's value is not shown.
    """

    via: str
    listener: str
    virtual_host: str
    route: str
    cluster: str
    endpoint: str
    method: str
    authority: str
    path: str
    headers: dict[str, str] = field(hash=False)
    timeout: float | None
    retry: RetryPolicy | None
    response: Response | None
    lines: tuple[str, ...] = field(default=(), repr=False)

    def trace(self) -> tuple[str, ...]:
        return self.lines

    def to_dict(self) -> dict[str, object]:
        return {
            "via": self.via,
            "listener": self.listener,
            "virtual_host": self.virtual_host,
            "route": self.route,
            "cluster": self.cluster,
            "endpoint": self.endpoint,
            "method": self.method,
            "authority": self.authority,
            "path": self.path,
            "headers": jsonable(self.headers),
            "timeout": self.timeout,
            "retry": jsonable(self.retry),
            "response": self.response.to_dict() if self.response else None,
            "trace": list(self.lines),
        }
