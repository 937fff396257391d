"""Resources that listeners name: which are wanted, and by whom. Not thread-safe: it belongs to a graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.xds.roots import Root

__all__ = ["NamedByRoots"]


class NamedByRoots:
    """Those of one type."""

    __slots__ = ("_of", "_users")

    def __init__(self) -> None:
        self._users: dict[str, set[Root]] = {}
        self._of: dict[Root, frozenset[str]] = {}

    @property
    def names(self) -> frozenset[str]:
        """All that are wanted."""
        return frozenset(self._users)

    def users(self, names: Iterable[str]) -> set[Root]:
        """The listeners that name any of these."""
        found: set[Root] = set()
        return found.union(*(self._users.get(name, ()) for name in names))

    def follow(self, root: Root, now: frozenset[str]) -> bool:
        """``root`` names these now; whether others are wanted than before."""
        before = self._of.get(root, frozenset())
        if now == before:
            return False
        for name in now - before:
            self._users.setdefault(name, set()).add(root)
        for name in before - now:
            self._users[name].discard(root)
            if not self._users[name]:
                del self._users[name]
        if now:
            self._of[root] = now
        else:
            del self._of[root]
        return True
