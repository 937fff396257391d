"""`meshlib watch [PID]`: the Status, live. Ends on Ctrl-C, and when all processes that it watches have ended.

Without a PID there is nothing to look into: it makes a mesh of its own from the configuration, in this process, which sees
what the sources say and makes no calls. It says so, since its counts are never those of a program.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live

from meshlib.cli.common import FINDING, FINE, USAGE, Stop, console, emit, opened, remark
from meshlib.cli.dump import ask_for
from meshlib.cli.processes import places, read
from meshlib.cli.render import marked, status_view

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from meshlib.mesh import Mesh

__all__ = ["watch"]

#: Seconds between looks at what changes without telling.
PERIOD = 0.5

#: Lines of a terminal that are not endpoints.
_FRAME = 16

Look = Callable[[], list[dict[str, Any]]]


def watch(pid: int | None, names: Sequence[str], *, config: Path | None, which: int, as_json: bool) -> int:
    """The command. With ``as_json`` one line a change, and the first at once."""
    try:
        if pid is None:
            _own(names, config, as_json=as_json)
        else:
            _other(pid, names, config, which, as_json=as_json)
    except KeyboardInterrupt:
        return FINE
    return FINE


def _own(names: Sequence[str], config: Path | None, *, as_json: bool) -> None:
    with opened(config) as mesh:
        changed = threading.Event()
        cancel = mesh._runtime().store.on_change(changed.set)
        try:
            note = _note(mesh, config)
            _show(lambda: [_status(mesh, names)], changed, as_json=as_json, note=note)
        finally:
            cancel()


def _other(pid: int, names: Sequence[str], config: Path | None, which: int, *, as_json: bool) -> None:
    if names:
        raise Stop(
            USAGE, ["watch: --name is for a mesh of this command's own; a process asks for what it uses"]
        )
    where = places(config)
    read(pid, "process", where, which)  # raises Stop where it cannot be read at all

    def look() -> list[dict[str, Any]]:
        return [answer for _, answer in read(pid, "status", where, which)[0]]

    try:
        _show(look, threading.Event(), as_json=as_json, note="")
    except Stop as gone:
        raise Stop(FINDING, [f"nothing is left to watch: {line}" for line in gone.lines]) from None


def _note(mesh: Mesh, config: Path | None) -> str:
    file = config or mesh.config.file
    made = f"made from {file}" if file else "made from the environment"
    return f"this is a mesh of its own, {made}; it makes no calls. To watch a running process: meshlib watch PID (meshlib ps)"


def _show(look: Look, changed: threading.Event, *, as_json: bool, note: str) -> None:
    screen = console()
    if as_json or not screen.is_terminal:
        remark([note] if note else [])
        _lines(look, changed, _emit if as_json else _printer(screen))
    else:
        _live(look, changed, screen, note)


def _lines(look: Look, changed: threading.Event, say: Callable[[dict[str, Any]], None]) -> None:
    """Where nothing can be drawn over each change is written anew, of each process by itself."""
    shown: dict[object, object] = {}
    while True:
        for status in look():
            pid, facts = status["process"]["pid"], _facts(status)
            if shown.get(pid) != facts:
                shown[pid] = facts
                say(status)
        _pause(changed)


def _emit(status: dict[str, Any]) -> None:
    """A status on a line of its own."""
    emit(status, line=True)


def _printer(screen: Console) -> Callable[[dict[str, Any]], None]:
    def say(status: dict[str, Any]) -> None:
        screen.print(status_view(status))
        screen.file.flush()

    return say


def _live(look: Look, changed: threading.Event, screen: Console, note: str) -> None:
    def view() -> RenderableType:
        statuses = look()
        rows = max(3, screen.height // len(statuses) - _FRAME)
        head = [marked("!", "yellow", note)] if note else []
        return Group(*head, *(status_view(status, rows=rows) for status in statuses))

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
    clusters = {name: _cluster_facts(cluster) for name, cluster in status["clusters"].items()}
    identity = [{**one, "expires_in": None} for one in status["identity"]]
    return {**status, "sources": sources, "clusters": clusters, "identity": identity}


def _cluster_facts(cluster: dict[str, Any]) -> object:
    return {
        **cluster,
        "endpoints": [{**each, "ejected_for": None, "checks": 0} for each in cluster["endpoints"]],
    }


def _pause(changed: threading.Event) -> None:
    changed.wait(PERIOD)
    changed.clear()
