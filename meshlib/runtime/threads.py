"""How a thread of ours starts, how it lets others run, and when it is gone.

It starts deaf to the application's signals.

The kernel gives a signal that was sent to a process to any thread that does not block it, and a thread that is just
starting often comes first. CPython does not mind: its own handler only leaves a note for the main thread. A host that
embeds Python does: uWSGI's handler ends the process where it runs, and there Python's end waits for the main thread, for
ever. So our threads block what is sent to a process; what they start in turn (grpc's threads) inherits that.

One that computes for long must let go of the interpreter by itself. CPython takes it away after 5 ms only
(``sys.getswitchinterval``), and a thread that makes calls asks for it again after every wait for a socket: each of its calls
would pay that several times.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from meshlib.runtime.greenlets import patched

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

__all__ = ["DEAF_TO", "GiveWay", "join", "start"]

#: Seconds for which a thread computes before others may run, and for how long it lets them: docs/decisions/0019.
SLICE = 0.000_5
PAUSE = 0.000_05
#: The first slice of some work: what is short ends in it, and long work costs a call no more than that once. CPython's own is 5 ms.
FIRST = 0.004
#: Seconds after the end of a slice from which on a step is the first of other work: that begins without a pause.
_IDLE = 0.02

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


class GiveWay:
    """Called again and again by long work, at steps of some ten microseconds: pauses whenever a slice of it is over.

    One per thread. Under gevent other greenlets run in the pause.
    """

    __slots__ = ("_now", "_sleep", "_until")

    def __init__(
        self, now: Callable[[], float] = time.perf_counter, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._until = 0.0

    def __call__(self) -> None:
        now = self._now()
        if now < self._until:
            return
        if now - self._until >= _IDLE:
            self._until = now + FIRST
            return
        self._sleep(PAUSE)
        self._until = self._now() + SLICE


def join(thread: threading.Thread, timeout: float) -> bool:
    """Wait for the end of a thread of ours, at most ``timeout`` seconds; whether it came.

    Before 3.13 Python's own ``join`` returns when the thread is done with Python, a moment before the kernel is done with it;
    a fork in between counts it, and 3.12 warns of that.
    """
    until = time.monotonic() + timeout
    thread.join(timeout)
    if thread.is_alive():
        return False
    if sys.version_info < (3, 13) and not patched("threading"):
        there = Path(f"/proc/self/task/{thread.native_id}")
        while there.exists() and time.monotonic() < until:
            time.sleep(0.0001)
    return True
