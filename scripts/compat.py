#!/usr/bin/env python3
"""Other projects' own tests over meshlib: what the plain library passes on this machine must pass there, too.

    python scripts/compat.py                 all suites
    python scripts/compat.py httpx urllib3   these
    python scripts/compat.py --list          what there is
    python scripts/compat.py --jobs 1        one after the other

A suite is a folder of ``tests/compat`` with a ``suite.toml``: the release, what its tests need, which of them are run, and in which
modes; ``substitute.py`` beside it is the pytest plugin that puts our classes where the library's are. The tests themselves are
never copied: they are unpacked from the release's source distribution. ``operations.py``, where there is one, are tests of our own
of what the release's tests only replay. Each package has an environment of its own, and all of it is in ``build/compat``.

Suites run two at a time, or ``--jobs`` at a time: most of what they do is wait.

The first mode is always ``plain``, the library as it is. A suite fails when a test that passed there does not pass in another mode,
unless ``[outside]`` says why it cannot (such a test is printed, and must really fail); when fewer tests passed plainly than the
suite says; and when fewer calls than it says went the way that the mode is for, since such a run would have proved nothing.
Exit code 0 when every suite holds, 1 when one does not, 2 for a suite that cannot be run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
import venv
import xml.etree.ElementTree as ET
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Suite", "judge", "load", "main"]

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "tests" / "compat"
WORK = ROOT / "build" / "compat"
#: Variables that would change what a test sees.
OURS = re.compile(r"^(MESHLIB|PYTEST|AWS|OTEL|GRPC)_|_PROXY$|CA_BUNDLE$|^SSL_CERT_", re.IGNORECASE)
SETTING_UP = threading.Lock()  # suites of one package share what is set up, and the network is one
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")


class CannotRun(Exception):
    """A suite that cannot be set up or did not come to its end; the text says why."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Tests of what is outside the contract, in which modes they fail, and why that is right."""

    reason: str
    modes: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unrun:
    """Tests that are not run in any mode, by pytest's ids (without parameters: whatever these are), and why."""

    reason: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suite:
    """What a ``suite.toml`` says.

    ``passed`` is how many tests pass plainly at least; ``least``, for each mode, the least number of calls of each kind that the
    plugin must have counted; ``seconds`` the most that one mode may take. What has more ``weight`` is
    begun sooner. ``tests_of``, as in ``httpx==0.28.1``: the release that the tests come from, where it is another.
    """

    name: str
    package: str
    release: str
    tests: tuple[str, ...]
    modes: tuple[str, ...]
    passed: int
    about: str = ""
    tests_of: str = ""
    extras: str = "dev"
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    least: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    outside: tuple[Outside, ...] = ()
    unrun: tuple[Unrun, ...] = ()
    seconds: float = 300.0
    weight: int = 0

    @property
    def folder(self) -> Path:
        """Where its environment and its source are; suites of one package share them."""
        return WORK / self.package


@dataclass(frozen=True, slots=True)
class Run:
    """One mode: what became of each test (``passed``, ``failure``, ``error`` or ``skipped``), and of the calls."""

    results: Mapping[str, str]
    calls: Mapping[str, int]
    seconds: float

    def __str__(self) -> str:
        words = list(self.results.values())
        failed = words.count("failure") + words.count("error")
        calls = ", ".join(f"{name} {count}" for name, count in sorted(self.calls.items()))
        return (
            f"{words.count('passed'):4} passed {failed:3} failed {words.count('skipped'):3} skipped"
            f"{self.seconds:5.0f} s" + (f"  calls: {calls}" if calls else "")
        )


