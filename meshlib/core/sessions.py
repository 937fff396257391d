"""Of which session a call is, which endpoint that has, and what the answer tells of it (SS-01; gRFC A55, A60, A61; Envoy's
``stateful_session``).

    kind       a call says                    its endpoint is told by             an answer gets
    ---------  -----------------------------  ----------------------------------  ------------------------------------------
    cookie     a cookie                       its value                           the cookie, where it is another endpoint
    header     a header                       its value                           the header, where it is another endpoint
    envelope   a header, the server's value   what is put around the value; the   the header with the address around its
               with an address around it      server gets its value alone         value, where it has the header
    memory     a header, the server's value   what this process remembers         nothing; what it has is remembered

What a cookie holds is Envoy's message with an address and an end, or, in the target view, gRPC's text with the addresses and the
cluster; both are read anywhere. A session that names its cluster stays in it, as long as the route has a share for it. What cannot be
read names nobody.

Only the first attempt of an HTTP call goes by its session, as in Envoy, where other endpoints will do; where they will not, and of
gRPC, all do.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from meshlib.core.conditions import cookie
from meshlib.core.faults import switches_of
from meshlib.core.hashing import set_cookie
from meshlib.core.lines import first_value, set_line
from meshlib.core.override import Override, spelled
from meshlib.model.headers import Headers
from meshlib.model.listener import FilterKind
from meshlib.model.route import Forward
from meshlib.model.session import SessionKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.lines import Lines
    from meshlib.core.match import Match
    from meshlib.core.resolution import Resolution
    from meshlib.core.upstream import Memory
    from meshlib.model.call import Head, Outcome
    from meshlib.model.listener import HttpFilter, HttpManager
    from meshlib.model.route import ClusterWeight
    from meshlib.model.session import Session

__all__ = ["Held", "Metadata", "hold", "sessions_of"]

_VALUE = "UV:"
#: A longer value is nobody's: neither read nor remembered. Envoy bounds heads only; ids and addresses are far shorter.
_LONGEST = 4096
_ADDRESS, _EXPIRES = 0x0A, 0x10  # tags of the message in a cookie: a string, a number
_ERRORS = 400


class Metadatum(NamedTuple):
    """As gRPC has them."""

    key: str
    value: str | bytes


#: Of an RPC: a name, in lower case, and its value.
Metadata = Iterable[tuple[str, str | bytes]]


class _Surroundings(Protocol):
    """What of them (:class:`meshlib.core.effects.Env`)."""

    sessions: Memory | None

    @property
    def wall(self) -> Callable[[], float]: ...


def sessions_of(manager: HttpManager) -> tuple[HttpFilter, ...]:
    """The filters that keep sessions: none, as a rule."""
    return tuple(each for each in manager.filters if each.kind is FilterKind.SESSION)


def hold(
    resolution: Resolution,
    match: Match,
    weight: ClusterWeight | None,
    head: Head,
    env: _Surroundings,
    now: float,
    *,
    grpc: bool,
) -> Held | None:
    """The session of a call with ``head``; None where no filter is in force that keeps any here, or its cookie is for other paths."""
    session = _in_force(resolution.sessions, match, weight)
    if session is None or not _is_for(session.path, head.path):
        return None
    listener = resolution.listener
    held = Held(session, head, env, listener.name if listener is not None else "", grpc=grpc)
    held.of_grpc = grpc and listener is not None and listener.api
    held.read(now)
    return held


def _in_force(filters: tuple[HttpFilter, ...], match: Match, weight: ClusterWeight | None) -> Session | None:
    """Of several filters the last that is in force, as in Envoy."""
    found: Session | None = None
    for each in filters:
        said = next(switches_of(each.name, match, weight), None)
        if said is None:
            found = found if each.disabled else each.session or found
        elif said.on:
            found = said.session or (each.session if said.plain else None) or found
    return found


def _is_for(path: str, asked: str) -> bool:
    """Whether a cookie of ``path`` is for a request (RFC 6265, 5.1.4)."""
    if path in ("", "/") or (path[-1] == "/" and asked.startswith(path)):
        return True
    return (
        path[-1] != "/" and asked.startswith(path) and asked[len(path) : len(path) + 1] in ("", "/", "?", "#")
    )


class Held:
    """The session of one call. Belongs to its plan.

    Attributes:
        head: The call's, as the endpoint is to see it.
        cluster: Where the session is, ``""`` where it does not say.
        of_grpc: Its cookie is gRPC's.
    """

    __slots__ = (
        "_grpc",
        "_memory",
        "_names",
        "_scope",
        "_value",
        "_wall",
        "cluster",
        "head",
        "of_grpc",
        "session",
    )

    def __init__(self, session: Session, head: Head, env: _Surroundings, scope: str, *, grpc: bool) -> None:
        self.session = session
        self.head = head
        self.cluster = ""
        self.of_grpc = False
        self._grpc = grpc
        self._memory = env.sessions
        self._wall = env.wall
        self._names: tuple[str, ...] = ()
        self._scope = scope
        self._value = ""  # of MEMORY, as the call has it

    def read(self, now: float) -> None:
        """What the call says."""
        session, head = self.session, self.head
        if session.kind is SessionKind.COOKIE:
            self._of_cookie(_decoded(cookie(head, session.name) or ""))
            return
        line = first_value(head.headers.raw, session.name.encode("latin-1", "replace")) or b""
        said = line.decode("latin-1")
        if not said or len(said) > _LONGEST:
            return
        if session.kind is SessionKind.HEADER:
            self._names = _named(_decoded(said))
        elif session.kind is SessionKind.ENVELOPE:
            self._of_envelope(said)
        else:
            self._value = said
            known = self._memory.find(self._scope, said, now) if self._memory is not None else None
            if known is not None:
                self.cluster, self._names = known[0], (known[1],)

    def _of_cookie(self, data: bytes) -> None:
        if data[:1] != b"\n":  # gRPC's text; Envoy's, before 1.25, is the same without a cluster
            text, _, self.cluster = _text(data).partition(";")
            self._names = tuple(filter(None, text.split(",")))[:8]
            return
        found = _message(data)
        if found is not None and not 0 < found[1] < self._wall():
            self._names = _named(found[0])

    def _of_envelope(self, said: str) -> None:
        """Without a value of the server's it is left as it is."""
        first, *others = [part for part in said.split(";") if part] or [""]
        value = next((part[len(_VALUE) :] for part in others if part.startswith(_VALUE)), "")
        inside = _decoded(value)
        if not inside or not inside.isascii() or not inside.decode().isprintable():
            return
        self._names = _named(_decoded(first))
        self.head = self.head.copy()
        lines = self.head.headers.raw
        set_line(lines, self.session.name.encode("latin-1", "replace"), inside)
        self.head.headers = Headers(lines)

    # --- what follows -----------------------------------------------------------------------------------------------------

    def place(
        self, match: Match, cluster: str, weight: ClusterWeight | None
    ) -> tuple[str, ClusterWeight | None]:
        """The cluster and the share: that of the session, where the route has one for it (A60), else those that were drawn."""
        action = match.route.action
        if self.cluster in ("", cluster) or not isinstance(action, Forward):
            return cluster, weight
        share = next((each for each in action.weighted if each.cluster == self.cluster and each.weight), None)
        if share is None:
            # What it names is of another cluster.
            self._names = ()
            return cluster, weight
        return share.cluster, share

    def override(self, number: int) -> Override | None:
        """For the attempt of that number."""
        if not self._names or (number > 1 and not (self.session.strict or self._grpc)):
            return None
        return Override(self._names, strict=self.session.strict)

    def picked(self, endpoint: LiveEndpoint) -> None:
        """An attempt goes there: the next goes by the same."""

    def words(self) -> str:
        """In the trace of the call."""
        kind = "cookie" if self.session.kind is SessionKind.COOKIE else "header"
        said = f"the session of {kind} {self.session.name}"
        if self._names:
            return f"{said} is at {' or '.join(self._names)}"
        return f"{said} is not known in this process" if self._value else f"{said} has no endpoint yet"

    def learn(self, outcome: Outcome, endpoint: LiveEndpoint, cluster: str, now: float) -> None:
        """An answer came from ``endpoint``. Errors tell of no session: an endpoint that does not know it answers so, too."""
        if self.session.kind is not SessionKind.MEMORY or outcome.headers is None:
            return
        if not outcome.grpc and (outcome.status or _ERRORS) < _ERRORS:
            self._keep(outcome.headers.get(self.session.name) or self._value, endpoint, cluster, now)

    def _keep(self, value: str, endpoint: LiveEndpoint, cluster: str, now: float) -> None:
        name = spelled(endpoint.address)
        if not value or len(value) > _LONGEST or (value == self._value and name in self._names):
            return
        if self._memory is not None:
            self._memory.keep(self._scope, value, (cluster, name), now, self.session.ttl)

    def edited(self, headers: Headers, endpoint: LiveEndpoint, cluster: str) -> Headers | None:
        """The lines of an answer with what the session has to say in them; None: nothing. ``headers`` stays as it is."""
        if self.session.kind is SessionKind.MEMORY:
            return None
        lines = list(headers.raw)
        return Headers(lines) if self.edit(lines, endpoint, cluster) else None

    def metadata(self, found: Metadata, endpoint: LiveEndpoint, cluster: str, now: float) -> Metadata:
        """The same of an RPC's initial metadata, which tell of a session that the endpoint named."""
        session = self.session
        own = [str(value) for name, value in found if name == session.name and isinstance(value, str)]
        if session.kind is SessionKind.MEMORY:
            self._keep(own[0] if own else "", endpoint, cluster, now)
            return found
        told = session.kind is SessionKind.COOKIE
        lines = [] if told else [(session.name.encode(), value.encode("latin-1", "replace")) for value in own]
        if not self.edit(lines, endpoint, cluster):
            return found
        kept = [pair for pair in found if told or pair[0] != session.name]
        return (*kept, *(Metadatum(name.decode(), value.decode("latin-1")) for name, value in lines))

    def edit(self, lines: Lines, endpoint: LiveEndpoint, cluster: str) -> bool:
        """Write into the lines of an answer what they have to say; whether that is anything."""
        session, name = self.session, spelled(endpoint.address)
        key = session.name.encode("latin-1", "replace")
        if session.kind is SessionKind.MEMORY:
            return False
        if session.kind is SessionKind.ENVELOPE:
            values = [value for own, value in lines if own.lower() == key]
            if len(values) == 1:
                set_line(lines, key, b64encode(name.encode()) + b";UV:" + b64encode(values[0]))
            return len(values) == 1
        if name in self._names and self.cluster in ("", cluster):
            return False
        if session.kind is SessionKind.HEADER:
            set_line(lines, key, b64encode(name.encode()))
            return True
        made = _grpc_cookie if self.of_grpc else set_cookie
        text = made(session, self._cookie(endpoint, name, cluster))
        lines.append((b"set-cookie", text.encode("latin-1", "replace")))
        return True

    def _cookie(self, endpoint: LiveEndpoint, name: str, cluster: str) -> str:
        if self.of_grpc:
            names = [name, *map(spelled, endpoint.endpoint.additional_addresses)]
            return b64encode(f"{','.join(names)};{cluster}".encode()).decode()
        data = bytes((_ADDRESS, *_varint(len(name.encode())))) + name.encode()
        if self.session.ttl:
            data += bytes((_EXPIRES, *_varint(int(self._wall() + self.session.ttl))))
        return b64encode(data).decode()


