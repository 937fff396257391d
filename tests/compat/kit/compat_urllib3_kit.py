"""What the plugins for libraries on urllib3 share."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import urllib3
from compat_kit import ALIASES, COUNTS, MODE, configure, count, mesh_for
from urllib3.exceptions import HTTPError

from meshlib.mesh import default
from meshlib_requests import pools

__all__ = ["count_calls", "patch", "runtime_for", "told"]


def runtime_for(pool: Any) -> Any:
    """What gives the runtime of the mesh that knows the pool's host; the default's where there is none."""
    if pool.host in ALIASES:
        return mesh_for(f"{pool.scheme}://{pool.host}:{pool.port}")._runtime
    return lambda: default()._runtime()


def count_calls() -> None:
    """Count each call that comes to a pool of ours, by what became of it."""
    carry = pools.MeshPool._carry

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        try:
            response = carry(self, *args, **options)
        except HTTPError as error:
            count(error)
            raise
        count(response)
        return response

    pools.MeshPool._carry = counted  # type: ignore[method-assign]


def told(pool: Any) -> Any:
    """A pool that was made; with ``…-mesh`` it has the mesh of its host from here on."""
    COUNTS["pools"] += 1
    if MODE.endswith("-mesh") and isinstance(pool, pools.MeshPool):
        pool.runtime = runtime_for(pool)
    return pool


def patch() -> None:
    """``meshlib.auto``."""
    if MODE.endswith("-mesh"):
        configure(1)  # a mesh that has something; which one a pool has it is told above
    import_module("meshlib.auto")
    patched = urllib3.PoolManager._new_pool

    def make(self: Any, *args: Any, **options: Any) -> Any:
        return told(patched(self, *args, **options))

    urllib3.PoolManager._new_pool = make  # type: ignore[method-assign]
