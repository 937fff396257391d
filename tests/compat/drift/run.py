"""Compares our wire schema with the messages that xds-protos publishes, in an environment of its own.

    python tests/compat/drift/run.py            exit 1 if a field differs, or a list is not what it should be
    python tests/compat/drift/run.py --update   writes unread.txt anew, for review
    python tests/compat/drift/run.py --table envoy.config.route.v3.Route   upstream's message, in our notation

xds-protos overwrites files of other packages where it is installed, so it gets `build/drift`, never the project's
own environment. That one is made once and kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[2]
ENVIRONMENT = PROJECT / "build" / "drift"
UNREAD = HERE / "unread.txt"
NEWER = HERE / "newer.txt"
LOCK = PROJECT / "locks" / "drift.txt"
PUBLISHED = "xds-protos 1.85.0"
HEADER = """\
# Upstream fields that meshlib does not read (xds-protos 1.85.0); written by `run.py --update`, reviewed by people.
# absent: not in our tables, so it arrives as an unknown field. opaque: known by name, so that it can be reported.
"""

sys.path[:0] = [str(PROJECT), str(HERE)]

import compare  # noqa: E402  (beside this file)
import upstream  # noqa: E402


def interpreter() -> Path:
    """The Python of the drift environment, which is made when it is not there or another one is locked."""
    python = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin") / "python"
    stamp = ENVIRONMENT / "installed"
    if not stamp.exists() or stamp.read_text() != LOCK.read_text():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        words = ("install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", LOCK)
        subprocess.run([python, "-m", "pip", *words], check=True)
        stamp.write_text(LOCK.read_text())
    return python


def published(names: list[str]) -> dict[str, dict | None]:
    """Upstream's description of these messages."""
    command = [interpreter(), HERE / "upstream.py"]
    done = subprocess.run(
        command, check=False, input=json.dumps(names), capture_output=True, text=True, cwd=ENVIRONMENT
    )
    if done.returncode:
        sys.exit(f"drift: the description of {PUBLISHED} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def check(update: bool) -> int:
    from meshlib.xds import schema

    names = list(schema.names())
    theirs = published(names)
    wrong, left = [], []
    for name in names:
        ours = compare.ours_as_upstream(upstream.describe(schema.descriptor(name)))
        wrong += compare.differences(name, ours, theirs[name])
        if theirs[name] is not None:
            left += compare.unread(name, ours, theirs[name])
    wrong = _without_newer(wrong)
    listed = HEADER + "".join(f"{line}\n" for line in sorted(left))
    if update:
        UNREAD.write_text(listed)
    elif not UNREAD.exists() or UNREAD.read_text() != listed:
        wrong += _changes(UNREAD.read_text() if UNREAD.exists() else "", listed)
    print(
        "\n".join(wrong)
        or f"drift: {len(names)} messages as in {PUBLISHED}; {len(left)} fields unread, all listed"
    )
    return 1 if wrong else 0


def _without_newer(wrong: list[str]) -> list[str]:
    """Without what newer.txt says is not published yet; a line of it that is published is wrong too."""
    lines = {line for line in NEWER.read_text().splitlines() if not line.startswith("#")}
    gone = [f"{NEWER.name}: listed, and upstream has it: {line}" for line in sorted(lines - set(wrong))]
    return [line for line in wrong if line not in lines] + gone


def _changes(before: str, after: str) -> list[str]:
    old, new = set(before.splitlines()), set(after.splitlines())
    lines = [f"{UNREAD.name}: not listed: {line}" for line in sorted(new - old)]
    lines += [f"{UNREAD.name}: listed but gone: {line}" for line in sorted(old - new)]
    return lines or [f"{UNREAD.name}: lines are out of order or doubled; write it with --update"]


def table(name: str) -> int:
    from meshlib.xds import schema

    described = published([name])[name]
    if described is None:
        print(f"drift: upstream has no message {name}")
        return 1
    print(f"message {name}")
    for field, facts in described["fields"].items():
        kind = facts["type"]
        inner = kind.removeprefix("map:")
        if facts["message"] and not inner.startswith("google.protobuf.") and not schema.knows(inner):
            kind = kind.replace(inner, f"opaque  # {inner}")
        kind = f"[{kind}]" if facts["repeated"] and not kind.startswith("map:") else kind
        print(f"{facts['number']:>4} {field} {kind}" + (f" @{facts['oneof']}" if facts["oneof"] else ""))
    for enum, values in described["enums"].items():
        print(f"  enum {enum} " + " ".join(f"{value}={number}" for value, number in values.items()))
    return 0


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--update", action="store_true", help="write unread.txt anew")
    arguments.add_argument("--table", metavar="MESSAGE", help="print an upstream message in our notation")
    chosen = arguments.parse_args()
    return table(chosen.table) if chosen.table else check(chosen.update)


if __name__ == "__main__":
    sys.exit(main())
