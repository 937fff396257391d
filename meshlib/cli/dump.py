"""`meshlib dump [PID]`: the Status once, of a mesh made here or of a running process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group

from meshlib.cli.common import FINE, USAGE, Stop, console, emit, opened, settle, working
from meshlib.cli.processes import mention_others, places, read
from meshlib.cli.render import status_view

__all__ = ["dump"]


def dump(
    pid: int | None,
    names: Sequence[str],
    *,
    config: Path | None,
    seconds: float,
    snapshot: bool,
    which: int,
    as_json: bool,
) -> int:
    """The command. ``which`` of a process's meshes, from 1; ``snapshot``: the configuration in force, as JSON. Of a master
    what its workers say, as a list.
    """
    many = False
    if pid is None:
        found = [_own(names, config, seconds, snapshot=snapshot)]
    else:
        where = places(config)
        with working(f"asking process {pid} …"):
            answers, many = read(pid, "snapshot" if snapshot else "status", where, which)
        found = [answer for _, answer in answers]
        mention_others(pid, where, which)
    if as_json or snapshot:
        emit(found if many else found[0])
    else:
        console().print(Group(*(status_view(status) for status in found)))
    return FINE


def _own(names: Sequence[str], config: Path | None, seconds: float, *, snapshot: bool) -> dict[str, Any]:
    with opened(config) as mesh:
        with working("asking …"):
            ask_for(mesh, names)
            settle(mesh, seconds)
        return mesh.snapshot().to_dict() if snapshot else mesh.status().to_dict()


def ask_for(mesh: Any, names: Sequence[str]) -> None:
    """Ask for names that no wildcard brings. Raises Stop."""
    from meshlib.runtime.ready import parse

    for name in names:
        try:
            parse(name)
            mesh.explain("GET", f"http://{name}/")
        except ValueError as problem:
            raise Stop(USAGE, [str(problem)]) from None
