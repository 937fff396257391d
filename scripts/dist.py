#!/usr/bin/env python3
"""Builds the wheel and the source distribution into dist/, and both again as somebody else would: the bytes must be the same.

    python scripts/dist.py

The second time they are made of what the source distribution holds: in a folder of another name, of files of another date and
mode that were written in another order, under another umask, locale, time zone and hash seed, by a clock that is years ahead. So
whoever has the source distribution can build the wheel that was published. Exit code 1, and words, where a byte differs.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

__all__ = ["main", "twice"]

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
#: What a wheel is built by in the other place: hatchling, on a clock of its own.
LATER = """
import runpy, sys, time
now = time.time
time.time = lambda: now() + 1e8
sys.argv[0] = "hatchling"
runpy.run_module("hatchling", run_name="__main__")
"""
#: 2 February 2020, which hatchling gives each file of an archive where nobody asks for another date.
EPOCH = "1580601600"
SURROUNDINGS = {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": EPOCH}
OTHERS = {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "77", "SOURCE_DATE_EPOCH": EPOCH}


def main() -> int:
    """Build twice and compare."""
    found = twice(ROOT, DIST)
    for line in found:
        print(line, file=sys.stderr)
    for file in () if found else sorted(DIST.iterdir()):
        print(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}, built twice")
    return 1 if found else 0


def twice(source: Path, where: Path) -> list[str]:
    """Both files of the project in ``source``, into ``where``, which is emptied; what differs in them when they are built again."""
    shutil.rmtree(where, ignore_errors=True)
    build(source, where, SURROUNDINGS, umask=0o022)
    with tempfile.TemporaryDirectory(prefix="another place ") as folder:
        place = elsewhere(next(where.glob("*.tar.gz")), Path(folder, "ü"))
        again = Path(folder, "again")
        build(place, again, OTHERS, umask=0o077, later=True)
        return differing(where, again)


def build(
    source: Path, where: Path, surroundings: dict[str, str], *, umask: int, later: bool = False
) -> None:
    """Both files of the project in ``source``, into ``where``."""
    program = ["-c", LATER] if later else ["-m", "hatchling"]
    subprocess.run(
        [sys.executable, *program, "build", "--directory", str(where)],
        cwd=source, env={**os.environ, "HATCH_QUIET": "1", **surroundings}, umask=umask, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip


def elsewhere(archive: Path, folder: Path) -> Path:
    """What ``archive`` holds, in another order, of other dates and modes. Its one folder."""
    folder.mkdir()
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
        random.Random(1).shuffle(members)
        for member in members:
            member.mtime = 1_000_000_000 + len(member.name)
            member.mode = 0o600 | (member.mode & 0o100)
            opened.extract(member, folder, filter="data")
    return next(folder.iterdir())


def differing(one: Path, other: Path) -> list[str]:
    """What is not the same in two folders of built files, in words."""
    names = sorted({file.name for folder in (one, other) for file in folder.iterdir()})
    lines = []
    for name in names:
        pair = [one / name, other / name]
        if not all(file.exists() for file in pair):
            lines.append(f"{name}: it was built only once")
        elif pair[0].read_bytes() != pair[1].read_bytes():
            lines.append(f"{name}: not the same bytes when it is built elsewhere")
    return lines


if __name__ == "__main__":
    sys.exit(main())
