"""`meshlib adoption [PID]`: what services that have not joined would get in the mesh, and whether it is safe to go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from meshlib.cli.common import FINDING, FINE, Stop, console, emit, working
from meshlib.cli.processes import PATIENCE, places, read
from meshlib.cli.render import clean, new_table, said
from meshlib.core.adoption import is_safe
from meshlib.observe.peer import NotReadable, look, present

__all__ = ["adoption"]

#: Examples that are shown of one kind of difference.
_EXAMPLES = 3


def adoption(pid: int | None, *, config: Path | None, as_json: bool) -> int:
    """The command. Without ``pid``: the sum over all processes of this user that have this configuration. Raises Stop."""
    where = places(config)
    with working("asking …"):
        if pid is None:
            told = list(_of_configuration(config, where))
        else:
            told = [status["adoption"] for _, status in read(pid, "status", where, 1)[0]]
    rows = _summed(told)
    if as_json:
        emit({"services": rows})
    else:
        console().print(_view(rows, told))
    waiting = [row for row in rows if row["mode"] not in ("off", "on")]
    return FINE if all(row["safe"] for row in waiting) else FINDING


def _of_configuration(config: Path | None, where: Sequence[Path]) -> Iterator[Mapping[str, Any]]:
    from meshlib.config import resolve
    from meshlib.errors import ConfigError
    from meshlib.runtime.adoption import adoption_status

    try:
        mine = adoption_status(resolve(config), None, off=False)
    except ConfigError as problem:
        raise Stop(FINDING, problem.problems) from None
    yield mine  # services of which nobody has seen anything
    found = 0
    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(lambda pid: _asked(pid, where), present(where)):
            of_it = [told for told in answers if told.get("file") == mine["file"]]
            found += bool(of_it)
            yield from of_it
    if not found:
        whose = mine["file"] or "of the environment"
        needs = "a call, and a service that is observed or joined in part, or [admin] enabled = true"
        raise Stop(
            FINDING, [f"no running process that can be asked has the configuration {whose}: it needs {needs}"]
        )


def _asked(pid: int, where: Sequence[Path]) -> list[Mapping[str, Any]]:
    try:
        return [mesh["adoption"] for mesh in look(pid, "status", where, PATIENCE)["meshes"]]
    except (NotReadable, KeyError):
        return []  # it has just ended, or is of another version


def _summed(told: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a service, by name."""
    services: dict[str, dict[str, Any]] = {}
    for process in told:
        for name, seen in process["services"].items():
            row = services.setdefault(
                name,
                {"service": name, "mode": "", "calls": 0, "same": 0, "different": Counter(), "examples": []},
            )
            row["mode"] = seen["mode"]
            row["calls"] += seen["calls"]
            row["same"] += seen["same"]
            row["different"].update(seen["different"])
            row["examples"] += [one for one in seen["examples"] if _wanted(one, row["examples"])]
    for row in services.values():
        row["different"] = dict(sorted(row["different"].items()))
        row["safe"] = row["mode"] == "on" or is_safe(row["calls"], row["different"])
    return [services[name] for name in sorted(services)]


def _wanted(example: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]) -> bool:
    return sum(1 for other in kept if other["reason"] == example["reason"]) < _EXAMPLES


# --- for people -------------------------------------------------------------------------------------------------------


def _view(rows: Sequence[Mapping[str, Any]], told: Sequence[Mapping[str, Any]]) -> RenderableType:
    if not rows:
        return Text("no service is named by [adoption], and no call was compared")
    shown = new_table("adoption", "service", "mode", ("calls", "right"), ("same", "right"), "different", "")
    parts: list[RenderableType] = [shown]
    for row in rows:
        different = ", ".join(f"{clean(reason)} {count}" for reason, count in row["different"].items())
        counts = (str(row["calls"]), str(row["same"]))
        shown.add_row(said(row["service"]), said(row["mode"]), *counts, different, _verdict(row))
        for one in row["examples"]:
            line = f"{row['service']}: {one['reason']}: {one['method']} {one['url']}"
            went = f" went to {one['went']}" if one["went"] else ""
            parts.append(said(f"  {line}{went}; in the mesh: {one['mesh']}", "dim"))
    if any(process.get("switched_off") for process in told):
        parts.append(Text("the kill switch is on, or MESHLIB_DISABLED: every call is plain", "yellow"))
    return Group(*parts)


def _verdict(row: Mapping[str, Any]) -> Text:
    if row["mode"] in ("off", "on"):
        return Text("")
    if row["safe"]:
        return Text("safe to go on", "green")
    return Text(
        "not safe to go on" if row["calls"] else "nothing was seen yet",
        "bold red" if row["calls"] else "yellow",
    )
