"""A server that is a process: `python -m` its module."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from typing import Any

__all__ = ["serve_alone"]


def serve_alone(module: str, kind: Any) -> int:
    """Runs one server of `kind` until its standard input ends (`--follow-stdin`) or it is interrupted. Its address is the first
    line of standard output.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description="Runs one server until its standard input ends (--follow-stdin) or it is interrupted.",
    )
    parser.add_argument("--name", default="upstream")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--follow-stdin", action="store_true", help="end when standard input does")
    chosen = parser.parse_args()
    with kind(chosen.name, port=chosen.port) as server, contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write(f"{server.address}\n")
        sys.stdout.flush()
        if chosen.follow_stdin:
            sys.stdin.read()
        else:
            threading.Event().wait()
    return 0
