"""Whether the patches do anything now, and whose rules hold for them."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from meshlib import patched

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from meshlib.config import Config

__all__ = ["OFF", "install", "remove", "runtime"]

#: Module of the library → our module that patches it, by its function ``patch``.
_LIBRARIES = {
    "aiohttp": "meshlib.patching.aiohttp",
    "grpc": "meshlib.patching.grpc",
    "httpx": "meshlib.patching.httpx",
    "httpx2": "meshlib.patching.httpx",
    "requests": "meshlib.patching.requests",
    "urllib3": "meshlib.patching.urllib3",
}


class _Config:
    disabled = True


class _Off:
    """Stands where a runtime is asked for, and says that calls are to be plain."""

    config = _Config()


OFF: Any = _Off()
_on = False
_broken = 0  # the process in which the mesh could not be made


def install() -> None:
    """Patch what is imported, and what will be. Starts nothing."""
    global _on  # noqa: PLW0603 - there is one process
    _on = True
    for library, module in _LIBRARIES.items():
        patched.when_imported(library, _patcher(module))


def remove() -> None:
    """Put everything back. What was made meanwhile makes plain calls from now on."""
    global _on  # noqa: PLW0603 - there is one process
    _on = False
    patched.restore()


def runtime() -> Any:
    """The runtime of the process's mesh; ``OFF`` where there is nothing to do for it. Never raises: a mesh that cannot be
    made is said once, and calls are plain.
    """
    global _broken  # noqa: PLW0603 - there is one process
    if not _on or _broken == os.getpid():
        return OFF
    try:
        from meshlib.mesh import default

        mesh = default()
        return mesh._runtime() if _configured(mesh.config) else OFF
    except Exception as error:  # noqa: BLE001 - logged; the program runs on without the mesh
        _broken = os.getpid()
        import logging

        logging.getLogger("meshlib").warning(
            "meshlib: calls of this process do not go through the mesh: %s", error
        )
        return OFF


def _configured(config: Config) -> bool:
    """Whether there is anything that a call could meet. A file may have it later."""
    return config.configured or bool(config.file) or config.unknown_hosts != "direct"


def _patcher(module: str) -> Callable[[ModuleType], None]:
    def patch(library: ModuleType) -> None:
        import_module(module).patch(library)

    return patch
