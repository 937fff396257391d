# ruff: noqa: PTH117, PTH118  (os.path: text in, text out; pathlib would cost its import)
"""What a value of the configuration may be.

A :class:`Kind` turns what stands in a file, a variable or a mapping into a typed value, or notes what is wrong with it
and raises :class:`Refused`; whoever holds several values catches that and goes on, so that one reading finds every
problem. A kind also says in words what it allows, which is what errors and the reference page print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os.path import isabs, join, normpath
from typing import Generic, TypeVar

from meshlib.config.source import FrozenMap, Path, Source, key_text

__all__ = [
    "Among",
    "Boolean",
    "Choice",
    "Filename",
    "Integer",
    "Json",
    "Kind",
    "ListOf",
    "MapOf",
    "Number",
    "Place",
    "Refused",
    "Report",
    "Text",
    "did_you_mean",
    "encodable",
    "located",
    "one_line",
    "printable",
    "seconds",
    "shown",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_DEEPEST = 64  # nesting of node.metadata; protobuf's own parsers stop at 100


class Refused(Exception):
    """The value is wrong, and the report already says so."""


@dataclass(slots=True)
class Report:
    """Collects problems. ``source_at`` tells where the value at a path came from, ``told`` what a person is told of
    that; by default the name of the source.
    """

    source_at: Callable[[Path], Source]
    problems: list[str] = field(default_factory=list)
    told: Callable[[Path], str] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """One value's place: its key, and the report that its problems go to."""

    path: Path
    report: Report

    def child(self, step: str | int) -> Place:
        return Place((*self.path, step), self.report)

    @property
    def source(self) -> Source:
        return self.report.source_at(self.path)

    def refuse(self, text: str) -> Refused:
        """Notes the problem; the caller raises what it gets."""
        origin = self.report.told(self.path) if self.report.told is not None else self.source.name
        line = f"{origin}: {key_text(self.path) or 'configuration'}: {text}"
        self.report.problems.append(one_line(line))
        return Refused()


def one_line(text: str, most: int = 1000) -> str:
    """``text`` for a line of an error: what cannot be printed is escaped, what is too long is cut."""
    cut = text if len(text) <= most else text[: most - 3] + "..."
    if cut.isprintable():
        return cut
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in cut)