def main(arguments: list[str]) -> int:
    """Make what is missing, run, compare, print; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="which; default: all")
    parser.add_argument("--list", action="store_true", help="say which there are, and do nothing")
    parser.add_argument("--jobs", type=int, default=2, help="how many suites run at once; default: 2")
    options = parser.parse_args(arguments)
    there = {path.parent.name: load(path) for path in sorted(HOME.glob("*/suite.toml"))}
    unknown = [name for name in options.suites if name not in there]
    if unknown:
        parser.error(f"no suite {', '.join(unknown)}; there are {', '.join(there)}")
    chosen = [suite for name, suite in there.items() if not options.suites or name in options.suites]
    if options.list:
        for suite in chosen:
            print(f"{suite.name:14} {suite.package} {suite.release}: {suite.about}")
        return 0
    chosen.sort(key=lambda suite: -suite.weight)
    with ThreadPoolExecutor(options.jobs) as pool:
        return report(dict(zip([suite.name for suite in chosen], pool.map(check, chosen), strict=True)))


def load(path: Path) -> Suite:
    """The suite of a ``suite.toml``. Raises TypeError for a key that is not known or missing, ValueError for a wrong mode."""
    said: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    lists: dict[str, Any] = {
        name: tuple(said.pop(name)) for name in ("tests", "modes", "needs", "options") if name in said
    }
    outside = tuple(
        Outside(one.pop("reason"), tuple(one.pop("modes")), tuple(one.pop("tests")), **one)
        for one in said.pop("outside", ())
    )
    unrun = tuple(Unrun(one.pop("reason"), tuple(one.pop("tests")), **one) for one in said.pop("unrun", ()))
    suite = Suite(name=path.parent.name, outside=outside, unrun=unrun, **lists, **said)
    unknown = {*suite.least, *(mode for one in outside for mode in one.modes)} - {*suite.modes}
    if suite.modes[0] != "plain" or unknown:
        raise ValueError(f"{path}: the first mode is plain, and of those named there is no {sorted(unknown)}")
    return suite


def report(verdicts: Mapping[str, tuple[str, list[str]]]) -> int:
    """The table at the end; the exit code."""
    print("\n" + "\n".join(f"{name:14} {line}" for name, (line, _) in verdicts.items()))
    wrong = {name: faults for name, (_, faults) in verdicts.items() if faults}
    for name, faults in wrong.items():
        print(f"\n{name}:" + "".join(f"\n  {fault}" for fault in faults))
    if not wrong:
        return 0
    return 2 if any(line == "cannot be run" for line, _ in verdicts.values()) else 1


def check(suite: Suite) -> tuple[str, list[str]]:
    """Set up and run one suite: its line in the table, and its faults."""
    runs: dict[str, Run] = {}
    try:
        with SETTING_UP:
            python = environment(suite)
            source = unpack(suite, python)
        for mode in suite.modes:
            runs[mode] = run(suite, python, source, mode)
            print(f"{suite.name:14} {mode:15} {runs[mode]}", flush=True)
    except CannotRun as error:
        return "cannot be run", [str(error)]
    faults = judge(suite, runs)
    plain = list(runs["plain"].results.values()).count("passed")
    modes = ", ".join(suite.modes[1:])
    return f"{plain:4} passed plainly; {len(faults)} faults in {modes}{aside(suite)}", faults


def aside(suite: Suite) -> str:
    """What is outside the contract, and what is not run, for the table."""
    lines = []
    for left in suite.unrun:
        lines.append(f"{'':14}   not run: {left.reason}")
        lines += [f"{'':14}     {test}" for test in left.tests]
    for one in suite.outside:
        lines.append(f"{'':14}   outside, in {', '.join(one.modes)}: {one.reason}")
        lines += [f"{'':14}     {test}" for test in one.tests]
    return "".join(f"\n{line}" for line in lines)


def judge(suite: Suite, runs: Mapping[str, Run]) -> list[str]:
    """What is wrong with the runs of a suite, in words."""
    plain = {name for name, word in runs["plain"].results.items() if word == "passed"}
    faults = []
    if len(plain) < suite.passed:
        faults.append(
            f"plain: {len(plain)} tests passed; there were {suite.passed}: is something missing here?"
        )
    for mode, one in runs.items():
        for kind, least in suite.least.get(mode, {}).items():
            if one.calls.get(kind, 0) < least:
                faults.append(f"{mode}: only {one.calls.get(kind, 0)} calls were {kind!r}, not {least}")
        outside = {test for entry in suite.outside if mode in entry.modes for test in entry.tests}
        lost = {name for name in plain if one.results.get(name) != "passed"}
        faults += [
            f"{mode}: lost: {name}: {one.results.get(name, 'not run')}" for name in sorted(lost - outside)
        ]
        faults += [
            f"{mode}: is listed as outside, and is not lost: {name}" for name in sorted(outside - lost)
        ]
    return faults


# --- setting up and running -----------------------------------------------------------------------------------------


def command(*words: str, what: str) -> None:
    """Run it. Raises CannotRun with what it said."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"{what}: {(done.stdout + done.stderr)[-2000:]}")


