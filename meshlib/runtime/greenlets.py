"""What is other under gevent's monkey patching, where threads are greenlets of one hub.

Forks. The standard library's ``subprocess`` forks in C, without Python's hooks. gevent's does it by ``os.fork``, so that a
mesh is paused for a child which does nothing but become another program. The stack tells: hooks run in the frames of who
forks. Where a ``preexec_fn`` is given the child runs code of the application's, as after any other fork.

Hooks after a fork. gevent watches a child once its ``os.fork`` returns. A hook that visited the hub before (starting a
thread does) could let it reap that child unheard, and who waits for it would wait for ever.

The module ``gevent`` is only looked at where the application has imported it.
"""

from __future__ import annotations

import _thread
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["after_fork", "only_executes", "patched"]

#: Frames from a hook up to gevent's ``Popen._execute_child``: the hook's own, ``fork_and_watch``.
_DEPTH = 6


def patched(module: str) -> bool:
    """Whether gevent has replaced ``module`` of the standard library."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched(module))


def only_executes() -> bool:
    """Whether the fork that is about to happen is gevent's for ``subprocess``. For a hook that runs before it."""
    module = sys.modules.get("gevent.subprocess")
    execute = getattr(getattr(module, "Popen", None), "_execute_child", None)
    code = getattr(execute, "__code__", None)
    frame = None if code is None else sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            return False
        if frame.f_code is code:
            return frame.f_locals.get("preexec_fn") is None
        frame = frame.f_back
    return False


def after_fork(step: Callable[[], None]) -> None:
    """Run ``step`` from a hook in the parent: at once, or under gevent as soon as the hub comes to it. ``step`` must not
    raise.
    """
    if patched("threading"):
        _thread.start_new_thread(step, ())
    else:
        step()
