"""Tables with fixed keys: a frozen dataclass whose fields say what they allow and mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Generic, TypeVar, overload

from meshlib.config.kinds import Kind, ListOf, MapOf, Place, Refused, did_you_mean, shown
from meshlib.config.source import Path

__all__ = ["Key", "Section", "Table", "both", "keys_of", "leaves", "only_one", "required", "setting"]

T = TypeVar("T")
S = TypeVar("S", bound="Section")

_KEY = "meshlib.key"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section. ``required`` keys have no default; ``rest``: it takes the keys that no other key is."""

    name: str
    kind: Kind[Any]
    doc: str
    default: object
    required: bool = False
    rest: bool = False


@overload
def setting(kind: Kind[T], doc: str, default: None) -> T | None: ...
@overload
def setting(kind: Kind[T], doc: str, default: T, *, rest: bool = False) -> T: ...
def setting(kind: Kind[T], doc: str, default: T | None, *, rest: bool = False) -> Any:
    """A field of a section: what it allows, what it means, what holds where it is not given."""
    return field(default=default, metadata={_KEY: (kind, doc, rest)})


def required(kind: Kind[T], doc: str) -> T:
    """A field that must be given."""
    made: T = field(metadata={_KEY: (kind, doc, False)})
    return made


class Section:
    """The base of every table of the configuration."""

    __slots__ = ()

    def check(self) -> Iterator[tuple[str, str]]:
        """What is wrong between the keys, each of which is right by itself: (key, problem)."""
        return iter(())

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, the same names; what was not given is there with its default."""
        result: dict[str, object] = {}
        for key in keys_of(type(self)):
            value = getattr(self, key.name)
            dumped = None if value is None else key.kind.dump(value)
            if key.rest:
                assert isinstance(dumped, dict)
                result.update(dumped)
            else:
                result[key.name] = dumped
        return result


_known: dict[type[Any], tuple[Key, ...]] = {}  # two threads that fill it at once write the same


def keys_of(cls: type[Any]) -> tuple[Key, ...]:
    """The keys of a section, in the order in which they are written down."""
    if cls in _known:
        return _known[cls]
    found = []
    for item in fields(cls):
        if _KEY in item.metadata:
            kind, doc, rest = item.metadata[_KEY]
            missing = item.default is MISSING
            found.append(Key(item.name, kind, doc, None if missing else item.default, missing, rest))
    _known[cls] = tuple(found)
    return _known[cls]


class Table(Kind[S], Generic[S]):
    """A section. ``shorthand``: a text alone stands for a table with only that key."""

    def __init__(self, cls: type[S], shorthand: str = "") -> None:
        self.cls, self.shorthand = cls, shorthand
        self.allowed = "a table" + (f' or text (its "{shorthand}")' if shorthand else "")

    def parse(self, raw: object, at: Place) -> S:
        if isinstance(raw, str) and self.shorthand:
            raw = {self.shorthand: raw}
        if isinstance(raw, self.cls):
            raw = dict(leaves(raw, shallow=True))
        if not isinstance(raw, Mapping):
            raise self.wrong(raw, at)
        before = len(at.report.problems)
        values = self._values(raw, at)
        if len(at.report.problems) > before:
            raise Refused
        made = self.cls(**values)
        for name, problem in made.check():
            (at.child(name) if name else at).refuse(problem)
        if len(at.report.problems) > before:
            raise Refused
        return made

    def _values(self, raw: Mapping[object, object], at: Place) -> dict[str, Any]:
        keys = {key.name: key for key in keys_of(self.cls) if not key.rest}
        rest = next((key for key in keys_of(self.cls) if key.rest), None)
        values: dict[str, Any] = {}
        others: dict[str, object] = {}
        for name, item in raw.items():
            if not isinstance(name, str):
                at.refuse(f"a key must be text, not {shown(name)}")
            elif name in keys:
                self._one(keys[name], item, at, values)
            elif rest is not None:
                others[name] = item
            else:
                hint = did_you_mean(name, keys)
                at.child(name).refuse(f"unknown key{hint or ';'} allowed: {', '.join(sorted(keys))}")
        if rest is not None and others:
            try:
                values[rest.name] = rest.kind.parse(others, at)
            except Refused:
                values.pop(rest.name, None)
        for key in keys.values():
            if key.required and raw.get(key.name) is None:
                at.child(key.name).refuse(f"is missing; must be {key.kind.allowed}")
        return values

    @staticmethod
    def _one(key: Key, item: object, at: Place, values: dict[str, Any]) -> None:
        """JSON's null says of a key without a default that it is not given."""
        if item is None and key.default is None:
            return
        try:
            values[key.name] = key.kind.parse(item, at.child(key.name))
        except Refused:
            values.pop(key.name, None)

    def dump(self, value: object) -> object:
        assert isinstance(value, Section)
        return value.to_dict()


def leaves(section: Section, *, shallow: bool = False) -> Iterator[tuple[Any, Any]]:
    """What is said in ``section``: values that are not the default. The path of each with the value as a mapping would
    have it; objects of Python stay what they are. ``shallow``: (name, value) of the section's own keys.
    """
    for key in keys_of(type(section)):
        value = getattr(section, key.name)
        if shallow:
            if key.rest and isinstance(value, Mapping):
                yield from value.items()
            elif value != key.default:
                yield key.name, value
        elif value is not None:
            rest = key.rest and isinstance(value, Mapping)
            yield from _below(key.kind, value, () if rest else (key.name,), key.default)


def _below(kind: Kind[Any], value: Any, path: Path, default: object) -> Iterator[tuple[Path, object]]:
    if isinstance(kind, Table) and isinstance(value, Section):
        found = False
        for step, item in leaves(value):
            found = True
            yield (*path, *step), item
        if not found and value != default:
            yield path, {}
    elif isinstance(kind, MapOf) and isinstance(value, Mapping):
        for name, item in value.items():
            yield from _below(kind.item, item, (*path, name), MISSING)
    elif value != default:
        yield path, list(value) if isinstance(kind, ListOf) and isinstance(value, tuple | list) else value


def only_one(section: Section, *names: str) -> Iterator[tuple[str, str]]:
    """For ``check``: of these keys at most one may be given."""
    given = [name for name in names if getattr(section, name) is not None]
    for name in given[1:]:
        yield name, f"cannot stand beside {given[0]}: one of {', '.join(names)}"


def both(section: Section, one: str, other: str) -> Iterator[tuple[str, str]]:
    """For ``check``: these keys are given together, or neither is."""
    missing = [name for name in (one, other) if getattr(section, name) is None]
    if len(missing) == 1:
        yield missing[0], f"is missing: {one} and {other} go together"
