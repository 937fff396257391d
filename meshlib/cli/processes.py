"""`meshlib ps`, and how the commands that take a PID find and ask processes."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from meshlib.cli.common import FINDING, FINE, USAGE, Stop, complain, console, emit, working
from meshlib.cli.render import processes_view
from meshlib.observe.peer import Gone, NotReadable, asked, command_of, look, present

__all__ = ["Answer", "places", "ps", "read"]

#: Seconds within which a process that is listed must say who it is.
PATIENCE = 2.0

#: Of the states of a process's sources the worst is shown.
_WORST = ("failed", "stale", "connecting", "idle", "ready")

Answer = tuple[int, dict[str, Any]]


def places(config: Path | None) -> tuple[Path, ...]:
    """Where the sockets of processes may be. Raises Stop."""
    from meshlib.config import resolve
    from meshlib.errors import ConfigError
    from meshlib.observe.admin import directories

    try:
        configured = resolve(config).admin.runtime_dir
    except ConfigError as problem:
        raise Stop(FINDING, problem.problems) from None
    return (*directories(configured), *directories(None)) if configured else directories(None)


def read(pid: int, what: str, where: Sequence[Path], which: int) -> tuple[list[Answer], bool]:
    """What ``pid`` and its workers say of the mesh that is number ``which`` in each, and whether there are workers. Raises
    Stop where nobody can be asked, or nobody has such a mesh.
    """
    try:
        answers = asked(pid, what, where)
    except NotReadable as problem:
        raise Stop(FINDING, [str(problem)]) from None
    found = [(each, meshes[which - 1]) for each, meshes in answers if 1 <= which <= len(meshes)]
    if not found:
        most = max(len(meshes) for _, meshes in answers)
        if not most:
            raise Stop(FINDING, [f"process {pid} has closed its mesh"])
        raise Stop(USAGE, [f"--mesh {which}: process {pid} has {most}"])
    return found, [each for each, _ in answers] != [pid]


def mention_others(pid: int, where: Sequence[Path], which: int) -> None:
    """Say that a process has more meshes than the one that is shown."""
    try:
        count = max(len(meshes) for _, meshes in asked(pid, "process", where))
    except NotReadable:
        return  # it has just ended, and what it said is shown
    if count > 1:
        complain([f"process {pid} has {count} meshes; this is --mesh {which}"])


def ps(*, config: Path | None, as_json: bool) -> int:
    """The command."""
    where = places(config)
    with working("asking …"), ThreadPoolExecutor(8) as pool:
        rows = [row for row in pool.map(lambda pid: _row(pid, where), present(where)) if row is not None]
    _name_roles(rows)
    if as_json:
        emit({"processes": rows})
    else:
        console().print(processes_view(rows))
    return FINE


def _row(pid: int, where: Sequence[Path]) -> dict[str, Any] | None:
    """None for a process that is no more."""
    row: dict[str, Any] = {"pid": pid, "parent": 0, "command": "", "role": "", "service": "", "meshes": 0}
    try:
        said = look(pid, "process", where, PATIENCE)
    except Gone:
        return None
    except NotReadable as problem:
        return {**row, "state": "no answer", "problem": str(problem)}
    meshes = said["meshes"]
    services = dict.fromkeys(str(mesh.get("service") or "") for mesh in meshes)
    return {
        **row,
        "parent": int(said.get("parent") or 0),
        "command": shlex.join(map(str, said.get("command") or ())),
        "service": ", ".join(filter(None, services)),
        "meshes": len(meshes),
        "state": _state(meshes),
        "problem": "",
    }


def _state(meshes: Sequence[dict[str, Any]]) -> str:
    if not meshes:
        return "closed"
    states = {state for mesh in meshes for state in mesh.get("sources", {}).values()}
    return next((state for state in _WORST if state in states), "not started")


def _name_roles(rows: Sequence[dict[str, Any]]) -> None:
    """Who forked whom. A master that makes no calls has no socket: then its workers have its command, or one another's."""
    pids = {row["pid"] for row in rows}
    parents = {row["parent"] for row in rows}
    twins = Counter((row["parent"], row["command"]) for row in rows)
    for row in rows:
        if row["pid"] in parents:
            row["role"] = "master"
        elif row["parent"] > 1 and (
            row["parent"] in pids
            or twins[row["parent"], row["command"]] > 1
            or (row["command"] and shlex.join(command_of(row["parent"])) == row["command"])
        ):
            row["role"] = "worker"
