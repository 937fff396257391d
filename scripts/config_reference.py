#!/usr/bin/env python3
"""Makes docs/reference/configuration.md from the fields of ``meshlib.Config``.

``python scripts/config_reference.py`` writes the page; ``--check`` compares it and exits 1 where they differ.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from meshlib.config import Config
from meshlib.config.kinds import Kind, ListOf, MapOf
from meshlib.config.layers import VARIABLES
from meshlib.config.section import Key, Section, Table, keys_of
from meshlib.config.source import key_text
from meshlib.model.jsonable import jsonable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["PAGE", "main", "render"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "configuration.md"

_HEAD = """\
# Configuration

<!-- Made by scripts/config_reference.py from meshlib/config; edits here are lost. -->

A file (TOML, JSON, or YAML with the extra `yaml`), a mapping in Python, or the environment; all have the same keys. An
argument beats the environment, the environment beats the file, the file beats the defaults, value by value; the settings
of Django and Flask stand between environment and file. Within one table, `server` and `bootstrap`, or `endpoints`, `dns` and `srv`, exclude one another, so that the stronger layer's
takes the weaker's away.

Seconds are numbers (`0.5`); truth values are not numbers. Relative paths in a file are relative to that file. A key or a
value that is wrong raises `ConfigError`, which has every problem, one a line: where it came from (of a file its line and column), the full key, what is
allowed, and the nearest spelling. A dash as the default means: not given.

`Config.source_of("services.reviews.timeout")` says where a value came from.
"""

_ENVIRONMENT = """\
## Environment

| variable | sets | is |
|---|---|---|
| `MESHLIB_CONFIG` | | The configuration file. |
"""

_OTEL = "| `OTEL_SERVICE_NAME` | `node.cluster` | What we are part of, where nothing else says it. |\n"
_SPIFFE = "| `SPIFFE_ENDPOINT_SOCKET` | `identity.socket` | SPIFFE's Workload API, where nothing else says who we are. |\n"


def render() -> str:
    """The page."""
    places: dict[type[Section], str] = {}
    for path, cls in _tables(Config, ""):
        places.setdefault(cls, path)
    parts = [_HEAD, _section("At the top of the file", Config, "", places)]
    parts += [_section(f"`{path}`", cls, path, places) for cls, path in places.items()]
    rows = [f"| `{name}` | `{key_text(path)}` | {doc} |\n" for name, (path, doc) in VARIABLES.items()]
    return "\n".join(parts) + "\n" + _ENVIRONMENT + "".join(reversed(rows)) + _OTEL + _SPIFFE


def _tables(cls: type[Section], path: str) -> Iterator[tuple[str, type[Section]]]:
    """Every table below ``cls`` by the key that one would write."""
    for key in keys_of(cls):
        below, inner = _inner(key.kind, f"{path}.{key.name}" if path else key.name)
        if inner is not None:
            yield below, inner
            yield from _tables(inner, below)


def _inner(kind: Kind[Any], path: str) -> tuple[str, type[Section] | None]:
    if isinstance(kind, ListOf):
        return _inner(kind.item, f"{path}[]")
    if isinstance(kind, MapOf):
        return _inner(kind.item, f"{path}.NAME")
    return path, kind.cls if isinstance(kind, Table) else None


def _section(title: str, cls: type[Section], path: str, places: Mapping[type[Section], str]) -> str:
    text = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    lines = [f"## {title}", "", text, "", "| key | is | allowed | default |", "|---|---|---|---|"]
    lines += [_row(key, path, places) for key in keys_of(cls)]
    return "\n".join(lines) + "\n"


def _row(key: Key, path: str, places: Mapping[type[Section], str]) -> str:
    _, inner = _inner(key.kind, path)
    allowed = _code(key.kind.allowed)
    if inner is not None:
        what = (
            "tables by name"
            if isinstance(key.kind, MapOf)
            else _code(getattr(key.kind, "item", key.kind).allowed)
        )
        many = "a list, each item " if isinstance(key.kind, ListOf) else ""
        allowed = f"{many}{what}: see `{places[inner]}`"
    name = "any other" if key.rest else f"`{key.name}`"
    return f"| {name} | {key.doc} | {allowed} | {_default(key, inner)} |".replace("\\1", "`\\1`")


def _default(key: Key, inner: type[Section] | None) -> str:
    if key.required:
        return "must be given"
    value = jsonable(key.default)
    if inner is not None or value is None or value in ((), [], {}, ""):
        return "–"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, list):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def _code(text: str) -> str:
    """Quoted words become code, so that the page does not read stars and brackets as markup."""
    pieces = text.split('"')
    marked = (f'`"{piece}"`' if index % 2 else piece for index, piece in enumerate(pieces))
    return "".join(marked).replace("|", "\\|")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 where ``--check`` finds a page that is not what the code says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    text = render()
    if not parser.parse_args(argv).check:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print("docs/reference/configuration.md is not what meshlib/config says: run scripts/config_reference.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
