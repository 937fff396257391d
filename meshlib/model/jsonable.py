"""Values as JSON: one rule for every dataclass of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum

from meshlib.model.address import Address
from meshlib.model.hidden import HIDDEN, Hidden

__all__ = ["jsonable"]


def jsonable(value: object) -> object:
    """``value`` as dicts, lists, text, numbers, booleans and None. Addresses become text, enums their value, bytes
    text (invalid UTF-8 escaped), sets sorted lists; a callable becomes its name.
    """
    if isinstance(value, Hidden):
        return HIDDEN
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: jsonable(getattr(value, item.name)) for item in fields(value) if item.repr}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted((jsonable(item) for item in value), key=str)
    if isinstance(value, tuple | list):
        return [jsonable(item) for item in value]
    return getattr(value, "__name__", type(value).__name__)