def shown(raw: object) -> str:
    """``raw`` as the person wrote it, cut to a length that fits a line."""
    match raw:
        case None:
            return "null"
        case bool():
            return "true" if raw else "false"
        case str():
            text = '"' + raw[:80].encode("unicode_escape", "backslashreplace").decode("ascii") + '"'
        case int() if abs(raw) >= 10**60:
            return "a huge number"
        case int() | float():
            text = repr(raw)
        case Mapping():
            return "a table"
        case list() | tuple():
            return "a list"
        case _:
            text = f"a {type(raw).__name__}"
    return text if len(text) <= 64 else text[:60] + '..."'


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``; did you mean "…"?`` with the nearest spelling, or nothing where none is near."""
    from difflib import get_close_matches

    by_fold = {choice.lower().replace("-", "_"): choice for choice in choices}
    near = get_close_matches(word[:80].lower().replace("-", "_"), by_fold, n=1, cutoff=0.6)
    return f'; did you mean "{by_fold[near[0]]}"?' if near else ""


class Kind(Generic[T_co]):
    """``allowed`` completes the sentence "must be …"."""

    allowed: str = ""

    def parse(self, raw: object, at: Place) -> T_co:
        """The value that ``raw`` means. Raises Refused once the problem is noted."""
        raise NotImplementedError

    def dump(self, value: object) -> object:
        """``value`` as it could stand in a file; JSON-ready."""
        return value

    def wrong(self, raw: object, at: Place, hint: str = "") -> Refused:
        return at.refuse(f"must be {self.allowed}, not {shown(raw)}{hint}")


class Boolean(Kind[bool]):
    """A truth value, and nothing that only looks like one."""

    allowed = "true or false"

    def parse(self, raw: object, at: Place) -> bool:
        if not isinstance(raw, bool):
            raise self.wrong(raw, at)
        return raw


class Number(Kind[float]):
    """A finite number; a truth value is none. ``above``: the bound itself is not allowed."""

    def __init__(
        self, low: float, high: float = math.inf, *, above: bool = False, what: str = "a number"
    ) -> None:
        self.low, self.high, self.above = low, high, above
        self.allowed = what + _bounds(low, high, above=above)

    def parse(self, raw: object, at: Place) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            raise self.wrong(raw, at)
        try:
            value = float(raw)
        except OverflowError:
            raise self.wrong(raw, at) from None
        low_enough = value > self.low if self.above else value >= self.low
        if not math.isfinite(value) or not low_enough or value > self.high:
            raise self.wrong(raw, at)
        return value


def _bounds(low: float, high: float, *, above: bool) -> str:
    if high != math.inf:
        return f" from {low:g} to {high:g}"
    return f" greater than {low:g}" if above else f", {low:g} or more"


def seconds(*, zero: bool = False) -> Number:
    """A duration. ``zero``: 0 has a meaning (none, at once) and is allowed."""
    return Number(0, above=not zero, what="a number of seconds")


class Integer(Kind[int]):
    """A whole number; neither a truth value nor 3.0 is one."""

    def __init__(self, low: int, high: int | None = None, *, what: str = "a whole number") -> None:
        self.low, self.high = low, high
        self.allowed = f"{what} from {low} to {high}" if high is not None else f"{what}, {low} or more"

    def parse(self, raw: object, at: Place) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise self.wrong(raw, at)
        if raw < self.low or (self.high is not None and raw > self.high):
            raise self.wrong(raw, at)
        return int(raw)


class CallsOrSeconds(Kind[int | str]):
    """How far back something is looked at: so many calls, or so many seconds, written as text (``"30s"``)."""

    most_calls = 1_000_000
    allowed = f'a number of calls from 1 to {most_calls}, or seconds as "30s"'

    def parse(self, raw: object, at: Place) -> int | str:
        if isinstance(raw, int) and not isinstance(raw, bool) and 1 <= raw <= self.most_calls:
            return int(raw)
        if not isinstance(raw, str) or self.seconds(raw) is None:
            raise self.wrong(raw, at)
        return str(raw)

    @staticmethod
    def seconds(text: str) -> float | None:
        """What ``text`` says; None: no seconds."""
        return (_decimal(text.removesuffix("s"), 12) or None) if text.endswith("s") else None


class SecondsOrShare(Kind[float | str]):
    """A time: so many seconds, or within which a share of calls was answered lately, written as text (``"p95"``)."""

    allowed = 'seconds above 0, or a percentile as "p95"'

    def parse(self, raw: object, at: Place) -> float | str:
        if isinstance(raw, str):
            if self.share(raw) is None:
                raise self.wrong(raw, at)
            return str(raw)
        if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 < raw < math.inf:
            raise self.wrong(raw, at)
        return float(raw)

    @staticmethod
    def share(text: str) -> float | None:
        """What ``text`` says, from 0 to 1; None: no percentile."""
        found = _decimal(text.removeprefix("p"), 6) if text.startswith("p") else None
        return found / 100.0 if found is not None and 0.0 < found <= 99.99 else None


def _decimal(text: str, most: int) -> float | None:
    """The number that ``text`` is, in digits and with a point at most; None: it is none, or has more than ``most`` digits."""
    whole, dot, part = text.partition(".")
    digits = whole + part
    right = whole and bool(dot) is bool(part) and digits.isascii() and digits.isdigit()
    return float(f"{whole}.{part or 0}") if right and len(digits) <= most else None


class Among(Kind[int]):
    """One of some whole numbers."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.allowed = "one of " + ", ".join(map(str, numbers))

    def parse(self, raw: object, at: Place) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or raw not in self.numbers:
            raise self.wrong(raw, at)
        return int(raw)


class Text(Kind[str]):
    """Text without control characters, that UTF-8 can carry. ``check`` raises ValueError that says what else is
    wrong, or returns the text in its one form; ``any_text`` allows the empty text and line breaks.
    """

    def __init__(
        self, allowed: str = "text", check: Callable[[str], str] | None = None, *, any_text: bool = False
    ) -> None:
        self.allowed, self.check, self.any_text = allowed, check, any_text

    def parse(self, raw: object, at: Place) -> str:
        if not isinstance(raw, str) or not (raw or self.any_text):
            raise self.wrong(raw, at)
        text = str(raw)
        if not encodable(text) or not (self.any_text or printable(text)):
            raise self.wrong(raw, at, " (control characters or broken Unicode)")
        if self.check is None:
            return text
        try:
            return self.check(text)
        except ValueError as problem:
            raise at.refuse(f"must be {self.allowed}: {one_line(str(problem), 160)}") from None


def printable(text: str) -> bool:
    """Whether ``text`` has no control character."""
    return not any(char < " " or char == "\x7f" for char in text)


