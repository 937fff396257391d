"""What of the checklist of xDS (``checklist.toml``) the tests prove, as a table.

    python -m tests.conformance.checklist [ID…]     these items, and every test that proves them; all where none is named

A test proves the items that it names: ``test_sw_02_…``, or ``SW-02`` in its docstring or in a comment within it; so do the tests
of a class, together, whose docstring names it. Tests of the control plane of `meshlib.testing` prove nothing of a client.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CHECKLIST", "TESTS", "Item", "items", "proofs"]

CHECKLIST = Path(__file__).with_name("checklist.toml")
TESTS = CHECKLIST.parents[1]
#: They test the server of the kit, and this.
_ASIDE = ("unit/testing/", "e2e/test_testing_kit.py", "conformance/test_checklist.py")
_SHOWN = 3  # tests of an item, in the table of all


@dataclass(frozen=True)
class Item:
    """One of the checklist. ``not_applicable`` and ``lacking``: why no test proves it."""

    id: str
    says: str
    not_applicable: str = ""
    lacking: str = ""

    def state(self, tests: tuple[str, ...]) -> str:
        if self.not_applicable:
            return "not applicable"
        return "proven" if tests else "missing"


def items() -> dict[str, Item]:
    """By their ids, in the list's order."""
    sections = tomllib.loads(CHECKLIST.read_text("utf-8"))
    found = {}
    for kind, section in sections.items():
        for number, entry in section.items():
            if number != "about":
                fields = {"says": entry} if isinstance(entry, str) else entry
                found[f"{kind}-{number}"] = Item(f"{kind}-{number}", **fields)
    return found


def proofs(tests: Path = TESTS) -> dict[str, tuple[str, ...]]:
    """The tests that name each id, as pytest is given them; ids that are on no list are among them."""
    kinds = "|".join(tomllib.loads(CHECKLIST.read_text("utf-8")))
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(tests.rglob("test_*.py")):
        place = path.relative_to(tests).as_posix()
        if not place.startswith(_ASIDE):
            for name, ids in _named(path.read_text("utf-8"), kinds):
                for each in ids:
                    found[each].append(f"tests/{place}::{name}")
    return {each: tuple(names) for each, names in found.items()}


def _named(source: str, kinds: str) -> Iterator[tuple[str, set[str]]]:
    """Each test, and each class of tests, with the ids that it names."""
    text, name = (
        re.compile(rf"\b(?:{kinds})-\d\d\b"),
        re.compile(rf"_({kinds})_?(\d\d)(?=_|$)", re.IGNORECASE),
    )
    lines = source.splitlines()

    def walk(body: list[ast.stmt], inside: str) -> Iterator[tuple[str, set[str]]]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield node.name, set(text.findall(ast.get_docstring(node) or ""))
                yield from walk(node.body, f"{node.name}::")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
                first = min(each.lineno for each in (node, *node.decorator_list))
                within = text.findall("\n".join(lines[first - 1 : node.end_lineno]))
                called = {f"{kind.upper()}-{number}" for kind, number in name.findall(node.name)}
                yield f"{inside}{node.name}", called | set(within)

    yield from walk(ast.parse(source).body, "")


def table(wanted: Mapping[str, Item], *, every: bool) -> str:
    """A line for each item, and what proves it or why nothing does; `every`: all tests of an item."""
    proven = proofs()
    lines, counts = [], Counter()
    for each in wanted.values():
        tests = proven.get(each.id, ())
        state = each.state(tests)
        counts[state] += 1
        lines.append(f"{each.id}  {state:14}  {each.says}")
        shown = tests if every else tests[:_SHOWN]
        more = [f"and {len(tests) - len(shown)} more"] if len(tests) > len(shown) else []
        why = [each.not_applicable or each.lacking] if state != "proven" else []
        lines += [f"{'':23} {line}" for line in (*why, *shown, *more)]
    lines.append("; ".join(f"{count} {state}" for state, count in counts.most_common()))
    return "\n".join(lines)


def main() -> int:
    """Prints the table. The exit code: 0, or 2 where an id is on no list."""
    known, asked = items(), sys.argv[1:]
    if unknown := [each for each in asked if each not in known]:
        print(f"not on the checklist: {', '.join(unknown)}", file=sys.stderr)
        return 2
    print(table({each: known[each] for each in asked} or known, every=bool(asked)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
