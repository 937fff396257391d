"""Text of a request against text of a configuration.

A request's text (names, values, path) is Latin-1: one character a byte, as on the wire. A configuration's text is
Unicode and means its UTF-8 bytes; :func:`wire` turns it into the form that it is compared in. Case is ASCII's only.
"""

from __future__ import annotations

from collections.abc import Callable

from meshlib.core.regex import compile_regex
from meshlib.model.hidden import HIDDEN, Hidden
from meshlib.model.match import StringKind, StringMatch

__all__ = ["StringTest", "compile_string", "describe_string", "fold", "wire"]

StringTest = Callable[[str], bool]

_FOLD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def wire(text: str) -> str:
    """A configuration's text as the bytes that it stands for, one character each."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


def fold(text: str) -> str:
    """Lower case, ASCII letters only."""
    return text.lower() if text.isascii() else text.translate(_FOLD)


def compile_string(match: StringMatch) -> StringTest:
    """A test of a request's text."""
    if match.kind is StringKind.REGEX:
        return compile_regex(match.value).full
    value = wire(match.value)
    if match.ignore_case:
        value = fold(value)
        plain = _plain(match.kind, value)
        return lambda text: plain(fold(text))
    return _plain(match.kind, value)


def _plain(kind: StringKind, value: str) -> StringTest:
    if kind is StringKind.EXACT:
        return value.__eq__
    if kind is StringKind.PREFIX:
        return lambda text: text.startswith(value)
    if kind is StringKind.SUFFIX:
        return lambda text: text.endswith(value)
    return lambda text: value in text


def describe_string(match: StringMatch) -> str:
    """In words: ``exact "gold"``."""
    case = ", case ignored" if match.ignore_case and match.kind is not StringKind.REGEX else ""
    shown = HIDDEN if isinstance(match.value, Hidden) else f'"{match.value}"'
    return f"{match.kind.value} {shown}{case}"
