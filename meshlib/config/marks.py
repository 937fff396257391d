"""Where in a file's text each key stands, for the lines of errors.

Nothing here runs while a file is right: the text is gone through a second time, once something is wrong with it. That
text has been parsed already, so that the walk over JSON and TOML may take it to be well formed; YAML's own parser tells
the places of its nodes.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from meshlib.config.source import Path

__all__ = ["Mark", "marks_of", "steps_of"]


@dataclass(slots=True)
class Mark:
    """Where a key, or an item of a list, begins; both count from 1. ``below``: what is in it, by key or index."""

    line: int
    column: int
    below: dict[str | int, Mark] = field(default_factory=dict)

    def nearest(self, path: Path) -> Mark:
        """The mark of ``path``, or of the nearest thing around it that is there."""
        here = self
        for step in path:
            found = here.below.get(step)
            if found is None and isinstance(step, str):
                wanted = _plain(step)
                found = next((mark for key, mark in here.below.items() if _plain(key) == wanted), None)
            if found is None:
                break
            here = found
        return here

    def nearest_key(self, text: str) -> Mark:
        """As :meth:`nearest`, for a key as the configuration writes it, without quotation marks: ``services.a:80.dns``."""
        here = self
        while text:
            known = ((key, f"[{key}]" if isinstance(key, int) else str(key)) for key in here.below)
            fits = [(shown, key) for key, shown in known if _begins(text, shown)]
            if not fits:
                break
            shown, key = max(fits, key=lambda fit: len(fit[0]))
            here, text = here.below[key], text[len(shown) :].removeprefix(".")
        return here


def _begins(text: str, step: str) -> bool:
    return text.lower().startswith(step.lower()) and text[len(step) :][:1] in ("", ".", "[")


def _plain(key: str | int) -> str:
    """One spelling for ``connectTimeout`` and ``connect_timeout``, and for names of hosts."""
    return str(key).replace("_", "").lower()


def marks_of(text: str, suffix: str) -> Mark:
    """The marks of a file that ends with ``suffix`` and could be read; an empty Mark where its parser gives none."""
    text = text.removeprefix("\ufeff")
    try:
        if suffix == ".toml":
            return _Toml(text).marks()
        return _Json(text).marks() if suffix == ".json" else _yaml_marks(text)
    except (RecursionError, ValueError, IndexError):
        return Mark(1, 1)


_STEP = re.compile(r"""\.?([^.\[\]]+)|\[(\d+)\]|\[(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\]""")


def steps_of(text: str) -> Path:
    """The path that a text such as ``clusters[0].metadata.filter_metadata['a.b']`` writes; what follows is left off."""
    steps: list[str | int] = []
    at = 0
    while found := _STEP.match(text, at):
        name, index, *quoted = found.groups()
        steps.append(int(index[:9]) if index else next(text for text in (name, *quoted) if text is not None))
        at = found.end()
    return tuple(steps)


# --- YAML -------------------------------------------------------------------------------------------------------------


def _yaml_marks(text: str) -> Mark:
    import yaml

    root = Mark(1, 1)
    try:
        node = next(iter(yaml.compose_all(text, yaml.SafeLoader)), None)
    except yaml.YAMLError:
        return root
    known: dict[
        int, dict[str | int, Mark]
    ] = {}  # an alias leads to the same node again, perhaps to one around it
    if node is not None:
        root.below = _yaml_below(node, known)
    return root


def _yaml_below(node: Any, known: dict[int, dict[str | int, Mark]]) -> dict[str | int, Mark]:
    if id(node) in known:
        return known[id(node)]
    found = known[id(node)] = {}
    if node.id == "mapping":
        for key, value in node.value:
            if key.id == "scalar":
                found[key.value] = _yaml_mark(key, value, known)
    elif node.id == "sequence":
        for index, value in enumerate(node.value):
            found[index] = _yaml_mark(value, value, known)
    return found


def _yaml_mark(at: Any, value: Any, known: dict[int, dict[str | int, Mark]]) -> Mark:
    return Mark(at.start_mark.line + 1, at.start_mark.column + 1, _yaml_below(value, known))


# --- JSON and TOML ----------------------------------------------------------------------------------------------------


class _Walk:
    """A walk over a text that is known to be right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._line, self._line_start, self._counted = 1, 0, 0

    def mark(self) -> Mark:
        """Of where the walk is."""
        newlines = self.text.count("\n", self._counted, self.at)
        if newlines:
            self._line += newlines
            self._line_start = self.text.rindex("\n", self._counted, self.at) + 1
        self._counted = self.at
        return Mark(self._line, self.at - self._line_start + 1)

    def skip(self, space: str) -> str:
        """Passes over space and comments, and gives what comes next, ``""`` at the end."""
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif char in space:
                self.at += 1
            else:
                return char
        return ""

    def take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None or not found[0]:
            raise ValueError(f"nothing that is known stands at {self.at}")
        self.at = found.end()
        return found[0]

    def items(self, into: Mark) -> None:
        """A list, from its bracket to the other."""
        self.at += 1
        index = 0
        while (char := self.skip(_SPACE)) != "]":
            if char == ",":
                self.at += 1
                continue
            mark = into.below[index] = self.mark()
            self.value(mark)
            index += 1
        self.at += 1

    def value(self, into: Mark) -> None:
        raise NotImplementedError


_SPACE = " \t\r\n"
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class _Json(_Walk):
    _word = re.compile(r"[^\s,\]}]+")

    def marks(self) -> Mark:
        root = Mark(1, 1)
        self.skip(_SPACE)
        self.value(root)
        return root

    def value(self, into: Mark) -> None:
        char = self.skip(_SPACE)
        if char == "{":
            self._table(into)
        elif char == "[":
            self.items(into)
        else:
            self.take(_TEXT if char == '"' else self._word)

    def _table(self, into: Mark) -> None:
        self.at += 1
        while (char := self.skip(_SPACE)) != "}":
            if char == ",":
                self.at += 1
                continue
            mark = self.mark()
            into.below[json.loads(self.take(_TEXT), strict=False)] = mark
            self.skip(_SPACE)
            self.at += 1  # the colon
            self.value(mark)
        self.at += 1


class _Toml(_Walk):
    _bare = re.compile(r"[A-Za-z0-9_-]+")
    _texts = re.compile(r"\"\"\"(?:[^\\]|\\.)*?\"{3,5}|'''.*?'{3,5}|\"(?:[^\"\\]|\\.)*\"|'[^']*'", re.DOTALL)
    _word = re.compile(r"[^,\]}#\n]+")  # a date may have a space in it

    def marks(self) -> Mark:
        root = table = Mark(1, 1)
        while char := self.skip(_SPACE):
            if char == "[":
                table = self._header(root)
            else:
                self._pair(table)
        return root

    def _header(self, root: Mark) -> Mark:
        start = self.mark()
        several = self.text.startswith("[[", self.at)
        self.at += 2 if several else 1
        keys = self._key()
        self.at = self.text.index("]", self.at) + (2 if several else 1)
        *before, last = keys
        table = self._reach(root, before, start)
        if not several:
            return table.below.setdefault(last, start)
        listed = table.below.setdefault(last, Mark(start.line, start.column))
        listed.below[len(listed.below)] = start
        return start

    @staticmethod
    def _reach(table: Mark, names: list[str], start: Mark) -> Mark:
        """The table below; of a list of tables the last."""
        for name in names:
            table = table.below.setdefault(name, Mark(start.line, start.column))
            if table.below and all(isinstance(key, int) for key in table.below):
                table = table.below[len(table.below) - 1]
        return table

    def _key(self) -> list[str]:
        names: list[str] = []
        while True:
            if self.skip(" \t") in "\"'":
                names.append(tomllib.loads(f"a = {self.take(self._texts)}")["a"])
            else:
                names.append(self.take(self._bare))
            if self.skip(" \t") != ".":
                return names
            self.at += 1

    def _pair(self, table: Mark) -> None:
        start = self.mark()
        *before, last = self._key()
        table = self._reach(table, before, start)
        table.below[last] = start
        self.skip(" \t")
        self.at += 1  # the equals sign
        self.value(start)

    def value(self, into: Mark) -> None:
        char = self.skip(" \t")
        if char == "[":
            self.items(into)
        elif char == "{":
            self.at += 1
            while (char := self.skip(_SPACE)) != "}":
                if char == ",":
                    self.at += 1
                else:
                    self._pair(into)
            self.at += 1
        else:
            self.take(self._texts if char in ("'", '"') else self._word)
