"""`meshlib check FILE`: every problem of a configuration with its place, and every setting that is not honoured."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from meshlib.cli.common import FINDING, FINE, console, emit, working
from meshlib.cli.render import marked
from meshlib.errors import ConfigError
from meshlib.model.status import Ignored

if TYPE_CHECKING:
    from meshlib.config import Config

__all__ = ["Report", "check", "inspect"]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. ``kind``: ``"meshlib"`` or ``"envoy"``. Problems keep a mesh from starting, or a part of it from
    working; warnings are allowed and can hardly be meant; ignored is what a mesh would not do.
    """

    file: str
    kind: str
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    ignored: tuple[Ignored, ...] = ()

    @property
    def fine(self) -> bool:
        return not (self.problems or self.warnings)

    def to_dict(self) -> dict[str, object]:
        return {
            "file": self.file,
            "kind": self.kind,
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            "ignored": [item.to_dict() for item in self.ignored],
        }


def check(path: Path, *, as_json: bool) -> int:
    """The command. Contacts nobody."""
    with working(f"reading {path} …"):
        report = inspect(path)
    if as_json:
        emit(report.to_dict())
    else:
        _show(report)
    return FINE if report.fine else FINDING


def inspect(path: Path) -> Report:
    """Look at a file by itself, without the environment."""
    from meshlib.config.files import is_envoy_shape, read

    name = os.fspath(path)
    try:
        raw = read(name)
    except ConfigError as problem:
        return Report(name, "meshlib", problems=problem.problems)
    if is_envoy_shape(raw):
        problems, ignored = _envoy(name, raw)
        return Report(name, "envoy", problems=problems, ignored=ignored)
    return _own(name)


def _envoy(name: str, raw: object) -> tuple[tuple[str, ...], tuple[Ignored, ...]]:
    from meshlib.xds.envoy_file import read as understand

    found = understand(raw)
    return tuple(f"{name}: {problem}" for problem in found.problems), found.ignored


def _own(name: str) -> Report:
    from meshlib.config import doubts, load, unsupported

    try:
        config = load(name)
    except ConfigError as problem:
        return Report(name, "meshlib", problems=problem.problems)
    problems, ignored = list(unsupported(config)), list[Ignored]()
    for step in (_services, _services_file, _bootstrap, _tls):
        for item in step(config):
            problems.append(item) if isinstance(item, str) else ignored.append(item)
    return Report(name, "meshlib", tuple(problems), doubts(config), tuple(ignored))


def _services(config: Config) -> Iterator[str | Ignored]:
    """What only shows when services are made of the values."""
    from meshlib.sources.static import build

    try:
        build(config.services)
    except ConfigError as problem:
        yield from problem.problems


def _services_file(config: Config) -> Iterator[str | Ignored]:
    from meshlib.config.files import read

    if config.services_file is None:
        return
    try:
        problems, ignored = _envoy(config.services_file, read(config.services_file))
    except ConfigError as problem:
        problems, ignored = tuple(f"services_file: {line}" for line in problem.problems), ()
    yield from problems
    yield from ignored


def _bootstrap(config: Config) -> Iterator[str | Ignored]:
    """The gRPC bootstrap that the file names."""
    from meshlib.config import bootstrap_text
    from meshlib.xds.bootstrap import bootstrap_of

    if not config.xds.configured or config.xds.path is not None:
        return
    try:
        text, origin = bootstrap_text(config)
        found = bootstrap_of(config, text, origin, socket.gethostname())
    except ConfigError as problem:
        yield from problem.problems
        return
    for path in found.skipped:
        yield Ignored("", "bootstrap", path, "")


def _tls(config: Config) -> Iterator[str | Ignored]:
    """Files that are only opened once the control plane is called."""
    tls = config.xds.tls
    for key in ("ca", "cert", "key") if tls is not None else ():
        path = getattr(tls, key)
        if path is not None and not os.access(path, os.R_OK):
            yield f"{config.source_of(f'xds.tls.{key}')}: xds.tls.{key}: {path} cannot be read"


def _show(report: Report) -> None:
    screen = console()
    for line in report.problems:
        screen.print(marked("✗", "bold red", line))
    for line in report.warnings:
        screen.print(marked("!", "bold yellow", line))
    for item in report.ignored:
        where = f"{item.type} {item.resource}: " if item.resource else f"{item.type}: "
        value = f" = {item.value}" if item.value else ""
        screen.print(marked("-", "yellow", f"{where}{item.field}{value} is not honoured"))
    screen.print(_verdict(report))


def _verdict(report: Report) -> Text:
    what = "a file in Envoy's shape" if report.kind == "envoy" else "a configuration of meshlib"
    counts = [
        f"{len(items)} {word}{'s' if len(items) != 1 else ''}"
        for items, word in (
            (report.problems, "problem"),
            (report.warnings, "warning"),
            (report.ignored, "ignored setting"),
        )
        if items
    ]
    if report.fine:
        rest = f" ({counts[0]})" if counts else ""
        return marked("✓", "bold green", f"{report.file}: {what}, fine{rest}")
    return marked("✗", "bold red", f"{report.file}: {what}: {', '.join(counts)}")
