"""``requests.adapters``, whose ``HTTPAdapter`` is the mesh's: what a program subclasses and mounts stays in the mesh."""

from __future__ import annotations

from requests import adapters as _adapters
from requests.adapters import *  # noqa: F403 - its names are ours

from meshlib_requests.adapter import MeshAdapter

__all__ = ["HTTPAdapter", "MeshAdapter"]

HTTPAdapter = MeshAdapter  # type: ignore[misc]


def __getattr__(name: str) -> object:
    return getattr(_adapters, name)
