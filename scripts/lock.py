#!/usr/bin/env python3
"""Writes locks/: the exact versions, with hashes, that the project is developed, tested and shown with.

    python scripts/lock.py            everything anew, at the newest versions that pyproject.toml allows
    python scripts/lock.py --keep     what is locked stays, and only what pyproject.toml asks for in addition is new
    python scripts/lock.py --lowest FILE    instead, the lowest versions that it allows, for this interpreter, into FILE

One file holds for every Python and platform that the project runs on, by markers. uv resolves them; it is installed into an
environment of its own, ``build/lock``, and nothing else here needs it. What an index is called is nobody's business: no file
names one, and the settings of this machine's pip and uv say only where uv looks.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

__all__ = ["EXTRAS", "LOCKS", "lock", "lowest", "main"]

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "locks"
TOOL = ROOT / "build" / "lock"
UV = "uv>=0.9,<1"

#: The extras that each file is for. A later one takes its versions from those before it.
EXTRAS = {"dev": ("dev",), "run": ("cli", "yaml")}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


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
    before: list[str] = []
    for name, extras in EXTRAS.items():
        file = f"locks/{name}.txt"
        words = ["--universal", "--python-version", oldest, "--generate-hashes"]
        words += ["--custom-compile-command", "make lock"]
        words += [] if keep else ["--upgrade"]
        resolve(extras, file, *words, *before)
        before += ["--constraints", file]


def lowest(file: Path) -> None:
    """The lowest versions of what the project and its tests name, for this interpreter."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    file.parent.mkdir(parents=True, exist_ok=True)
    resolve(("dev",), str(file), "--resolution", "lowest-direct", "--python-version", version)


def resolve(extras: tuple[str, ...], file: str, *words: str) -> None:
    """Run uv for the project with these extras and what builds it."""
    asked = [word for extra in extras for word in ("--extra", extra)]
    command = [str(uv()), "pip", "compile", "--quiet", *words, *asked, "pyproject.toml", "-", "-o", file]
    subprocess.run(
        command, cwd=ROOT, input="\n".join(PROJECT["build-system"]["requires"]), text=True, check=True
    )
    print(f"wrote {file}")


def uv() -> Path:
    """uv, installed where it is not there yet."""
    scripts = TOOL / ("Scripts" if os.name == "nt" else "bin")
    program = scripts / "uv"
    if not program.exists():
        venv.create(TOOL, with_pip=True)
        python = str(scripts / "python")
        words = ("install", "--quiet", "--disable-pip-version-check", "--no-input", UV)
        subprocess.run([python, "-m", "pip", *words], check=True)
    return program


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
