"""Which endpoint has a session that a server chose the name of: what this process has seen of it (docs/decisions/0061-sessions.md)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import blake2b

__all__ = ["Sessions"]

#: So many are remembered; the one that was not asked for the longest goes first. An entry takes some 250 bytes.
_MOST = 65_536


class Sessions:
    """Thread-safe (:class:`meshlib.core.upstream.Memory`). The lock guards the table, and is held for one look-up.

    A session's name lets its holder into it: only its digest is kept.
    """

    __slots__ = ("_known", "_lock", "_most")

    def __init__(self, before: Sessions | None = None, most: int = _MOST) -> None:
        """``before``: what a parent process remembered, whose lock somebody may have held as it was forked."""
        self._known: OrderedDict[bytes, tuple[tuple[str, str], float, float]] = (
            OrderedDict() if before is None else before._known.copy()
        )
        self._lock = threading.Lock()
        self._most = most

    def __len__(self) -> int:
        return len(self._known)

    def find(self, scope: str, value: str, now: float) -> tuple[str, str] | None:
        key = _key(scope, value)
        with self._lock:
            found = self._known.get(key)
            if found is None:
                return None
            where, seconds, until = found
            if now >= until:
                del self._known[key]
                return None
            self._known[key] = (where, seconds, now + seconds)
            self._known.move_to_end(key)
            return where

    def keep(self, scope: str, value: str, where: tuple[str, str], now: float, seconds: float) -> None:
        key = _key(scope, value)
        with self._lock:
            self._known[key] = (where, seconds, now + seconds)
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)


def _key(scope: str, value: str) -> bytes:
    text = f"{scope}\0{value}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
