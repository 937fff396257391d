#!/usr/bin/env python3
"""requests' own tests over meshlib_requests: what plain requests passes on this machine must pass there, too.

Three runs over the release of requests that is installed, its tests unpacked from its source distribution: plain requests;
our Session, unconfigured; our Session with endpoints really substituted (see ``tests/compat/requests/substitute.py``). Works in
``build/compat``, with an environment of its own. Exit code 0 when no test is lost, 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import venv
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "compat"
TESTS = ("test_requests", "test_lowlevel", "test_hooks", "test_structures", "test_adapters")
NEEDS = ("pytest", "pytest-httpbin>=2.1", "httpbin>=0.10", "trustme", "pytest-mock", "pysocks")
#: Fewer calls than these through the mesh mean that the run did not test it.
LEAST_SUBSTITUTED = 200


def main(arguments: list[str]) -> int:
    """Make what is missing, run, compare, print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--release", default=version("requests"), help="of requests; default: the installed one"
    )
    release = parser.parse_args(arguments).release
    python = environment(release)
    tests = unpack(python, release)
    results, counts = {}, {}
    for mode in ("plain", "session", "mesh"):
        results[mode], counts[mode] = run(python, tests, mode)
        said = ", ".join(f"{name} {count}" for name, count in counts[mode].items())
        print(f"requests {release}, {mode:8} {summary(results[mode])}" + (f"; calls: {said}" if said else ""))
    bad = False
    for mode in ("session", "mesh"):
        lost = sorted(
            name
            for name, word in results["plain"].items()
            if word == "passed" and results[mode].get(name) != word
        )
        bad |= bool(lost)
        print(
            f"{mode}: {len(lost)} lost" + "".join(f"\n  {name}: {results[mode].get(name)}" for name in lost)
        )
    substituted = counts["mesh"].get("substituted", 0)
    if substituted < LEAST_SUBSTITUTED:
        print(f"mesh: only {substituted} calls went to another address than the URL's")
        bad = True
    return 1 if bad else 0


def environment(release: str) -> Path:
    """The interpreter of an environment with this project, ``release`` of requests and what its tests need."""
    folder = WORK / "venv"
    python = folder / "bin" / "python"
    stamp = folder / f".stamp-{release}"
    if not stamp.exists():
        print(f"setting up {folder.relative_to(ROOT)} …", flush=True)
        if not python.exists():
            venv.create(folder, with_pip=True, symlinks=True)
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ]
        subprocess.run([*install, "-e", f"{ROOT}[requests]", f"requests=={release}", *NEEDS], check=True)
        stamp.touch()
    return python


def unpack(python: Path, release: str) -> Path:
    """The root of the source distribution, fetched where it is not there yet."""
    folder = WORK / f"requests-{release}"
    if not folder.exists():
        command = [
            str(python),
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        wanted = ["--no-binary", "requests", "--dest", str(WORK), f"requests=={release}"]
        subprocess.run([*command, *wanted], check=True)
        with tarfile.open(WORK / f"requests-{release}.tar.gz") as archive:
            archive.extractall(WORK, filter="data")
    return folder


def run(python: Path, tests: Path, mode: str) -> tuple[dict[str, str], dict[str, int]]:
    """What became of each test, and of the calls."""
    report, counts = WORK / f"{mode}.xml", WORK / f"{mode}.json"
    report.unlink(missing_ok=True)
    counts.unlink(missing_ok=True)
    path = os.pathsep.join(str(ROOT / part) for part in ("tests/compat/requests", "adapters", "."))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MESHLIB_")}
    env = {**kept, "PYTHONPATH": path, "MESHLIB_COMPAT": mode, "MESHLIB_COMPAT_COUNTS": str(counts)}
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:meshlib",
        "-p",
        "substitute",
    ]
    files = [f"tests/{name}.py" for name in TESTS]
    done = subprocess.run(
        [*command, "-W", "ignore", f"--junit-xml={report}", *files],
        cwd=tests,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    (WORK / f"{mode}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if not report.exists():
        raise SystemExit(f"{mode}: the tests did not run\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return outcomes(report), json.loads(counts.read_text(encoding="utf-8")) if counts.exists() else {}


def outcomes(report: Path) -> dict[str, str]:
    """Test → ``passed``, ``failure``, ``error`` or ``skipped``, from pytest's report."""
    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - as above
        words = [part.tag for part in case if part.tag in {"failure", "error", "skipped"}]
        found[f"{case.get('classname')}::{case.get('name')}"] = words[0] if words else "passed"
    return found


def summary(results: dict[str, str]) -> str:
    words = list(results.values())
    failed = words.count("failure") + words.count("error")
    return f"{words.count('passed')} passed, {failed} failed, {words.count('skipped')} skipped"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
