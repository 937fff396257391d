"""`meshlib check FILE`: every problem of a configuration with its place, and every setting that is not honoured."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from meshlib.cli.common import FINDING, FINE, USAGE, Stop, console, emit, hush, working
from meshlib.cli.findings import Finding, of_config, of_part
from meshlib.cli.render import marked, said
from meshlib.errors import ConfigError
from meshlib.model.status import Ignored

if TYPE_CHECKING:
    from meshlib.config import Config
    from meshlib.config.files import Document
    from meshlib.xds.bootstrap import Bootstrap

_Said = str | Ignored | Finding

__all__ = ["Report", "check", "inspect", "inspect_environment"]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. ``kind``: ``"meshlib"`` or ``"envoy"``. Problems keep a mesh from starting, or a part of it from
    working; warnings are allowed and can hardly be meant; ignored is what a mesh would not do; findings are worth knowing.
    """

    file: str
    kind: str
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    findings: tuple[Finding, ...] = ()

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
            "findings": [item.to_dict() for item in self.findings],
        }


def check(path: Path | None, *, as_json: bool) -> int:
    """The command; without a path the environment says. Contacts nobody."""
    with working("reading …"):
        report = inspect_environment() if path is None else inspect(path)
    if as_json:
        emit(report.to_dict())
    else:
        _show(report)
    return FINE if report.fine else FINDING


def inspect_environment() -> Report:
    """Look at what a mesh without arguments would take: the file that MESHLIB_CONFIG names, the variables over it.
    Raises Stop where there is nothing to look at.
    """
    from meshlib.config import Config, strangers

    hush()
    file = os.environ.get("MESHLIB_CONFIG", "")
    report = inspect(Path(file)) if file else Report("", "meshlib")
    if report.kind == "meshlib":
        report = _own(file or "the environment", Config.from_env)
    report = replace(report, warnings=(*report.warnings, *strangers()))
    if report.fine and not (file or Config.from_env().configured):
        raise Stop(USAGE, ["check: a FILE is needed, or a configuration in the environment (MESHLIB_CONFIG)"])
    return report


def inspect(path: Path) -> Report:
    """Look at a file by itself, without the environment."""
    from meshlib.config.files import read

    name = os.fspath(path)
    try:
        file = read(name)
    except ConfigError as problem:
        return Report(name, "meshlib", problems=problem.problems)
    if file.envoy:
        return _report(name, "envoy", _envoy(file))
    from meshlib.config import load

    return _own(name, lambda: load(name), file)


def _report(name: str, kind: str, said: Iterable[_Said], warnings: tuple[str, ...] = ()) -> Report:
    """What was ``said``, each where it belongs; a problem is text."""
    items = list(said)
    return Report(
        name,
        kind,
        tuple(item for item in items if isinstance(item, str)),
        warnings,
        tuple(item for item in items if isinstance(item, Ignored)),
        tuple(item for item in items if isinstance(item, Finding)),
    )


def _envoy(file: Document) -> Iterator[_Said]:
    from meshlib.xds.envoy_file import read as understand

    found = understand(file.value)
    yield from file.told(found.problems)
    yield from found.ignored
    yield from of_part(found.part)


def _own(name: str, read: Callable[[], Config], file: Document | None = None) -> Report:
    from meshlib.config import doubts

    try:
        config = read()
    except ConfigError as problem:
        return Report(name, "meshlib", problems=problem.problems)
    steps = (_services, _services_file, _bootstrap, _directory, _files, of_config)
    said = [item for step in steps for item in step(config)]
    return _report(name, "meshlib", said, doubts(config, file))


def _services(config: Config) -> Iterator[_Said]:
    """What only shows when services are made of the values."""
    from meshlib.sources.static import build

    try:
        build(config.services)
    except ConfigError as problem:
        yield from problem.problems


def _services_file(config: Config) -> Iterator[_Said]:
    from meshlib.config.files import read

    if config.services_file is None:
        return
    try:
        yield from _envoy(read(config.services_file, envoy=True))
    except ConfigError as problem:
        yield from (f"services_file: {line}" for line in problem.problems)


def _bootstrap(config: Config) -> Iterator[_Said]:
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
    yield from _providers(found, origin)


def _providers(bootstrap: Bootstrap, origin: str) -> Iterator[_Said]:
    """Instances that are only made once a cluster names them."""
    from meshlib.sources.identity_files import WatchedFiles

    for name, told in bootstrap.providers.items():
        place = f"certificate_providers[{json.dumps(name)}]"
        if told.plugin != "file_watcher":
            yield Ignored("", "bootstrap", f"{place}.plugin_name", told.plugin)
            continue
        try:
            WatchedFiles.of_bootstrap(told.config)
        except ValueError as problem:
            yield f"{origin}: {place}.config: {problem}"


def _directory(config: Config) -> Iterator[_Said]:
    """The files of the control plane that is a directory, each resource by itself."""
    from meshlib.sources.files import contents
    from meshlib.xds.decode import types

    if config.xds.path is None:
        return
    kinds = {kind.url: kind for kind in types(config.xds.asked_view)}
    try:
        for path, content in contents(config.xds.path):
            yield from content.ignored
            for name, resource in content.resources:
                kind = kinds.get(resource.type_url)
                if kind is None:
                    continue
                found = kind.decode(resource.value)
                yield from (f"xds.path: {path}: {kind.short} {name}: {problem}" for problem in found.problems)
                yield from (Ignored(name, kind.short, field, value) for field, value in found.ignored)
    except ConfigError as problem:
        yield from (f"xds.path: {line}" for line in problem.problems)


def _files(config: Config) -> Iterator[_Said]:
    """Files of certificates, keys and tokens, which are only opened once somebody is called: its own, and the bootstrap's."""
    from meshlib.observe.facts import of_config as facts_of

    told: set[str] = set()
    for file in facts_of(config)["files"]:
        path, opened = file["path"], file["use"] in ("ca", "certificate", "key", "token")
        if opened and path not in told and not os.access(path, os.R_OK):
            told.add(path)
            yield f"{_origin(config, file['key'])}: {file['key']}: {path} cannot be read"


def _origin(config: Config, key: str) -> str:
    try:
        return config.source_of(key)
    except KeyError:
        return config.xds.bootstrap or config.source_of("xds.bootstrap_config")


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
    for finding in report.findings:
        screen.print(marked("i", "cyan", finding.summary))
        screen.print(said(f"    {', '.join(finding.evidence)}", "dim"))
        screen.print(said(f"    if that is not meant: {finding.remedy}", "dim"))
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
