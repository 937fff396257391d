#!/usr/bin/env python3
"""Makes docs/reference/xds-fields.md: what becomes of each field of each xDS message that the schema has.

From the schema, and from the table by which the decoders themselves report, so that the page cannot say anything else
than the code does. ``python scripts/xds_fields.py`` writes the page; ``--check`` exits 1 if it is not up to date, or if
the table and the schema do not fit.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from meshlib.xds import schema  # noqa: E402 - the tree this script is part of
from meshlib.xds.decode.fields import DEFAULT, TABLE, Kind, Rule  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "xds-fields.md"
WORDS = {
    Kind.HONOURED: "honoured",
    Kind.CARRIED: "reported",
    Kind.REPORTED: "reported",
    Kind.REJECTED: "rejected",
    Kind.VOID: "no meaning",
}
CARRIED = "decoded; nothing acts on it yet"
HEADER = """# xDS fields

What becomes of each field that a control plane, or a [file in Envoy's shape](configuration.md), can send. This page is made by `scripts/xds_fields.py` from the
wire schema and from the table by which the decoders report. It has {counts}.

| word | meaning |
|---|---|
| honoured | it does what its own documentation says; a note tells where it does less |
| reported | it is not honoured: `Mesh.status()` and `meshlib check` list it under `ignored`, with its path and value, when it arrives |
| rejected | a resource that sets it is refused, and the control plane is told so |
| no meaning | it changes neither whom a client calls nor what is sent: names of statistics, an Envoy's own process and sockets, its logs and spans, what a browser is told, what Envoy itself does not act on |

A field that is not on this page, because it is newer than the schema, is reported by its number. A value that an honoured field
cannot have refuses the resource; the refusal names every problem with its path. Fields that are messages are
judged by the entry of that message, unless the field itself is reported or has no meaning. The note of a field that is reported or
rejected tells why.
"""


def page() -> str:
    """The text of the page."""
    sections = "".join(_message(name) for name in schema.names() if _own_rules(name))
    return HEADER.format(counts=_counts()) + sections


def _counts() -> str:
    """How many fields the page has of each word."""
    found = Counter(
        WORDS[TABLE[entry].get(field.name, DEFAULT).kind]
        for name in schema.names()
        for entry in _own_rules(name)
        for field in schema.descriptor(name).fields
    )
    told = ", ".join(f"{found[word]} {word}" for word in dict.fromkeys(WORDS.values()))
    return f"{sum(found.values())} fields: {told}"


def misfits() -> Iterator[str]:
    """Where table and schema contradict each other."""
    fields = {name: {field.name for field in schema.descriptor(name).fields} for name in schema.names()}
    for entry, rules in TABLE.items():
        name = entry.partition("#")[0]
        if name not in fields:
            yield f"{entry}: the schema has no such message"
            continue
        yield from (
            f"{entry}.{field}: the schema has no such field" for field in sorted(set(rules) - fields[name])
        )
        yield from (
            f"{entry}.{field}: the table does not name it" for field in sorted(fields[name] - set(rules))
        )
    for entry, rules in TABLE.items():
        for field, rule in rules.items():
            yield from _unruled(entry, field, rule)
            if rule.kind.owes_reason and not rule.note:
                yield f"{entry}.{field}: it is {WORDS[rule.kind]}, and no note tells why"


def _unruled(entry: str, field: str, rule: Rule) -> Iterator[str]:
    """An honoured field whose message has fields and no rules would report all that is in it."""
    kind = schema.descriptor(entry.partition("#")[0]).fields_by_name.get(field)
    if kind is None or kind.message_type is None or rule.kind not in (Kind.HONOURED, Kind.CARRIED):
        return
    inside = kind.message_type
    if (
        schema.is_opaque(kind)
        or inside.GetOptions().map_entry
        or inside.full_name.startswith("google.protobuf.")
    ):
        return
    name = schema.full_name(inside)
    if inside.fields and (f"{name}#{rule.variant}" if rule.variant else name) not in TABLE:
        yield f"{entry}.{field}: it is honoured, and {name} has no rules"


def _own_rules(name: str) -> list[str]:
    return sorted(entry for entry in TABLE if entry.partition("#")[0] == name and TABLE[entry])


def _message(name: str) -> str:
    return "".join(_section(name, entry) for entry in _own_rules(name))


def _section(name: str, entry: str) -> str:
    variant = entry.partition("#")[2]
    title = f"\n## {name}{f' ({variant})' if variant else ''}\n\n"
    rows = "".join(
        _row(field, TABLE[entry].get(field.name, DEFAULT)) for field in schema.descriptor(name).fields
    )
    return f"{title}| field | number | | note |\n|---|---|---|---|\n{rows}"


def _row(field: Any, rule: Rule) -> str:
    note = "; ".join(text for text in (CARRIED if rule.kind is Kind.CARRIED else "", rule.note) if text)
    return f"| `{field.name}` | {field.number} | {WORDS[rule.kind]} | {note.replace('|', chr(92) + '|')} |\n"


def main(arguments: list[str] | None = None) -> int:
    """Writes or checks the page. Gives the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    given = parser.parse_args(arguments)
    wrong = list(misfits())
    for line in wrong:
        print(line)
    if wrong:
        return 1
    text = page()
    if not given.check:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE.relative_to(ROOT)} is not up to date: run python scripts/xds_fields.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