def _grpc_cookie(session: Session, value: str) -> str:
    """As gRPC writes it (measured with grpcio 1.85): it reads none in quotation marks."""
    parts = [f"{session.name}={value}", "HttpOnly"]
    if session.path:
        parts.append(f"Path={session.path}")
    if session.ttl:
        parts.append(f"Max-Age={int(session.ttl)}")
    return "; ".join(parts)


def _decoded(text: str) -> bytes:
    """What base64 holds; nothing, where it is none."""
    if len(text) > _LONGEST:
        return b""
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _text(data: bytes) -> str:
    """As a name; nothing, where it can be none."""
    text = data.decode("latin-1")
    return text if text.isascii() and text.isprintable() else ""


def _named(data: bytes) -> tuple[str, ...]:
    name = _text(data)
    return (name,) if name else ()


def _message(data: bytes) -> tuple[bytes, int] | None:
    """The address and the end of Envoy's message; None where it is none."""
    address, expires, at = b"", 0, 0
    while at < len(data):
        tag = data[at]
        value, at = _number(data, at + 1)
        if at < 0 or tag not in (_ADDRESS, _EXPIRES):
            return None
        if tag == _EXPIRES:
            expires = value
            continue
        if at + value > len(data):
            return None
        address, at = data[at : at + value], at + value
    return address, expires


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint at that place, and the place behind it, -1 where it does not end."""
    value = 0
    for step in range(10):
        if at >= len(data):
            break
        byte = data[at]
        value |= (byte & 0x7F) << 7 * step
        at += 1
        if byte < 0x80:
            return value, at
    return 0, -1


def _varint(value: int) -> list[int]:
    found = []
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return [*found, value]
