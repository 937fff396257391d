"""``requests.sessions``, with the mesh's ``Session``."""

from __future__ import annotations

from requests import sessions as _sessions
from requests.sessions import *  # noqa: F403 - its names are ours

from meshlib_requests.session import Session, session

__all__ = ["Session", "session"]


def __getattr__(name: str) -> object:
    return getattr(_sessions, name)
