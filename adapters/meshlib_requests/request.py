"""What ``urlopen`` was asked for, read once, and what each attempt sends of it: the lines that urllib3 writes, in its order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from urllib3.connection import _get_default_user_agent
from urllib3.util import SKIP_HEADER, Timeout
from urllib3.util.request import body_to_chunks, rewind_body, set_file_position

from meshlib.model.call import Head
from meshlib.model.headers import Headers
from meshlib.wire.message import Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from meshlib.core.endpoint import LiveEndpoint
    from meshlib.core.plan import Plan
    from meshlib_requests.targets import Target

__all__ = ["Request"]

_USER_AGENT = (b"User-Agent", _get_default_user_agent().encode("latin-1"))
_IDENTITY = (b"Accept-Encoding", b"identity")
_CHUNKED = (b"Transfer-Encoding", b"chunked")
#: Of a file that urllib3 reads in parts. Bytes.
_BLOCK = 16_384


class Request:
    """One call of ``urlopen``.

    Args:
        pool: urllib3's pool, whose method it is.
        plain: Makes the call as urllib3 alone does, given the header lines and the timeout.
        options: The other arguments, by their names; here are ``body``, ``body_pos``, ``pool_timeout`` and ``chunked``.

    Attributes:
        authority: The host that is asked for, as it is written in Host.
        direct: urllib3 has carried it, its retries and redirects included.
        deadline, tried, earlier: What earlier turns of urllib3's ``Retry`` left: the time, endpoints, and attempts.
    """

    __slots__ = (
        "_opened",
        "_skipped",
        "_total",
        "authority",
        "body",
        "body_pos",
        "chunked",
        "deadline",
        "direct",
        "earlier",
        "headers",
        "host_line",
        "method",
        "options",
        "plain",
        "pool",
        "raw",
        "target",
        "timeout",
        "timeouts",
        "tried",
    )

    def __init__(
        self,
        pool: Any,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        timeout: Timeout,
        plain: Callable[..., Any],
        options: dict[str, Any],
    ) -> None:
        self.pool = pool
        self.method = method
        self.target = target
        self.headers = headers
        self.timeout = timeout
        self.plain = plain
        self.body: Any = options["body"]
        self.body_pos: Any = options["body_pos"]
        self.chunked: bool = options["chunked"]
        self.options = options
        self.direct = False
        self.deadline: float | None = None
        self.tried: tuple[LiveEndpoint, ...] = ()
        self.earlier: tuple[Any, ...] = ()
        self.authority: str = target.authority or pool.authority
        self.host_line: tuple[int, bytes] | None = None  # where the caller wrote one, and how
        self.raw: list[tuple[bytes, bytes]] = []
        self._skipped: set[bytes] = set()
        self._opened = False  # whether the body may have been read
        self._read_lines(headers)
        self._total: float | None = None
        self.timeouts = self._read_timeouts(timeout, options["pool_timeout"])

    # --- what a plan reads ----------------------------------------------------------------------------------------

    def head(self) -> Head:
        return Head(
            self.method, self.pool.scheme, self.authority, self.target.path, Headers.trimmed(self.raw)
        )

    def url(self) -> str:
        return f"{self.pool.scheme}://{self.authority}{self.target.path}"

    def locate(self) -> None:
        """Note where the body begins, once."""
        if self.body is not None:
            self.body_pos = set_file_position(self.body, self.body_pos)

    @property
    def replayable(self) -> bool:
        """Whether the body can be sent again: it is not read, as an iterator and a pipe are, or can be rewound."""
        body = self.body
        if hasattr(body, "read"):
            return isinstance(self.body_pos, int) and hasattr(body, "seek")
        return not isinstance(body, Iterator)

    def turn(self, plan: Plan, attempts: tuple[Any, ...]) -> None:
        """urllib3's ``Retry`` makes the call again, after what ``plan`` did."""
        self.deadline, self.tried, self.earlier = plan.deadline, plan.tried, attempts

    def _read_lines(self, headers: Mapping[str, str]) -> None:
        # requests' mapping keeps its lines as they are wanted here, and looks each up again otherwise.
        store = getattr(headers, "_store", None)
        for name, value in store.values() if isinstance(store, dict) else headers.items():
            if value == SKIP_HEADER:
                self._skipped.add(_bytes(name).lower())
            elif len(name) == 4 and name.lower() in ("host", b"host"):
                self.authority = value if isinstance(value, str) else value.decode("latin-1")
                self.host_line = len(self.raw), _bytes(name)
            elif type(name) is str and type(value) is str:
                self.raw.append((name.encode("latin-1"), value.encode("latin-1")))
            else:
                self.raw.append((_bytes(name), _bytes(value)))

    def _read_timeouts(self, timeout: Timeout, pool_timeout: float | None) -> Mapping[str, float | None]:
        """urllib3's, as the engine has them. It bounds sending by the connect timeout, and so it is here."""
        total = self._total = Timeout.resolve_default_timeout(timeout.total)
        connect = Timeout.resolve_default_timeout(timeout.connect_timeout)
        if pool_timeout is None and not self.pool.block:
            pool_timeout = connect  # else the application bounds its connections, and waits as urllib3 does
        read = timeout._read if total is not None else timeout.read_timeout
        timeouts = {
            "connect": connect,
            "write": connect,
            "read": Timeout.resolve_default_timeout(read),
            "pool": pool_timeout,
        }
        return timeouts if total is None else _Total(timeouts, total)

    # --- what an attempt sends ------------------------------------------------------------------------------------

    def outgoing(self, head: Head, added: Iterable[tuple[bytes, bytes]] = ()) -> Outgoing:
        """The attempt as the wire sends it. Raises UnrewindableBodyError, TypeError for a body that is none."""
        if self._total is not None:
            self.timeouts.start()  # type: ignore[attr-defined]
        if self._opened and isinstance(self.body_pos, int):
            rewind_body(self.body, self.body_pos)
        self._opened = True
        lines = head.headers.raw
        names = {name.lower() for name, _ in lines} | self._skipped
        written: list[tuple[bytes, bytes]] = []
        authority = head.authority.encode("latin-1")
        if self.host_line is not None:
            place, name = self.host_line
            lines = [*lines[:place], (name, authority), *lines[place:]]
        elif b"host" not in names:
            written.append((b"Host", authority))
        if b"accept-encoding" not in names:
            written.append(_IDENTITY)
        body = self._framed(names, written)
        if b"user-agent" not in names:
            written.append(_USER_AGENT)
        written += lines
        written += added
        return Outgoing(
            head.method.encode("latin-1"),
            self.sent_target(head).encode("latin-1"),
            written,
            body,
            secure=head.scheme == "https",
        )

    def sent_target(self, head: Head) -> str:
        """What stands in the request's first line."""
        return self.target.sent(head, self.authority) or "/"

    def _framed(self, names: set[bytes], written: list[tuple[bytes, bytes]]) -> Any:
        """The body as the wire takes it; what says how long it is, is written, unless the caller says so."""
        chunks, length = body_to_chunks(self.body, self.method, _BLOCK)
        if self.chunked:
            if b"transfer-encoding" not in names:
                written.append(_CHUNKED)
        elif b"content-length" not in names and b"transfer-encoding" not in names:
            if length is not None:
                written.append((b"Content-Length", b"%d" % length))
            elif chunks is not None:
                written.append(_CHUNKED)
        if chunks is None:
            return b"" if self.chunked else None
        if isinstance(chunks, tuple):
            return chunks[0] if isinstance(chunks[0], bytes) else bytes(chunks[0])
        return _parts(chunks)


class _Total(dict[str, float | None]):
    """Timeouts of which ``total`` bounds connecting and reading together, from when an attempt starts."""

    def __init__(self, timeouts: Mapping[str, float | None], total: float) -> None:
        super().__init__(timeouts)
        self._total = total
        self.start()

    def start(self) -> None:
        self._began = time.monotonic()

    def get(self, name: str, default: Any = None) -> Any:
        own = super().get(name, default)
        if name == "pool":
            return own
        left = max(0.0, self._began + self._total - time.monotonic())
        return left if own is None or left < own else own


def _parts(chunks: Iterable[Any]) -> Iterator[bytes]:
    """Text is sent as UTF-8; an empty part would end a chunked body."""
    for chunk in chunks:
        if chunk:
            yield chunk.encode("utf-8") if isinstance(chunk, str) else chunk


def _bytes(text: Any) -> bytes:
    """As ``http.client`` writes a name or a value. Raises TypeError, UnicodeEncodeError."""
    if isinstance(text, str):
        return text.encode("latin-1")
    if isinstance(text, int):
        return str(text).encode("ascii")
    if not isinstance(text, bytes):
        raise TypeError(f"a header line is of str or bytes, not {type(text).__name__}")
    return text
