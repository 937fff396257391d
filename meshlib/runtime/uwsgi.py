"""What is other under uWSGI: whether Python's threads run, and forks that Python does not hear of.

Its master loads the application and forks the workers in C, without Python's hooks (unless ``py-call-uwsgi-fork-hooks``
is set), and again whenever a worker died. grpc's core does not survive that with a stream open: the child crashes, or
freezes as a whole when it makes its own channel. So ``on_fork`` asks the C library to call back, which it does for every
fork there is. The callback takes the GIL like any call from C; uWSGI forks from its main thread, which has it or can.

Nothing is asked of the C library elsewhere: other programs fork by way of Python. Needs ``__register_atfork`` (glibc);
without it a fork with a stream open stays what grpc makes of it.
"""

from __future__ import annotations

import atexit
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NO_THREADS", "on_fork", "present", "threadless", "warn_threadless"]

NO_THREADS = (
    "meshlib: uWSGI runs without threads: what a control plane, DNS or a watched file says is read only while a request "
    "is being served, and is late by then. Remedy: enable-threads = true (--enable-threads)"
)

#: From this version on they are switched on always (measured with pyuwsgi: 2.0.26 has them off).
_ALWAYS = (2, 0, 27)
#: Options of uWSGI that switch Python's threads on, alone or by what they imply.
_THREADS = (
    "enable-threads",
    "threads",
    "py-tracebacker",
    "py-auto-reload",
    "py-autoreload",
    "python-auto-reload",
)
#: With these, what runs between requests is a hub's greenlets and not threads.
_HUBS = ("gevent", "gevent-monkey-patch", "asyncio", "greenlet")

_log = logging.getLogger("meshlib")
_warned = False

#: The C library keeps pointers to these: they live as long as the process.
_kept: list[Any] = []


def present() -> bool:
    """Whether this is a process of uWSGI's: only there is its module, and from the start."""
    return hasattr(sys.modules.get("uwsgi"), "opt")


def threadless() -> bool:
    """Whether threads stand still here unless a request is served."""
    module = sys.modules.get("uwsgi")
    options = getattr(module, "opt", None)
    if not isinstance(options, dict) or _version(module) >= _ALWAYS:
        return False
    return not any(_on(options, name) for name in (*_THREADS, *_HUBS))


def warn_threadless() -> None:
    """Say it, once in this process and its children, if it is so."""
    global _warned  # noqa: PLW0603 - once
    if not _warned and threadless():
        _warned = True
        _log.warning(NO_THREADS)


def on_fork(before: Callable[[], None], after_in_parent: Callable[[], None]) -> bool:
    """Call ``before`` and ``after_in_parent`` around every fork of this process, in the thread that forks; whether that
    can be had. They must not raise. What is registered last runs first before a fork and last after it, also with what C
    libraries have registered.
    """
    import ctypes

    libc = ctypes.PyDLL(None)
    if not hasattr(libc, "__register_atfork"):
        return False
    hook = ctypes.CFUNCTYPE(None)
    hooks = hook(before), hook(after_in_parent)
    # Names the registration, so that it can be taken back: an interpreter that is gone must not be called.
    handle = ctypes.create_string_buffer(1)
    _kept.extend((*hooks, handle))
    done: int = libc.__register_atfork(*hooks, None, ctypes.byref(handle))
    atexit.register(libc.__cxa_finalize, ctypes.byref(handle))
    return done == 0


def _version(module: Any) -> tuple[int, ...]:
    """Of ``b"2.0.30"``, or ``b"2.1-dev-…"``; nothing where it cannot be read."""
    raw = getattr(module, "version", b"")
    text = raw.decode("ascii", "replace") if isinstance(raw, bytes) else str(raw)
    parts = text.partition("-")[0].split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _on(options: dict[Any, Any], name: str) -> bool:
    """Values are True or bytes; keys were bytes once."""
    value = options.get(name, options.get(name.encode()))
    return value not in (None, False, b"", b"0", "0", "")
