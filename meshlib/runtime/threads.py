"""How a thread of ours starts: deaf to the application's signals.

The kernel gives a signal that was sent to a process to any thread that does not block it, and a thread that is just
starting often comes first. CPython does not mind: its own handler only leaves a note for the main thread. A host that
embeds Python does: uWSGI's handler ends the process where it runs, and there Python's end waits for the main thread, for
ever. So our threads block what is sent to a process; what they start in turn (grpc's threads) inherits that.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from meshlib.runtime.greenlets import patched

if TYPE_CHECKING:
    import threading

__all__ = ["DEAF_TO", "start"]

#: Raised by the thread's own code, or asked for by a profiler: these must arrive.
_OWN = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGPROF", "SIGVTALRM")

DEAF_TO: frozenset[int] = frozenset(signal.valid_signals()) - {
    getattr(signal, name) for name in _OWN if hasattr(signal, name)
}


def start(thread: threading.Thread) -> None:
    """``thread.start()``, with DEAF_TO blocked in the thread. The caller's own mask is as before when this returns.

    Under gevent a thread is a greenlet of the caller's own thread, and as attentive as it.
    """
    if not hasattr(signal, "pthread_sigmask") or patched("threading"):
        thread.start()
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF_TO)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
