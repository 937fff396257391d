#!/usr/bin/env python3
"""Writes locks/: the exact versions, with hashes, that the project is developed, tested and shown with.

    python scripts/lock.py            everything anew, at the newest versions that pyproject.toml allows
    python scripts/lock.py --keep     what is locked stays, and only what pyproject.toml asks for in addition is new
    python scripts/lock.py --lowest FILE    instead, the lowest versions that it allows, for this interpreter, into FILE

One file holds for every Python and platform that the project runs on, by markers. uv resolves them; it is one of the tools in
``build/tools``, an environment of their own, which is made of the lock that was there before. What an index is called is nobody's
business: no file names one, and the settings of this machine's pip and uv say only where uv looks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

__all__ = ["EXTRAS", "GROUPS", "LOCKS", "lock", "lowest", "main"]

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "locks"
UV = ROOT / "build" / "tools" / "bin" / "uv"

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

#: The extras that each file is for. A later one takes its versions from those before it. ``wheel``: what its users get, no more.
EXTRAS: dict[str, tuple[str, ...]] = {"dev": ("dev",), "run": ("cli", "yaml"), "wheel": ()}
#: Each has a file of its own, which has nothing to do with the project's.
GROUPS: tuple[str, ...] = tuple(PROJECT["dependency-groups"])


def main(arguments: list[str]) -> int:
    """Write what was asked for; the exit code is uv's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave what is locked as it is")
    parser.add_argument(
        "--lowest", metavar="FILE", type=Path, help="write the lowest versions there, and no lock"
    )
    options = parser.parse_args(arguments)
    try:
        if options.lowest is not None:
            lowest(options.lowest)
        else:
            lock(keep=options.keep)
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


def lock(*, keep: bool) -> None:
    """All files of ``locks/``."""
    LOCKS.mkdir(exist_ok=True)
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    words = ["--universal", "--python-version", oldest, "--generate-hashes"]
    words += ["--custom-compile-command", "make lock"]
    words += [] if keep else ["--upgrade"]
    before: list[str] = []
    for name, extras in EXTRAS.items():
        file = f"locks/{name}.txt"
        resolve(project(extras), file, *words, *before, build=name != "wheel")
        before += ["--constraints", file]
    for name in GROUPS:
        resolve(["--group", name], f"locks/{name}.txt", *words)


def lowest(file: Path) -> None:
    """The lowest versions of what the project and its tests name, for this interpreter."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    file.parent.mkdir(parents=True, exist_ok=True)
    words = ("--resolution", "lowest-direct", "--python-version", version)
    resolve(project(("dev",)), str(file), *words, build=True)


def project(extras: tuple[str, ...]) -> list[str]:
    """The words of uv for the project with these extras."""
    return [*(word for extra in extras for word in ("--extra", extra)), "pyproject.toml"]


def resolve(what: list[str], file: str, *words: str, build: bool = False) -> None:
    """Run uv for these, and for what builds the project."""
    given = "\n".join(PROJECT["build-system"]["requires"]) if build else ""
    command = [str(UV), "pip", "compile", "--quiet", *words, *what, *(["-"] if build else []), "-o", file]
    subprocess.run(command, cwd=ROOT, input=given, text=True, check=True)
    print(f"wrote {file}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
