"""Which names of the target view this process is interested in, bounded.

A name is asked for by name, so a client that calls ever new hosts would subscribe to ever more of them. A name that no
call used for ``IDLE`` seconds is let go, and never more than ``MOST`` are held: then the one longest unused goes.

``touch`` is on the path of every call of the target view: for a known name it is one look-up and one store, without a
lock. The lock guards adding and dropping.
"""

from __future__ import annotations

import threading

__all__ = ["IDLE", "MOST", "Interest", "Wanted"]

#: Seconds without a call after which a name is let go (gRPC channels idle after 30 min; a name costs more than that).
IDLE = 600.0
#: Names held at most.
MOST = 4096


class Wanted:
    """A name that is asked for. ``since``: when it was first wanted; ``used``: whether it was since the last sweep."""

    __slots__ = ("authority", "last", "name", "since", "used")

    def __init__(self, name: str, authority: str, now: float) -> None:
        self.name = name
        self.authority = authority
        self.since = now
        self.last = now
        self.used = True


class Interest:
    """The names in use. Thread-safe."""

    def __init__(self, idle: float = IDLE, most: int = MOST) -> None:
        self._idle = idle
        self._most = most
        self._lock = threading.Lock()
        self._names: dict[str, Wanted] = {}

    def __len__(self) -> int:
        return len(self._names)

    def copy(self, now: float) -> Interest:
        """The same names for another process. Takes no lock: the one of a parent may be held for ever."""
        made = Interest(self._idle, self._most)
        made._names = {
            wanted.name: Wanted(wanted.name, wanted.authority, now) for wanted in list(self._names.values())
        }
        return made

    def get(self, name: str) -> Wanted | None:
        return self._names.get(name)

    def names(self) -> list[Wanted]:
        """Everything that is wanted now."""
        with self._lock:
            return list(self._names.values())

    def touch(self, name: str) -> bool:
        """``name`` is used. False: it is not wanted yet, ``add`` it."""
        wanted = self._names.get(name)
        if wanted is None:
            return False
        wanted.used = True
        return True

    def add(self, name: str, authority: str, now: float) -> tuple[bool, tuple[str, ...]]:
        """Want ``name``: whether that is new, and the names that had to go for it."""
        with self._lock:
            if name in self._names:
                return False, ()
            dropped = self._make_room(now)
            self._names[name] = Wanted(name, authority, now)
            return True, dropped

    def sweep(self, now: float) -> tuple[str, ...]:
        """Let go of what was not used for long: the names."""
        with self._lock:
            self._note_use(now)
            idle = [name for name, wanted in self._names.items() if now - wanted.last >= self._idle]
            for name in idle:
                del self._names[name]
            return tuple(idle)

    def _make_room(self, now: float) -> tuple[str, ...]:
        """An eighth goes at a time, so that a crawler does not pay for a search with each host."""
        if len(self._names) < self._most:
            return ()
        self._note_use(now)
        oldest = sorted(self._names.values(), key=lambda wanted: wanted.last)[: max(1, self._most // 8)]
        for wanted in oldest:
            del self._names[wanted.name]
        return tuple(wanted.name for wanted in oldest)

    def _note_use(self, now: float) -> None:
        for wanted in self._names.values():
            if wanted.used:
                wanted.used, wanted.last = False, now
