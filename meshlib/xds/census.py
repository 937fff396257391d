"""How many resources a cache holds, by type, authority and state: what gRFC A78 counts, with the states of gRFC A88. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from meshlib.xds.cache import Cache, Entry, State
from meshlib.xds.decode import ResourceType

__all__ = ["census"]

#: States in which an older version may be in force.
_KEEPING = (State.NACKED, State.DOES_NOT_EXIST, State.RECEIVED_ERROR)
_FEDERATED = "xdstp://"


def census(cache: Cache, types: Iterable[ResourceType]) -> Mapping[tuple[str, str, str], int]:
    """By a type's full name, authority and state."""
    return Counter(
        (kind.full_name, _authority(entry.name), _state(entry))
        for kind in types
        for entry in cache.entries(kind.short)
    )


def _authority(name: str) -> str:
    if not name.startswith(_FEDERATED):
        return "#old"
    return name.removeprefix(_FEDERATED).partition("/")[0]


def _state(entry: Entry) -> str:
    kept = entry.state in _KEEPING and bool(entry.raw)
    return f"{entry.state.value}_but_cached" if kept else entry.state.value
