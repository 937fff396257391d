"""urllib3: the pools that its managers make go through the mesh. requests, botocore and many more stand on these."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import TYPE_CHECKING, Any

from meshlib.patched import replace
from meshlib.patching.active import OFF, runtime

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["patch"]


def patch(urllib3: ModuleType) -> None:
    """Patch the library. Raises RuntimeError for urllib3 1."""
    if int(urllib3.__version__.partition(".")[0]) < 2:
        raise RuntimeError(f"urllib3 {urllib3.__version__} is too old: 2 is needed")
    proxied = urllib3.ProxyManager

    def new_pool(original: Any) -> Any:
        @functools.wraps(original)
        def make(self: Any, *args: Any, **options: Any) -> Any:
            # A manager of somebody's own pools, ours among them, is left alone; a proxy wins over the mesh.
            if not isinstance(self, proxied) and all(
                isinstance(kind, type) for kind in self.pool_classes_by_scheme.values()
            ):
                _adopt(self)
            return original(self, *args, **options)

        return make

    replace(urllib3.PoolManager, "_new_pool", new_pool, "urllib3.PoolManager")


def _adopt(manager: Any) -> None:
    if runtime() is not OFF:
        import_module("meshlib_requests.pools").adopt(manager, runtime)
