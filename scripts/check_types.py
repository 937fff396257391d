#!/usr/bin/env python3
"""Has mypy --strict and pyright read a sample application, and what they must refuse.

Of the files in a directory (default: ``tests/typing``) each line that ends with ``# wrong`` must be an error of both, and no
other line of either. Exit code 0 when that holds, 1 with one line for each finding.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["findings", "main"]

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

Errors = dict[tuple[str, int], str]


def findings(directory: Path) -> Iterator[str]:
    """What the checkers say of ``directory`` and should not, or should and do not."""
    files = sorted(directory.glob("*.py"))
    wrong = {
        (file.name, number)
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if line.endswith("# wrong")
    }
    for checker, said in (("mypy", mypy(files)), ("pyright", pyright(directory))):
        for file, number in sorted(wrong - said.keys()):
            yield f"{file}:{number}: {checker} finds nothing wrong"
        for file, number in sorted(said.keys() - wrong):
            yield f"{file}:{number}: {checker}: {said[file, number]}"


def mypy(files: Sequence[Path]) -> Errors:
    """Its errors, under the settings of the project: strict, with the packages of ``adapters``."""
    done = _run([str(BIN / "mypy"), "--no-error-summary", *map(str, files)])
    lines = re.findall(r"^(\S+?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    if done.returncode not in {0, 1} or (done.returncode and not lines):
        raise RuntimeError(done.stdout + done.stderr)
    return {(Path(file).name, int(number)): text for file, number, text in lines}


def pyright(directory: Path) -> Errors:
    """Its errors and warnings, in strict mode (``pyrightconfig.json`` of the directory)."""
    done = _run([str(BIN / "pyright"), "-p", str(directory), "--pythonpath", sys.executable, "--outputjson"])
    if done.returncode not in {0, 1}:
        raise RuntimeError(done.stdout + done.stderr)
    said = json.loads(done.stdout)
    if said["summary"]["filesAnalyzed"] < len(list(directory.glob("*.py"))):
        raise RuntimeError(f"pyright read {said['summary']['filesAnalyzed']} files")
    found: Errors = {}
    for item in said["generalDiagnostics"]:
        place = (Path(item["file"]).name, item["range"]["start"]["line"] + 1)
        found.setdefault(place, item["message"].splitlines()[0])
    return found


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 with the findings."""
    given = sys.argv[1:] if argv is None else argv
    code = 0
    for line in findings(Path(given[0]) if given else ROOT / "tests" / "typing"):
        print(line)
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
