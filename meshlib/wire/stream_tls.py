"""What the TLS handshakes of one place have in common: what ALPN offers, and the sessions that may be resumed.

Python sets ALPN on a context, and takes the session where a socket is wrapped; asyncio and anyio wrap by themselves and hand no
session on. So they are given a :class:`Handshakes` in the place of the context, which stands in for it. OpenSSL copies what a
context offers when a connection is made of it; so it is set and used under one lock, and connections that offer different
protocols may share a context.
"""

from __future__ import annotations

import ssl
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from meshlib.runtime.process import Local
from meshlib.runtime.tls import MeshContext

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Handshakes", "alpn_of"]

#: Sessions kept for one place where the mesh says nothing: a ticket of TLS 1.3 is good for one connection (RFC 8446, C.4), and a
#: burst opens several.
_MOST_SESSIONS = 8
#: And however many it orders.
_MOST_KEPT = 1024


class _Guard:
    """One process's. ``lock`` guards what contexts offer, from setting it to the connection that copies it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


_here = Local(_Guard)


class Handshakes(ssl.SSLContext):
    """Stands in for ``context``. Thread-safe.

    ``remember`` is to be called with the connection (a socket or an object of ``ssl``) once something was read from it: in TLS
    1.3 there is no session before.
    """

    _inner: ssl.SSLContext
    _offers: list[str]
    _names: tuple[str, ...]
    _sessions: deque[tuple[ssl.SSLContext, ssl.SSLSession]]

    @classmethod
    def of(cls, context: ssl.SSLContext, offers: Sequence[str], names: Sequence[str] = ()) -> Handshakes:
        """The handshakes of one place. ``names``: the certificate must have one of them, where the mesh's context verifies anybody."""
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made._inner = context
        made._offers = list(offers)
        made._names = tuple(names)
        most = _MOST_SESSIONS
        if isinstance(context, MeshContext):
            context.users.add(made)
            most = min(context.tls.sessions, _MOST_KEPT)
        made._sessions = deque(maxlen=most)
        made.check_hostname = context.check_hostname  # for who looks before the handshake
        made.verify_mode = context.verify_mode
        return made

    def wrap_socket(self, sock: Any, **options: Any) -> ssl.SSLSocket:  # type: ignore[override]
        made: ssl.SSLSocket = self._wrap(
            "wrap_socket", (sock,), {**options, "do_handshake_on_connect": False}
        )
        return made

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        made: ssl.SSLObject = self._wrap("wrap_bio", arguments, options)
        return made

    def _wrap(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        context = self._inner
        if isinstance(context, MeshContext):
            context = context.current()
        asked = options.get("server_hostname")
        if isinstance(asked, str):
            # As ssl does it, but before it has taken the socket, which nobody would close then. Raises UnicodeError.
            asked.encode("idna")
        options["session"] = self._session(context)
        with _here.get().lock:
            context.set_alpn_protocols(self._offers)
            wrap: Callable[..., Any] = getattr(context, name)
            made = wrap(*arguments, **options)
        if self._names:
            made.names = self._names
        return made

    def _session(self, context: ssl.SSLContext) -> ssl.SSLSession | None:
        while self._sessions:
            try:
                of, session = self._sessions.pop()
            except IndexError:  # another thread was faster
                return None
            if of is context:  # of files that are not in force any more otherwise
                return session
        return None

    def remember(self, connection: ssl.SSLSocket | ssl.SSLObject) -> None:
        """Keep its session for a later connection."""
        session = connection.session
        if session is not None and (session.has_ticket or session.id):
            self._sessions.append((connection.context, session))


def alpn_of(connection: Any) -> bytes | None:
    """What ALPN chose; ``connection`` is a socket or an object of ``ssl``."""
    chosen: str | None = connection.selected_alpn_protocol()
    return None if chosen is None else chosen.encode("ascii")
