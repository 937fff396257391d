"""urllib3's own tests of its managers over meshlib_requests.urllib3.

``plain``: urllib3 as it is. ``manager``: our PoolManager in the place of its own. ``auto``: its own, patched by ``meshlib.auto``.
``…-mesh``: the same, with the endpoints substituted.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import urllib3
import urllib3.poolmanager
from compat_kit import COUNTS, MODE, configure
from compat_urllib3_kit import count_calls, runtime_for
from meshlib_requests import urllib3 as ours
from meshlib_requests.fronts import Front

KIND, _, SUBSTITUTED = MODE.partition("-")


def put_managers() -> None:
    class PoolManager(ours.PoolManager):
        """Ours, which gives each pool the mesh of its host."""

        def _new_pool(self, *args: Any, **options: Any) -> Any:
            return told(super()._new_pool(*args, **options))

    urllib3.PoolManager = urllib3.poolmanager.PoolManager = PoolManager  # type: ignore[misc]
    urllib3._DEFAULT_POOL = ours._default = PoolManager()
    urllib3.request = ours.request


def patch() -> None:
    if SUBSTITUTED:
        configure(1)  # a mesh that has something; which one a pool has is told below
    import_module("meshlib.auto")
    patched = urllib3.PoolManager._new_pool

    def make(self: Any, *args: Any, **options: Any) -> Any:
        return told(patched(self, *args, **options))

    urllib3.PoolManager._new_pool = make  # type: ignore[method-assign]


def told(pool: Any) -> Any:
    COUNTS["pools"] += 1
    if SUBSTITUTED and isinstance(pool, Front):
        pool.runtime = runtime_for(pool)
    return pool


if KIND != "plain":
    count_calls()
    {"manager": put_managers, "auto": patch}[KIND]()
