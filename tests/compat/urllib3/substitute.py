"""urllib3's own tests of its managers over meshlib_requests.urllib3.

``plain``: urllib3 as it is. ``manager``: our PoolManager in the place of its own. ``auto``: its own, patched by ``meshlib.auto``.
``…-mesh``: the same, with the endpoints substituted.
"""

from __future__ import annotations

from typing import Any

import urllib3
import urllib3.poolmanager
from compat_kit import MODE
from compat_urllib3_kit import count_calls, patch, told

from meshlib_requests import urllib3 as ours

KIND = MODE.partition("-")[0]


def put_managers() -> None:
    class PoolManager(ours.PoolManager):
        """Ours, which gives each pool the mesh of its host."""

        def _new_pool(self, *args: Any, **options: Any) -> Any:
            return told(super()._new_pool(*args, **options))

    urllib3.PoolManager = urllib3.poolmanager.PoolManager = PoolManager  # type: ignore[misc]
    urllib3._DEFAULT_POOL = ours._default = PoolManager()
    urllib3.request = ours.request


if KIND != "plain":
    count_calls()
    {"manager": put_managers, "auto": patch}[KIND]()