def encodable(text: str) -> bool:
    """Whether UTF-8 can carry ``text``: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Filename(Text):
    """A path. One that is relative and comes from a file is relative to that file."""

    def __init__(self) -> None:
        super().__init__("a path")

    def parse(self, raw: object, at: Place) -> str:
        return located(super().parse(raw, at), at)


def located(path: str, at: Place) -> str:
    """``path``, from the directory of the file that says it."""
    directory = at.source.directory
    return normpath(join(directory, path)) if directory and not isabs(path) else path


class Choice(Kind[str]):
    """One of some names."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.allowed = "one of " + ", ".join(f'"{name}"' for name in names)

    def parse(self, raw: object, at: Place) -> str:
        if not isinstance(raw, str) or raw not in self.names:
            raise self.wrong(raw, at, did_you_mean(raw, self.names) if isinstance(raw, str) else "")
        return str(raw)


class ListOf(Kind[tuple[T, ...]], Generic[T]):
    """A list, every item of one kind. ``least``: how many there must be."""

    def __init__(self, item: Kind[T], *, least: int = 0) -> None:
        self.item, self.least = item, least
        self.allowed = f"a list, each item {item.allowed}" + (f", {least} or more of them" if least else "")

    def parse(self, raw: object, at: Place) -> tuple[T, ...]:
        if not isinstance(raw, list | tuple) or len(raw) < self.least:
            raise self.wrong(raw, at, " (in [ ] even if it is one)" if isinstance(raw, str) else "")
        values, whole = [], True
        for index, item in enumerate(raw):
            try:
                values.append(self.item.parse(item, at.child(index)))
            except Refused:
                whole = False
        if not whole:
            raise Refused
        return tuple(values)

    def dump(self, value: object) -> object:
        assert isinstance(value, tuple)
        return [self.item.dump(item) for item in value]


class MapOf(Kind[Mapping[str, T]], Generic[T]):
    """A table whose keys are the user's. ``name`` checks a key as :class:`Text` checks a value."""

    def __init__(self, name: Text, item: Kind[T]) -> None:
        self.name, self.item = name, item
        self.allowed = f"a table: {name.allowed} = {item.allowed}"

    def parse(self, raw: object, at: Place) -> Mapping[str, T]:
        if not isinstance(raw, Mapping):
            raise self.wrong(raw, at)
        values: dict[str, T] = {}
        whole = True
        for name, item in raw.items():
            here = at.child(name if isinstance(name, str) else str(shown(name)))
            try:
                key = self._key(name, here)
                if key in values:
                    raise here.refuse(f'is "{key}", which is there already')
                values[key] = self.item.parse(item, here)
            except Refused:
                whole = False
        if not whole:
            raise Refused
        return FrozenMap(values)

    def _key(self, name: object, here: Place) -> str:
        before = len(here.report.problems)
        try:
            return self.name.parse(name, here)
        except Refused:
            # The kind speaks of a value; here it is the key that is wrong.
            noted = here.report.problems[before:]
            here.report.problems[before:] = [
                text.replace(": must be ", ": the key must be ", 1) for text in noted
            ]
            raise

    def dump(self, value: object) -> object:
        assert isinstance(value, Mapping)
        return {name: self.item.dump(item) for name, item in value.items()}


class Json(Kind[Mapping[str, object]]):
    """A table of anything that JSON can say. Lists become tuples; order and the kind of a number are kept."""

    allowed = "a table of text, numbers, true, false, null, lists and tables"

    def parse(self, raw: object, at: Place) -> Mapping[str, object]:
        if not isinstance(raw, Mapping):
            raise self.wrong(raw, at)
        value = self._value(raw, at, 0)
        assert isinstance(value, FrozenMap)
        return value

    def _value(self, raw: object, at: Place, depth: int) -> object:
        if depth > _DEEPEST:
            raise at.refuse(f"is nested deeper than {_DEEPEST} levels")
        match raw:
            case None | bool():
                return raw
            case str():
                return Text("text", any_text=True).parse(raw, at)
            case int() | float():
                return self._number(raw, at)
            case Mapping():
                return FrozenMap(
                    {self._name(key, at): self._value(raw[key], at.child(key), depth + 1) for key in raw}
                )
            case list() | tuple():
                return tuple(self._value(item, at.child(index), depth + 1) for index, item in enumerate(raw))
            case _:
                raise at.refuse(f"must be what JSON can say, not {shown(raw)}")

    @staticmethod
    def _number(raw: float, at: Place) -> float:
        # A protobuf Struct holds doubles only.
        try:
            finite = math.isfinite(raw)
        except OverflowError:
            finite = False
        if not finite:
            raise at.refuse(f"must be a finite number, not {shown(raw)}")
        return raw

    @staticmethod
    def _name(name: object, at: Place) -> str:
        if not isinstance(name, str) or not encodable(name):
            raise at.refuse(f"a key must be text, not {shown(name)}")
        return name

    def dump(self, value: object) -> object:
        match value:
            case Mapping():
                return {str(name): self.dump(item) for name, item in value.items()}
            case tuple():
                return [self.dump(item) for item in value]
            case _:
                return value
