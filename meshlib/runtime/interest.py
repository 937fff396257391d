"""Which names of the target view this process is interested in, bounded.

A name is asked for by name, so a client that calls ever new hosts would subscribe to ever more of them. A name that no
call used for ``IDLE`` seconds is let go, and never more than ``MOST`` are held: then the one longest unused goes. Of names
that nobody knows, ``UNKNOWN`` are held.

``touch`` is on the path of every call of the target view: for a known name it is one look-up and one store, without a
lock. What goes on for longer than that, a stream or a download, says nothing more: ``sweep`` asks whether the last use may
go on yet. The lock guards adding and dropping.

    event                                                        used   under_way  last
    -----------------------------------------------------------  -----  ---------  ----
    touch                                                        True
    sweep of a name that was used since the one before           False  True       now
    sweep of another whose use is under way, and is so still                       now
    sweep of another whose use was under way, and is over               False
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["IDLE", "MOST", "UNKNOWN", "Interest", "Wanted"]

#: Seconds without a call after which a name is let go. The contract has 2 minutes, in which a sweep sees the last use up to its
#: own interval late, and comes as much after the end.
IDLE = 90.0
#: Names held at most.
MOST = 4096
#: Names held at most that the control plane does not know (the contract's).
UNKNOWN = 100


class Wanted:
    """A name that is asked for. ``since``: when it was first wanted; ``used``: whether it was since the last sweep; ``last``: the
    sweep that last saw it used; ``under_way``: what used it then may go on.
    """

    __slots__ = ("authority", "last", "name", "since", "under_way", "used")

    def __init__(self, name: str, authority: str, now: float) -> None:
        self.name = name
        self.authority = authority
        self.since = now
        self.last = now
        self.used = True
        self.under_way = True


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

    def sweep(self, now: float, goes_on: Callable[[str], bool] = lambda _: False) -> tuple[str, ...]:
        """Let go of what was not used for long: the names. ``goes_on`` says of a name whether something that began to use it
        may not be over.
        """
        for wanted in self.names():
            if not wanted.used and wanted.under_way:
                wanted.under_way = goes_on(wanted.name)
                if wanted.under_way:
                    wanted.last = now
        with self._lock:
            self._note_use(now)
            idle = [name for name, wanted in self._names.items() if now - wanted.last >= self._idle]
            for name in idle:
                del self._names[name]
            return tuple(idle)

    def trim(self, now: float, unknown: Callable[[Wanted], bool]) -> tuple[str, ...]:
        """Let go of names that are ``unknown``, but for the ``UNKNOWN`` last used: the names."""
        with self._lock:
            found = [wanted for wanted in self._names.values() if unknown(wanted)]
            if len(found) <= UNKNOWN:
                return ()
            self._note_use(now)
            found.sort(key=lambda wanted: wanted.last)
            dropped = tuple(wanted.name for wanted in found[:-UNKNOWN])
            for name in dropped:
                del self._names[name]
            return dropped

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
                wanted.used, wanted.under_way, wanted.last = False, True, now
