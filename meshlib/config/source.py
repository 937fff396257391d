"""Where a value came from, and how its key is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from meshlib.model.hidden import HIDDEN, is_credential

__all__ = ["ARGUMENT", "DEFAULT", "FrozenMap", "Path", "Rank", "Source", "key_text", "plain_text"]

V_co = TypeVar("V_co", covariant=True)

Path = tuple[str | int, ...]
"""A key, step by step: names of tables and keys, indexes of lists."""

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


class Rank(IntEnum):
    """Who wins: the higher."""

    DEFAULT = 0
    FILE = 1
    SETTINGS = 2  # a framework's: part of the program as shipped, so where it runs may say otherwise
    ENVIRONMENT = 3
    ARGUMENT = 4


@dataclass(frozen=True, slots=True)
class Source:
    """``name`` is what a person is told: the file as it was named, the variable, ``"argument"``. Relative paths among
    the values are relative to ``directory``; ``""`` leaves them as they are.
    """

    rank: Rank
    name: str
    directory: str = ""

    def __str__(self) -> str:
        return self.name


DEFAULT = Source(Rank.DEFAULT, "default")
ARGUMENT = Source(Rank.ARGUMENT, "argument")


def key_text(path: Path) -> str:
    """The key as one would write it in TOML: ``services."reviews:9080".endpoints[1].weight``."""
    return _joined(path, quoted=True)


def plain_text(path: Path) -> str:
    """The key without quotation marks: what a question for a key is compared with."""
    return _joined(path, quoted=False)


def _joined(path: Path, *, quoted: bool) -> str:
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
            continue
        text = step if not quoted or (0 < len(step) <= 80 and _BARE.issuperset(step)) else _quoted(step)
        parts.append(f".{text}" if parts else text)
    return "".join(parts)


def _quoted(text: str) -> str:
    safe = text.encode("unicode_escape", "backslashreplace").decode("ascii").replace('"', '\\"')
    return f'"{safe if len(safe) <= 80 else safe[:77] + "..."}"'


class FrozenMap(Mapping[str, V_co], Generic[V_co]):
    """A mapping that cannot be changed, can be hashed if its values can, and survives pickle and copy."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, V_co] | None = None) -> None:
        self._items: dict[str, V_co] = dict(items or {})

    def __getitem__(self, key: str) -> V_co:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __eq__(self, other: object) -> bool:
        return dict(self.items()) == dict(other.items()) if isinstance(other, Mapping) else NotImplemented

    def __repr__(self) -> str:
        shown = {key: HIDDEN if _hides(key, value) else value for key, value in self._items.items()}
        return repr(shown)


def _hides(key: str, value: object) -> bool:
    """Whether it is a credential, or what one is compared with."""
    return is_credential(key) and (isinstance(value, str) or hasattr(value, "exact"))
