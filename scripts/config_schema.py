#!/usr/bin/env python3
"""Makes from the fields of ``meshlib.Config`` what editors and type checkers read.

``docs/reference/meshlib.schema.json``, a JSON Schema of configuration files, and ``meshlib/config/shapes.py``, the types of
mappings in Python. ``python scripts/config_schema.py`` writes both; ``--check`` compares them and exits 1 where they differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from meshlib.config import Config
from meshlib.config.hosts import HostPort, ServerAddress
from meshlib.config.kinds import (
    Among,
    Boolean,
    CallsOrSeconds,
    Choice,
    Integer,
    Json,
    Kind,
    ListOf,
    MapOf,
    Number,
    SecondsOrShare,
    Text,
)
from meshlib.config.policies import Strategy
from meshlib.config.section import Key, Section, Table, keys_of
from meshlib.model.jsonable import jsonable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["SCHEMA", "SHAPES", "main", "schema", "shapes"]

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "docs" / "reference" / "meshlib.schema.json"
SHAPES = ROOT / "meshlib" / "config" / "shapes.py"

_TEXT = "#/definitions/text"


# ------------------------------------------------------------------------------------------------ the JSON Schema


def schema() -> str:
    """The JSON Schema, in the draft that editors for TOML, YAML and JSON have in common."""
    definitions: dict[str, Any] = {
        "text": {"type": "string", "minLength": 1, "pattern": "^[^\\u0000-\\u001f\\u007f]+$"}
    }
    for cls in _sections(Config):
        if cls is not Config:
            definitions[_word(cls)] = _object(cls)
    whole = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of meshlib",
        "$comment": "Made by scripts/config_schema.py from meshlib/config.",
        **_object(Config),
        "definitions": definitions,
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _object(cls: type[Section]) -> dict[str, Any]:
    made: dict[str, Any] = {"description": _summary(cls), "type": "object", "properties": {}}
    others: Any = False
    for key in keys_of(cls):
        said = _schema_of(key.kind)
        if key.rest:
            others = said["additionalProperties"]
            continue
        made["properties"][key.name] = _described(key, said)
    made["required"] = [key.name for key in keys_of(cls) if key.required]
    return {**made, "additionalProperties": others}


def _described(key: Key, said: Mapping[str, Any]) -> dict[str, Any]:
    """``said`` for one key, with what it means and its default; null says of a key without a default: not given."""
    made = dict(said) if not key.required and key.default is not None else _or_null(key, said)
    made = {"allOf": [made]} if "$ref" in made else made  # beside $ref nothing counts
    made["description"] = key.doc
    value = jsonable(key.default)
    if isinstance(value, bool | int | float | str) or (isinstance(value, list) and value):
        made["default"] = value
    return made


def _or_null(key: Key, said: Mapping[str, Any]) -> dict[str, Any]:
    return dict(said) if key.required else {"anyOf": [said, {"type": "null"}]}


def _number_or_text(kind: CallsOrSeconds | SecondsOrShare) -> list[dict[str, Any]]:
    if isinstance(kind, SecondsOrShare):
        share = "^p(?=.*[1-9])[0-9]{1,2}([.][0-9]+)?$"
        return [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": share}]
    calls = {"type": "integer", "minimum": 1, "maximum": kind.most_calls}
    return [calls, {"type": "string", "pattern": "^(?=.*[1-9])[0-9]+([.][0-9]+)?s$"}]


def _schema_of(kind: Kind[Any]) -> dict[str, Any]:
    """What of ``kind`` a JSON Schema can say."""
    match kind:
        case Boolean():
            return {"type": "boolean"}
        case Number():
            low = {"exclusiveMinimum" if kind.above else "minimum": kind.low}
            return {"type": "number", **low, **({"maximum": kind.high} if kind.high < float("inf") else {})}
        case Integer():
            high = {} if kind.high is None else {"maximum": kind.high}
            return {"type": "integer", "minimum": kind.low, **high}
        case CallsOrSeconds() | SecondsOrShare():
            return {"anyOf": _number_or_text(kind)}
        case Among():
            return {"enum": list(kind.numbers)}
        case Choice():
            return {"enum": list(kind.names)}
        case Text():
            return {"type": "string"} if kind.any_text else {"$ref": _TEXT}
        case HostPort():
            return {"$ref": _TEXT}
        case ServerAddress():
            return {"anyOf": [{"$ref": _TEXT}, {"type": "array", "items": {"$ref": _TEXT}, "minItems": 1}]}
        case ListOf():
            least = {"minItems": kind.least} if kind.least else {}
            return {"type": "array", "items": _schema_of(kind.item), **least}
        case MapOf():
            names = {"propertyNames": {"$ref": _TEXT}}
            return {"type": "object", "additionalProperties": _schema_of(kind.item), **names}
        case Json():
            return {"type": "object"}
        case Table():
            table = {"$ref": f"#/definitions/{_word(kind.cls)}"}
            alone = [_schema_of(key.kind) for key in keys_of(kind.cls) if key.name == kind.shorthand]
            return {"anyOf": [*alone, table]} if alone else table
        case _:
            return {"not": {}}  # only Python can give it


# ---------------------------------------------------------------------------------------------- the types in Python

_HEAD = '''\
"""The configuration as a mapping, for type checkers: the keys of each table and what they take.

