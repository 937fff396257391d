"""The shape of a field's rule and the short notation in which the tables are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

__all__ = ["Kind", "Rule", "Rules", "rules"]


class Kind(Enum):
    """See the package's header."""

    HONOURED = "honoured"
    CARRIED = "carried"
    REPORTED = "reported"
    REJECTED = "rejected"
    VOID = "void"

    @property
    def owes_reason(self) -> bool:
        """Whether people are to be told why."""
        return self in (Kind.CARRIED, Kind.REPORTED, Kind.REJECTED)


@dataclass(frozen=True, slots=True)
class Rule:
    """``note`` is for people. ``variant`` names the table by which what is inside is judged. ``when`` limits a report
    to messages for which it holds; it is given the message that the field belongs to.
    """

    kind: Kind
    note: str = ""
    variant: str = ""
    when: Callable[[Any], bool] | None = None


Rules = Mapping[str, Rule]


def rules(
    *,
    honoured: str = "",
    carried: str = "",
    reported: str = "",
    rejected: str = "",
    void: str = "",
    notes: Mapping[str, str] | None = None,
    reason: str = "",
    variants: Mapping[str, str] | None = None,
    when: Mapping[str, Callable[[Any], bool]] | None = None,
) -> Rules:
    """Rules from lists of names, one list a kind. A note is for the names of its key; ``reason`` for all others that are not honoured.
    Raises ValueError where a name stands twice, or only in a note.
    """
    told = {name: note for names, note in (notes or {}).items() for name in names.split()}
    variants, when = variants or {}, when or {}
    made: dict[str, Rule] = {}
    lists = {
        Kind.HONOURED: honoured,
        Kind.CARRIED: carried,
        Kind.REPORTED: reported,
        Kind.REJECTED: rejected,
        Kind.VOID: void,
    }
    for kind, names in lists.items():
        for name in names.split():
            if name in made:
                raise ValueError(f"{name} has two rules")
            note = told.get(name, reason if kind.owes_reason else "")
            made[name] = Rule(kind, note, variants.get(name, ""), when.get(name))
    stray = (set(told) | set(variants) | set(when)) - set(made)
    if stray:
        raise ValueError(f"{sorted(stray)} have a note but no rule")
    return made
