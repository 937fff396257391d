"""Bodies of replies of our own, formatted: text, or JSON whose texts are formats (Envoy ``SubstitutionFormatString``)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from meshlib.core.formats import Format, Values, compile_format

if TYPE_CHECKING:
    from meshlib.model.body import BodyFormat

__all__ = ["Body", "compile_body"]

#: What stands for a value that there is not.
_MISSING = b"-"
#: Commands whose value is a number where they stand alone in JSON.
_NUMBERS = frozenset(("RESPONSE_CODE",))

_Made = object
_Node = Callable[[Values], _Made]


class _Omitted:
    """In place of what is left out."""


_OMITTED = _Omitted()


class Body:
    """A format, compiled. ``content_type`` is that of what it makes. Immutable; safe to share."""

    __slots__ = ("_json", "_missing", "_text", "content_type")

    def __init__(self, body: BodyFormat) -> None:
        self._missing = b"" if body.omit_empty else _MISSING
        self._text: Format | None = None
        self._json: _Node | None = None
        if body.json is None:
            self._text = compile_format(body.text, body=True)
        else:
            self._json = _node(body.json, omit=body.omit_empty)
        self.content_type = body.content_type or ("text/plain" if body.json is None else "application/json")

    def render(self, values: Values) -> bytes:
        """JSON ends with a line break, as by Envoy."""
        if self._text is not None:
            return self._text.render(values, self._missing)
        assert self._json is not None
        made = self._json(values)
        return _written({} if isinstance(made, _Omitted) else made) + b"\n"


def compile_body(body: BodyFormat | None) -> Body | None:
    """Its values are already checked; a format that is none raises ValueError."""
    return None if body is None else Body(body)


def _node(value: object, *, omit: bool) -> _Node:
    if isinstance(value, str):
        return _text(compile_format(value, body=True), omit=omit)
    if isinstance(value, Mapping):
        members = [(str(key), _node(item, omit=omit)) for key, item in value.items()]
        return lambda values: _members(members, values)
    if isinstance(value, Sequence):
        items = [_node(item, omit=omit) for item in value]
        return lambda values: [made for item in items if not isinstance(made := item(values), _Omitted)]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a number of a Struct is a double
    return lambda _: value


def _members(members: list[tuple[str, _Node]], values: Values) -> _Made:
    made = {key: found for key, item in members if not isinstance(found := item(values), _Omitted)}
    return made if made or not members else _OMITTED


def _text(made: Format, *, omit: bool) -> _Node:
    """A text that is one command keeps its type; one with more in it is text."""
    if made.constant is not None:
        constant = made.constant
        return lambda _: constant
    if not made.command:
        missing = b"" if omit else _MISSING
        return lambda values: made.render(values, missing)
    absent = _OMITTED if omit else None
    number = made.command in _NUMBERS

    def typed(values: Values) -> _Made:
        found = made.value(values)
        if found is None:
            return absent
        return int(found) if number else found

    return typed


def _written(made: object) -> bytes:
    """As JSON with sorted keys. Text is bytes here: what is no UTF-8 is escaped byte by byte, as by Envoy."""
    if isinstance(made, bytes):
        try:
            return json.dumps(made.decode(), ensure_ascii=False).encode()
        except UnicodeDecodeError:
            return json.dumps(made.decode("latin-1")).encode()
    if isinstance(made, dict):
        members = (_written(key.encode()) + b":" + _written(made[key]) for key in sorted(made))
        return b"{" + b",".join(members) + b"}"
    if isinstance(made, list):
        return b"[" + b",".join(map(_written, made)) + b"]"
    return json.dumps(made).encode()
