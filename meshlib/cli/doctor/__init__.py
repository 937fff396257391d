"""`meshlib doctor [PID]`: what a process would do and why, what is wrong with it, and what to do about that.

    collect: facts of a mesh made here, or of running processes ──► probes: names, ports, clocks, files
        ──► checks, pure: a case in, findings out ──► one list, the worst first

The whole takes some ten seconds at most (``collect.SETTLING`` and ``probes.SECONDS``), however much does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.text import Text

from meshlib.cli.common import FINDING, FINE, USAGE, Stop, console, emit, errors
from meshlib.cli.doctor import network, process, settings, trust
from meshlib.cli.doctor.case import Case, Check
from meshlib.cli.doctor.catalogue import ERROR, INFO, WARNING
from meshlib.cli.doctor.collect import Subject, ask_process, cases_of, look_here
from meshlib.cli.findings import Finding
from meshlib.cli.render import marked, said

__all__ = ["CHECKS", "diagnose", "doctor"]

CHECKS: tuple[Check, ...] = (
    settings.configuration,
    settings.joining,
    settings.variables,
    settings.extras,
    network.control_plane,
    network.sources,
    network.refused,
    network.resolution,
    network.endpoints,
    network.listeners,
    network.services,
    network.proxies,
    network.clocks,
    settings.files,
    settings.certificates,
    trust.identity,
    trust.demands,
    process.admin_socket,
    process.forks,
    process.greenlets,
    process.tracers,
    process.retries,
    process.sidecar,
    settings.ignored,
)

_ORDER = (ERROR, WARNING, INFO)
_MARKS = {ERROR: ("✗", "bold red"), WARNING: ("!", "bold yellow"), INFO: ("i", "cyan")}

#: Lines of evidence that are shown; ``--json`` has all.
_SHOWN = 8


def doctor(pid: int | None, names: Sequence[str], *, config: Path | None, as_json: bool) -> int:
    """The command. ``names``: hosts that the control plane is asked for, too."""
    if pid is not None and names:
        raise Stop(
            USAGE, ["doctor: --name is for a mesh of this command's own; a process asks for what it uses"]
        )
    with _steps() as step:
        subjects = [look_here(names, config, step)] if pid is None else ask_process(pid, config, step)
        findings = diagnose(subjects, step)
    if as_json:
        emit({"findings": [finding.to_dict() for finding in findings]})
    else:
        _show(subjects, findings)
    return FINDING if any(finding.severity != INFO for finding in findings) else FINE


def diagnose(subjects: Sequence[Subject], step: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """What is found of all of them, the worst first. What several processes have in common is said once."""
    cases = cases_of(subjects, step)
    said_by: dict[Finding, dict[int, None]] = {}
    for subject in subjects:
        for finding in subject.findings:
            said_by.setdefault(finding, {})[subject.pid] = None
    for subject, case in cases:
        for finding in _findings(case):
            said_by.setdefault(finding, {})[subject.pid] = None
    several = len(subjects) > 1
    found = [
        replace(finding, evidence=(*finding.evidence, _who(pids))) if several else finding
        for finding, pids in said_by.items()
    ]
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def _findings(case: Case) -> Iterator[Finding]:
    for check in CHECKS:
        yield from check(case)


def _who(pids: dict[int, None]) -> str:
    return f"process{'es' if len(pids) > 1 else ''} {', '.join(map(str, pids))}"


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """Says what is being done, a line a step; only on a terminal."""
    screen = errors()
    if not screen.is_terminal:
        yield lambda _: None
        return
    yield lambda words: screen.print(marked("·", "dim", words))


def _show(subjects: Sequence[Subject], findings: Sequence[Finding]) -> None:
    screen = console()
    for subject in subjects:
        screen.print(_head(subject))
    for finding in findings:
        mark, style = _MARKS[finding.severity]
        screen.print(marked(mark, style, finding.summary).append(f"  [{finding.id}]", "dim"))
        for line in finding.evidence[:_SHOWN]:
            screen.print(said(f"    {line}", "dim"))
        if len(finding.evidence) > _SHOWN:
            screen.print(said(f"    … and {len(finding.evidence) - _SHOWN} more (--json has all)", "dim"))
        screen.print(Text("  → ", "dim").append_text(said(finding.remedy)))
    screen.print(_verdict(findings))


def _head(subject: Subject) -> Text:
    facts = [f"process {subject.pid}" if subject.pid else "a process with this configuration"]
    for mesh in subject.facts:
        file, status = mesh["config"]["file"], mesh["status"]
        facts.append(file or "from the environment")
        if status is not None:
            facts.append(f"node {status['node'].get('id', '')}")
    return Text.assemble(
        ("meshlib", "bold cyan"), "  ", (" · ".join(said(fact).plain for fact in dict.fromkeys(facts)), "dim")
    )


def _verdict(findings: Sequence[Finding]) -> Text:
    names = {ERROR: "error", WARNING: "warning", INFO: "note"}
    counts = [
        f"{count} {names[severity]}{'s' if count > 1 else ''}"
        for severity in _ORDER
        if (count := sum(finding.severity == severity for finding in findings))
    ]
    if any(finding.severity != INFO for finding in findings):
        return marked("✗", "bold red", ", ".join(counts))
    return marked("✓", "bold green", f"fine ({counts[0]})" if counts else "fine")
