"""``requests.adapters``, whose ``HTTPAdapter`` is the mesh's: what a program subclasses and mounts stays in the mesh."""

from __future__ import annotations

from typing import Any

from requests import adapters as _adapters

from meshlib_requests.adapter import MeshAdapter

__all__ = ["HTTPAdapter", "MeshAdapter"]

HTTPAdapter = MeshAdapter


def __getattr__(name: str) -> Any:
    return getattr(_adapters, name)
