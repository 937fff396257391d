"""`meshlib watch`: the Status, live. Ends on Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.live import Live

from meshlib.cli.common import FINE, console, emit, opened
from meshlib.cli.dump import ask_for
from meshlib.cli.render import status_view

if TYPE_CHECKING:
    from rich.console import Console

    from meshlib.mesh import Mesh

__all__ = ["watch"]

#: Seconds between looks at what changes without telling.
PERIOD = 0.5

#: Lines of a terminal that are not endpoints.
_FRAME = 16


def watch(names: Sequence[str], *, config: Path | None, as_json: bool) -> int:
    """The command. With ``as_json`` one line a change, and the first at once."""
    try:
        with opened(config) as mesh:
            changed = threading.Event()
            cancel = mesh._runtime().store.on_change(changed.set)
            try:
                screen = console()
                if as_json:
                    _lines(mesh, names, changed)
                elif screen.is_terminal:
                    _live(mesh, names, changed, screen)
                else:
                    _pages(mesh, names, changed, screen)
            finally:
                cancel()
    except KeyboardInterrupt:
        return FINE
    return FINE


def _lines(mesh: Mesh, names: Sequence[str], changed: threading.Event) -> None:
    shown: object = None
    while True:
        status = _status(mesh, names)
        if _facts(status) != shown:
            shown = _facts(status)
            emit(status, line=True)
        _pause(changed)


def _pages(mesh: Mesh, names: Sequence[str], changed: threading.Event, screen: Console) -> None:
    """Without a terminal nothing can be drawn over: each change is written anew."""
    shown: object = None
    while True:
        status = _status(mesh, names)
        if _facts(status) != shown:
            shown = _facts(status)
            screen.print(status_view(status))
            screen.file.flush()
        _pause(changed)


def _live(mesh: Mesh, names: Sequence[str], changed: threading.Event, screen: Console) -> None:
    def view() -> Any:
        return status_view(_status(mesh, names), rows=max(3, screen.height - _FRAME))

    live = Live(view(), console=screen, screen=True, auto_refresh=False)
    try:
        # Not `with`: an interrupt while it starts would leave the terminal as it is then.
        live.start()
        while True:
            live.update(view(), refresh=True)
            _pause(changed)
    finally:
        live.stop()


def _status(mesh: Mesh, names: Sequence[str]) -> dict[str, Any]:
    ask_for(mesh, names)  # again and again: a name that is not used is given up after a while
    return mesh.status().to_dict()


def _facts(status: dict[str, Any]) -> object:
    """What counts as a change: not that time passes."""
    sources = [{**source, "since": 0.0} for source in status["sources"]]
    return {**status, "sources": sources}


def _pause(changed: threading.Event) -> None:
    changed.wait(PERIOD)
    changed.clear()
