"""How a file is opened by who must not wait: a pipe waits for whoever writes into it, for good if nobody does."""

from __future__ import annotations

import os
import stat

__all__ = ["regular"]


def regular(path: str, flags: int) -> int:
    """The ``opener`` of ``open`` for a file, or a link to one, and nothing else. Raises OSError, at once, for what is there and is none."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no file")
    return descriptor
