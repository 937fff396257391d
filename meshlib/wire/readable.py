"""Whether a socket has something to read now, without waiting and without letting anybody else run.

A pool asks while it holds its lock, about a connection that is in nobody's hands at that moment. Under gevent's monkey patching
``select.poll().poll(0)`` is a visit to the hub: other greenlets run, and a kill or a ``gevent.Timeout`` may come out of it,
which would lose the connection and all that is counted of it. The system's own ``poll`` waits for nothing there, so it is
asked instead of gevent's.
"""

from __future__ import annotations

import importlib
import select
import sys
from typing import Any

__all__ = ["new_poll", "readable", "waiting_poll"]


def new_poll() -> Any:
    """A ``poll`` object of the system's, also where gevent has put its own in the place; None where there is none."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("select"):
        return monkey.get_original("select", "poll")()
    return select.poll() if hasattr(select, "poll") else None


def waiting_poll() -> Any:
    """A ``poll`` object to wait with: gevent's where it has replaced sockets, so that only the greenlet waits; else the
    system's. None where there is none.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("socket"):
        return importlib.import_module("gevent.select").poll()
    return new_poll()


def readable(descriptor: int) -> bool:
    """Whether a read of ``descriptor`` would return at once. One that is closed (-1, or not open any more) is readable."""
    if descriptor < 0:
        return True
    poll = new_poll()
    if poll is None:
        return bool(select.select([descriptor], [], [], 0)[0])
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))  # a descriptor that was closed meanwhile is reported as well (POLLNVAL)
