"""Sessions: calls that belong together stay with the endpoint that the first of them went to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Session", "SessionKind"]


class SessionKind(Enum):
    """How a call says of which session it is (Envoy's ``stateful_session`` extensions, and one of our own).

    COOKIE, HEADER: a cookie, a header names the endpoint. ENVELOPE: a header has a value that the endpoint chose, with its address put
    around it. MEMORY: a header has a value that the endpoint chose, as it is; this process remembers whose it is.
    """

    COOKIE = "cookie"
    HEADER = "header"
    ENVELOPE = "envelope"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Session:
    """``name``: of the cookie or of the header, in lower case then. ``ttl``: seconds that a cookie holds, 0: as long as its browser;
    of MEMORY seconds after the last call. ``path`` and ``attributes`` are of the cookie. ``strict``: a call goes to no other endpoint; where
    its own is gone it is answered ``status``, 0: it fails, as it does where its own may not be called now.
    """

    kind: SessionKind
    name: str
    ttl: float = 0.0
    path: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    strict: bool = False
    status: int = 0
