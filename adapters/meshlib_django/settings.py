"""``settings.MESHLIB`` as a configuration, and the process's mesh made from it."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from meshlib.config import Config, from_settings
from meshlib.mesh import Mesh, configure

__all__ = ["changed", "config", "register"]

_ORIGIN = "settings.MESHLIB"


def config() -> Config:
    """What the settings say; the environment is not in it. Raises ConfigError."""
    said = getattr(settings, "MESHLIB", None)
    return from_settings({} if said is None else said, _ORIGIN)


def register() -> None:
    """From now on ``meshlib.default()`` is made from the settings, when it is first used."""
    configure(lambda: Mesh(config()))


def changed(*, setting: str, **_: Any) -> None:
    """Settings that a test overrides hold at once: the mesh that was made from the others is closed."""
    if setting == "MESHLIB":
        before = configure(lambda: Mesh(config()))
        if before is not None:
            before.close()
