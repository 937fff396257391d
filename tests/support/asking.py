"""Asking again and again for what nobody tells: the state of another program, or of the kernel, that has no event of its own.

Whoever can be told waits for that instead: ``wait_for`` of an Upstream or a ControlPlane, ``tests.support.watch`` for a mesh,
``tests.support.log`` for what a process says. Each use says why nothing tells it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["asked"]

T = TypeVar("T")


def asked(condition: Callable[[], T], seconds: float = 10.0) -> T:
    """What ``condition()`` gives once it is true; what it gave last where that takes longer than ``seconds``."""
    until, pause = time.monotonic() + seconds, threading.Event()
    while not (found := condition()) and time.monotonic() < until:
        pause.wait(0.01)
    return found
