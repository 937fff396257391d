#!/usr/bin/env python3
"""Asks the database of advisories (OSV) about every version in locks/.

    python scripts/audit.py [FILE…]

pip-audit, of ``build/tools``, asks. Exit code 0: nothing is known against any; 1: something is, and it is told; 3: the database
could not be asked, so nothing is known either way. MESHLIB_OSV is another database that speaks as OSV does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "build" / "tools" / "bin" / "pip-audit"
ASKING = ("--strict", "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json")
UNKNOWN = 3


def main(arguments: list[str]) -> int:
    """Ask about these files, or all of ``locks/``."""
    worst = 0
    for file in map(Path, arguments or sorted(map(str, (ROOT / "locks").glob("*.txt")))):
        worst = max(worst, ask(file))
        if worst == UNKNOWN:
            break
    return worst


def ask(file: Path) -> int:
    """The exit code for this one."""
    where = ["--osv-url", os.environ["MESHLIB_OSV"]] if os.environ.get("MESHLIB_OSV") else []
    command = [str(TOOL), "--vulnerability-service", "osv", *where, *ASKING, "--requirement", str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"{file.name}: not audited: the database of advisories cannot be asked: {why}", file=sys.stderr)
        return UNKNOWN
    bad = [each for each in found if each.get("vulns")]
    for each in bad:
        for one in each["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "no version yet"
            print(
                f"{file.name}: {each['name']} {each['version']}: {one['id']}, fixed in {fixed}",
                file=sys.stderr,
            )
    print(f"{file.name}: {len(found)} versions asked about, {len(bad) or 'none'} with an advisory")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
