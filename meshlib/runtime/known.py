"""Objects that are known weakly, and gone through while other threads make more of them.

``weakref.WeakSet`` will not do: going through one runs Python code between its items, and whoever adds one meanwhile ends that
with a RuntimeError. Before a fork that would leave the rest of the meshes unpaused.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Known"]

T = TypeVar("T")


class Known(Generic[T]):
    """A set of objects, compared by identity, each of which goes when nobody else has it. Thread-safe, and without a lock: a
    fork finds none held, and the collector may run anywhere.
    """

    __slots__ = ("_references",)

    def __init__(self) -> None:
        self._references: weakref.WeakKeyDictionary[T, None] = weakref.WeakKeyDictionary()

    def add(self, item: T) -> None:
        """Know it, too. It must not define its own equality."""
        self._references[item] = None

    def __iter__(self) -> Iterator[T]:
        """Those that are there now: what comes and goes meanwhile changes nothing of that."""
        for reference in self._references.keyrefs():  # one step: a copy
            item = reference()
            if item is not None:
                yield item
