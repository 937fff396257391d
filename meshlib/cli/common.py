"""What the commands share: exit codes, consoles, a mesh and the wait for it."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from meshlib.errors import ConfigError, NotReady

if TYPE_CHECKING:
    from meshlib.mesh import Mesh
    from meshlib.model.status import SourceStatus

__all__ = [
    "FINDING",
    "FINE",
    "USAGE",
    "Stop",
    "complain",
    "console",
    "emit",
    "errors",
    "hush",
    "opened",
    "remark",
    "settle",
    "working",
]

#: The contract's exit codes.
FINE, FINDING, USAGE = 0, 1, 2

#: Columns where the output is no terminal: nothing is wrapped, so that a line can be searched for.
_WIDE = 10_000

#: Seconds between looks at what tells nobody of its changes.
_GLANCE = 0.1


class Stop(Exception):
    """Ends a command with ``code``; ``lines`` say why."""

    def __init__(self, code: int, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.code = code
        self.lines = tuple(lines)


def console() -> Console:
    """Standard output."""
    return _console(stderr=False)


def errors() -> Console:
    """Standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    return Console(file=stream, width=None if terminal else _WIDE, highlight=False, markup=False, emoji=False)


def emit(value: object, *, line: bool = False) -> None:
    """``value`` as JSON on standard output, at once; ``line``: on one line."""
    text = json.dumps(value, indent=None if line else 2)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(lines: Sequence[str]) -> None:
    """Say what is wrong on standard error."""
    _say("✗", "bold red", lines)


def remark(lines: Sequence[str]) -> None:
    """Say what is odd, and no error, on standard error."""
    _say("!", "yellow", lines)


def _say(mark: str, style: str, lines: Sequence[str]) -> None:
    from meshlib.cli.render import marked

    screen = errors()
    for line in lines:
        screen.print(marked(mark, style, line))


def hush() -> None:
    """What meshlib logs is not printed for want of a handler: a command says it in its own way."""
    logging.getLogger("meshlib").addHandler(logging.NullHandler())


@contextmanager
def opened(config: Path | None) -> Iterator[Mesh]:
    """A mesh of this process, from ``config`` or the environment, and what it reads at its start read. Raises Stop."""
    from meshlib.config import strangers
    from meshlib.mesh import Mesh

    hush()  # what would be logged is in the status; on a screen that is being drawn it would only disturb
    remark(strangers())
    try:
        mesh = Mesh(config)
        try:
            mesh._only_look()
            yield mesh
        finally:
            mesh.close()
    except ConfigError as problem:
        raise Stop(FINDING, problem.problems) from None


@contextmanager
def working(words: str) -> Iterator[None]:
    """Show that something takes its time; only on a terminal."""
    screen = errors()
    if not screen.is_terminal:
        yield
        return
    with screen.status(words):
        yield


def settle(mesh: Mesh, seconds: float, ready: Callable[[], bool] = lambda: True) -> None:
    """Wait until every source and the identity have said what they have to say and ``ready()`` holds, at most ``seconds``."""
    until = time.monotonic() + seconds
    changed = threading.Event()
    cancel = mesh._runtime().store.on_change(changed.set)
    try:
        while not (_quiet(mesh.status().sources) and _identified(mesh) and ready()):
            remaining = until - time.monotonic()
            if remaining <= 0:
                return
            changed.wait(min(remaining, _GLANCE))
            changed.clear()
    finally:
        cancel()


def _quiet(sources: Sequence[SourceStatus]) -> bool:
    """Whether nothing is under way. A source that failed has said so."""
    return all(
        source.state in ("failed", "stale") or (source.state == "ready" and not source.waiting)
        for source in sources
        if source.kind not in ("static", "last_good")
    )


def _identified(mesh: Mesh) -> bool:
    """Whether no cluster waits for the process's identity."""
    parts = mesh._runtime().store.snapshot.parts
    return not any(part.lacking.get(name) == "" for part in parts for name in part.identified)


def lacking(mesh: Mesh, name: str, seconds: float) -> str:
    """What ``name`` still lacks before it can be called, after at most ``seconds``; ``""`` if nothing."""
    try:
        mesh.wait_ready(name, timeout=max(0.0, seconds))
    except NotReady as missing:
        return str(missing)
    except ValueError as problem:
        return str(problem)
    return ""
