"""aiohttp: each call of a session gets our middleware, if its connector can go where attempts go."""

from __future__ import annotations

import functools
import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from meshlib.patched import replace
from meshlib.patching.active import OFF, runtime

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["patch"]


def patch(aiohttp: ModuleType) -> None:
    """Patch the library. Raises RuntimeError for a version without middlewares."""
    if "middlewares" not in inspect.signature(aiohttp.ClientSession._request).parameters:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} is too old: 3.12 is needed")
    replace(aiohttp.ClientSession, "_request", _request, "aiohttp.ClientSession")


def _request(original: Any) -> Any:
    @functools.wraps(original)
    async def request(self: Any, method: str, str_or_url: Any, **options: Any) -> Any:
        if runtime() is not OFF:
            ours = import_module("meshlib_aiohttp.session")
            if not isinstance(self, ours.ClientSession):
                # A connector of ours may have been given a mesh of its own.
                chosen = getattr(self._connector, "_mesh_runtime", runtime)
                options = ours.through(self, options, chosen)
        return await original(self, method, str_or_url, **options)

    return request