Made by scripts/config_schema.py from the fields of ``Config``; edits here are lost. What a value must be beyond its type
(bounds, names of hosts, what excludes what) is said when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Required, TypedDict

'''


def shapes() -> str:
    """The module of TypedDicts, as the formatter leaves it."""
    classes = [cls for cls in _sections(Config) if not _has_rest(cls)]
    names = sorted(_name(cls) for cls in classes)
    # Several a line: the module is long as it is.
    listed = textwrap.fill(
        ", ".join(f'"{name}"' for name in names), 100, initial_indent="    ", subsequent_indent="    "
    )
    listed = f"__all__ = [\n{listed},\n]  # fmt: skip\n"
    text = _HEAD + listed + "".join(map(_typed, classes))
    ruff = Path(sys.executable).parent / "ruff"
    done = subprocess.run(
        [str(ruff), "format", "--stdin-filename", str(SHAPES), "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout


def _typed(cls: type[Section]) -> str:
    lines = [f"\n\nclass {_name(cls)}(TypedDict, total=False):", f'    """{_summary(cls)}"""', ""]
    for key in keys_of(cls):
        annotation = _annotation(key.kind)
        if key.required:
            annotation = f"Required[{annotation}]"
        elif key.default is None:
            annotation = f"{annotation} | None"
        lines.append(f"    {key.name}: {annotation}")
    return "\n".join(lines) + "\n"


def _annotation(kind: Kind[Any]) -> str:  # noqa: C901 - a case for each kind
    match kind:
        case Boolean():
            return "bool"
        case Number():
            return "float"
        case Integer():
            return "int"
        case CallsOrSeconds():
            return "int | str"
        case SecondsOrShare():
            return "float | str"
        case Among():
            return f"Literal[{', '.join(map(str, kind.numbers))}]"
        case Choice():
            return f"Literal[{', '.join(map(json.dumps, kind.names))}]"
        case Text() | HostPort():
            return "str"
        case ServerAddress():
            return "str | list[str] | tuple[str, ...]"
        case ListOf():
            item = _annotation(kind.item)
            # A text is a sequence of texts, too; a list of texts is no list of anything wider.
            return "list[str] | tuple[str, ...]" if item == "str" else f"Sequence[{item}]"
        case MapOf():
            return f"Mapping[str, {_annotation(kind.item)}]"
        case Json():
            return "Mapping[str, object]"
        case Table() if _has_rest(kind.cls):
            return f"Mapping[str, {' | '.join(dict.fromkeys(_of_rest(kind.cls)))}]"
        case Table():
            alone = [_annotation(key.kind) for key in keys_of(kind.cls) if key.name == kind.shorthand]
            return " | ".join([*alone, _name(kind.cls)])
        case Strategy():
            return "Callable[..., object]"
        case _:
            return "object"


def _of_rest(cls: type[Section]) -> Iterator[str]:
    """What the values of a table with keys of the user's own can be: no TypedDict has such keys."""
    for key in keys_of(cls):
        if isinstance(key.kind, MapOf) and key.rest:
            yield _annotation(key.kind.item)
        else:
            yield _annotation(key.kind)
    if any(key.default is None for key in keys_of(cls)):
        yield "None"


# ------------------------------------------------------------------------------------------------------------ both


def _sections(cls: type[Section]) -> list[type[Section]]:
    """``cls`` and every table below it, each once, the inner ones first."""
    found: list[type[Section]] = []
    for key in keys_of(cls):
        kind = key.kind
        while isinstance(kind, ListOf | MapOf):
            kind = kind.item
        if isinstance(kind, Table):
            found += [inner for inner in _sections(kind.cls) if inner not in found]
    return [*found, cls]


def _has_rest(cls: type[Section]) -> bool:
    return any(key.rest for key in keys_of(cls))


def _word(cls: type[Section]) -> str:
    return cls.__name__.removesuffix("Config")


def _name(cls: type[Section]) -> str:
    return (_word(cls) or "Config") + "Dict"


def _summary(cls: type[Section]) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 where ``--check`` finds a file that is not what the code says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    checking = parser.parse_args(argv).check
    code = 0
    for path, text in ((SCHEMA, schema()), (SHAPES, shapes())):
        if not checking:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path.name} is not what meshlib/config says: run scripts/config_schema.py")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
