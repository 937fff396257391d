"""`meshlib dump [PID]`: the Status once, of a mesh made here or of a running process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meshlib.cli.common import FINDING, FINE, USAGE, Stop, complain, console, emit, opened, settle, working
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
    """The command. ``which`` of a process's meshes, from 1; ``snapshot``: the configuration in force, as JSON."""
    if pid is None:
        found = _own(names, config, seconds, snapshot=snapshot)
    else:
        found = _other(pid, config, which, "snapshot" if snapshot else "status")
    if as_json or snapshot:
        emit(found)
    else:
        console().print(status_view(found))
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


def _other(pid: int, config: Path | None, which: int, what: str) -> dict[str, Any]:
    from meshlib.config import resolve
    from meshlib.errors import ConfigError
    from meshlib.observe.admin import directories
    from meshlib.observe.peer import NotReadable, ask

    try:
        configured = resolve(config).admin.runtime_dir
    except ConfigError as problem:
        raise Stop(FINDING, problem.problems) from None
    places = (*directories(configured), *directories(None)) if configured else directories(None)
    try:
        with working(f"asking process {pid} …"):
            meshes = ask(pid, what, places)
    except NotReadable as problem:
        raise Stop(FINDING, [str(problem)]) from None
    if not meshes:
        raise Stop(FINDING, [f"process {pid} has closed its mesh"])
    if not 1 <= which <= len(meshes):
        raise Stop(USAGE, [f"--mesh {which}: process {pid} has {len(meshes)}"])
    if len(meshes) > 1:
        complain([f"process {pid} has {len(meshes)} meshes; this is --mesh {which}"])
    return meshes[which - 1]
