"""Channels to those of the mesh's clusters that a process asks for itself: one each, made on first use."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from meshlib.core.resolve import OF_CLUSTER

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.core.exchange import Place

__all__ = ["Services"]

#: Source of the part, cluster, authority.
Key = tuple[str, str, str]


class Services:
    """Thread-safe. They end with their runtime; after a fork the child's begins without one.

    Attributes:
        make: Makes a channel whose calls go to a place; set by whoever knows channels.
    """

    def __init__(self) -> None:
        self.make: Callable[[Place], Any] | None = None
        self._channels: dict[Key, Any] = {}
        self._lock = threading.Lock()  # guards making one, which blocks nobody

    def get(self, part: str, cluster: str, authority: str = "") -> Any:
        """The channel to ``cluster`` of ``part``, whose calls have ``authority``; ``""``: the cluster's name."""
        key = part, cluster, authority
        found = self._channels.get(key)
        if found is None:
            with self._lock:
                found = self._channels.get(key)
                if found is None:
                    assert self.make is not None
                    place = (f"{OF_CLUSTER}{part}", cluster, None, authority or cluster)
                    found = self._channels[key] = self.make(place)
        return found

    def close(self) -> None:
        """Close all that there are."""
        while self._channels:
            self._channels.popitem()[1].close()
