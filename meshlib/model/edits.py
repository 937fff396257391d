"""Edits of headers: what a level of a configuration adds and takes away."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from meshlib.model.hidden import hidden
from meshlib.model.match import StringMatch

__all__ = ["NO_EDITS", "Edit", "EditAction", "HeaderEdits", "Mutation", "Removal"]


class EditAction(Enum):
    """Envoy ``HeaderAppendAction``."""

    APPEND = "append_if_exists_or_add"
    ADD_IF_ABSENT = "add_if_absent"
    OVERWRITE = "overwrite_if_exists_or_add"
    OVERWRITE_IF_EXISTS = "overwrite_if_exists"


@dataclass(frozen=True, slots=True)
class Edit:
    """One header to add. ``value`` is Envoy's format text: literal, ``%%``, ``%COMMAND(ARGS)%``; a credential's is not shown."""

    name: str
    value: str
    action: EditAction = EditAction.APPEND
    keep_empty: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", hidden(self.name, self.value))


@dataclass(frozen=True, slots=True)
class Removal:
    """The header ``name``, or where that is empty every one whose name in lower case is ``matching``."""

    name: str = ""
    matching: StringMatch | None = None


#: Envoy ``HeaderMutation``: one edit of several, of which each sees what those before it made.
Mutation = Edit | Removal


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Removals happen before additions of the same level, as in Envoy."""

    request_add: tuple[Edit, ...] = ()
    request_remove: tuple[str, ...] = ()
    response_add: tuple[Edit, ...] = ()
    response_remove: tuple[str, ...] = ()


NO_EDITS = HeaderEdits()
