"""What the plugins for libraries on urllib3 share."""

from __future__ import annotations

from typing import Any

from compat_kit import ALIASES, count, mesh_for
from meshlib_requests import fronts
from urllib3.exceptions import HTTPError

from meshlib.mesh import default

__all__ = ["count_calls", "runtime_for"]


def runtime_for(pool: Any) -> Any:
    """What gives the runtime of the mesh that knows the pool's host; the default's where there is none."""
    if pool.host in ALIASES:
        return mesh_for(f"{pool.scheme}://{pool.host}:{pool.port}")._runtime
    return lambda: default()._runtime()


def count_calls() -> None:
    """Count each call that comes to a pool of ours, by what became of it."""
    carry = fronts.Front._carry

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        try:
            response = carry(self, *args, **options)
        except HTTPError as error:
            count(error)
            raise
        count(response)
        return response

    fronts.Front._carry = counted  # type: ignore[method-assign]
