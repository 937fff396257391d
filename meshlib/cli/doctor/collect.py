"""Where the facts come from: a mesh that is made here, or processes that run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, cast

from meshlib import __version__
from meshlib.cli.common import hush, settle
from meshlib.cli.doctor.case import Case
from meshlib.cli.doctor.catalogue import found
from meshlib.cli.doctor.probes import probe
from meshlib.cli.dump import ask_for
from meshlib.cli.findings import Finding
from meshlib.errors import ConfigError
from meshlib.model.status import SidecarStatus
from meshlib.observe.admin import directories
from meshlib.observe.facts import Facts, plain
from meshlib.observe.peer import NotReadable, asked
from meshlib.sidecar.inspect import inspect

if TYPE_CHECKING:
    from meshlib.config import Config, SidecarConfig
    from meshlib.mesh import Mesh

__all__ = ["Subject", "ask_process", "cases_of", "look_here"]

#: Seconds that sources have to say something. A question of DNS takes 4 at most.
SETTLING = 5.0
#: Seconds in which nothing more came: what is sent after a control plane's first word comes by the next.
CALM = 0.3

#: Distributions that make spans of a client's calls, and those whose clients try again.
_TRACERS = (
    *(
        f"opentelemetry-instrumentation-{name}"
        for name in ("aiohttp-client", "grpc", "httpx", "requests", "urllib", "urllib3")
    ),
    "ddtrace",
    "elastic-apm",
    "newrelic",
    "sentry-sdk",
)
_CLIENTS = ("anthropic", "openai")


@dataclass(frozen=True, slots=True)
class Subject:
    """A process, ``pid`` 0 for the calling one, and what is known of each of its meshes; or what keeps that from being known."""

    pid: int
    facts: tuple[Facts, ...] = ()
    problems: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def look_here(names: Sequence[str], config: Path | None, step: Callable[[str], None]) -> Subject:
    """What a program with this configuration and environment would do: a mesh is made, which makes no calls. Raises Stop for
    ``names`` that are none.
    """
    from meshlib.config import Config, resolve

    hush()
    step("reading the configuration …")
    try:
        made = resolve(config)
    except ConfigError as problem:
        nothing = plain(Config())
        nothing["config"]["file"] = str(config or "")
        return Subject(0, (nothing,), problem.problems)
    step("asking the sources …")
    try:
        return Subject(0, (_of_mesh(made, names),))
    except ConfigError as problem:
        return Subject(0, (plain(made),), problem.problems)


def _of_mesh(config: Config, names: Sequence[str]) -> Facts:
    from meshlib.mesh import Mesh

    with Mesh(config) as mesh:
        mesh._only_look()
        ask_for(mesh, names)
        _settled(mesh)
        facts = mesh._facts()
    if facts["status"] is not None:
        facts["status"]["sidecar"] = _sidecar(config.sidecar).to_dict()
    return facts


def _sidecar(settings: SidecarConfig) -> SidecarStatus:
    """What a look shows now. A mesh looks again and again; a program that starts beside it would have to begin with this."""
    seen = inspect(settings)
    ready = seen.sure and bool(seen.ready)
    return SidecarStatus(seen.kind, seen.mode, seen.confidence, seen.evidence, in_use=ready)


def _settled(mesh: Mesh) -> None:
    """Wait until every source has said something, every name has an outcome, and nothing more comes; at most ``SETTLING``."""
    until = time.monotonic() + SETTLING

    def resolved() -> bool:
        clusters = (cluster for part in mesh.snapshot().parts for cluster in part.clusters.values())
        return all(cluster.assignment is not None for cluster in clusters if cluster.dns)

    settle(mesh, SETTLING, resolved)
    told: object = None
    while mesh.config.xds.configured and told != (told := _told(mesh)) and time.monotonic() < until:
        time.sleep(CALM)


def _told(mesh: Mesh) -> object:
    return mesh.snapshot().version, [replace(source, since=0.0) for source in mesh.status().sources]


def ask_process(pid: int, config: Path | None, step: Callable[[str], None]) -> list[Subject]:
    """What ``pid`` and its workers say."""
    from meshlib.config import resolve

    step(f"asking process {pid} …")
    try:
        configured = resolve(config).admin.runtime_dir
    except ConfigError:
        configured = None  # the process has one of its own that is right
    where = (*directories(configured), *directories(None)) if configured else directories(None)
    try:
        answers = asked(pid, "facts", where)
    except NotReadable as problem:
        return [Subject(pid, findings=(found("process-cannot-be-asked", str(problem)),))]
    return [_subject(each, cast("list[Facts]", meshes)) for each, meshes in answers]


def _subject(pid: int, meshes: Sequence[Facts]) -> Subject:
    if not meshes:
        return Subject(
            pid, findings=(found("process-cannot-be-asked", f"process {pid} has closed its mesh"),)
        )
    theirs = {str(mesh.get("process", {}).get("version", "of another kind")) for mesh in meshes}
    if theirs != {__version__}:
        summary = f"process {pid} runs meshlib {', '.join(sorted(theirs))}; this is {__version__}"
        return Subject(pid, findings=(found("another-version", summary),))
    return Subject(pid, tuple(meshes))


def cases_of(subjects: Sequence[Subject], step: Callable[[str], None]) -> list[tuple[Subject, Case]]:
    """Each mesh with what was seen around all of them."""
    step("trying names, ports and files …")
    seen = probe([facts for subject in subjects for facts in subject.facts])
    own = any(not subject.pid for subject in subjects)
    tracers, clients = (_installed(_TRACERS), _installed(_CLIENTS)) if own else ((), ())
    return [
        (subject, Case(facts, seen, not subject.pid, subject.problems, tracers, clients))
        for subject in subjects
        for facts in subject.facts
    ]


def _installed(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if _is_installed(name))


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
