#!/usr/bin/env python3
"""Writes what the wheel in dist/ needs, as a CycloneDX document beside it (a software bill of materials).

    python scripts/sbom.py

The wheel is installed alone with what locks/wheel.txt names for this Python and platform; cyclonedx-py, of ``build/tools``,
describes that: names, versions, package URLs, licences where they are declared, and what needs what. The same tree gives the same bytes. Exit code 1, and
words, where the document lacks something that is installed, or names what nothing needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

__all__ = ["main", "wrong"]

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PLACE = ROOT / "build" / "sbom"
TOOL = ROOT / "build" / "tools" / "bin" / "cyclonedx-py"
LOCK = ROOT / "locks" / "wheel.txt"
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--python", str(PLACE))


def main() -> int:
    """Install, describe, look through."""
    wheel = next(DIST.glob("*.whl"))
    document = DIST / f"{'-'.join(wheel.name.split('-')[:2])}.cdx.json"
    venv.create(PLACE, with_pip=False, clear=True)
    for words in (["--require-hashes", "-r", str(LOCK)], ["--no-deps", str(wheel)]):
        subprocess.run([sys.executable, *PIP, "install", "--quiet", *words], check=True)
    command = [
        str(TOOL),
        "environment",
        str(PLACE),
        "--pyproject",
        str(ROOT / "pyproject.toml"),
        "--mc-type",
        "library",
    ]
    command += ["--output-reproducible", "--output-file", str(document)]
    subprocess.run(command, env={**os.environ, "SOURCE_DATE_EPOCH": ""}, check=True)
    found = wrong(json.loads(document.read_text(encoding="utf-8")), installed())
    for line in found:
        print(f"{document.name}: {line}", file=sys.stderr)
    if not found:
        print(f"wrote dist/{document.name}")
    return 1 if found else 0


def installed() -> dict[str, str]:
    """Versions by name."""
    command = [sys.executable, *PIP, "list", "--format", "json"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {each["name"].lower().replace("_", "-"): each["version"] for each in json.loads(listed)}


def wrong(document: dict[str, Any], there: dict[str, str]) -> list[str]:
    """What the document says otherwise than what is installed, in words."""
    root = document["metadata"]["component"]
    parts = {each["bom-ref"]: each for each in (root, *document.get("components", ()))}
    named = {each["name"].lower().replace("_", "-"): each for each in parts.values()}
    lines = [f"{name} {there[name]} is not in it" for name in sorted(there.keys() - named.keys())]
    lines += [f"{name} is in it and not installed" for name in sorted(named.keys() - there.keys())]
    for name in sorted(there.keys() & named.keys()):
        if named[name]["version"] != there[name]:
            lines.append(f"{name} is {there[name]}, and not {named[name]['version']}")
        if named[name] is not root and not named[name].get("purl", "").startswith("pkg:pypi/"):
            lines.append(f"{name} has no package URL")
    needs = {each["ref"]: each.get("dependsOn", []) for each in document.get("dependencies", ())}
    reached, ahead = set(), [root["bom-ref"]]
    while ahead:
        if (ref := ahead.pop()) not in reached:
            reached.add(ref)
            ahead += needs.get(ref, [])
    lines += [f"nothing needs {parts[ref]['name']}" for ref in sorted(parts.keys() - reached)]
    return lines


if __name__ == "__main__":
    sys.exit(main())
