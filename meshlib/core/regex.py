"""Regular expressions of a configuration: RE2 syntax, on bytes, in linear time.

A pattern from the network never reaches Python's ``re``. google-re2 is loaded when the first pattern is compiled, not
when this module is. As in Envoy (measured with 1.40) text is a row of bytes, a ``.`` is one of them, and what is not ASCII
in a pattern is its bytes of UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from meshlib.model.match import MAX_PATTERN, MAX_PROGRAM

__all__ = ["Regex", "compile_regex", "problem"]

#: Bytes that RE2 may use for one expression, its cache of states included; over it a match is slower, and linear still. Its own
#: default is 8 MiB, which a caller's text could fill for each route.
_MAX_MEMORY = 4 * 2**20
#: Characters of a substitution, which an empty match puts between any two of a path.
MAX_SUBSTITUTION = 1024
_CACHED = 1024
_PREFIX = 64


class Regex:
    """One compiled pattern; ``size``: its instructions. Immutable; safe to share between threads (RE2 is)."""

    __slots__ = ("_anchor_both", "_find", "_unanchored", "groups", "pattern", "prefix", "size")

    def __init__(self, pattern: str) -> None:
        import re2

        if len(pattern) > MAX_PATTERN:
            raise ValueError(f"the expression has {len(pattern)} characters, more than {MAX_PATTERN}")
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MAX_MEMORY
        options.encoding = re2.Options.Encoding.LATIN1
        try:
            compiled = re2._Regexp(pattern.encode(), options)
        except re2.error as error:
            raise ValueError(_words(error)) from None
        if compiled.programsize > MAX_PROGRAM:
            raise ValueError(
                f"the expression is too large: {compiled.programsize} of {MAX_PROGRAM} instructions"
            )
        self.pattern = pattern
        self.groups: int = compiled.groups
        self.size: int = compiled.programsize
        self.prefix = _literal_prefix(compiled)
        # The binding's own method: `fullmatch` costs three times as much, for a match object that nobody reads.
        self._find: Any = compiled._regexp.Match
        self._anchor_both: Any = re2._re2.RE2.Anchor.ANCHOR_BOTH
        self._unanchored: Any = re2._re2.RE2.Anchor.UNANCHORED

    def full(self, text: str) -> bool:
        """Whether the whole of ``text`` matches."""
        raw = text.encode("latin-1", "replace")
        return bool(self._find(self._anchor_both, raw, 0, len(raw))[0][0] >= 0)

    def replace_all(self, text: str, substitution: str) -> str:
        r"""``text`` with every match replaced; ``\1`` to ``\9`` are groups, ``\0`` the match, ``\\`` a backslash.

        RE2's ``GlobalReplace``: an empty match right after a match is none.
        """
        raw = text.encode("latin-1", "replace")
        parts = _substitution(substitution)
        out: list[bytes] = []
        last = 0
        for spans in self._matches(raw):
            out.append(raw[last : spans[0][0]])
            for part in parts:
                if isinstance(part, bytes):
                    out.append(part)
                elif part < len(spans) and spans[part][0] >= 0:
                    out.append(raw[spans[part][0] : spans[part][1]])
            last = spans[0][1]
        if not out:
            return text
        out.append(raw[last:])
        return b"".join(out).decode("latin-1")

    def _matches(self, raw: bytes) -> Iterator[list[tuple[int, int]]]:
        position, end = 0, len(raw)
        last = -1
        while position <= end:
            spans = self._find(self._unanchored, raw, position, end)
            start, stop = spans[0]
            if start < 0:
                return
            if start == stop == last:
                position += 1
                continue
            yield spans
            last = stop
            position = stop


@lru_cache(maxsize=_CACHED)
def compile_regex(pattern: str) -> Regex:
    """The compiled ``pattern``. Raises ValueError that says what RE2 does not take."""
    return Regex(pattern)


def problem(pattern: str, substitution: str | None = None) -> str | None:
    """What is wrong with a pattern (and the substitution that goes with it), or None. For those who check what arrives."""
    try:
        regex = compile_regex(pattern)
        if substitution is not None:
            if len(substitution) > MAX_SUBSTITUTION:
                return f"the substitution has {len(substitution)} characters, more than {MAX_SUBSTITUTION}"
            highest = max((part for part in _substitution(substitution) if isinstance(part, int)), default=0)
            if highest > regex.groups:
                return f"the substitution names group {highest} of {regex.groups}"
    except ValueError as error:
        return str(error)
    return None


@lru_cache(maxsize=_CACHED)
def _substitution(text: str) -> tuple[bytes | int, ...]:
    raw = text.encode("utf-8")
    parts: list[bytes | int] = []
    literal = bytearray()
    at = 0
    while at < len(raw):
        byte = raw[at]
        at += 1
        if byte != 0x5C:
            literal.append(byte)
            continue
        follower = raw[at : at + 1]
        at += 1
        if follower == b"\\":
            literal.append(0x5C)
        elif follower.isdigit():
            if literal:
                parts.append(bytes(literal))
                literal.clear()
            parts.append(int(follower))
        else:
            raise ValueError("a backslash in a substitution is followed by a digit or a backslash")
    if literal:
        parts.append(bytes(literal))
    return tuple(parts)


def _literal_prefix(compiled: Any) -> str:
    """What every text begins with that matches (Latin-1 text), as far as RE2 can tell; ``""`` if nothing."""
    import re2

    try:
        low, high = compiled.possiblematchrange(_PREFIX)
    except re2.error:
        return ""
    length = 0
    for one, other in zip(low, high, strict=False):
        if one != other:
            break
        length += 1
    # RE2 may cut the lower bound and round the upper one up: what is common to both is certain.
    prefix: bytes = low[:length]
    return prefix.decode("latin-1")


def _words(error: Exception) -> str:
    text = error.args[0] if error.args else "not an expression"
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