def environment(suite: Suite) -> Path:
    """The interpreter of an environment with this project, the release and what its tests need."""
    folder = suite.folder / "venv"
    python = folder / "bin" / "python"
    wanted = [f"{ROOT}[{suite.extras}]", f"{suite.package}=={suite.release}", *suite.needs]
    stamp = folder / ".stamp"
    said = json.dumps([*wanted, (ROOT / "pyproject.toml").read_text(encoding="utf-8")])
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != said:
        print(f"setting up {folder.relative_to(ROOT)} …", flush=True)
        if not python.exists():
            venv.create(folder, with_pip=True, symlinks=True)
        install = ("install", "-e", *wanted, "pytest>=8.3", "pytest-timeout>=2.3")
        command(str(python), *PIP, *install, what="the environment cannot be made")
        stamp.write_text(said, encoding="utf-8")
    return python


def unpack(suite: Suite, python: Path) -> Path:
    """The root of the source distribution, fetched where it is not there yet."""
    name, _, release = (suite.tests_of or f"{suite.package}=={suite.release}").partition("==")
    sources = suite.folder / (f"source-{name}-{release}" if suite.tests_of else f"source-{release}")
    if not sources.exists():
        print(f"fetching the source of {name} …", flush=True)
        wanted = ("--no-binary", name, f"{name}=={release}")
        where = ("download", "--no-deps", "--dest", str(suite.folder))
        command(str(python), *PIP, *where, *wanted, what="the source cannot be fetched")
        packed = max(suite.folder.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)
        fresh = sources.with_suffix(".part")
        with tarfile.open(packed) as archive:
            archive.extractall(fresh, filter="data")
        fresh.rename(sources)
    return next(path for path in sources.iterdir() if path.is_dir())


def run(suite: Suite, python: Path, source: Path, mode: str) -> Run:
    """Run the suite's tests, and our own beside it, in one mode. Raises CannotRun where they did not come to their end."""
    begun = time.monotonic()
    results, calls = pytest(suite, python, mode, source, *suite.tests)
    if (HOME / suite.name / "operations.py").exists():
        options = ("--confcutdir=.", "-c", str(suite.folder / "pytest.ini"), "--rootdir=.", "operations.py")
        more, counted = pytest(suite, python, f"{mode}-operations", HOME / suite.name, *options)
        results.update(more)
        calls.update(counted)
    return Run(results, calls, time.monotonic() - begun)


def pytest(
    suite: Suite, python: Path, name: str, where: Path, *options: str
) -> tuple[dict[str, str], Counter[str]]:
    """One run of pytest in the folder ``where``; ``name`` begins with the mode. Outcomes, and counts of calls."""
    base = suite.folder / f"{suite.name}-{name}"
    report, counts, log = (base.with_suffix(suffix) for suffix in (".xml", ".json", ".log"))
    for path in (report, counts):
        path.unlink(missing_ok=True)
    # Where a release has no configuration of its own, pytest would look further up, and find this project's.
    (suite.folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    plugins = ("-p", "no:cacheprovider", "-p", "no:meshlib", "-p", "compat_kit", "-p", "substitute")
    words = (str(python), "-m", "pytest", "-q", *plugins, "--timeout=60", f"--junit-xml={report}")
    with log.open("w", encoding="utf-8") as out:
        try:
            subprocess.run(
                (*words, *suite.options, *options),
                cwd=where,
                env=variables(suite, name, counts),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=suite.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CannotRun(f"{name}: not at its end after {suite.seconds:.0f} s; see {log}") from error
    if not report.exists():
        end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise CannotRun(f"{name}: the tests did not run\n{end}")
    calls = json.loads(counts.read_text(encoding="utf-8")) if counts.exists() else {}
    return outcomes(report), Counter(calls)


def variables(suite: Suite, name: str, counts: Path) -> dict[str, str]:
    """The environment of a run: the caller's, without what would change what a test sees."""
    unrun = [test for one in suite.unrun for test in one.tests] if name in suite.modes else []
    path = [str(part) for part in (HOME / suite.name, HOME / "kit", ROOT / "adapters", ROOT)]
    return {
        **{name: value for name, value in os.environ.items() if not OURS.search(name)},
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MESHLIB_COMPAT": name.removesuffix("-operations"),
        "MESHLIB_COMPAT_COUNTS": str(counts),
        "MESHLIB_COMPAT_UNRUN": json.dumps(unrun),
    }


def outcomes(path: Path) -> dict[str, str]:
    """What became of each test, from pytest's report; of a test that is there twice, the worse."""
    found: dict[str, str] = {}
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 - the file is pytest's own
        words = [part.tag for part in case if part.tag in {"failure", "error", "skipped"}]
        name = f"{case.get('classname')}::{case.get('name')}"
        if words or name not in found:
            found[name] = words[0] if words else "passed"
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
